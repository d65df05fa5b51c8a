#include "plan/backward_data.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "algorithms/activations.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
#include "plan/candidates.hpp"
#include "plan/weight_cache.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr size_t kPhaseBytes = 1u << 20;  // of the phases' outputs at a time: 4 MB is a sixth slower
// Smaller weights are rotated and packed at every call: that is quicker than to look them up.
constexpr size_t kKeptFrom = 4u << 10;
constexpr int64_t kTaskElements = 16384;  // moved by one task

size_t bytes_of(int64_t count, DType dtype) {
    return static_cast<size_t>(count) * (dtype == DType::f32 ? 4 : 8);
}

}  // namespace

BackwardData::PhaseAxis BackwardData::axis_of(int a, int64_t start) const {
    const ConvProblem& p = problem_;
    const int64_t s = p.stride[a], d = p.dilation[a], common = std::gcd(s, d);
    PhaseAxis axis{
        start, start < p.in_size[a] ? ceil_div(p.in_size[a] - start, s) : 0, 0, s / common, 0, d / common, 0};
    const int64_t at = start + p.pad_lo[a];
    while (axis.first < p.kernel[a] && (at - d * axis.first) % s != 0) axis.first++;
    if (axis.first < p.kernel[a]) axis.taps = (p.kernel[a] - 1 - axis.first) / axis.step + 1;
    const int64_t last = axis.first + (axis.taps - 1) * axis.step;
    axis.pad_lo = (d * last - at) / s;
    return axis;
}

BackwardData::BackwardData(const ConvProblem& given, DType dtype)
    : given_(given),
      reduced_(reduce(given, Reduction::plain)),
      problem_(reduced_.problem),
      dtype_(dtype),
      serial_(next_serial()) {
    const ConvProblem& p = problem_;
    const auto same_pixels = [&](const PhaseAxis& a, const PhaseAxis& b) {
        return a.size == b.size && a.taps == b.taps && a.taps > 0 && a.pad_lo == b.pad_lo;
    };
    for (int64_t i = 0; i < p.stride[0]; i++) {
        for (int64_t j = 0; j < p.stride[1]; j++) {
            for (int64_t k = 0, ways; k < p.stride[2]; k += ways) {
                const PhaseAxis along = axis_of(2, k);
                ways = 1;
                while (p.groups == 1 && k + ways < p.stride[2] && same_pixels(along, axis_of(2, k + ways)))
                    ways++;
                for (int64_t w = 0; w < ways; w++) ways_.push_back({phases_.size(), w});
                add_phase(axis_of(0, i), axis_of(1, j), along, ways);
            }
        }
    }
}

void BackwardData::add_phase(const PhaseAxis& depth, const PhaseAxis& down, const PhaseAxis& along,
                             int64_t ways) {
    const ConvProblem& p = problem_;
    Phase phase{{depth, down, along}, {}, p, nullptr, nullptr, false, 0};
    for (int64_t w = 0; w < ways; w++) phase.first.push_back(axis_of(2, along.start + w).first);
    ConvProblem& q = phase.problem;
    q.in_channels = p.out_channels;
    q.out_channels = p.in_channels * ways;
    q.placed = p.channels_last && p.stride[0] * p.stride[1] * p.stride[2] > 1;
    bool reached = phase.pixels() > 0;
    for (int a = 0; a < 3; a++) {
        const PhaseAxis& axis = phase.axis[a];
        q.in_size[a] = p.out_size[a];
        q.out_size[a] = axis.size;
        q.kernel[a] = axis.taps;
        q.stride[a] = 1;
        q.dilation[a] = axis.taps > 1 ? axis.dilation : 1;
        q.pad_lo[a] = axis.pad_lo;
        q.pad_hi[a] = axis.size - 1 + (axis.taps - 1) * axis.dilation - axis.pad_lo - (p.out_size[a] - 1);
        reached = reached && axis.taps > 0;
    }
    if (reached) {
        phase.algorithm = &choose_conv_algorithm(q, dtype_);
        phase.kernel = phase.algorithm->make(q, dtype_);
        const size_t bytes = phase.kernel->packed_bytes();
        phase.packs = bytes > 0;
        phase.at = packed_bytes_;
        packed_bytes_ += (phase.packs ? bytes : bytes_of(q.weights(), dtype_)) + 63;
        packed_bytes_ = packed_bytes_ / 64 * 64;
    }
    phases_.push_back(std::move(phase));
}

std::string BackwardData::describe() const {
    std::string text;
    for (const Phase& phase : phases_) {
        if (phase.pixels() == 0) continue;
        std::string at, taps;
        for (int a = 0; a < 3; a++) {
            const PhaseAxis& axis = phase.axis[a];
            at += (a > 0 ? ", " : "") + std::to_string(axis.start);
            if (a == 2 && phase.ways() > 1) at += ".." + std::to_string(axis.start + phase.ways() - 1);
            at += "::" + std::to_string(problem_.stride[a]);
            taps += (a > 0 ? "x" : "") + std::to_string(axis.taps);
        }
        text += "  pixels [" + at +
                "]: " + (phase.kernel == nullptr ? "no taps" : taps + " taps, " + phase.algorithm->name) +
                "\n";
    }
    return text;
}

Placement BackwardData::placement() const {
    const ConvProblem& p = problem_;
    const int64_t pixel = p.in_channels, row = p.in_size[2] * pixel, plane = p.in_size[1] * row;
    return {p.in_size[0] * plane, p.stride[0] * plane, p.stride[1] * row, p.stride[2] * pixel};
}

int64_t BackwardData::corner(const Phase& phase) const {
    const ConvProblem& p = problem_;
    return ((phase.axis[0].start * p.in_size[1] + phase.axis[1].start) * p.in_size[2] + phase.axis[2].start) *
           p.in_channels;
}

// The weight of a phase in the problem's layout: its taps in reverse, input and output channels of a group
// exchanged, way after way (more than one only without groups).
template <class T>
void BackwardData::rotate(const Phase& phase, const T* weight, T* rotated) const {
    const ConvProblem &p = problem_, &q = phase.problem;
    const int64_t channels = p.group_in(), outputs = p.group_out(), taps = p.taps(), kept = q.taps(),
                  ways = phase.ways();
    std::vector<int64_t> tap(kept * ways);  // way after way
    for (int64_t i = 0; i < kept * ways; i++) {
        const int64_t j = i % kept;
        const int64_t at[3] = {j / q.kernel[2] / q.kernel[1], j / q.kernel[2] % q.kernel[1], j % q.kernel[2]};
        for (int a = 0; a < 3; a++) {
            const PhaseAxis& axis = phase.axis[a];
            const int64_t first = a == 2 ? phase.first[i / kept] : axis.first;
            tap[i] = tap[i] * p.kernel[a] + first + (axis.taps - 1 - at[a]) * axis.step;
        }
    }
    const double seconds = static_cast<double>(q.weights()) * 1e-9;
    if (p.channels_last && channels == 1 && outputs == 1 && ways == 1) {  // depthwise: nothing is exchanged
        for (int64_t j = 0; j < kept; j++)
            std::copy_n(weight + tap[j] * p.out_channels, p.out_channels, rotated + j * p.out_channels);
        return;
    }
    if (p.channels_last) {
        const auto turn = [&](int64_t task) {
            const int64_t i = task / p.groups, g = task % p.groups;
            gradient_loops<T>().transpose(
                weight + tap[i] * channels * p.out_channels + g * outputs, p.out_channels, channels, outputs,
                rotated + i % kept * outputs * q.out_channels + i / kept * p.in_channels + g * channels,
                q.out_channels);
        };
        parallel_for(kept * ways * p.groups, turn, 0, seconds);
        return;
    }
    constexpr int64_t kBlock = 16;  // channels whose weights are read together, since they share cache lines
    const int64_t blocks = ceil_div(channels, kBlock);
    const auto turn = [&](int64_t task) {
        const int64_t way = task / blocks / p.groups, g = task / blocks % p.groups,
                      c0 = task % blocks * kBlock, c1 = std::min(channels, c0 + kBlock);
        const int64_t* const source = tap.data() + way * kept;
        for (int64_t k = 0; k < outputs; k++) {
            const T* from = weight + ((g * outputs + k) * channels + c0) * taps;
            for (int64_t c = c0; c < c1; c++, from += taps) {
                T* to = rotated + (((way * p.groups + g) * channels + c) * outputs + k) * kept;
                for (int64_t j = 0; j < kept; j++) to[j] = from[source[j]];
            }
        }
    };
    parallel_for(ways * p.groups * blocks, turn, 0, seconds);
}

template <class T>
void BackwardData::pack_as(const T* weight, char* packed) const {
    for (const Phase& phase : phases_) {
        if (phase.kernel == nullptr) continue;
        void* const to = packed + phase.at;
        ScratchFrame frame;
        T* const rotated = phase.packs ? frame.take<T>(phase.problem.weights()) : static_cast<T*>(to);
        rotate(phase, weight, rotated);
        if (phase.packs) phase.kernel->pack(rotated, to);
    }
}

void BackwardData::pack(const void* weight, void* packed) const {
    ScratchFrame frame;
    if (reduced_.trimmed) {
        void* const kept = frame.take_bytes(bytes_of(problem_.weights(), dtype_));
        gather_taps(given_, reduced_, dtype_, weight, kept);
        weight = kept;
    }
    if (dtype_ == DType::f32)
        pack_as(static_cast<const float*>(weight), static_cast<char*>(packed));
    else
        pack_as(static_cast<const double*>(weight), static_cast<char*>(packed));
}

// Channels last: the pixels of a phase, from where they stand `from_pixel` apart (0: all of them are alike).
template <class T>
void BackwardData::put(const Phase& phase, int64_t images, const T* from, int64_t from_pixel, T* dx) const {
    const Placement place = placement();
    const int64_t width = phase.axis[2].size, height = phase.axis[1].size, depth = phase.axis[0].size;
    const int64_t channels = phase.ways() * problem_.in_channels, lines = images * depth * height;
    const int64_t together = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, width * channels));
    parallel_for(ceil_div(lines, together), [&](int64_t task) {
        for (int64_t line = task * together; line < std::min(lines, (task + 1) * together); line++) {
            T* to = dx + corner(phase) + line / height / depth * place.image +
                    line / height % depth * place.plane + line % height * place.row;
            const T* pixel = from + line * width * from_pixel;
            for (int64_t i = 0; i < width; i++, to += place.pixel, pixel += from_pixel)
                std::memcpy(to, pixel, static_cast<size_t>(channels) * sizeof(T));
        }
    });
}

// Channels first: dx of some images from the outputs of every way; null stands for the blank value of each channel.
template <class T>
void BackwardData::interleave(int64_t images, const T* const* parts, const T* blank, T* dx) const {
    const ConvProblem& p = problem_;
    const int64_t width = p.in_size[2], height = p.in_size[1], depth = p.in_size[0], ways = p.stride[2];
    const int64_t channels = p.in_channels, down = p.stride[1];
    // One unit is the rows of one phase in one plane.
    const int64_t units = images * channels * depth * down;
    const int64_t together = std::max<int64_t>(1, kTaskElements * down / (width * height));
    const auto some = [&](int64_t task) {
        ScratchFrame frame;
        const T** const from = frame.take<const T*>(ways);
        int64_t* const from_row = frame.take<int64_t>(ways);
        for (int64_t unit = task * together; unit < std::min(units, (task + 1) * together); unit++) {
            const int64_t h = unit % down, d = unit / down % depth, plane = unit / down / depth;
            const int64_t image = plane / channels, channel = plane % channels;
            for (int64_t w = 0; w < ways; w++) {
                const Way& way = ways_[(d % p.stride[0] * down + h) * ways + w];
                const Phase& phase = phases_[way.phase];
                const PhaseAxis* const axis = phase.axis;
                const int64_t of = (image * phase.ways() + way.index) * channels + channel;
                from_row[w] = axis[2].size;
                from[w] = parts[way.phase];
                if (from[w] != nullptr)
                    from[w] += (of * axis[0].size + d / p.stride[0]) * axis[1].size * axis[2].size;
            }
            gradient_loops<T>().interleave({from, from_row, ways, ceil_div(height - h, down), width,
                                            blank[channel], dx + ((plane * depth + d) * height + h) * width,
                                            down * width});
        }
    };
    parallel_for(ceil_div(units, together), some, 0,
                 static_cast<double>(images * channels * p.in_pixels()) * 0.1e-9);
}

// `bias` is repeated for as many ways as a phase may have; `blank` is what it makes of a sum without terms.
template <class T>
void BackwardData::run_images(const BackwardDataArgs& a, const char* packed, const T* bias, const T* blank,
                              int64_t first, int64_t images) const {
    const ConvProblem& p = problem_;
    const int64_t image = p.in_channels * p.in_pixels();
    T* const dx = static_cast<T*>(a.dx) + first * image;
    const Placement place = placement();
    ScratchFrame frame;
    const T** const parts = frame.take<const T*>(static_cast<int64_t>(phases_.size()));
    for (const Phase& phase : phases_) {
        const auto number = &phase - phases_.data();
        parts[number] = nullptr;
        if (phase.kernel == nullptr) {
            if (p.channels_last && phase.pixels() > 0) put<T>(phase, images, blank, 0, dx);
            continue;
        }
        ConvArgs args{images, static_cast<const T*>(a.dy) + first * p.out_channels * p.out_pixels(), nullptr};
        (phase.packs ? args.packed : args.weight) = packed + phase.at;
        args.bias = bias;
        args.activation = needs_pass(a.activation) ? Activation::none : a.activation;
        args.out = dx;
        if (ways_.size() == 1) {
            args.activation = a.activation;
            phase.kernel->run(args);
            return;
        }
        if (p.channels_last && phase.kernel->places_pixels()) {
            args.place = &place;
            args.out = dx + corner(phase);
            phase.kernel->run(args);
            continue;
        }
        const int64_t size = images * phase.problem.out_channels * phase.pixels();
        if (p.channels_last) {
            ScratchFrame own;
            T* const pixels = own.take<T>(size);
            args.out = pixels;
            phase.kernel->run(args);
            put<T>(phase, images, pixels, phase.problem.out_channels, dx);
            continue;
        }
        T* const planes = frame.take<T>(size);
        args.out = planes;
        phase.kernel->run(args);
        parts[number] = planes;
    }
    if (!p.channels_last) interleave<T>(images, parts, blank, dx);
    if (needs_pass(a.activation)) {
        ConvProblem written = p;
        written.out_channels = p.in_channels;
        std::copy_n(p.in_size, 3, written.out_size);
        ConvArgs args{images, nullptr, nullptr};
        args.out = dx;
        args.activation = a.activation;
        activate_output<T>(written, args);
    }
}

template <class T>
void BackwardData::run_as(const BackwardDataArgs& a, const char* packed) const {
    const ConvProblem& p = problem_;
    const int64_t channels = p.in_channels;
    ScratchFrame frame;
    T* const blank = frame.take<T>(channels * p.stride[2]);
    const T* bias = static_cast<const T*>(a.bias);
    const Clamp clamp = clamp_of(a.activation);
    if (ways_.size() > 1) {
        T* const repeated = frame.take<T>(channels * p.stride[2]);
        for (int64_t i = 0; i < channels * p.stride[2]; i++) {
            repeated[i] = blank[i] = bias == nullptr ? T(0) : bias[i % channels];
            if (clamp != Clamp::none && blank[i] < 0) blank[i] = 0;
            if (clamp == Clamp::relu6 && blank[i] > 6) blank[i] = 6;
        }
        if (bias != nullptr) bias = repeated;
    }
    const int64_t bytes = std::max<int64_t>(1, channels * p.in_pixels() * static_cast<int64_t>(sizeof(T)));
    const int64_t together = std::clamp<int64_t>(static_cast<int64_t>(kPhaseBytes) / bytes, 1, a.batch);
    // Where nothing waits in scratch and the weights of the phases would take each other's place in L2, every phase goes
    // over all images. With small weights that is slower: 3x3 depthwise, 144 channels at 56x56, 1.1 and 1.4 ms.
    const auto in_place = [](const Phase& phase) {
        return phase.kernel == nullptr || phase.kernel->places_pixels();
    };
    const bool lone = ways_.size() == 1 && phases_[0].kernel != nullptr, heavy = packed_bytes_ > kPhaseBytes;
    if (lone || (p.channels_last && heavy && std::all_of(phases_.begin(), phases_.end(), in_place)))
        return run_images<T>(a, packed, bias, blank, 0, a.batch);
    int64_t first = 0;
    if (const int64_t threads = num_threads(); threads > 1 && a.batch >= threads) {
        const int64_t whole = a.batch / threads * threads,
                      each = std::clamp<int64_t>(whole / (4 * threads), 1, together);
        parallel_for(
            ceil_div(whole, each),
            [&](int64_t task) {
                run_images<T>(a, packed, bias, blank, task * each, std::min(each, whole - task * each));
            },
            0, least_seconds<T>(p.flops() * static_cast<double>(whole)));
        first = whole;
    }
    for (; first < a.batch; first += together)
        run_images<T>(a, packed, bias, blank, first, std::min(together, a.batch - first));
}

void BackwardData::run_packed(const BackwardDataArgs& args, const void* packed) const {
    if (args.batch == 0 || problem_.in_channels == 0) return;
    BackwardDataArgs a = args;
    a.batch *= reduced_.images;
    if (dtype_ == DType::f32)
        run_as<float>(a, static_cast<const char*>(packed));
    else
        run_as<double>(a, static_cast<const char*>(packed));
}

void BackwardData::run(const BackwardDataArgs& args, const void* weight) const {
    if (args.batch == 0 || problem_.in_channels == 0) return;
    const size_t bytes = bytes_of(given_.weights(), dtype_);
    if (bytes >= kKeptFrom) {
        const auto packed =
            packed_weights(serial_, packed_bytes_, [&](void* to) { pack(weight, to); }, weight, bytes);
        return run_packed(args, packed.get());
    }
    ScratchFrame frame;
    void* const packed = frame.take_bytes(packed_bytes_);
    pack(weight, packed);
    run_packed(args, packed);
}

}  // namespace fastconv
