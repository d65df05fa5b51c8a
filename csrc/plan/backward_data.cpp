#include "plan/backward_data.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "algorithms/activations.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
#include "algorithms/stream.hpp"
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
// What is counted too much of a phase of all ways: seen over predicted time 0.75 to 1.06 channels first, 0.78 to 1.12 last, of
// what it is for phases by rows (4x4 with stride 2, 3 to 256 channels, 8x8 to 70x70).
constexpr double kJoined = 0.92;
// Channels last, the outputs of such a phase wait in scratch: of an image, at most so many bytes.
constexpr size_t kJoinedBytes = 4u << 20;
constexpr double kPutSeconds = 0.15e-9;  // for an element that waits in scratch, channels last

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
    places_.resize(static_cast<size_t>(p.stride[0] * p.stride[1] * p.stride[2]));
    for (int64_t i = 0; i < p.stride[0]; i++) {
        std::vector<Phase> apart = phases_of(axis_of(0, i)), joined = joined_of(axis_of(0, i));
        const bool join = !joined.empty() && kJoined * predict(joined) < predict(apart);
        for (Phase& phase : join ? joined : apart) add(std::move(phase));
    }
}

BackwardData::Phase BackwardData::phase_of(const PhaseAxis& depth, const PhaseAxis& down,
                                           const PhaseAxis& along, std::vector<Way> ways, bool joined) const {
    const ConvProblem& p = problem_;
    Phase phase{{depth, down, along}, std::move(ways), joined, p, nullptr, nullptr, false, 0};
    ConvProblem& q = phase.problem;
    q.in_channels = p.out_channels;
    q.out_channels = p.in_channels * phase.count();
    q.placed = p.channels_last && !joined && places_.size() > 1;
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
    if (reached) phase.algorithm = &choose_conv_algorithm(q, dtype_);
    return phase;
}

std::vector<BackwardData::Phase> BackwardData::phases_of(const PhaseAxis& depth) const {
    const ConvProblem& p = problem_;
    const auto same_pixels = [&](const PhaseAxis& a, const PhaseAxis& b) {
        return a.size == b.size && a.taps == b.taps && a.taps > 0 && a.pad_lo == b.pad_lo;
    };
    std::vector<Phase> phases;
    for (int64_t j = 0; j < p.stride[1]; j++) {
        const PhaseAxis down = axis_of(1, j);
        for (int64_t k = 0; k < p.stride[2];) {
            const PhaseAxis along = axis_of(2, k);
            std::vector<Way> ways;
            do {
                ways.push_back({{j, k}, {down.size, along.size}, {down.first, axis_of(2, k).first}, {0, 0}});
                k++;
            } while (p.groups == 1 && k < p.stride[2] && same_pixels(along, axis_of(2, k)));
            phases.push_back(phase_of(depth, down, along, std::move(ways), false));
        }
    }
    return phases;
}

std::vector<BackwardData::Phase> BackwardData::joined_of(const PhaseAxis& depth) const {
    const ConvProblem& p = problem_;
    PhaseAxis axis[2] = {axis_of(1, 0), axis_of(2, 0)};  // in the end: of all ways
    if (p.groups > 1 || depth.taps == 0 || axis[0].taps * axis[1].taps <= 1) return {};
    for (int a = 0; a < 2; a++) {
        for (int64_t i = 0; i < p.stride[a + 1]; i++) {
            const PhaseAxis way = axis_of(a + 1, i);
            if (way.size == 0 || way.taps != axis[a].taps) return {};
            axis[a].pad_lo = std::max(axis[a].pad_lo, way.pad_lo);
        }
    }
    std::vector<Way> ways;
    for (int64_t i = 0; i < p.stride[1] * p.stride[2]; i++) {
        Way way{{i / p.stride[2], i % p.stride[2]}, {}, {}, {}};
        for (int a = 0; a < 2; a++) {
            const PhaseAxis own = axis_of(a + 1, way.start[a]);
            way.size[a] = own.size;
            way.first[a] = own.first;
            way.shift[a] = axis[a].pad_lo - own.pad_lo;
            axis[a].size = std::max(axis[a].size, way.shift[a] + own.size);
        }
        ways.push_back(way);
    }
    const int64_t outputs =
        p.in_channels * static_cast<int64_t>(ways.size()) * depth.size * axis[0].size * axis[1].size;
    std::vector<Phase> phases;
    if (ways.size() == 1 || (p.channels_last && bytes_of(outputs, dtype_) > kJoinedBytes)) return phases;
    phases.push_back(phase_of(depth, axis[0], axis[1], std::move(ways), true));
    return phases;
}

double BackwardData::predict(const std::vector<Phase>& phases) const {
    double seconds = 0;
    for (const Phase& phase : phases) {
        if (phase.algorithm == nullptr) continue;
        seconds += phase.algorithm->predict(phase.problem, dtype_);
        if (phase.joined && problem_.channels_last)
            seconds += kPutSeconds * static_cast<double>(phase.problem.out_channels * phase.pixels());
    }
    return seconds;
}

void BackwardData::add(Phase&& phase) {
    const ConvProblem &p = problem_, &q = phase.problem;
    for (const Way& way : phase.ways) {
        const int64_t at = (phase.axis[0].start * p.stride[1] + way.start[0]) * p.stride[2] + way.start[1];
        places_[static_cast<size_t>(at)] = {phases_.size(), static_cast<size_t>(&way - phase.ways.data())};
    }
    if (phase.algorithm != nullptr) {
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
        const Way &first = phase.ways.front(), &last = phase.ways.back();
        for (int a = 0; a < 3; a++) {
            const PhaseAxis& axis = phase.axis[a];
            at += (a > 0 ? ", " : "") + std::to_string(a == 0 ? axis.start : first.start[a - 1]);
            if (a > 0 && last.start[a - 1] > first.start[a - 1])
                at += ".." + std::to_string(last.start[a - 1]);
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

int64_t BackwardData::corner(const Phase& phase, const Way& way) const {
    const ConvProblem& p = problem_;
    return ((phase.axis[0].start * p.in_size[1] + way.start[0]) * p.in_size[2] + way.start[1]) *
           p.in_channels;
}

// The weight of a phase in the problem's layout: its taps in reverse, input and output channels of a group
// exchanged, way after way (more than one only without groups).
template <class T>
void BackwardData::rotate(const Phase& phase, const T* weight, T* rotated) const {
    const ConvProblem &p = problem_, &q = phase.problem;
    const int64_t channels = p.group_in(), outputs = p.group_out(), taps = p.taps(), kept = q.taps(),
                  ways = phase.count();
    std::vector<int64_t> tap(kept * ways);  // way after way
    for (int64_t i = 0; i < kept * ways; i++) {
        const int64_t j = i % kept;
        const int64_t at[3] = {j / q.kernel[2] / q.kernel[1], j / q.kernel[2] % q.kernel[1], j % q.kernel[2]};
        for (int a = 0; a < 3; a++) {
            const PhaseAxis& axis = phase.axis[a];
            const int64_t first = a == 0 ? axis.first : phase.ways[i / kept].first[a - 1];
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
    // Ways of one row at one place are pixels side by side.
    const size_t ways = phase.joined ? phase.ways.size() : 1;
    const int64_t channels = (phase.joined ? 1 : phase.count()) * problem_.in_channels,
                  lines = images * depth * height;
    const int64_t together =
        std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, width * phase.problem.out_channels));
    parallel_for(ceil_div(lines, together), [&](int64_t task) {
        for (int64_t line = task * together; line < std::min(lines, (task + 1) * together); line++) {
            for (size_t w = 0; w < ways; w++) {
                const Way& way = phase.ways[w];
                const int64_t row = line % height - way.shift[0];
                if (row < 0 || row >= way.size[0]) continue;
                T* const to = dx + corner(phase, way) + line / height / depth * place.image +
                              line / height % depth * place.plane + row * place.row;
                const T* const pixels =
                    from + (line * width + way.shift[1]) * from_pixel + static_cast<int64_t>(w) * channels;
                gradient_loops<T>().copy(pixels, from_pixel, way.size[1], channels, to, place.pixel,
                                         channels);
            }
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
                const Place place = places_[(d % p.stride[0] * down + h) * ways + w];
                const Phase& phase = phases_[place.phase];
                const Way& way = phase.ways[place.way];
                const PhaseAxis* const axis = phase.axis;
                const int64_t of =
                    (image * phase.count() + static_cast<int64_t>(place.way)) * channels + channel;
                from_row[w] = axis[2].size;
                from[w] = parts[place.phase];
                if (from[w] != nullptr)
                    from[w] +=
                        ((of * axis[0].size + d / p.stride[0]) * axis[1].size + way.shift[0]) * axis[2].size +
                        way.shift[1];
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
    const size_t values =
        static_cast<size_t>(p.in_channels * p.in_pixels() + p.out_channels * p.out_pixels());  // of an image
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
        if (places_.size() == 1) {
            args.activation = a.activation;
            phase.kernel->run(args);
            return;
        }
        if (phase.placed()) {
            args.place = &place;
            // The rows of a phase lie apart: 19 MB of 128 > 64 took 7% longer streamed, 50 MB 10% less.
            args.past_caches = past_caches(a.batch * values * sizeof(T) / 2,
                                           phase.problem.group_in() * phase.problem.taps());
            args.out = dx + corner(phase, phase.ways[0]);
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
    const int64_t repeats = p.stride[1] * p.stride[2];
    T* const blank = frame.take<T>(channels * repeats);
    const T* bias = static_cast<const T*>(a.bias);
    const Clamp clamp = clamp_of(a.activation);
    if (places_.size() > 1) {
        T* const repeated = frame.take<T>(channels * repeats);
        for (int64_t i = 0; i < channels * repeats; i++) {
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
    const auto in_place = [](const Phase& phase) { return phase.kernel == nullptr || phase.placed(); };
    const bool lone = places_.size() == 1 && phases_[0].kernel != nullptr,
               heavy = packed_bytes_ > kPhaseBytes;
    if (lone || (heavy && p.channels_last && std::all_of(phases_.begin(), phases_.end(), in_place)))
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
