// The transforms of one cut, and the spectra of its filters in the order in which they are multiplied.
#pragma once

#include <cstring>

#include "algorithms/fft_cut.hpp"
#include "algorithms/fft_kernels.hpp"

namespace fastconv {

// A line of values at a time: along rows that two real ones share, then down the lines of each column, then from line to line.
template <class T>
class FftTransforms {
  public:
    explicit FftTransforms(const FftCut& cut)
        : cut_(cut),
          step_(2 * fft_of<T>().lanes),
          along_(cut.along.n, cut.fold()),
          folded_(cut.along.n / cut.fold(), 1),
          down_(cut.down.n, 1),
          deep_(cut.deep.n, 1) {}

    const FftAxis<T>& along() const { return along_.axis(); }
    // A line of which `rows` values were written; the others are zero.
    void forward_line(T* line, int64_t rows) const {
        const int64_t n = cut_.length();
        if (rows < n) std::memset(line + rows * step_, 0, (n - rows) * step_ * sizeof(T));
        fft_of<T>().forward((cut_.lines ? along_ : down_).axis(), line, step_);
    }
    // From line to line of a column.
    void forward_deep(T* column) const {
        for (int64_t i = 0; cut_.deep.n > 1 && i < cut_.down.n; i++)
            fft_of<T>().forward(deep_.axis(), column + i * step_, cut_.pitch(step_ / 2));
    }
    // A column whose inputs fill `planes` lines with `rows` values.
    void forward_column(T* column, int64_t planes, int64_t rows) const {
        const int64_t pitch = cut_.pitch(step_ / 2);
        for (int64_t z = 0; z < planes; z++) forward_line(column + z * pitch, rows);
        if (planes < cut_.deep.n)
            std::memset(column + planes * pitch, 0, (cut_.deep.n - planes) * pitch * sizeof(T));
        forward_deep(column);
    }
    // The way back, as far as there are outputs.
    void inverse_column(T* column) const {
        const int64_t pitch = cut_.pitch(step_ / 2);
        for (int64_t i = 0; cut_.deep.n > 1 && i < cut_.down.n; i++)
            fft_of<T>().inverse(deep_.axis(), column + i * step_, pitch);
        for (int64_t z = 0; z < cut_.deep.outputs; z++)
            fft_of<T>().inverse((cut_.lines ? folded_ : down_).axis(), column + z * cut_.deep.stride * pitch,
                                step_);
    }

  private:
    FftCut cut_;
    int64_t step_;
    FftTables<T> along_, folded_, down_, deep_;  // folded: of the results
};

template <class T>
class FftFilters {
  public:
    FftFilters(const ConvProblem& problem, const FftCut& cut) : p_(problem), cut_(cut) {}

    // Numbers that all spectra are.
    int64_t size() const {
        return cut_.channels ? ceil_div(p_.groups, lanes()) * cut_.values() * 2 * lanes()
                             : p_.out_channels * p_.group_in() * cut_.values() * 2;
    }

    // Spectra of some filters, a lane for each, scaled for the whole way there and back.
    void transform(const FftTransforms<T>& transforms, const T* taps, int64_t count, T* z, T* plane) const {
        const int64_t step = 2 * lanes(), pitch = cut_.pitch(lanes()), column = cut_.column(lanes());
        const std::vector<int64_t> deep = taps_at(0, cut_.deep), down = taps_at(1, cut_.down),
                                   along = taps_at(2, cut_.along);
        // Rows that are told apart come out twice as large, in inputs and here.
        const double scale = 1 / (static_cast<double>(cut_.along.n * cut_.deep.n) *
                                  (cut_.lines ? 1 : 4 * static_cast<double>(cut_.down.n)));
        for (size_t h = 0; h < deep.size(); h++) {
            T* const line = plane + static_cast<int64_t>(h) * pitch;
            for (size_t r = 0; deep[h] >= 0 && r < down.size(); r += 2) {
                const int64_t pair[] = {down[r], r + 1 < down.size() ? down[r + 1] : -1};
                T* const at = line + static_cast<int64_t>(r) * step;
                if (!cut_.lines && pair[0] < 0 && pair[1] < 0) {
                    for (int64_t f = 0; f < cut_.columns(); f++)
                        std::memset(at + f * column, 0, 2 * step * sizeof(T));
                    continue;
                }
                T* const row = cut_.lines ? plane : z;
                std::memset(row, 0, cut_.along.n * step * sizeof(T));
                for (int half = 0; half < 2; half++) {
                    for (size_t j = 0; pair[half] >= 0 && j < along.size(); j++) {
                        if (along[j] < 0) continue;
                        const T* const tap =
                            taps + (deep[h] * p_.kernel[1] + pair[half]) * p_.kernel[2] + along[j];
                        T* const to = row + static_cast<int64_t>(j) * step + half * lanes();
                        for (int64_t lane = 0; lane < count; lane++)
                            to[lane] = static_cast<T>(static_cast<double>(tap[lane * p_.taps()]) * scale);
                    }
                }
                if (cut_.lines) break;
                fft_of<T>().forward(transforms.along(), z, step);
                fft_of<T>().split(transforms.along(), z, at, column);
            }
        }
        for (int64_t f = 0; f < cut_.columns(); f++) {
            T* const first = plane + f * column;
            for (size_t h = 0; h < deep.size(); h++)
                transforms.forward_line(first + static_cast<int64_t>(h) * pitch,
                                        deep[h] >= 0 ? cut_.length() : 0);
            transforms.forward_deep(first);
        }
    }

    // Spectra of filters first .. first + count - 1 (of all input channels of a group, output channel after output channel)
    // to where they are read.
    void keep(const T* plane, int64_t first, int64_t count, T* to) const {
        const int64_t n = cut_.length(), inputs = p_.group_in(), outputs = p_.group_out(), step = 2 * lanes();
        for (int64_t line = 0; line < cut_.columns() * cut_.deep.n; line++) {
            const T* const from =
                plane + line / cut_.deep.n * cut_.column(lanes()) + line % cut_.deep.n * cut_.pitch(lanes());
            if (cut_.channels) {
                std::copy_n(from, n * step, to + (first * cut_.values() + line * n * lanes()) * 2);
                continue;
            }
            for (int64_t lane = 0; lane < count; lane++) {
                const int64_t filter = first + lane, c = filter % inputs, all = filter / inputs,
                              k = all % outputs / kFftOutputs * kFftOutputs, group = all / outputs;
                const int64_t width = std::min<int64_t>(kFftOutputs, outputs - k), own = all % outputs - k;
                T* at = to + ((group * outputs + k) * inputs * cut_.values() +
                              (line * n * inputs + c) * width + own) *
                                 2;
                for (int64_t i = 0; i < n; i++, at += inputs * width * 2) {
                    at[0] = from[i * step + lane];
                    at[1] = from[i * step + lanes() + lane];
                }
            }
        }
    }

  private:
    static int64_t lanes() { return fft_of<T>().lanes; }

    // Which tap of axis a stands at each place of a transform; -1 for a zero.
    std::vector<int64_t> taps_at(int a, const FftTiles& axis) const {
        std::vector<int64_t> at(static_cast<size_t>(axis.n), -1);
        for (int64_t tap = axis.taps.begin; tap < axis.taps.end; tap++) {
            const int64_t place = (axis.shift - tap * p_.dilation[a]) % axis.n;
            at[static_cast<size_t>(place < 0 ? place + axis.n : place)] = tap;
        }
        return at;
    }

    ConvProblem p_;
    FftCut cut_;
};

}  // namespace fastconv
