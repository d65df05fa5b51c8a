// The register tiles themselves; the contract stands in microkernel_kernels.hpp.
//
// AVX-512 has 32 registers: 6 x 4 vectors for pixels in lanes (24 sums, 4 inputs, 1 weight), 14 x 2 and 6 x 4 for
// channels in lanes (28 sums, 2 weights, 1 input). With 16 registers (AVX2, SSE2): 6 x 2 both ways. Loads per
// FMA cycle are 10 per 12 and 16 per 14, so both run at the rate of the FMA units. At most 31 registers are
// live: compilers spill when a kernel needs all.
#pragma once

#include "algorithms/microkernel_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr bool kManyRegisters = kRegisters >= 32;
// NEON's scalars live in the same registers: GCC 12 keeps tiles above 6 x 3 and 9 x 2 in memory there.
constexpr int kPixelVectors = kVectorBytes == 64 ? 4 : kManyRegisters ? 3 : 2;
constexpr int kChannelRows = kVectorBytes == 64 ? 14 : kManyRegisters ? 9 : 6;
// A tile of more channels and fewer pixels, for float: it reads each pixel half as often, and pixels a power of two apart
// do not drive each other from L1.
template <class T>
constexpr bool kWide = kVectorBytes == 64 && sizeof(T) == 4;
template <class T>
constexpr int kWideRows = kWide<T> ? 6 : kChannelRows;
template <class T>
constexpr int kWideVectors = kWide<T> ? 4 : 2;
// Steps by which a channel tile asks for its weights ahead. That, steps unrolled by two instead of four, and
// the next segment's rows asked for: Winograd's 256 channels at 14x14 0.83 -> 0.76 ms, pointwise and direct
// convolution the same within the noise (5%). Asking for the lines of the output tile as well gained nothing.
constexpr int kAhead = 8;

// Every register of the tile, unrolled.
#define FASTCONV_EACH(rows, vectors)                                    \
    _Pragma(FASTCONV_TEXT(GCC unroll rows)) for (int r = 0; r < R; r++) \
        _Pragma(FASTCONV_TEXT(GCC unroll vectors)) for (int j = 0; j < N; j++)
#define FASTCONV_TEXT(x) #x

// The last vector of a row may be part of one.
template <class V>
FASTCONV_INLINE V load_last(const scalar_of<V>* p, Mask<V> tail, bool last) {
    return last ? load<V>(p, tail) : load<V>(p);
}

template <class V>
FASTCONV_INLINE void store_last(scalar_of<V>* p, V v, Mask<V> tail, bool last) {
    last ? store(p, v, tail) : store(p, v);
}

// NaN stays NaN: the comparisons are false for it.
template <class V, int R, int N>
FASTCONV_INLINE void clamp_all(V (&sum)[R][N], Clamp clamp) {
    if (clamp == Clamp::none) return;
    const V zero{};
    FASTCONV_EACH(14, 4) sum[r][j] = sum[r][j] < zero ? zero : sum[r][j];
    if (clamp == Clamp::relu) return;
    const V six = broadcast<V>(6);
    FASTCONV_EACH(14, 4) sum[r][j] = sum[r][j] > six ? six : sum[r][j];
}

template <class T, int R, int N>
void pixel_tile(const PixelTile<T>& t) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R][N] = {};
    const T* const x = t.x;
    const int64_t* const offsets = t.offsets;
    const T* w[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) w[r] = t.w + r * t.w_row;
    const int64_t steps = t.steps;
    for (int64_t i = 0; i < steps; i++) {
        const T* const p = x + offsets[i];
        V in[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) in[j] = load<V>(p + j * L);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const V weight = broadcast<V>(w[r][i]);
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) sum[r][j] += weight * in[j];
        }
    }
    const auto tail = mask<V>(t.pixels - (N - 1) * L);
    if (t.partial != nullptr) {
        FASTCONV_EACH(6, 4) sum[r][j] = load<V>(t.partial + r * t.partial_row + j * L) + sum[r][j];
    }
    if (t.bias != nullptr) {
        FASTCONV_EACH(6, 4) sum[r][j] = sum[r][j] + broadcast<V>(t.bias[r]);
    }
    if (t.add != nullptr) {
        FASTCONV_EACH(6, 4)
        sum[r][j] = sum[r][j] + load_last<V>(t.add + r * t.out_row + j * L, tail, j == N - 1);
    }
    clamp_all<V, R, N>(sum, t.clamp);
    FASTCONV_EACH(6, 4) store_last(t.out + r * t.out_row + j * L, sum[r][j], tail, j == N - 1);
}

// One step of a channel tile: `base` points at every third row, so that three rows share a pointer and the
// whole tile needs few address registers.
template <class T, int R, int N, class V>
FASTCONV_INLINE void channel_step(V (&sum)[R][N], const T* const* base, int64_t row, int step, const T* w) {
    V weight[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) weight[j] = load<V>(w + j * lanes_of<V>);
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        const V in = broadcast<V>(base[r / 3][r % 3 * row + step]);
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) sum[r][j] += in * weight[j];
    }
}

// How the steps of a channel tile lie where they are no neighbours in x with packed weights: apart in x, or neighbours whose
// weights stand where the user has them.
enum class Steps : int { apart, in_place };

// Two steps at a time, or one (GCC 12 spills two) where weights are in place.
template <Steps How, class T, int R, int N, class V>
FASTCONV_INLINE void channel_steps(V (&sum)[R][N], const T* x, const ChannelTile<T>& t, const T*& w) {
    constexpr int B = (R + 2) / 3, L = lanes_of<V>;
    const int64_t row = t.x_row, step = How == Steps::apart ? t.x_step : 1;
    const int64_t w_step = How == Steps::in_place ? t.w_step : N * L;
    const T* base[B];
#pragma GCC unroll 5
    for (int b = 0; b < B; b++) base[b] = x + 3 * b * row;
    const auto advance = [&](int64_t by) {
#pragma GCC unroll 5
        for (int b = 0; b < B; b++) base[b] += by;
    };
    int64_t i = 0;
    for (; How == Steps::apart && i + 2 <= t.length; i += 2) {
#pragma GCC unroll 2
        for (int u = 0; u < 2; u++) {
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) prefetch_l1(w + ((u + kAhead) * N + j) * L);
            channel_step<T, R, N, V>(sum, base, row, 0, w + u * N * L);
            advance(step);
        }
        w += 2 * N * L;
    }
    for (; i < t.length; i++) {
#pragma GCC unroll 4
        for (int j = 0; How == Steps::in_place && j < N; j++) {
            prefetch_l1(w + kAhead * w_step + j * L);
            prefetch_l2(w + t.w_ahead + j * L);
        }
        channel_step<T, R, N, V>(sum, base, row, 0, w);
        advance(step);
        w += w_step;
    }
}

// Bytes by which lines that are asked for in every segment are passed with every two steps.
[[gnu::noinline]] int64_t asked_each(int64_t lines, int64_t length) {
    const auto bytes = static_cast<uint32_t>(lines) * 128, steps = static_cast<uint32_t>(length);
    return bytes / steps < 64 ? bytes / steps + 1 : 64;
}
struct AskedFor {
    const char* at;
    int64_t each;
    FASTCONV_INLINE void some() {
        prefetch_l2(at);
        at += each;
    }
    FASTCONV_INLINE void lines(int64_t n) {
        for (; n > 0; n--, at += 64) prefetch_l2(at);
    }
};

// Steps that are neighbours in x: one loop without a branch. What follows is asked for in lines or less with every two
// steps, whether a line has been asked for or not; the weights of wide tiles come ahead by themselves. 1x1, 16 images, GFLOP/s with lines asked
// for between segments of 24 to 96 steps, and so: 960 > 320 at 7 x 7 180 and 192, 1024 > 512 at 14 x 14 177 and 188,
// 64 > 64 at 56 x 56 157 and 182, 32 > 16 at 112 x 112 102 and 117. Asking at once for lines beyond one for two steps: 32 > 64
// at 112 x 112 190 and 181.
template <class T, int R, int N, class V>
FASTCONV_INLINE void neighbour_steps(V (&sum)[R][N], const T* x, const ChannelTile<T>& t, const T*& w,
                                     AskedFor& ahead, AskedFor& ahead_x) {
    constexpr int B = (R + 2) / 3, L = lanes_of<V>;
    const int64_t row = t.x_row, length = t.length;
    const T* base[B];
#pragma GCC unroll 5
    for (int b = 0; b < B; b++) base[b] = x + 3 * b * row;
    int64_t i = 0;
    for (; i + 2 <= length; i += 2) {
        ahead.some();
        ahead_x.some();
#pragma GCC unroll 2
        for (int u = 0; u < 2; u++) {
#pragma GCC unroll 4
            for (int j = 0; N <= 2 && j < N; j++) prefetch_l1(w + ((u + kAhead) * N + j) * L);
            channel_step<T, R, N, V>(sum, base, row, u, w + u * N * L);
        }
#pragma GCC unroll 5
        for (int b = 0; b < B; b++) base[b] += 2;
        w += 2 * N * L;
    }
    if (N <= 2 || i == length) return;  // narrower tiles come with even lengths
    channel_step<T, R, N, V>(sum, base, row, 0, w);
    w += N * L;
}

template <class T, int R, int N, class V>
FASTCONV_INLINE void segment_steps(V (&sum)[R][N], const ChannelTile<T>& t) {
    const T* w = t.w;
    const auto asked = [&](const T* first, int64_t lines) {
        if (lines == 0) return AskedFor{reinterpret_cast<const char*>(w), 0};
        return AskedFor{reinterpret_cast<const char*>(first), asked_each(lines, t.length)};
    };
    AskedFor ahead = asked(t.ahead, t.ahead_lines), ahead_x = asked(t.ahead_x, t.ahead_x_lines);
    for (int64_t s = 0; s < t.segments; s++) {
        if (s + 1 < t.segments) {
            const T* const next = t.x + t.offsets[s + 1];
#pragma GCC unroll 14
            for (int r = 0; r < R; r++) prefetch_l1(next + r * t.x_row);
        }
        const T* const x = t.x + t.offsets[s];
        if constexpr (N > 2) {
            neighbour_steps<T, R, N, V>(sum, x, t, w, ahead, ahead_x);
        } else if (t.w_offsets != nullptr) {
            w = t.w + t.w_offsets[s];
            ahead.lines(t.ahead_lines);
            ahead_x.lines(t.ahead_x_lines);
            channel_steps<Steps::in_place, T, R, N, V>(sum, x, t, w);
        } else if (t.x_step == 1 && t.length % 2 == 0) {
            neighbour_steps<T, R, N, V>(sum, x, t, w, ahead, ahead_x);
        } else {
            ahead.lines(t.ahead_lines);
            ahead_x.lines(t.ahead_x_lines);
            channel_steps<Steps::apart, T, R, N, V>(sum, x, t, w);
        }
    }
}

template <class T, int R, int N>
void channel_tile(const ChannelTile<T>& t) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R][N] = {};
    segment_steps<T, R, N, V>(sum, t);
    const auto tail = mask<V>(t.channels - (N - 1) * L);
    if (t.accumulate) {
        const T* const earlier = t.earlier != nullptr ? t.earlier : t.out;
        const int64_t row = t.earlier != nullptr ? t.earlier_row : t.out_row;
        FASTCONV_EACH(14, 4)
        sum[r][j] = load_last<V>(earlier + r * row + j * L, tail, j == N - 1) + sum[r][j];
    }
    if (t.bias != nullptr) {
        V bias[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) bias[j] = load_last<V>(t.bias + j * L, tail, j == N - 1);
        FASTCONV_EACH(14, 4) sum[r][j] = sum[r][j] + bias[j];
    }
    if (t.add != nullptr) {
        FASTCONV_EACH(14, 4)
        sum[r][j] = sum[r][j] + load_last<V>(t.add + r * t.out_row + j * L, tail, j == N - 1);
    }
    clamp_all<V, R, N>(sum, t.clamp);
    FASTCONV_EACH(14, 4) store_last(t.out + r * t.out_row + j * L, sum[r][j], tail, j == N - 1);
}

#undef FASTCONV_EACH

#define FASTCONV_PIXEL_ROW(T, R) \
    {nullptr,                    \
     pixel_tile<T, R, 1>,        \
     pixel_tile<T, R, 2>,        \
     pixel_tile < T,             \
     R,                          \
     kManyRegisters ? 3 : 2 >,   \
     pixel_tile<T, R, kPixelVectors>}
#define FASTCONV_CHANNEL_ROW(T, R)                                       \
    {nullptr, channel_tile<T, (R < kChannelRows ? R : kChannelRows), 1>, \
     channel_tile<T, (R < kChannelRows ? R : kChannelRows), 2>, nullptr, wide_tile<T, R>()}

template <class T, int R>
constexpr auto wide_tile() -> void (*)(const ChannelTile<T>&) {
    if constexpr (kWide<T> && R <= kWideRows<T>) return channel_tile<T, R, kWideVectors<T>>;
    return nullptr;
}

template <class T>
constexpr Micro<T> make_micro() {
    return {kLanes<T>,
            kMaxPixelRows,
            kPixelVectors,
            kChannelRows,
            2,
            kWideRows<T>,
            kWideVectors<T>,
            {{},
             FASTCONV_PIXEL_ROW(T, 1),
             FASTCONV_PIXEL_ROW(T, 2),
             FASTCONV_PIXEL_ROW(T, 3),
             FASTCONV_PIXEL_ROW(T, 4),
             FASTCONV_PIXEL_ROW(T, 5),
             FASTCONV_PIXEL_ROW(T, 6)},
            {{},
             FASTCONV_CHANNEL_ROW(T, 1),
             FASTCONV_CHANNEL_ROW(T, 2),
             FASTCONV_CHANNEL_ROW(T, 3),
             FASTCONV_CHANNEL_ROW(T, 4),
             FASTCONV_CHANNEL_ROW(T, 5),
             FASTCONV_CHANNEL_ROW(T, 6),
             FASTCONV_CHANNEL_ROW(T, 7),
             FASTCONV_CHANNEL_ROW(T, 8),
             FASTCONV_CHANNEL_ROW(T, 9),
             FASTCONV_CHANNEL_ROW(T, 10),
             FASTCONV_CHANNEL_ROW(T, 11),
             FASTCONV_CHANNEL_ROW(T, 12),
             FASTCONV_CHANNEL_ROW(T, 13),
             FASTCONV_CHANNEL_ROW(T, 14)}};
}

#undef FASTCONV_PIXEL_ROW
#undef FASTCONV_CHANNEL_ROW

}  // namespace

const MicroKernels micro_kernels = {make_micro<float>(), make_micro<double>()};

FASTCONV_END_ISA
