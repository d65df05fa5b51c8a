// Rows of all lanes at once, between arrays and transforms.
#pragma once

#include <cstring>

#include "algorithms/fft_places.hpp"
#include "algorithms/rows_kernels.hpp"

namespace fastconv {

template <class T>
class FftRows {
  public:
    FftRows(const ConvProblem& problem, const FftCut& cut)
        : p_(problem),
          cut_(cut),
          places_(problem, cut),
          lanes_(fft_of<T>().lanes),
          line_(round_up(std::max(cut.along.inputs, cut.along.outputs), lanes_) + lanes_) {}

    // Numbers of FftUnit::lines.
    int64_t lines_size() const { return lanes_ * line_; }

    // Channel c of a row of all lanes into every second vector from z on.
    void read(const ConvArgs& args, const FftUnit<T>& unit, int64_t c, int64_t plane, int64_t row,
              T* z) const {
        const int64_t width = p_.in_size[2], inputs = cut_.along.inputs, step = 2 * lanes_,
                      pixel = p_.channels_last ? p_.in_channels : 1;
        const T* from[kFftMostLanes];
        FftPlace place[kFftMostLanes];
        bool alike = true;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            const FftLane& l = unit.lane[lane];
            place[lane] = l.there ? places_.input(l, plane, row) : FftPlace{0, -1, place[0].tile};
            alike = alike && place[lane].tile == place[0].tile;
            const int64_t channel = l.group * p_.group_in() + c,
                          image = l.image * p_.in_channels + (p_.channels_last ? 0 : channel),
                          line = place[lane].plane * p_.in_size[1] + place[lane].row;
            from[lane] = place[lane].row < 0 ? nullptr
                                             : static_cast<const T*>(args.x) + image * p_.in_pixels() +
                                                   line * width * pixel + (p_.channels_last ? channel : 0);
        }
        const auto clear = [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) std::memset(z + i * step, 0, lanes_ * sizeof(T));
        };
        const int64_t begin = FftPlaces::first(cut_.along, place[0].tile);
        Range inner{std::clamp<int64_t>(-begin, 0, inputs), std::clamp<int64_t>(width - begin, 0, inputs)};
        const bool zeros = p_.mode == PadMode::constant;
        if (cut_.channels && p_.channels_last) {
            if (from[0] == nullptr) return clear(0, cut_.along.n);
            int64_t count = 0;
            while (count < lanes_ && unit.lane[count].there) count++;
            fft_of<T>().gather_pixels(from[0] + (begin + inner.begin) * pixel, pixel, count, inner.begin,
                                      inner.size(), z);
            for (int64_t i = 0; i < cut_.along.n; i++) {
                if (i == inner.begin) i = std::max(i, inner.end);
                if (i >= cut_.along.n) break;
                const int64_t at = zeros || i >= inputs ? -1 : axis_source(p_.mode, width, begin + i);
                if (at < 0)
                    clear(i, i + 1);
                else
                    fft_of<T>().gather_pixels(from[0] + at * pixel, pixel, count, i, 1, z);
            }
            return;
        }
        // In place where all lanes read inside, or the same columns between zeros; else by a copy with its padding.
        const bool direct = alike && zeros && pixel == 1;
        if (!direct) inner = {0, inputs};
        const T* rows[kFftMostLanes];
        const T* nothing = nullptr;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            const int64_t first = FftPlaces::first(cut_.along, place[lane].tile);
            T* const line = unit.lines + lane * line_;
            if (from[lane] == nullptr) {
                if (nothing == nullptr) {
                    std::fill_n(line, inputs, T(0));
                    nothing = line;
                }
                rows[lane] = nothing;
            } else if (direct) {
                rows[lane] = from[lane] + begin + inner.begin;
            } else if (pixel == 1 && first >= 0 && first + inputs <= width) {
                rows[lane] = from[lane] + first;
            } else if (pixel == 1) {
                rows_of<T>().pack(from[lane], width, p_.mode, first, 1, line, inputs);
                rows[lane] = line;
            } else {
                for (int64_t i = 0; i < inputs; i++) {
                    const int64_t at = axis_source(p_.mode, width, first + i);
                    line[i] = at < 0 ? T(0) : from[lane][at * pixel];
                }
                rows[lane] = line;
            }
        }
        clear(0, inner.begin);
        fft_of<T>().gather(rows, inner.begin, inner.size(), z);
        clear(inner.end, cut_.along.n);
    }

    // The way back for output channel k, with bias; false where one is not finite. Strided outputs are some of the results.
    bool write(const ConvArgs& args, const FftUnit<T>& unit, int64_t k, int64_t plane, int64_t row,
               const T* z, const T* bias) const {
        T* rows[kFftMostLanes];
        int64_t counts[kFftMostLanes], count = 0;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            const FftRun run = places_.run(unit.lane[lane], k, plane, row);
            rows[lane] = static_cast<T*>(args.out) + run.at;
            counts[lane] = run.count;
            count += run.count > 0;
        }
        if (count == 0) return true;
        const int64_t step = (cut_.lines ? 1 : cut_.along.stride) * 2 * lanes_;
        if (!p_.channels_last || p_.out_channels == 1)
            return fft_of<T>().scatter(z, step, rows, counts, bias);
        if (cut_.channels)
            return fft_of<T>().scatter_pixels(z, step, rows[0], p_.out_channels, count, counts[0], bias);
        T* lines[kFftMostLanes];
        for (int64_t lane = 0; lane < lanes_; lane++) lines[lane] = unit.lines + lane * line_;
        const bool finite = fft_of<T>().scatter(z, step, lines, counts, bias);
        for (int64_t lane = 0; lane < lanes_; lane++)
            for (int64_t i = 0; i < counts[lane]; i++) rows[lane][i * p_.out_channels] = lines[lane][i];
        return finite;
    }

  private:
    ConvProblem p_;
    FftCut cut_;
    FftPlaces places_;
    int64_t lanes_, line_;
};

}  // namespace fastconv
