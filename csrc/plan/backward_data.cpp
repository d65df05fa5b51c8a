#include "plan/backward_data.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "algorithms/gradient_loops_kernels.hpp"
#include "plan/weight_cache.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr size_t kPhaseBytes = 1u << 20;  // of the phases' outputs at a time: 4 MB is a sixth slower
// Smaller weights are rotated and packed at every call: that is quicker than to look them up.
constexpr size_t kKeptFrom = 16u << 10;
constexpr int64_t kTaskElements = 16384;  // moved by one task

size_t bytes_of(int64_t count, DType dtype) {
    return static_cast<size_t>(count) * (dtype == DType::f32 ? 4 : 8);
}

}  // namespace

BackwardData::BackwardData(const ConvProblem& given, DType dtype)
    : given_(given),
      reduced_(reduce(given, Reduction::plain)),
      problem_(reduced_.problem),
      dtype_(dtype),
      serial_(next_serial()) {
    const ConvProblem& p = problem_;
    const auto axis_of = [&](int a, int64_t start) {
        const int64_t s = p.stride[a], d = p.dilation[a], common = std::gcd(s, d);
        PhaseAxis axis{
            start, start < p.in_size[a] ? ceil_div(p.in_size[a] - start, s) : 0, 0, s / common, 0, d / common,
            0};
        const int64_t at = start + p.pad_lo[a];
        while (axis.first < p.kernel[a] && (at - d * axis.first) % s != 0) axis.first++;
        if (axis.first < p.kernel[a]) axis.taps = (p.kernel[a] - 1 - axis.first) / axis.step + 1;
        const int64_t last = axis.first + (axis.taps - 1) * axis.step;
        axis.pad_lo = (d * last - at) / s;
        return axis;
    };
    for (int64_t i = 0; i < p.stride[0]; i++) {
        for (int64_t j = 0; j < p.stride[1]; j++) {
            for (int64_t k = 0; k < p.stride[2]; k++) {
                Phase phase{{axis_of(0, i), axis_of(1, j), axis_of(2, k)}, p, nullptr, false, 0};
                ConvProblem& q = phase.problem;
                std::swap(q.in_channels, q.out_channels);
                bool reached = phase.pixels() > 0;
                for (int a = 0; a < 3; a++) {
                    const PhaseAxis& axis = phase.axis[a];
                    q.in_size[a] = p.out_size[a];
                    q.out_size[a] = axis.size;
                    q.kernel[a] = axis.taps;
                    q.stride[a] = 1;
                    q.dilation[a] = axis.taps > 1 ? axis.dilation : 1;
                    q.pad_lo[a] = axis.pad_lo;
                    q.pad_hi[a] =
                        axis.size - 1 + (axis.taps - 1) * axis.dilation - axis.pad_lo - (p.out_size[a] - 1);
                    reached = reached && axis.taps > 0;
                }
                if (reached) {
                    phase.kernel = choose_conv_algorithm(q, dtype).make(q, dtype);
                    const size_t bytes = phase.kernel->packed_bytes(), item = dtype == DType::f32 ? 4 : 8;
                    phase.packs = bytes > 0;
                    phase.at = packed_bytes_;
                    packed_bytes_ += (phase.packs ? bytes : static_cast<size_t>(q.weights()) * item) + 63;
                    packed_bytes_ = packed_bytes_ / 64 * 64;
                }
                phases_.push_back(std::move(phase));
            }
        }
    }
}

// The weight of a phase in the problem's layout: its taps in reverse, input and output channels of a group
// exchanged.
template <class T>
void BackwardData::rotate(const Phase& phase, const T* weight, T* rotated) const {
    const ConvProblem &p = problem_, &q = phase.problem;
    const int64_t channels = p.group_in(), outputs = p.group_out(), taps = p.taps(), kept = q.taps();
    std::vector<int64_t> tap(kept);
    for (int64_t j = 0; j < kept; j++) {
        const int64_t at[3] = {j / q.kernel[2] / q.kernel[1], j / q.kernel[2] % q.kernel[1], j % q.kernel[2]};
        for (int a = 0; a < 3; a++) {
            const PhaseAxis& axis = phase.axis[a];
            tap[j] = tap[j] * p.kernel[a] + axis.first + (axis.taps - 1 - at[a]) * axis.step;
        }
    }
    if (p.channels_last) {
        parallel_for(kept * p.groups, [&](int64_t task) {
            const int64_t j = task / p.groups, g = task % p.groups;
            gradient_loops<T>().transpose(
                weight + tap[j] * channels * p.out_channels + g * outputs, p.out_channels, channels, outputs,
                rotated + j * outputs * p.in_channels + g * channels, p.in_channels);
        });
        return;
    }
    constexpr int64_t kBlock = 16;  // channels whose weights are read together, since they share cache lines
    const int64_t blocks = ceil_div(channels, kBlock);
    parallel_for(p.groups * blocks, [&](int64_t task) {
        const int64_t g = task / blocks, c0 = task % blocks * kBlock, c1 = std::min(channels, c0 + kBlock);
        for (int64_t k = 0; k < outputs; k++) {
            const T* from = weight + ((g * outputs + k) * channels + c0) * taps;
            for (int64_t c = c0; c < c1; c++, from += taps) {
                T* to = rotated + ((g * channels + c) * outputs + k) * kept;
                for (int64_t j = 0; j < kept; j++) to[j] = from[tap[j]];
            }
        }
    });
}

// Writes dx of some images from the phases' outputs; null stands for zeros.
template <class T>
void BackwardData::interleave(int64_t images, const std::vector<const T*>& parts, T* dx) const {
    const ConvProblem& p = problem_;
    const int64_t width = p.in_size[2], height = p.in_size[1], ways = p.stride[2];
    const int64_t channels = p.in_channels,
                  lines = images * (p.channels_last ? 1 : channels) * p.in_size[0] * height;
    const int64_t line_size = width * (p.channels_last ? channels : 1);
    const int64_t together = std::max<int64_t>(1, kTaskElements / line_size),
                  tasks = ceil_div(lines, together);
    parallel_for(tasks, [&](int64_t task) {
        std::vector<const T*> from(ways);
        for (int64_t line = task * together; line < std::min(lines, (task + 1) * together); line++) {
            const int64_t h = line % height, d = line / height % p.in_size[0],
                          image = line / height / p.in_size[0];
            for (int64_t w = 0; w < ways; w++) {
                const int64_t index = (d % p.stride[0] * p.stride[1] + h % p.stride[1]) * ways + w;
                const PhaseAxis* axis = phases_[index].axis;
                const int64_t row = (image * axis[0].size + d / p.stride[0]) * axis[1].size + h / p.stride[1];
                const int64_t row_size = axis[2].size * (p.channels_last ? channels : 1);
                from[w] = parts[index] == nullptr ? nullptr : parts[index] + row * row_size;
            }
            T* to = dx + line * line_size;
            if (!p.channels_last) {
                gradient_loops<T>().interleave(from.data(), ways, width, to);
                continue;
            }
            for (int64_t i = 0; i < width; i++, to += channels) {
                if (from[i % ways] == nullptr)
                    std::fill_n(to, channels, T(0));
                else
                    std::memcpy(to, from[i % ways] + i / ways * channels, channels * sizeof(T));
            }
        }
    });
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

template <class T>
void BackwardData::run_as(int64_t batch, const T* dy, const char* packed, T* dx) const {
    const ConvProblem& p = problem_;
    ScratchFrame frame;
    std::vector<ConvArgs> args(phases_.size());
    for (size_t i = 0; i < phases_.size(); i++)
        (phases_[i].packs ? args[i].packed : args[i].weight) = packed + phases_[i].at;
    const int64_t image = p.in_channels * p.in_pixels();
    if (phases_.size() == 1 && phases_[0].kernel != nullptr) {
        args[0].batch = batch;
        args[0].x = dy;
        args[0].out = dx;
        phases_[0].kernel->run(args[0]);
        return;
    }
    const int64_t bytes = std::max<int64_t>(1, image * static_cast<int64_t>(sizeof(T)));
    const int64_t together = std::clamp<int64_t>(static_cast<int64_t>(kPhaseBytes) / bytes, 1, batch);
    std::vector<T*> outputs(phases_.size(), nullptr);
    std::vector<const T*> parts(phases_.size(), nullptr);
    for (size_t i = 0; i < phases_.size(); i++) {
        if (phases_[i].kernel == nullptr) continue;
        parts[i] = outputs[i] = frame.take<T>(together * p.in_channels * phases_[i].pixels());
    }
    for (int64_t n = 0; n < batch; n += together) {
        const int64_t images = std::min(together, batch - n);
        for (size_t i = 0; i < phases_.size(); i++) {
            if (phases_[i].kernel == nullptr) continue;
            args[i].batch = images;
            args[i].x = dy + n * p.out_channels * p.out_pixels();
            args[i].out = outputs[i];
            phases_[i].kernel->run(args[i]);
        }
        interleave<T>(images, parts, dx + n * image);
    }
}

void BackwardData::run_packed(int64_t batch, const void* dy, const void* packed, void* dx) const {
    if (batch == 0 || problem_.in_channels == 0) return;
    batch *= reduced_.images;
    if (dtype_ == DType::f32)
        run_as(batch, static_cast<const float*>(dy), static_cast<const char*>(packed),
               static_cast<float*>(dx));
    else
        run_as(batch, static_cast<const double*>(dy), static_cast<const char*>(packed),
               static_cast<double*>(dx));
}

void BackwardData::run(int64_t batch, const void* dy, const void* weight, void* dx) const {
    if (batch == 0 || problem_.in_channels == 0) return;
    const size_t bytes = bytes_of(given_.weights(), dtype_);
    if (bytes >= kKeptFrom) {
        const auto packed =
            packed_weights(serial_, packed_bytes_, [&](void* to) { pack(weight, to); }, weight, bytes);
        return run_packed(batch, dy, packed.get(), dx);
    }
    ScratchFrame frame;
    void* const packed = frame.take_bytes(packed_bytes_);
    pack(weight, packed);
    run_packed(batch, dy, packed, dx);
}

}  // namespace fastconv
