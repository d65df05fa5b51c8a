#include "plan/reduce.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kNarrow = 16;           // pixels along the last axis: fewer do not fill a vector
constexpr int64_t kTaskElements = 16384;  // read by one task

// An axis of a problem.
struct Axis {
    int64_t in, kernel, stride, dilation, pad_lo, out;
    bool unit() const { return in == 1 && kernel == 1 && out == 1 && pad_lo == 0; }
    // Whether every position comes from the same position and from no other.
    bool plain() const { return kernel == 1 && stride == 1 && pad_lo == 0 && in == out; }
    bool operator==(const Axis& o) const {
        return in == o.in && kernel == o.kernel && stride == o.stride && dilation == o.dilation &&
               pad_lo == o.pad_lo && out == o.out;
    }
};

Axis axis_of(const ConvProblem& p, int a) {
    return {p.in_size[a], p.kernel[a], p.stride[a], p.dilation[a], p.pad_lo[a], p.out_size[a]};
}

void set_axis(ConvProblem& p, int a, const Axis& axis) {
    p.in_size[a] = axis.in;
    p.kernel[a] = axis.kernel;
    p.stride[a] = axis.stride;
    p.dilation[a] = axis.dilation;
    p.pad_lo[a] = axis.pad_lo;
    p.out_size[a] = axis.out;
    p.pad_hi[a] =
        (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 - axis.pad_lo - axis.in;
}

// The taps of an axis from the first to the last that meets a pixel for some output; one at least.
Range seen_taps(const Axis& axis) {
    const auto meets = [&](int64_t tap) {
        const int64_t before = axis.pad_lo - tap * axis.dilation;  // of the first output's pixel
        const int64_t o = before > 0 ? ceil_div(before, axis.stride) : 0;
        return o < axis.out && o * axis.stride - before < axis.in;
    };
    Range seen{0, axis.kernel};
    while (seen.size() > 1 && !meets(seen.begin)) seen.begin++;
    while (seen.size() > 1 && !meets(seen.end - 1)) seen.end--;
    return seen;
}

// `inner` follows `outer` in memory and is plain.
Axis joined(const Axis& outer, const Axis& inner) {
    const int64_t n = inner.in;
    return {outer.in * n,     outer.kernel, 1, outer.kernel == 1 ? 1 : outer.dilation * n,
            outer.pad_lo * n, outer.out * n};
}

class ReducedKernel final : public ConvKernel {
  public:
    ReducedKernel(const ConvProblem& problem, const Reduced& reduced, DType dtype,
                  std::unique_ptr<ConvKernel> inner)
        : p_(problem), reduced_(reduced), dtype_(dtype), inner_(std::move(inner)) {}

    size_t packed_bytes() const override {
        const size_t inner = inner_->packed_bytes();
        return inner > 0 || !reduced_.trimmed ? inner : kept_bytes();
    }
    void pack(const void* weight, void* packed) const override {
        if (!reduced_.trimmed) return inner_->pack(weight, packed);
        if (inner_->packed_bytes() == 0) return gather_taps(p_, reduced_, dtype_, weight, packed);
        ScratchFrame frame;
        void* const kept = frame.take_bytes(kept_bytes());
        gather_taps(p_, reduced_, dtype_, weight, kept);
        inner_->pack(kept, packed);
    }
    bool keeps_packed() const override { return inner_->keeps_packed(); }
    bool keeps_packed_for(int64_t batch) const override {
        return inner_->keeps_packed_for(batch * reduced_.images);
    }
    // Rows of an axis that became another cannot be cut out.
    bool takes_bands() const override { return !reduced_.moved && inner_->takes_bands(); }
    int64_t band_step() const override { return inner_->band_step(); }
    bool places_pixels() const override { return !reduced_.moved && inner_->places_pixels(); }
    size_t scratch_bytes() const override {
        return inner_->scratch_bytes() + (reduced_.trimmed ? kept_bytes() + kScratchRounding : 0);
    }
    size_t scratch_within(size_t budget) const override { return inner_->scratch_within(budget); }
    size_t workspace_bytes() const override { return inner_->workspace_bytes(); }
    void limit_workspace(size_t bytes) override {
        ConvKernel::limit_workspace(bytes);
        inner_->limit_workspace(bytes);
    }

    void run(const ConvArgs& args) const override {
        ConvArgs a = args;
        a.batch *= reduced_.images;
        ScratchFrame frame;
        if (reduced_.trimmed && a.packed == nullptr) {
            void* const kept = frame.take_bytes(kept_bytes());
            gather_taps(p_, reduced_, dtype_, a.weight, kept);
            a.weight = kept;
        } else if (inner_->packed_bytes() == 0 && a.packed != nullptr) {
            a.weight = a.packed;
            a.packed = nullptr;
        }
        inner_->run(a);
    }

  private:
    size_t kept_bytes() const {
        return static_cast<size_t>(reduced_.problem.weights()) * (dtype_ == DType::f32 ? 4 : 8);
    }

    ConvProblem p_;
    Reduced reduced_;
    DType dtype_;
    std::unique_ptr<ConvKernel> inner_;
};

// Calls body(place among the kept, place among all, how many weights in a row) for every run of kept weights, on the pool.
template <class F>
void each_run(const ConvProblem& p, const Reduced& r, F&& body) {
    // Channels last, a tap's weights are a row; channels first, an output's and input's taps are.
    const int64_t outer = p.channels_last ? 1 : p.out_channels * p.group_in();
    const int64_t inner = p.channels_last ? p.group_in() * p.out_channels : 1;
    const int64_t lines = r.taps[0] * r.taps[1], run = r.taps[2] * inner;
    const int64_t together = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, p.taps() * inner));
    const auto some = [&](int64_t task) {
        for (int64_t o = task * together; o < std::min(outer, (task + 1) * together); o++)
            for (int64_t line = 0; line < lines; line++) {
                const int64_t d = r.first[0] + line / r.taps[1], h = r.first[1] + line % r.taps[1];
                const int64_t tap = (d * p.kernel[1] + h) * p.kernel[2] + r.first[2];
                body((o * lines + line) * run, o * p.taps() + tap * inner, run);
            }
    };
    const double seconds = static_cast<double>(outer * p.taps() * inner) * 1e-9;
    parallel_for(ceil_div(outer, together), some, 0, seconds);
}

template <class T>
void gather(const ConvProblem& p, const Reduced& r, const T* weight, T* kept) {
    each_run(p, r, [&](int64_t to, int64_t from, int64_t n) { std::copy_n(weight + from, n, kept + to); });
}

template <class T>
void spread(const ConvProblem& p, const Reduced& r, const T* kept, T* weight) {
    std::fill_n(weight, p.weights(), T(0));
    each_run(p, r, [&](int64_t from, int64_t to, int64_t n) { std::copy_n(kept + from, n, weight + to); });
}

}  // namespace

Reduced reduce(const ConvProblem& problem, Reduction how) {
    // Rows of another problem lose the taps that that one loses, and keep their axes.
    const bool band = problem.whole_out != 0;
    const ConvProblem whole = problem.whole();
    Reduced r{problem, {0, 0, 0}, {problem.kernel[0], problem.kernel[1], problem.kernel[2]}, 1, false, false};
    if (how == Reduction::none) return r;
    ConvProblem& q = r.problem;
    for (int a = 0; a < 3; a++) {
        Axis axis = axis_of(problem, a);
        if (whole.mode == PadMode::constant || !whole.reads_padding(a)) {
            const Range seen = seen_taps(axis_of(whole, a));
            r.first[a] = seen.begin;
            r.taps[a] = seen.size();
            r.trimmed = r.trimmed || seen.size() < axis.kernel;
            axis.kernel = seen.size();
            axis.pad_lo -= seen.begin * axis.dilation;
            if (band && a == 1) q.whole_pad -= seen.begin * axis.dilation;
        }
        if (axis.kernel == 1) axis.dilation = 1;
        if (whole.out_size[a] == 1) axis.stride = 1;
        set_axis(q, a, axis);
    }
    if (band || problem.placed) return r;  // rows keep their places
    std::vector<Axis> axes;
    for (int a = 0; a < 3; a++)
        if (const Axis axis = axis_of(q, a); !axis.unit()) axes.push_back(axis);
    const auto join = [&](size_t outer) {
        axes[outer] = joined(axes[outer], axes[outer + 1]);
        axes.erase(axes.begin() + static_cast<int64_t>(outer) + 1);
    };
    // One output that sees every pixel once: the pixels are channels.
    const auto covers = [](const Axis& a) {
        return a.kernel == a.in && a.dilation == 1 && a.pad_lo == 0 && a.out == 1;
    };
    if (how == Reduction::dense && q.groups == 1 && q.taps() > 1 &&
        std::all_of(axes.begin(), axes.end(), covers)) {
        q.in_channels *= q.taps();
        axes.clear();
    }
    if (q.taps() > 1 && !axes.empty()) {
        if (axes.size() == 3 && axes[1].plain() && axes[2].plain()) join(1);
        if (axes.size() == 3 && axes[0].plain() && axes[1].plain()) join(0);
        if (axes.size() == 3 && axes[0].plain() && q.channels_last) {
            r.images = axes[0].in;
            q.batch_hint *= r.images;
            axes.erase(axes.begin());
        }
        const size_t n = axes.size();
        if (how >= Reduction::joined && n >= 2 && axes[n - 1].plain() && axes[n - 1].in < kNarrow &&
            axes[n - 2].stride == 1 && (q.mode == PadMode::constant || !q.reads_padding()))
            join(n - 2);
    }
    axes.insert(axes.begin(), 3 - axes.size(), Axis{1, 1, 1, 1, 0, 1});
    for (int a = 0; a < 3; a++) {
        r.moved = r.moved || !(axes[a] == axis_of(q, a));
        set_axis(q, a, axes[a]);
    }
    return r;
}

void gather_taps(const ConvProblem& problem, const Reduced& reduced, DType dtype, const void* weight,
                 void* kept) {
    if (dtype == DType::f32)
        gather(problem, reduced, static_cast<const float*>(weight), static_cast<float*>(kept));
    else
        gather(problem, reduced, static_cast<const double*>(weight), static_cast<double*>(kept));
}

void spread_taps(const ConvProblem& problem, const Reduced& reduced, DType dtype, const void* kept,
                 void* weight) {
    if (dtype == DType::f32)
        spread(problem, reduced, static_cast<const float*>(kept), static_cast<float*>(weight));
    else
        spread(problem, reduced, static_cast<const double*>(kept), static_cast<double*>(weight));
}

std::unique_ptr<ConvKernel> make_reduced(const ConvProblem& problem, const Reduced& reduced, DType dtype,
                                         std::unique_ptr<ConvKernel> inner) {
    return std::make_unique<ReducedKernel>(problem, reduced, dtype, std::move(inner));
}

}  // namespace fastconv
