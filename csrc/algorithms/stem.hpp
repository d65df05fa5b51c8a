// The kernel of stems; the contract stands in stem_kernels.hpp.
//
// A tile of 14 pixels x 1 or 2 vectors of output channels, 9 x 3 or 6 x 4 (with weights and one input 31 registers at most),
// keeps its sums in registers over all terms, and a row of tiles is one call: 27 terms x 14 x 2 take 120 ns in L1, where the micro-kernel, which is called for every tile and
// begins anew with every row of taps, takes 160 (100 at the rate of the units).
#pragma once

#include "algorithms/stem_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

#if defined(__AVX512F__)

using StemVector = vec<float, 16>;

// Vectors that follow each other in memory from `out` on, written as whole lines wherever in a line it stands.
class LineStream {
  public:
    FASTCONV_INLINE LineStream(StemCarry& carry, float* out)
        : carry_(carry), inside_(static_cast<int>(reinterpret_cast<uintptr_t>(out) / sizeof(float) % 16)) {
        line_ = out - inside_;
        const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        pick_ = _mm512_add_epi32(lanes, _mm512_set1_epi32(16 - inside_));
        before_ = load<StemVector>(carry.last);
    }
    // The first vector of a tile: what stands before the first one of all is another's.
    FASTCONV_INLINE void begin(StemVector v) {
        if (!carry_.empty) return put(v);
        store(line_ + inside_, v, mask<StemVector>(16 - inside_));
        carry_.empty = false;
        before_ = v;
        line_ += 16;
    }
    FASTCONV_INLINE void put(StemVector v) {
        _mm512_stream_ps(line_, _mm512_permutex2var_ps((__m512)before_, pick_, (__m512)v));
        before_ = v;
        line_ += 16;
    }
    FASTCONV_INLINE void end() { store(carry_.last, before_); }

  private:
    StemCarry& carry_;
    int inside_;
    float* line_;
    __m512i pick_;  // of two neighbouring vectors the lanes of one line
    StemVector before_;
};

// `pixels` pixels of one tile, R at most, the first of them the row's `at`-th.
template <int R, int N>
void stem_tile(const StemRow& s, int64_t at, int64_t pixels) {
    using V = StemVector;
    constexpr int B = (R + 2) / 3;  // one pointer for every third pixel: the whole tile needs few of them
    V sum[R][N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
        const V bias = load<V>(s.bias + j * 16);
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) sum[r][j] = bias;
    }
    const int64_t row = s.x_pixel, terms = s.terms;
    const float *base[B], *w = s.w;
    base[0] = s.x + at * row;
#pragma GCC unroll 5
    for (int b = 1; b < B; b++) base[b] = base[b - 1] + 3 * row;
    const int64_t* const steps = s.steps;
    const auto term = [&](int u) {
        V weight[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) weight[j] = load<V>(w + j * 16);
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) {
            const V in = broadcast<V>(base[r / 3][r % 3 * row + u]);
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) sum[r][j] += in * weight[j];
        }
        w += N * 16;
    };
    int64_t i = 0;
    if (N == 1 &&
        s.triples) {  // one vector has as many inputs to load as multiply-adds: fewer pointers to move
        for (; i < terms; i += 3) {
            term(0), term(1), term(2);
            const int64_t step = steps[i] + steps[i + 1] + steps[i + 2];
#pragma GCC unroll 5
            for (int b = 0; b < B; b++) base[b] += step;
        }
    }
    for (; i < terms; i++) {
        term(0);
        const int64_t step = steps[i];
#pragma GCC unroll 5
        for (int b = 0; b < B; b++) base[b] += step;
    }
    const int64_t pitch = s.out_pixel;
    const auto tail = mask<V>(s.channels - (N - 1) * 16);
    if (s.add != nullptr) {
        const float* add = s.add + at * pitch;
#pragma GCC unroll 14
        for (int r = 0; r < R; r++, add += pitch) {
            if (r >= pixels) break;
#pragma GCC unroll 4
            for (int j = 0; j < N; j++)
                sum[r][j] = sum[r][j] + (j == N - 1 ? load<V>(add + j * 16, tail) : load<V>(add + j * 16));
        }
    }
    if (s.clamp != Clamp::none) {
        const V zero{}, most = broadcast<V>(s.clamp == Clamp::relu6 ? 6.0f : __builtin_inff());
#pragma GCC unroll 14
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) {  // NaN stays NaN: the comparisons are false for it
                const V v = sum[r][j] < zero ? zero : sum[r][j];
                sum[r][j] = v > most ? most : v;
            }
    }
    float* out = s.out + at * pitch;
    if (s.carry == nullptr) {
#pragma GCC unroll 14
        for (int r = 0; r < R; r++, out += pitch) {
            if (r >= pixels) break;
#pragma GCC unroll 4
            for (int j = 0; j < N; j++)
                j == N - 1 ? store(out + j * 16, sum[r][j], tail) : store(out + j * 16, sum[r][j]);
        }
        return;
    }
    LineStream lines(*s.carry, out);
    lines.begin(sum[0][0]);
    if (pixels == R) {
#pragma GCC unroll 56
        for (int i = 1; i < R * N; i++) lines.put(sum[i / N][i % N]);
    } else {
        alignas(64) float rest[R * N * 16];
#pragma GCC unroll 56
        for (int i = 1; i < R * N; i++) store(rest + i * 16, sum[i / N][i % N]);
        for (int64_t i = 1; i < pixels * N; i++) lines.put(load<V>(rest + i * 16));
    }
    lines.end();
}

template <int N>
void stem_row(const StemRow& s) {
    constexpr int R = kStemTiles[N][0];
    const int64_t tiles = (s.pixels + R - 1) / R;
    const char* ahead = s.ahead;
    const char* const ahead_end = ahead + s.ahead_lines * 64;
    const int64_t lines = (s.ahead_lines + tiles - 1) / tiles;
    for (int64_t at = 0; at < s.pixels;) {
        for (int64_t i = 0; i < lines && ahead < ahead_end; i++, ahead += 64) prefetch_l2(ahead);
        const int64_t left = s.pixels - at;
        const int size = stem_tile_of(N, left);
        const int64_t pixels = left < size ? left : size;
        if (size == R)
            stem_tile<R, N>(s, at, pixels);
        else if (size == kStemTiles[N][1])
            stem_tile<kStemTiles[N][1], N>(s, at, pixels);
        else
            stem_tile<kStemTiles[N][2], N>(s, at, pixels);
        at += size;
    }
}

constexpr StemKernels make_stem_kernels() {
    return {{nullptr, stem_row<1>, stem_row<2>, stem_row<3>, stem_row<4>}};
}

#else

constexpr StemKernels make_stem_kernels() { return {}; }

#endif

}  // namespace

const StemKernels stem_kernels = make_stem_kernels();

FASTCONV_END_ISA
