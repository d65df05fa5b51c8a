// Convolution by Fourier transforms: large kernels, each channel by itself or few channels, and long sequences.
//
// A unit of work is what fills the lanes of a vector: a tile of as many channels, or as many tiles of one channel. Rows are
// read in pairs, the second as imaginary part of the first, transformed and told apart (split); each column of half the
// spectrum is then transformed (in volumes also from plane to plane), multiplied and transformed back while it lies in L1 or
// L2, and rows go back as they came. In one dimension pairs of tiles need not be told apart, since the kernel is real.
//
// An inf or NaN smears over its tile, and values near the largest overflow: a tile whose results are not all finite is
// computed again directly. Errors follow the largest value of a tile, of a pair of tiles in one dimension.
#include <algorithm>
#include <cmath>

#include "algorithms/fft_cut.hpp"
#include "algorithms/fft_filters.hpp"
#include "algorithms/fft_kernels.hpp"
#include "algorithms/fft_places.hpp"
#include "algorithms/fft_rows.hpp"
#include "algorithms/output_directly.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

template <class T>
class FftConvolution final : public ConvKernel {
  public:
    FftConvolution(const ConvProblem& problem, const FftCut& cut)
        : p_(problem),
          cut_(cut),
          places_(problem, cut),
          rows_(problem, cut),
          filters_(problem, cut),
          transforms_(cut),
          lanes_(fft().lanes),
          line_(cut.pitch(lanes_)),
          column_(cut.column(lanes_)),
          plane_(cut.plane(lanes_)) {}

    // Spectra as they are multiplied, then the weights as they are, [k][c][tap].
    size_t packed_bytes() const override {
        return static_cast<size_t>(filters_.size() + p_.weights()) * sizeof(T);
    }
    bool keeps_packed() const override { return true; }

    void pack(const void* weight, void* packed) const override {
        const FlushToZero flush;
        const T* const from = static_cast<const T*>(weight);
        T* const to = static_cast<T*>(packed);
        T* const plain = to + filters_.size();
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
            T* const z = frame.take<T>(cut_.along.n * 2 * lanes_);
            T* const spectra = frame.take<T>(plane_);
            const int64_t first = block * lanes_, count = std::min(lanes_, filters - first);
            filters_.transform(transforms_, plain + first * taps, count, z, spectra);
            filters_.keep(spectra, first, count, to);
        });
    }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(cut_.planes(p_) * plane_ + cut_.along.n * 2 * lanes_ +
                                   rows_.lines_size()) *
               sizeof(T);
    }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int64_t items = args.batch * cut_.items(),
                      blocks = ceil_div(cut_.channels ? p_.groups : items, lanes_),
                      units = blocks * (cut_.channels ? items : p_.groups), outputs = p_.group_out();
        const int threads = scratch_share().threads;
        // Threads without a unit of their own take some outputs of another's, where transforming the inputs once more is little:
        // 7x7, 3 > 32 channels of 64 x 64 on two threads 138 to 83 us.
        const int64_t bundles = ceil_div(outputs, int64_t{kFftOutputs}),
                      shares = outputs < 4 * p_.group_in()
                                   ? 1
                                   : std::clamp<int64_t>(threads / std::max<int64_t>(units, 1), 1, bundles);
        const auto run_part = [&](int64_t task) {
            const int64_t index = task / shares;
            const Range share = part_of(bundles, shares, task % shares);
            ScratchFrame frame;
            FftUnit<T> unit;
            unit.spectra = frame.take<T>(cut_.planes(p_) * plane_);
            unit.z = frame.take<T>(cut_.along.n * 2 * lanes_);
            unit.lines = frame.take<T>(rows_.lines_size());
            unit.outputs = {share.begin * kFftOutputs, std::min(share.end * kFftOutputs, outputs)};
            const int64_t block = index % blocks, rest = index / blocks;
            for (int64_t lane = 0; lane < lanes_; lane++) {
                const int64_t at = block * lanes_ + lane;
                unit.lane[lane] =
                    cut_.channels ? places_.lane(at < p_.groups, rest / cut_.items(), at, rest % cut_.items())
                                  : places_.lane(at < items, at / cut_.items(), rest, at % cut_.items());
            }
            run_unit(args, unit, block);
        };
        parallel_for(units * shares, run_part, threads, cut_.cycles * static_cast<double>(args.batch) / 3e9);
    }

  private:
    static const Fft<T>& fft() { return fft_of<T>(); }
    // One spectrum in place, without sums.
    bool same() const { return p_.group_in() == 1 && p_.group_out() == 1 && cut_.fold() == 1; }

    void run_unit(const ConvArgs& args, FftUnit<T>& unit, int64_t block) const {
        const int64_t inputs = p_.group_in(), n = cut_.length();
        const T* const packed = static_cast<const T*>(args.packed);
        bool finite = true;
        if (same()) {
            const T* w = packed + (cut_.channels ? block * lanes_ : unit.lane[0].group) * cut_.values() * 2;
            read(args, unit, 0, unit.spectra);
            for (int64_t f = 0; f < cut_.columns(); f++) {
                T* const column = unit.spectra + f * column_;
                transforms_.forward_column(column, cut_.deep.inputs, input_rows());
                for (int64_t z = 0; z < cut_.deep.n; z++, w += n * 2 * (cut_.channels ? lanes_ : 1))
                    (cut_.channels ? fft().times_lanes : fft().times_all)(w, column + z * line_, n);
                transforms_.inverse_column(column);
            }
            finite = write(args, unit, 0, unit.spectra);
        } else {
            for (int64_t c = 0; c < inputs; c++) {
                T* const plane = unit.spectra + c * plane_;
                read(args, unit, c, plane);
                for (int64_t f = 0; f < cut_.columns(); f++)
                    transforms_.forward_column(plane + f * column_, cut_.deep.inputs, input_rows());
            }
            T* const results = unit.spectra + inputs * plane_;
            for (int64_t k = unit.outputs.begin; k < unit.outputs.end; k += kFftOutputs) {
                const int count = static_cast<int>(std::min<int64_t>(kFftOutputs, unit.outputs.end - k));
                const T* w = packed + (unit.lane[0].group * p_.group_out() + k) * inputs * cut_.values() * 2;
                for (int64_t f = 0; f < cut_.columns(); f++) {
                    const int64_t column = f * column_;
                    for (int64_t z = 0; z < cut_.deep.n; z++, w += n * inputs * count * 2) {
                        const int64_t at = column + z * line_;
                        fft().sums(w, unit.spectra + at, plane_, inputs, cut_.fold(), results + at, plane_,
                                   count, n / cut_.fold());
                    }
                    for (int i = 0; i < count; i++) transforms_.inverse_column(results + i * plane_ + column);
                }
                for (int i = 0; i < count; i++)
                    finite = write(args, unit, k + i, results + i * plane_) && finite;
            }
        }
        if (finite && args.add == nullptr && args.activation == Activation::none) return;
        for (int64_t lane = 0; lane < lanes_; lane++) {
            if (!unit.lane[lane].there) continue;
            for (int64_t k = unit.outputs.begin; k < unit.outputs.end; k++) {
                if (!finite) mend(args, unit.lane[lane], k);
                if (args.add != nullptr || args.activation != Activation::none)
                    activate(args, unit.lane[lane], k);
            }
        }
    }

    int64_t input_rows() const { return cut_.lines ? cut_.length() : cut_.down.inputs; }

    // Channel c of all lanes: in one dimension as it is, else transformed along rows.
    void read(const ConvArgs& args, const FftUnit<T>& unit, int64_t c, T* plane) const {
        if (cut_.lines) {
            for (int64_t r = 0; r < 2; r++) rows_.read(args, unit, c, 0, r, plane + r * lanes_);
            return;
        }
        const int64_t rows = cut_.down.inputs;
        T* const z = unit.z;
        for (int64_t h = 0; h < cut_.deep.inputs; h++) {
            for (int64_t r = 0; r < rows; r += 2) {
                rows_.read(args, unit, c, h, r, z);
                if (r + 1 < rows) {
                    rows_.read(args, unit, c, h, r + 1, z + lanes_);
                } else {
                    for (int64_t i = 0; i < cut_.along.n; i++)
                        std::memset(z + (2 * i + 1) * lanes_, 0, lanes_ * sizeof(T));
                }
                fft().forward(transforms_.along(), z, 2 * lanes_);
                fft().split(transforms_.along(), z, plane + h * line_ + r * 2 * lanes_, column_);
            }
        }
    }

    // Output channel k of all lanes, with bias; false where one is not finite.
    bool write(const ConvArgs& args, const FftUnit<T>& unit, int64_t k, T* plane) const {
        alignas(64) T bias[kFftMostLanes] = {};
        if (args.bias != nullptr)
            for (int64_t lane = 0; lane < lanes_; lane++)
                if (unit.lane[lane].there)
                    bias[lane] = static_cast<const T*>(args.bias)[unit.lane[lane].group * p_.group_out() + k];
        bool finite = true;
        T* const z = cut_.lines ? plane : unit.z;
        const int64_t rows = places_.rows(), down = cut_.down.stride * 2 * lanes_;
        for (int64_t h = 0; h < cut_.deep.outputs; h++) {
            for (int64_t r = 0; r < rows; r++) {
                if (!cut_.lines && r % 2 == 0) {
                    // The last of an odd number of rows is its own partner.
                    fft().merge(transforms_.along(), plane + h * cut_.deep.stride * line_ + r * down, column_,
                                r + 1 < rows ? down : 0, z);
                    fft().inverse(transforms_.along(), z, 2 * lanes_);
                }
                finite = rows_.write(args, unit, k, h, r, z + r % 2 * lanes_, bias) && finite;
            }
        }
        return finite;
    }

    // All runs of outputs of one channel of a lane.
    template <class Function>
    void for_each_run(const FftLane& l, int64_t k, Function&& function) const {
        for (int64_t h = 0; h < cut_.deep.outputs; h++)
            for (int64_t r = 0; r < places_.rows(); r++) function(places_.run(l, k, h, r), h, r);
    }

    void activate(const ConvArgs& args, const FftLane& l, int64_t k) const {
        for_each_run(l, k, [&](const FftRun& run, int64_t, int64_t) {
            T* const out = static_cast<T*>(args.out) + run.at;
            const T* const add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + run.at;
            const int64_t pixel = p_.channels_last ? p_.out_channels : 1;
            const Segment whole{0, 0, pixel == 1 ? run.count : 1};
            rows_of<T>().finish(out, pixel, pixel == 1 ? int64_t{run.count > 0} : run.count, &whole, 1, add,
                                out, pixel, args.activation);
        });
    }

    // A tile with results that are not finite, summed again tap by tap.
    void mend(const ConvArgs& args, const FftLane& l, int64_t k) const {
        const int64_t pixel = p_.channels_last ? p_.out_channels : 1;
        const T* const plain = static_cast<const T*>(args.packed) + filters_.size();
        T* const out = static_cast<T*>(args.out);
        bool finite = true;
        for_each_run(l, k, [&](const FftRun& run, int64_t, int64_t) {
            for (int64_t i = 0; i < run.count; i++) finite = finite && std::isfinite(out[run.at + i * pixel]);
        });
        if (finite) return;
        for_each_run(l, k, [&](const FftRun& run, int64_t h, int64_t r) {
            const FftPlace place = places_.output(l, h, r);
            for (int64_t i = 0; i < run.count; i++)
                out[run.at + i * pixel] =
                    output_directly<T>(p_, args, plain, l.image, l.group * p_.group_out() + k, place.plane,
                                       place.row, place.tile * cut_.along.outputs + i);
        });
    }

    ConvProblem p_;
    FftCut cut_;
    FftPlaces places_;
    FftRows<T> rows_;
    FftFilters<T> filters_;
    FftTransforms<T> transforms_;
    int64_t lanes_, line_, column_, plane_;  // numbers from one to the next
};

FftMachine machine_for(DType dtype) {
    if (dtype == DType::f32) return {fft_of<float>().lanes, sizeof(float)};
    return {fft_of<double>().lanes, sizeof(double)};
}

}  // namespace

std::string why_not_fft(const ConvProblem& p, DType dtype) {
    const int64_t stride = p.stride[2];
    if (p.kernel[0] == 1 && p.kernel[1] == 1 && stride > 5 && stride != 8)
        return "in one dimension it needs a stride up to 5, or 8";
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
    // As peak_flops counts. A call's tables and rounds take a microsecond, and a seventh more than is counted of what is short:
    // seen in random problems of less than a tenth of a millisecond.
    const double seconds = cut.cycles / 3e9;
    return seconds + std::min(0.15 * seconds, 15e-6) + 1e-6;
}

std::unique_ptr<ConvKernel> make_fft(const ConvProblem& p, DType dtype) {
    FftCut cut;
    cut_for_fft(p, machine_for(dtype), cut);
    if (dtype == DType::f32) return std::make_unique<FftConvolution<float>>(p, cut);
    return std::make_unique<FftConvolution<double>>(p, cut);
}

}  // namespace fastconv
