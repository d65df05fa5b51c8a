#include "plan/relayout.hpp"

#include <algorithm>

#include "algorithms/activations.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kNarrow = 16;            // pixels along the last axis: fewer do not fill a vector
constexpr int64_t kFewOutputs = 4;         // output channels that leave vectors of channels nearly empty
constexpr int64_t kTogether = 1 << 18;     // bytes of the images copied at a time
constexpr double kMoveSeconds = 0.45e-9;   // for a number that is copied
constexpr double kPieceSeconds = 25e-9;    // for each matrix that is turned over
constexpr double kWeightSeconds = 0.1e-9;  // for a weight

// Positions along some axes, with what lies from one to the next where they are read and where they are written.
struct Walk {
    struct Axis {
        int64_t size, from, to;
    };
    std::vector<Axis> axes;
    int64_t from = 0, to = 0;  // where the first is

    void add(int64_t size, int64_t from_step, int64_t to_step) {
        if (size != 1) axes.push_back({size, from_step, to_step});
    }
    int64_t count() const {
        int64_t n = 1;
        for (const Axis& axis : axes) n *= axis.size;
        return n;
    }
    bool stays() const {
        return from == to &&
               std::all_of(axes.begin(), axes.end(), [](const Axis& axis) { return axis.from == axis.to; });
    }
    Walk back() const {
        Walk w{axes, to, from};
        for (Axis& axis : w.axes) std::swap(axis.from, axis.to);
        return w;
    }
    // The two axes that are moved as one matrix come first: the one that is read along, and the one that is written along.
    // Neighbours in both memories become one axis.
    Walk merged() const {
        Walk w = *this;
        std::sort(w.axes.begin(), w.axes.end(), [](const Axis& a, const Axis& b) { return a.to > b.to; });
        for (size_t i = 1; i < w.axes.size();) {
            Axis &outer = w.axes[i - 1], &inner = w.axes[i];
            if (outer.from == inner.from * inner.size && outer.to == inner.to * inner.size) {
                inner.size *= outer.size;
                w.axes.erase(w.axes.begin() + static_cast<int64_t>(i) - 1);
            } else {
                i++;
            }
        }
        while (w.axes.size() < 2) w.axes.push_back({1, 1, 1});
        const auto read = std::min_element(w.axes.begin(), w.axes.end(), [](const Axis& a, const Axis& b) {
            return std::abs(a.from) < std::abs(b.from);
        });
        std::iter_swap(w.axes.begin(), read);
        const auto written = std::min_element(w.axes.begin() + 1, w.axes.end(),
                                              [](const Axis& a, const Axis& b) { return a.to < b.to; });
        std::iter_swap(w.axes.begin() + 1, written);
        return w;
    }
    double seconds() const {
        if (stays()) return 0;
        const Walk w = merged();
        const int64_t all = count();
        return static_cast<double>(all) * kMoveSeconds +
               static_cast<double>(all) / static_cast<double>(w.axes[0].size * w.axes[1].size) *
                   kPieceSeconds;
    }
};

// Moves what a merged walk goes through.
template <class T>
void move(const Walk& w, const T* from, T* to) {
    const GradientLoops<T>& loops = gradient_loops<T>();
    const Walk::Axis &read = w.axes[0], &other = w.axes[1];
    from += w.from;
    to += w.to;
    int64_t outer = 1;
    for (size_t i = 2; i < w.axes.size(); i++) outer *= w.axes[i].size;
    for (int64_t at = 0; at < outer; at++) {
        const T* source = from;
        T* target = to;
        int64_t rest = at;
        for (size_t i = 2; i < w.axes.size(); i++) {
            source += rest % w.axes[i].size * w.axes[i].from;
            target += rest % w.axes[i].size * w.axes[i].to;
            rest /= w.axes[i].size;
        }
        if (read.from == 1 && read.to == 1) {
            loops.copy(source, other.from, other.size, read.size, target, other.to, read.size);
        } else if (read.from == 1 && other.to == 1) {
            loops.transpose(source, other.from, other.size, read.size, target, read.to);
        } else {
            for (int64_t i = 0; i < other.size; i++)
                for (int64_t j = 0; j < read.size; j++)
                    target[i * other.to + j * read.to] = source[i * other.from + j * read.from];
        }
    }
}

// The steps of channels and axes in memory, axes in the order given: `order` says which stands where.
struct Steps {
    int64_t channel, axis[3];

    Steps(bool channels_last, int64_t channels, const int64_t (&sizes)[3], const int (&order)[3]) {
        int64_t step = channels_last ? channels : 1;
        for (int place = 2; place >= 0; place--) {
            axis[order[place]] = step;
            step *= sizes[order[place]];
        }
        channel = channels_last ? 1 : step;
    }
};

constexpr int kGiven[3] = {0, 1, 2};

// From x as given to x as it is computed with.
Walk input_walk(const ConvProblem& p, const Relayout& r) {
    const Steps from(p.channels_last, p.in_channels, p.in_size, kGiven),
        to(r.problem.channels_last, p.in_channels, p.in_size, r.order);
    Walk w;
    w.add(p.in_channels, from.channel, to.channel);
    for (int a = 0; a < 3; a++) w.add(p.in_size[a], from.axis[a], to.axis[a]);
    return w;
}

// From the outputs as they are computed to those that were asked for.
Walk output_walk(const ConvProblem& p, const Relayout& r) {
    int64_t kept[3];  // outputs along each axis that are computed
    for (int a = 0; a < 3; a++) kept[a] = r.ways[a] > 0 ? r.ways[a] : p.out_size[a];
    const Steps from(r.problem.channels_last, p.out_channels, kept, r.order),
        to(p.channels_last, p.out_channels, p.out_size, kGiven);
    Walk w;
    w.add(p.out_channels, from.channel, to.channel);
    for (int a = 0; a < 3; a++) {
        const bool ways = r.ways[a] > 0;
        w.add(kept[a], from.axis[a], to.axis[a] * (ways ? r.step[a] : 1));
        w.to += ways ? r.first[a] * to.axis[a] : 0;
    }
    return w;
}

// From the weights as given to those that are computed with. The first way of an axis meets its last tap.
Walk weight_walk(const ConvProblem& p, const Relayout& r) {
    const bool last = p.channels_last, to_last = r.problem.channels_last;
    const int64_t inner = p.group_in(), outer = p.out_channels;
    // Both [output channel][input channel][taps] or [taps][input channel][output channel]; ways stand beside the output channel.
    int64_t from = last ? inner * outer : 1, ways = 1, left[3], from_axis[3], to_axis[3];
    for (int a = 2; a >= 0; a--) {
        from_axis[a] = from;
        from *= p.kernel[a];
        left[a] = r.ways[a] > 0 ? 1 : p.kernel[a];
        ways *= std::max<int64_t>(1, r.ways[a]);
    }
    int64_t to = to_last ? inner * outer * ways : 1,
            way = to_last ? outer : inner * left[0] * left[1] * left[2];
    for (int place = 2; place >= 0; place--) {
        const int a = r.order[place];
        if (r.ways[a] > 0) {
            to_axis[a] = way;
            way *= r.ways[a];
        } else {
            to_axis[a] = to;
            to *= p.kernel[a];
        }
    }
    Walk w;
    w.add(outer, last ? 1 : inner * p.taps(), to_last ? 1 : way);
    w.add(inner, last ? outer : p.taps(), to_last ? outer * ways : left[0] * left[1] * left[2]);
    for (int a = 0; a < 3; a++) {
        const bool turned = r.ways[a] > 0;
        w.add(p.kernel[a], turned ? -from_axis[a] : from_axis[a], to_axis[a]);
        w.from += turned ? (p.kernel[a] - 1) * from_axis[a] : 0;
    }
    return w;
}

class RelaidKernel final : public ConvKernel {
  public:
    RelaidKernel(const ConvProblem& problem, const Relayout& relayout, DType dtype,
                 std::unique_ptr<ConvKernel> inner)
        : p_(problem),
          r_(relayout),
          dtype_(dtype),
          element_(dtype == DType::f32 ? 4 : 8),
          inner_(std::move(inner)),
          input_(input_walk(p_, r_).merged()),
          output_(output_walk(p_, r_).merged()),
          weight_(weight_walk(p_, r_).merged()) {}

    size_t packed_bytes() const override {
        const size_t inner = inner_->packed_bytes();
        return inner > 0 ? inner : weight_bytes();
    }
    void pack(const void* weight, void* packed) const override {
        if (dtype_ == DType::f32)
            pack_as(static_cast<const float*>(weight), packed);
        else
            pack_as(static_cast<const double*>(weight), packed);
    }
    // Weights that are turned over number by number are dearer than a fingerprint.
    bool keeps_packed() const override { return weight_bytes() >= 8192 || inner_->keeps_packed(); }

    size_t scratch_bytes() const override {
        return inner_->scratch_bytes() + own_bytes(SIZE_MAX) + packed_bytes();
    }
    size_t scratch_within(size_t budget) const override {
        return own_bytes(budget) + inner_->scratch_within(left_of(budget));
    }
    // Within a limit the images are copied by the caller alone, and all threads share the rest.
    size_t workspace_bytes() const override {
        if (workspace_limit() == SIZE_MAX) return ConvKernel::workspace_bytes();
        return own_bytes(workspace_limit()) + kScratchRounding + inner_->workspace_bytes();
    }
    void limit_workspace(size_t bytes) override {
        ConvKernel::limit_workspace(bytes);
        inner_->limit_workspace(left_of(bytes));
    }

    void run(const ConvArgs& args) const override {
        if (dtype_ == DType::f32)
            run_as<float>(args);
        else
            run_as<double>(args);
    }

  private:
    size_t weight_bytes() const { return static_cast<size_t>(r_.problem.weights()) * element_; }
    // A second copy of the outputs holds what is added to them, where something is.
    size_t image_bytes(bool adds) const {
        const int64_t x = p_.in_channels * p_.in_pixels(),
                      out = r_.problem.out_channels * r_.problem.out_pixels(),
                      copies = adds && !r_.gaps ? 2 : 1;
        return static_cast<size_t>((r_.copies_x ? x : 0) + (r_.copies_out ? copies * out : 0)) * element_;
    }
    int64_t together(size_t budget, bool adds) const {
        const size_t bytes = std::max<size_t>(1, image_bytes(adds));
        return static_cast<int64_t>(std::max<size_t>(1, std::min<size_t>(budget / 2, kTogether) / bytes));
    }
    // What the copies leave.
    size_t left_of(size_t budget) const {
        const size_t own = own_bytes(budget) + kScratchRounding;
        return budget == SIZE_MAX ? budget : budget - std::min(budget, own);
    }
    // Of the images that are copied at a time, and a bias; a plan does not know whether something will be added.
    size_t own_bytes(size_t budget) const {
        const auto images = [&](bool adds) {
            return static_cast<size_t>(together(budget, adds)) * image_bytes(adds);
        };
        return std::max(images(false), images(true)) +
               static_cast<size_t>(r_.problem.out_channels) * element_ + 4 * kScratchAlignment;
    }

    template <class T>
    void pack_as(const T* weight, void* packed) const {
        ScratchFrame frame;
        const bool packs = inner_->packed_bytes() > 0;
        T* const turned = packs ? frame.take<T>(r_.problem.weights()) : static_cast<T*>(packed);
        move(weight_, weight, turned);
        if (packs) inner_->pack(turned, packed);
    }

    template <class T>
    void run_as(const ConvArgs& args) const {
        ScratchFrame frame;
        ConvArgs a = args;
        if (args.packed == nullptr) {
            T* const turned = frame.take<T>(r_.problem.weights());
            parallel_for(1, [&](int64_t) { move(weight_, static_cast<const T*>(args.weight), turned); });
            a.weight = turned;
        } else if (inner_->packed_bytes() == 0) {
            a.weight = args.packed;
            a.packed = nullptr;
        }
        const int64_t channels = r_.problem.out_channels;
        if (args.bias != nullptr && channels > p_.out_channels) {
            T* const bias = frame.take<T>(channels);
            const int64_t ways = channels / p_.out_channels;
            parallel_for(1, [&](int64_t) {
                for (int64_t i = 0; i < channels; i++)
                    bias[i] = static_cast<const T*>(
                        args.bias)[r_.problem.channels_last ? i % p_.out_channels : i / ways];
            });
            a.bias = bias;
        }
        // Each thread takes some images, or all of them share each; so too where scratch is limited.
        const int64_t threads = num_threads(), most = together(workspace_limit(), args.add != nullptr);
        const bool apart = threads > 1 && args.batch >= threads && workspace_limit() == SIZE_MAX;
        const int64_t each = apart ? std::clamp<int64_t>(args.batch / (4 * threads), 1, most) : most;
        const auto some = [&](int64_t task) {
            run_images<T>(args, a, task * each, std::min(each, args.batch - task * each));
        };
        const int64_t tasks = ceil_div(args.batch, each);
        if (apart)
            return parallel_for(tasks, some, 0,
                                least_seconds<T>(p_.flops() * static_cast<double>(args.batch)));
        for (int64_t task = 0; task < tasks; task++) some(task);
    }

    template <class T>
    void move_images(const Walk& walk, int64_t images, const T* from, int64_t from_image, T* to,
                     int64_t to_image) const {
        parallel_for(
            images, [&](int64_t i) { move(walk, from + i * from_image, to + i * to_image); }, 0,
            kMoveSeconds * static_cast<double>(images * from_image));
    }

    template <class T>
    void run_images(const ConvArgs& args, ConvArgs a, int64_t first, int64_t images) const {
        const int64_t x = p_.in_channels * p_.in_pixels(), out = p_.out_channels * p_.out_pixels(),
                      computed = r_.problem.out_channels * r_.problem.out_pixels();
        ScratchFrame frame;
        const T* const from = static_cast<const T*>(args.x) + first * x;
        T* const to = static_cast<T*>(args.out) + first * out;
        const T* const add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + first * out;
        a.batch = images;
        a.x = from;
        a.out = to;
        a.add = add;
        if (r_.copies_x) {
            T* const turned = frame.take<T>(images * x);
            move_images(input_, images, from, x, turned, x);
            a.x = turned;
        }
        if (!r_.copies_out) return inner_->run(a);
        T* const sums = frame.take<T>(images * computed);
        a.out = sums;
        if (r_.gaps) {
            a.add = nullptr;
            a.activation = Activation::none;
        } else if (add != nullptr) {
            T* const turned = frame.take<T>(images * computed);
            const Walk back = output_.back().merged();
            move_images(back, images, add, out, turned, computed);
            a.add = turned;
        }
        inner_->run(a);
        if (!r_.gaps) return move_images<T>(output_, images, sums, computed, to, out);
        parallel_for(images, [&](int64_t i) {
            T* const image = to + i * out;
            fill_bias(static_cast<const T*>(args.bias), image);
            move<T>(output_, sums + i * computed, image);
            for (int64_t j = 0; add != nullptr && j < out; j++) image[j] += add[i * out + j];
            if (args.activation != Activation::none) rows_of<T>().activate(args.activation, image, 1, 0, out);
        });
    }

    template <class T>
    void fill_bias(const T* bias, T* to) const {
        const int64_t pixels = p_.out_pixels(), channels = p_.out_channels;
        if (bias == nullptr) {
            std::fill_n(to, channels * pixels, T(0));
        } else if (p_.channels_last) {
            for (int64_t i = 0; i < pixels; i++) std::copy_n(bias, channels, to + i * channels);
        } else {
            for (int64_t k = 0; k < channels; k++) std::fill_n(to + k * pixels, pixels, bias[k]);
        }
    }

    ConvProblem p_;
    Relayout r_;
    DType dtype_;
    size_t element_;
    std::unique_ptr<ConvKernel> inner_;
    Walk input_, output_, weight_;
};

// An axis of one pixel that has an output for each of several taps.
bool is_single(const ConvProblem& p, int a) {
    return p.in_size[a] == 1 && p.out_size[a] > 1 && p.stride[a] == 1 && p.kernel[a] > 1 &&
           p.mode == PadMode::constant && p.pad_lo[a] >= (p.kernel[a] - 1) * p.dilation[a] &&
           p.pad_lo[a] < p.out_size[a];
}

Relayout relaid(const ConvProblem& p, bool channels_last) {
    Relayout r{p, {0, 1, 2}, {0, 0, 0}, {0, 0, 0}, {1, 1, 1}, false, false, false, 0};
    const bool singles = !channels_last || p.groups == 1;
    int64_t ways = 1;
    std::vector<int> moved, rest;
    for (int a = 0; a < 3; a++) {
        if (!singles || !is_single(p, a)) {
            rest.push_back(a);
            continue;
        }
        moved.push_back(a);
        r.ways[a] = p.kernel[a];
        r.step[a] = p.dilation[a];
        r.first[a] = p.pad_lo[a] - (p.kernel[a] - 1) * p.dilation[a];
        r.gaps = r.gaps || r.ways[a] < p.out_size[a];
        ways *= r.ways[a];
    }
    if (!rest.empty()) {
        int longest = rest.back();
        for (const int a : rest)
            if (2 * p.out_size[a] >= 3 * p.out_size[longest]) longest = a;
        if (p.out_size[rest.back()] < kNarrow)
            std::iter_swap(std::find(rest.begin(), rest.end(), longest), rest.end() - 1);
    }
    rest.insert(channels_last ? rest.end() : rest.begin(), moved.begin(), moved.end());
    ConvProblem& q = r.problem;
    q.channels_last = channels_last;
    q.out_channels = p.out_channels * ways;
    for (int place = 0; place < 3; place++) {
        const int a = r.order[place] = rest[static_cast<size_t>(place)];
        const bool way = r.ways[a] > 0;
        q.in_size[place] = p.in_size[a];
        q.out_size[place] = way ? 1 : p.out_size[a];
        q.kernel[place] = way ? 1 : p.kernel[a];
        q.stride[place] = p.stride[a];
        q.dilation[place] = way ? 1 : p.dilation[a];
        q.pad_lo[place] = way ? 0 : p.pad_lo[a];
        q.pad_hi[place] = way ? 0 : p.pad_hi[a];
    }
    const Walk input = input_walk(p, r), output = output_walk(p, r);
    r.copies_x = !input.stays();
    r.copies_out = !output.stays() || r.gaps;
    r.seconds = (r.copies_x ? input.seconds() : 0) + (r.copies_out ? output.seconds() : 0) +
                kWeightSeconds * static_cast<double>(p.weights());
    return r;
}

}  // namespace

std::vector<Relayout> relayouts(const ConvProblem& p, DType dtype) {
    std::vector<Relayout> found;
    if (p.whole_out != 0 || p.placed || p.in_channels == 0 || p.out_channels == 0 || p.in_pixels() == 0)
        return found;
    const int64_t width = p.out_size[2],
                  lanes = dtype == DType::f32 ? micro<float>().lanes : micro<double>().lanes;
    const bool narrow = width < kNarrow && 2 * std::max(p.out_size[0], p.out_size[1]) >= 3 * width;
    const bool single = is_single(p, 0) || is_single(p, 1) || is_single(p, 2);
    const bool depthwise = p.group_in() == 1 && p.group_out() == 1;
    const bool few = !p.channels_last ? p.groups > 1 && width < kNarrow
                     : p.groups == 1  ? p.out_channels <= kFewOutputs
                     : depthwise      ? p.out_channels < lanes
                                      : 2 * p.group_out() <= lanes;
    if (!narrow && !single && !few) return found;
    for (const bool last : {false, true}) {
        Relayout r = relaid(p, last);
        const bool same = !r.copies_x && !r.copies_out && r.problem.out_channels == p.out_channels;
        if (!same) found.push_back(r);
    }
    return found;
}

std::unique_ptr<ConvKernel> make_relaid(const ConvProblem& problem, const Relayout& relayout, DType dtype,
                                        std::unique_ptr<ConvKernel> inner) {
    return std::make_unique<RelaidKernel>(problem, relayout, dtype, std::move(inner));
}

}  // namespace fastconv
