#include "algorithms/batch_norm.hpp"

#include <algorithm>
#include <cmath>

#include "algorithms/batch_norm_loops_kernels.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kPiece =
    16384;  // elements: 64 KB of floats, and as much of a second array, in a second-level cache
constexpr int64_t kTask = 65536;  // elements of one task: some 20 us

// The pieces of an array, in the order of memory.
class Pieces {
  public:
    explicit Pieces(const NormShape& shape) : shape_(shape), last_(shape.inner == 1) {
        parts_ = std::max<int64_t>(1, last_ ? ceil_div(shape.size(), kPiece) : ceil_div(shape.inner, kPiece));
        if (last_) parts_ = std::min(parts_, std::max<int64_t>(1, shape.outer));
        count_ = last_ ? parts_ : shape.outer * shape.channels * parts_;
    }
    // Sums that stand beside each other for one channel.
    int64_t sums() const { return last_ ? parts_ : shape_.outer * parts_; }

    // Calls f(piece, first element, first channel, index of its sums, elements behind each of them) on the
    // pool; `back` goes the way back from where an earlier call ended: the caller takes tasks from the front and
    // workers from the end, so they met in the middle.
    template <class F>
    void each(bool back, F f) const {
        if (shape_.size() == 0) return;
        const int64_t together = std::max<int64_t>(1, kTask / std::max<int64_t>(1, shape_.size() / count_));
        const int64_t tasks = ceil_div(count_, together), middle = num_threads() == 1 ? tasks : tasks / 2;
        parallel_for(tasks, [&](int64_t nth) {
            const int64_t task = !back ? nth : nth < middle ? middle - 1 - nth : tasks - 1 - (nth - middle);
            for (int64_t i = task * together; i < std::min(count_, (task + 1) * together); i++) {
                if (last_) {
                    const Range rows = part_of(shape_.outer, parts_, i);
                    f(NormPiece{rows.size(), shape_.channels, true}, rows.begin * shape_.channels, int64_t{0},
                      i, rows.size());
                } else {
                    const int64_t plane = i / parts_;
                    const Range run = part_of(shape_.inner, parts_, i % parts_);
                    f(NormPiece{1, run.size(), false}, plane * shape_.inner + run.begin,
                      plane % shape_.channels, plane / shape_.channels * parts_ + i % parts_, run.size());
                }
            }
        });
    }

  private:
    NormShape shape_;
    bool last_;
    int64_t parts_, count_;
};

template <class T>
NormParameters<T> from_channel(NormParameters<T> p, int64_t c) {
    for (const T** field : {&p.mean, &p.scale, &p.shift, &p.inverse, &p.slope, &p.constant})
        if (*field != nullptr) *field += c;
    return p;
}

template <class T>
void apply(const Pieces& pieces, bool back, const T* x, const T* add, const NormParameters<T>& p,
           Activation activation, T* out) {
    pieces.each(back, [&](const NormPiece& piece, int64_t at, int64_t c, int64_t, int64_t) {
        norm_loops<T>().apply(piece, x + at, add == nullptr ? nullptr : add + at, from_channel(p, c),
                              activation, out + at);
    });
}

}  // namespace

template <class T>
void batch_norm(const NormShape& shape, const T* x, const T* mean, const T* scale, const T* bias,
                Activation activation, T* out) {
    const FlushToZero guard;
    apply<T>(Pieces(shape), false, x, nullptr, NormParameters<T>{mean, scale, bias}, activation, out);
}

template <class T>
void batch_norm_train(const NormShape& shape, const T* x, const T* weight, const T* bias, double eps,
                      Activation activation, T* out, T* mean, T* var, const T* add) {
    const FlushToZero guard;
    const Pieces pieces(shape);
    const int64_t channels = shape.channels, sums = pieces.sums();
    ScratchFrame frame;
    double* const centres = frame.take<double>(sums * channels);
    double* const squares = frame.take<double>(sums * channels);
    double* const counts = frame.take<double>(sums);
    pieces.each(false, [&](const NormPiece& piece, int64_t at, int64_t c, int64_t index, int64_t count) {
        norm_loops<T>().moments(piece, x + at, centres + index * channels + c,
                                squares + index * channels + c);
        if (c == 0) counts[index] = static_cast<double>(count);
    });
    double* const centre = frame.take<double>(channels);
    double* const square = frame.take<double>(channels);
    std::fill(centre, centre + channels, 0.0);
    std::fill(square, square + channels, 0.0);
    const double all = static_cast<double>(shape.count());
    for (int64_t i = 0; i < sums; i++)
        for (int64_t c = 0; c < channels; c++) centre[c] += counts[i] / all * centres[i * channels + c];
    for (int64_t i = 0; i < sums; i++)
        for (int64_t c = 0; c < channels; c++) {
            const double off = centres[i * channels + c] - centre[c];
            square[c] += squares[i * channels + c] + counts[i] * (off * off);
        }
    T* const scale = frame.take<T>(channels);
    T* const shift = frame.take<T>(channels);
    for (int64_t c = 0; c < channels; c++) {
        const double wide = square[c] / all,
                     wide_scale = static_cast<double>(weight[c]) / std::sqrt(wide + eps);
        mean[c] = static_cast<T>(centre[c]);
        var[c] = static_cast<T>(wide);
        scale[c] = static_cast<T>(wide_scale);
        // What rounding the mean left over is taken off again, so that a large mean costs no digits.
        const double rest = centre[c] - static_cast<double>(mean[c]);
        shift[c] = static_cast<T>(static_cast<double>(bias[c]) - rest * wide_scale);
    }
    apply(pieces, true, x, add, NormParameters<T>{mean, scale, shift}, activation, out);
}

template <class T>
void batch_norm_backward(const NormShape& shape, const T* dy, const T* x, const T* weight, const T* bias,
                         const T* mean, const T* var, double eps, Activation activation, T* dx, T* dweight,
                         T* dbias) {
    const FlushToZero guard;
    const Pieces pieces(shape);
    const int64_t channels = shape.channels, sums = pieces.sums();
    ScratchFrame frame;
    T* const inverse = frame.take<T>(channels);
    T* const scale = frame.take<T>(channels);
    for (int64_t c = 0; c < channels; c++) {
        const double wide = 1 / std::sqrt(static_cast<double>(var[c]) + eps);
        inverse[c] = static_cast<T>(wide);
        scale[c] = static_cast<T>(static_cast<double>(weight[c]) * wide);
    }
    NormParameters<T> p{mean, scale, bias, inverse};
    double* const sum = frame.take<double>(sums * channels);
    double* const dot = frame.take<double>(sums * channels);
    pieces.each(false, [&](const NormPiece& piece, int64_t at, int64_t c, int64_t index, int64_t) {
        norm_loops<T>().gradient_sums(piece, dy + at, x + at, from_channel(p, c), activation,
                                      sum + index * channels + c, dot + index * channels + c);
    });
    T* const slope = frame.take<T>(channels);
    T* const constant = frame.take<T>(channels);
    const double all = static_cast<double>(shape.count());
    for (int64_t i = 1; i < sums; i++)
        for (int64_t c = 0; c < channels; c++) {
            sum[c] += sum[i * channels + c];
            dot[c] += dot[i * channels + c];
        }
    for (int64_t c = 0; c < channels; c++) {
        dbias[c] = static_cast<T>(sum[c]);
        dweight[c] = static_cast<T>(dot[c]);
        slope[c] = static_cast<T>(dot[c] / all);
        constant[c] = static_cast<T>(sum[c] / all);
    }
    p.slope = slope;
    p.constant = constant;
    pieces.each(true, [&](const NormPiece& piece, int64_t at, int64_t c, int64_t, int64_t) {
        norm_loops<T>().gradient(piece, dy + at, x + at, from_channel(p, c), activation, dx + at);
    });
}

FASTCONV_EACH_NORM(, float)
FASTCONV_EACH_NORM(, double)

}  // namespace fastconv
