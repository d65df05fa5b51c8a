// Convolution by Fourier transforms: large kernels, each channel by itself or few channels, and long sequences.
//
// A unit of work is what fills the lanes of a vector: a tile of as many channels, or as many tiles of one channel. Rows are
// read in pairs, the second as imaginary part of the first, transformed and told apart (split); each column of half the
// spectrum is then transformed, multiplied and transformed back while it lies in L1, and rows go back as they came. In one
// dimension pairs of tiles need not be told apart, since the kernel is real.
//
// An inf or NaN smears over its tile, and values near the largest overflow: a tile whose results are not all finite is
// computed again directly. Errors follow the largest value of a tile, of a pair of tiles in one dimension.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "algorithms/fft_cut.hpp"
#include "algorithms/fft_kernels.hpp"
#include "algorithms/output_directly.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int kMostLanes = 16;

template <class T>
class FftConvolution final : public ConvKernel {
  public:
    FftConvolution(const ConvProblem& problem, const FftCut& cut)
        : p_(problem),
          cut_(cut),
          lanes_(fft().lanes),
          along_(cut.along.n, cut.along.stride),
          short_(cut.along.n / cut.along.stride, 1),
          down_(cut.down.n, 1),
          line_(round_up(std::max(cut.along.inputs, cut.along.outputs), lanes_) + lanes_),
          plane_(cut.plane(lanes_)) {}

    // Spectra as they are multiplied, then the weights as they are, [k][c][tap].
    size_t packed_bytes() const override {
        return static_cast<size_t>(spectra_size() + p_.weights()) * sizeof(T);
    }
    bool keeps_packed() const override { return true; }

    void pack(const void* weight, void* packed) const override {
        const FlushToZero flush;
        const T* const from = static_cast<const T*>(weight);
        T* const to = static_cast<T*>(packed);
        T* const plain = to + spectra_size();
        const int64_t c_all = p_.group_in(), taps = p_.taps(), filters = p_.out_channels * c_all;
        if (p_.channels_last) {
            for (int64_t k = 0; k < p_.out_channels; k++)
                for (int64_t c = 0; c < c_all; c++)
                    for (int64_t tap = 0; tap < taps; tap++)
                        plain[(k * c_all + c) * taps + tap] = from[(tap * c_all + c) * p_.out_channels + k];
        } else {
            std::copy_n(from, filters * taps, plain);
        }
        parallel_for(ceil_div(filters, lanes_), [&](int64_t block) {
            ScratchFrame frame;
            T* const z = frame.take<T>(along_.axis().n * 2 * lanes_);
            T* const spectra = frame.take<T>(plane_);
            const int64_t first = block * lanes_, count = std::min(lanes_, filters - first);
            transform_filters(plain + first * taps, count, z, spectra);
            keep(spectra, first, count, to);
        });
    }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(cut_.planes(p_) * plane_ + along_.axis().n * 2 * lanes_ + lanes_ * line_) *
               sizeof(T);
    }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int64_t items = args.batch * cut_.items(),
                      blocks = ceil_div(cut_.channels ? p_.groups : items, lanes_),
                      units = blocks * (cut_.channels ? items : p_.groups);
        const auto run_part = [&](int64_t index) {
            ScratchFrame frame;
            Unit unit;
            unit.spectra = frame.take<T>(cut_.planes(p_) * plane_);
            unit.z = frame.take<T>(along_.axis().n * 2 * lanes_);
            unit.lines = frame.take<T>(lanes_ * line_);
            const int64_t block = index % blocks, rest = index / blocks;
            for (int64_t lane = 0; lane < lanes_; lane++) {
                const int64_t at = block * lanes_ + lane;
                unit.lane[lane] = cut_.channels
                                      ? Lane{at < p_.groups, rest / cut_.items(), at, rest % cut_.items()}
                                      : Lane{at < items, at / cut_.items(), rest, at % cut_.items()};
            }
            run_unit(args, unit, block);
        };
        parallel_for(units, run_part, scratch_share().threads,
                     cut_.cycles * static_cast<double>(args.batch) / 3e9);
    }

  private:
    // What one lane works on.
    struct Lane {
        bool there;
        int64_t image, group, item;
    };
    struct Unit {
        Lane lane[kMostLanes];
        T *spectra, *z, *lines;
    };
    // A row of a tile, of inputs or of outputs; row < 0 where there is none.
    struct Place {
        int64_t row, tile;
    };

    static const Fft<T>& fft() { return fft_of<T>(); }
    bool same() const { return p_.group_in() == 1 && p_.group_out() == 1 && cut_.along.stride == 1; }
    int64_t values() const { return cut_.columns() * cut_.length(); }
    int64_t spectra_size() const {
        return cut_.channels ? ceil_div(p_.groups, lanes_) * values() * 2 * lanes_
                             : p_.out_channels * p_.group_in() * values() * 2;
    }
    static int64_t outputs_at(const FftTiles& axis, int64_t tile, int64_t all) {
        return std::clamp<int64_t>(all - tile * axis.outputs, 0, axis.outputs);
    }
    // Row r of an item's outputs, and the place of row r of its inputs.
    Place output_row(int64_t item, int64_t r) const {
        if (cut_.lines) {
            const int64_t at = 2 * item + r;
            if (at >= cut_.down.count * cut_.along.count) return {-1, 0};
            return {at / cut_.along.count, at % cut_.along.count};
        }
        const int64_t tile = item / cut_.along.count, row = tile * cut_.down.outputs + r;
        return {r < outputs_at(cut_.down, tile, p_.out_size[1]) ? row : -1, item % cut_.along.count};
    }
    Place input_row(int64_t item, int64_t r) const {
        if (cut_.lines) {
            const Place at = output_row(item, r);
            return {at.row < 0 ? -1 : axis_source(p_.mode, p_.in_size[1], at.row - p_.pad_lo[1]), at.tile};
        }
        const int64_t at = item / cut_.along.count * cut_.down.outputs + cut_.down.start + r;
        return {axis_source(p_.mode, p_.in_size[1], at), item % cut_.along.count};
    }

    int64_t first_input(int64_t tile) const {
        return tile * cut_.along.outputs * cut_.along.stride + cut_.along.start;
    }

    void run_unit(const ConvArgs& args, Unit& unit, int64_t block) const {
        const int64_t inputs = p_.group_in(), outputs = p_.group_out();
        bool finite = true;
        if (same()) {
            const T* const w =
                static_cast<const T*>(args.packed) +
                (cut_.channels ? block * values() * 2 * lanes_ : unit.lane[0].group * values() * 2);
            read(args, unit, 0, unit.spectra);
            for (int64_t f = 0; f < cut_.columns(); f++) {
                T* const column = unit.spectra + f * cut_.pitch(lanes_);
                const int64_t n = cut_.length();
                transform_column(column, input_rows());
                if (cut_.channels)
                    fft().times_lanes(w + f * n * 2 * lanes_, column, n);
                else
                    fft().times_all(w + f * n * 2, column, n);
                fft().inverse(result_axis(), column);
            }
            finite = write(args, unit, 0, unit.spectra);
        } else {
            for (int64_t c = 0; c < inputs; c++) {
                T* const plane = unit.spectra + c * plane_;
                read(args, unit, c, plane);
                for (int64_t f = 0; f < cut_.columns(); f++)
                    transform_column(plane + f * cut_.pitch(lanes_), input_rows());
            }
            T* const results = unit.spectra + inputs * plane_;
            const int64_t fold = cut_.along.stride;
            for (int64_t k = 0; k < outputs; k += kFftOutputs) {
                const int count = static_cast<int>(std::min<int64_t>(kFftOutputs, outputs - k));
                const T* w = static_cast<const T*>(args.packed) +
                             (unit.lane[0].group * outputs + k) * inputs * values() * 2;
                for (int64_t f = 0; f < cut_.columns(); f++) {
                    const int64_t at = f * cut_.pitch(lanes_), n = cut_.length();
                    fft().sums(w, unit.spectra + at, plane_, inputs, fold, results + at, plane_, count,
                               n / fold);
                    w += n * inputs * count * 2;
                    for (int i = 0; i < count; i++) fft().inverse(result_axis(), results + i * plane_ + at);
                }
                for (int i = 0; i < count; i++)
                    finite = write(args, unit, k + i, results + i * plane_) && finite;
            }
        }
        if (finite && args.add == nullptr && args.activation == Activation::none) return;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            if (!unit.lane[lane].there) continue;
            for (int64_t k = 0; k < outputs; k++) {
                if (!finite) mend(args, unit.lane[lane], k);
                if (args.add != nullptr || args.activation != Activation::none)
                    activate(args, unit.lane[lane], k);
            }
        }
    }

    const FftAxis<T>& column_axis() const { return cut_.lines ? along_.axis() : down_.axis(); }
    const FftAxis<T>& result_axis() const { return cut_.lines ? short_.axis() : down_.axis(); }

    int64_t input_rows() const { return cut_.lines ? cut_.length() : cut_.down.inputs; }
    // Rows that were not read are zero.
    void transform_column(T* column, int64_t rows) const {
        const int64_t n = cut_.length();
        if (rows < n) std::memset(column + rows * 2 * lanes_, 0, (n - rows) * 2 * lanes_ * sizeof(T));
        fft().forward(column_axis(), column);
    }

    // Channel c of all lanes: two dimensions as far as rows go, one as it is.
    void read(const ConvArgs& args, const Unit& unit, int64_t c, T* plane) const {
        const int64_t rows = cut_.lines ? 2 : cut_.down.inputs;
        T* const z = cut_.lines ? plane : unit.z;
        for (int64_t r = 0; r < rows; r += 2) {
            read_row(args, unit, c, r, z);
            if (r + 1 < rows) {
                read_row(args, unit, c, r + 1, z + lanes_);
            } else {
                for (int64_t i = 0; i < cut_.along.n; i++)
                    std::memset(z + (2 * i + 1) * lanes_, 0, lanes_ * sizeof(T));
            }
            if (cut_.lines) return;
            fft().forward(along_.axis(), z);
            fft().split(along_.axis(), z, plane + r * 2 * lanes_, cut_.pitch(lanes_));
        }
    }

    // Row r of all lanes into every second vector from z on.
    void read_row(const ConvArgs& args, const Unit& unit, int64_t c, int64_t r, T* z) const {
        const int64_t width = p_.in_size[2], inputs = cut_.along.inputs, step = 2 * lanes_,
                      pixel = p_.channels_last ? p_.in_channels : 1;
        const T* from[kMostLanes];
        Place place[kMostLanes];
        bool alike = true;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            const Lane& l = unit.lane[lane];
            place[lane] = l.there ? input_row(l.item, r) : Place{-1, place[0].tile};
            alike = alike && place[lane].tile == place[0].tile;
            const int64_t channel = l.group * p_.group_in() + c,
                          plane = l.image * p_.in_channels + (p_.channels_last ? 0 : channel);
            from[lane] = place[lane].row < 0
                             ? nullptr
                             : static_cast<const T*>(args.x) + plane * p_.in_pixels() +
                                   place[lane].row * width * pixel + (p_.channels_last ? channel : 0);
        }
        const auto clear = [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) std::memset(z + i * step, 0, lanes_ * sizeof(T));
        };
        const int64_t begin = first_input(place[0].tile);
        Range inner{std::clamp<int64_t>(-begin, 0, inputs), std::clamp<int64_t>(width - begin, 0, inputs)};
        const bool zeros = p_.mode == PadMode::constant;
        if (cut_.channels && p_.channels_last) {
            if (from[0] == nullptr) return clear(0, cut_.along.n);
            int64_t count = 0;
            while (count < lanes_ && unit.lane[count].there) count++;
            fft().gather_pixels(from[0] + (begin + inner.begin) * pixel, pixel, count, inner.begin,
                                inner.size(), z);
            for (int64_t i = 0; i < cut_.along.n; i++) {
                if (i == inner.begin) i = std::max(i, inner.end);
                if (i >= cut_.along.n) break;
                const int64_t at = zeros || i >= inputs ? -1 : axis_source(p_.mode, width, begin + i);
                if (at < 0)
                    clear(i, i + 1);
                else
                    fft().gather_pixels(from[0] + at * pixel, pixel, count, i, 1, z);
            }
            return;
        }
        // In place where all lanes read inside, or the same columns between zeros; else by a copy with its padding.
        const bool direct = alike && zeros && pixel == 1;
        if (!direct) inner = {0, inputs};
        const T* rows[kMostLanes];
        const T* nothing = nullptr;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            const int64_t first = first_input(place[lane].tile);
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
        fft().gather(rows, inner.begin, inner.size(), z);
        clear(inner.end, cut_.along.n);
    }

    // Output channel k of all lanes, with bias; false where one is not finite.
    bool write(const ConvArgs& args, const Unit& unit, int64_t k, T* plane) const {
        const int64_t rows = cut_.lines ? 2 : cut_.down.outputs;
        T* const z = cut_.lines ? plane : unit.z;
        alignas(64) T bias[kMostLanes] = {};
        if (args.bias != nullptr)
            for (int64_t lane = 0; lane < lanes_; lane++)
                if (unit.lane[lane].there)
                    bias[lane] = static_cast<const T*>(args.bias)[unit.lane[lane].group * p_.group_out() + k];
        bool finite = true;
        for (int64_t r = 0; r < rows; r++) {
            if (!cut_.lines && r % 2 == 0) {
                if (r + 1 == cut_.down.n)  // an odd number of rows: the last one's partner was never written
                    for (int64_t f = 0; f < cut_.columns(); f++)
                        std::memset(plane + f * cut_.pitch(lanes_) + (r + 1) * 2 * lanes_, 0,
                                    2 * lanes_ * sizeof(T));
                fft().merge(along_.axis(), plane + r * 2 * lanes_, cut_.pitch(lanes_), z);
                fft().inverse(along_.axis(), z);
            }
            finite = write_row(args, unit, k, r, z + r % 2 * lanes_, bias) && finite;
        }
        return finite;
    }

    bool write_row(const ConvArgs& args, const Unit& unit, int64_t k, int64_t r, const T* z,
                   const T* bias) const {
        T* rows[kMostLanes];
        int64_t counts[kMostLanes], count = 0;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            const Run run = output_run(unit.lane[lane], k, r);
            rows[lane] = static_cast<T*>(args.out) + run.at;
            counts[lane] = run.count;
            count += run.count > 0;
        }
        if (count == 0) return true;
        if (!p_.channels_last) return fft().scatter(z, rows, counts, bias);
        if (cut_.channels) return fft().scatter_pixels(z, rows[0], p_.out_channels, count, counts[0], bias);
        T* lines[kMostLanes];
        for (int64_t lane = 0; lane < lanes_; lane++) lines[lane] = unit.lines + lane * line_;
        const bool finite = fft().scatter(z, lines, counts, bias);
        for (int64_t lane = 0; lane < lanes_; lane++)
            for (int64_t i = 0; i < counts[lane]; i++) rows[lane][i * p_.out_channels] = lines[lane][i];
        return finite;
    }

    // A row of outputs of one lane's item: the first one's place, and how many.
    struct Run {
        int64_t at, count;
    };
    Run output_run(const Lane& l, int64_t k, int64_t r) const {
        const Place place = l.there ? output_row(l.item, r) : Place{-1, 0};
        if (place.row < 0) return {0, 0};
        const int64_t channel = l.group * p_.group_out() + k, column = place.tile * cut_.along.outputs,
                      at = place.row * p_.out_size[2] + column;
        const int64_t count = outputs_at(cut_.along, place.tile, p_.out_size[2]);
        if (p_.channels_last) return {(l.image * p_.out_pixels() + at) * p_.out_channels + channel, count};
        return {(l.image * p_.out_channels + channel) * p_.out_pixels() + at, count};
    }

    void activate(const ConvArgs& args, const Lane& l, int64_t k) const {
        const int64_t rows = cut_.lines ? 2 : cut_.down.outputs;
        for (int64_t r = 0; r < rows; r++) {
            const Run run = output_run(l, k, r);
            T* const out = static_cast<T*>(args.out) + run.at;
            const T* const add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + run.at;
            const int64_t pixel = p_.channels_last ? p_.out_channels : 1;
            const Segment whole{0, 0, pixel == 1 ? run.count : 1};
            rows_of<T>().finish(out, pixel, pixel == 1 ? int64_t{run.count > 0} : run.count, &whole, 1, add,
                                out, pixel, args.activation);
        }
    }

    // A tile with results that are not finite, summed again tap by tap.
    void mend(const ConvArgs& args, const Lane& l, int64_t k) const {
        const int64_t rows = cut_.lines ? 2 : cut_.down.outputs,
                      pixel = p_.channels_last ? p_.out_channels : 1;
        const T* const plain = static_cast<const T*>(args.packed) + spectra_size();
        bool finite = true;
        for (int64_t r = 0; r < rows; r++) {
            const Run run = output_run(l, k, r);
            for (int64_t i = 0; i < run.count; i++)
                finite = finite && std::isfinite(static_cast<const T*>(args.out)[run.at + i * pixel]);
        }
        for (int64_t r = 0; r < rows && !finite; r++) {
            const Run run = output_run(l, k, r);
            const Place place = output_row(l.item, r);
            for (int64_t i = 0; i < run.count; i++)
                static_cast<T*>(args.out)[run.at + i * pixel] =
                    output_directly<T>(p_, args, plain, l.image, l.group * p_.group_out() + k, place.row,
                                       place.tile * cut_.along.outputs + i);
        }
    }

    // Spectra of some filters, a lane for each, scaled for the whole way there and back.
    void transform_filters(const T* taps, int64_t count, T* z, T* plane) const {
        const FftTiles &down = cut_.down, &along = cut_.along;
        // Rows that are told apart come out twice as large, in inputs and here.
        const double scale =
            1 / (static_cast<double>(along.n) * (cut_.lines ? 1 : 4 * static_cast<double>(down.n)));
        const auto place = [](const FftTiles& axis, int64_t tap, int64_t dilation) {
            return ((axis.shift - tap * dilation) % axis.n + axis.n) % axis.n;
        };
        std::vector<int64_t> tap_at(static_cast<size_t>(cut_.lines ? 1 : round_up(down.n, 2)), -1);
        for (int64_t i = down.taps.begin; i < down.taps.end; i++)
            tap_at[static_cast<size_t>(cut_.lines ? 0 : place(down, i, p_.dilation[1]))] = i;
        T* const row = cut_.lines ? plane : z;
        for (size_t r = 0; r < tap_at.size(); r += 2) {
            std::memset(row, 0, along.n * 2 * lanes_ * sizeof(T));
            for (size_t half = 0; half < 2 && r + half < tap_at.size(); half++) {
                const int64_t i = tap_at[r + half];
                for (int64_t j = along.taps.begin; i >= 0 && j < along.taps.end; j++) {
                    T* const to = row + place(along, j, p_.dilation[2]) * 2 * lanes_ + half * lanes_;
                    for (int64_t lane = 0; lane < count; lane++)
                        to[lane] = static_cast<T>(
                            static_cast<double>(taps[lane * p_.taps() + i * p_.kernel[2] + j]) * scale);
                }
            }
            if (cut_.lines) break;
            fft().forward(along_.axis(), z);
            fft().split(along_.axis(), z, plane + r * 2 * lanes_, cut_.pitch(lanes_));
        }
        for (int64_t f = 0; f < cut_.columns(); f++)
            transform_column(plane + f * cut_.pitch(lanes_), cut_.length());
    }

    // Spectra of filters first .. first + count - 1 (of all input channels of a group, output channel after output channel)
    // to where they are read.
    void keep(const T* plane, int64_t first, int64_t count, T* to) const {
        const int64_t n = cut_.length(), inputs = p_.group_in(), outputs = p_.group_out();
        for (int64_t f = 0; f < cut_.columns(); f++) {
            const T* const from = plane + f * cut_.pitch(lanes_);
            if (cut_.channels) {
                std::copy_n(from, n * 2 * lanes_, to + (first * values() + f * n * lanes_) * 2);
                continue;
            }
            for (int64_t lane = 0; lane < count; lane++) {
                const int64_t filter = first + lane, c = filter % inputs, all = filter / inputs,
                              k = all % outputs / kFftOutputs * kFftOutputs, group = all / outputs;
                const int64_t width = std::min<int64_t>(kFftOutputs, outputs - k), own = all % outputs - k;
                T* at =
                    to + ((group * outputs + k) * inputs * values() + (f * n * inputs + c) * width + own) * 2;
                for (int64_t i = 0; i < n; i++, at += inputs * width * 2) {
                    at[0] = from[i * 2 * lanes_ + lane];
                    at[1] = from[(2 * i + 1) * lanes_ + lane];
                }
            }
        }
    }

    ConvProblem p_;
    FftCut cut_;
    int64_t lanes_;
    FftTables<T> along_, short_, down_;  // short: of the results, where they are folded
    int64_t line_, plane_;
};

FftMachine machine_for(DType dtype) {
    if (dtype == DType::f32) return {fft_of<float>().lanes, sizeof(float)};
    return {fft_of<double>().lanes, sizeof(double)};
}

}  // namespace

std::string why_not_fft(const ConvProblem& p, DType dtype) {
    if (p.has_depth()) return "it has no depth axis";
    const int64_t stride = p.stride[2];
    const bool folds = p.out_size[1] == 1 && p.kernel[1] == 1 && (stride <= 5 || stride == 8);
    if (p.stride[1] != 1 && p.out_size[1] != 1) return "it needs stride 1";
    if (stride != 1 && !folds) return "it needs stride 1, in one dimension up to 5, or 8";
    if (p.group_in() == 0) return "there are no input channels";
    if (p.group_in() > 512) return "it adds at most 512 channels into one sum";
    if (p.in_pixels() == 0 || p.out_pixels() == 0) return "there are no pixels";
    FftCut cut;
    if (!cut_for_fft(p, machine_for(dtype), cut)) return "its transforms would be too long";
    return "";
}

double predict_fft(const ConvProblem& p, DType dtype) {
    FftCut cut;
    cut_for_fft(p, machine_for(dtype), cut);
    return cut.cycles / 3e9;  // as peak_flops counts
}

std::unique_ptr<ConvKernel> make_fft(const ConvProblem& p, DType dtype) {
    FftCut cut;
    cut_for_fft(p, machine_for(dtype), cut);
    if (dtype == DType::f32) return std::make_unique<FftConvolution<float>>(p, cut);
    return std::make_unique<FftConvolution<double>>(p, cut);
}

}  // namespace fastconv
