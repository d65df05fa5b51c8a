// Winograd's minimal filtering F(m x m, 3 x 3), m = 2, 4, 6, for 3 x 3 kernels of stride 1. [Lavin & Gray, arXiv:1509.09308]
//
// A tile of m x m outputs needs (m + 2) x (m + 2) inputs. Both the inputs and the weights are transformed, B^T d B and G g G^T; then
// each of the (m + 2)^2 positions is a small matrix product over the channels (the micro-kernel), and A^T (.) A gives the outputs:
// 2.25, 4 or 5.06 times fewer multiplications than direct. Lanes are channels in both transforms; channels-first images are
// transposed in registers while a strip of rows is copied, zero-padded, into L1.
//
// F(4, 3) transforms one row in 12 operations, since the points come in pairs +-p (toom_cook.hpp).
// An inf or NaN smears over its whole tile, and values near 1e37 overflow: a tile whose outputs are not all finite is
// computed again directly, so that results are those of the direct algorithm there.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/plane_strip.hpp"
#include "algorithms/toom_cook.hpp"
#include "algorithms/winograd_kernels.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// out[0..m+1] = B^T in[0..m+1], at distances in_step and out_step.
template <int M, class V>
FASTCONV_INLINE void transform_input_line(const V (&d)[M + 2], V (&r)[M + 2]) {
    using T = scalar_of<V>;
    if constexpr (M == 4) {
        constexpr double a = ToomCookPoints<6>::at[1], b = ToomCookPoints<6>::at[3];
        const T aa = T(a * a), bb = T(b * b), both = T(a * a + b * b);
        const V even_a = d[4] - bb * d[2], odd_a = d[3] - bb * d[1];
        const V even_b = d[4] - aa * d[2], odd_b = d[3] - aa * d[1];
        r[0] = d[0] - both * d[2] + d[4];
        r[1] = even_a + T(a) * odd_a;
        r[2] = even_a - T(a) * odd_a;
        r[3] = even_b + T(b) * odd_b;
        r[4] = even_b - T(b) * odd_b;
        r[5] = d[1] - both * d[3] + d[5];
    } else {
#pragma GCC unroll 8
        for (int i = 0; i < M + 2; i++) {
            V sum{};
#pragma GCC unroll 8
            for (int j = 0; j < M + 2; j++)
                if (kToomCook<M + 2>.b[i][j] != 0) sum += T(kToomCook<M + 2>.b[i][j]) * d[j];
            r[i] = sum;
        }
    }
}

template <int M, class V>
FASTCONV_INLINE void transform_output_line(const V (&d)[M + 2], V (&r)[M]) {
    using T = scalar_of<V>;
    if constexpr (M == 4) {
        constexpr double a = ToomCookPoints<6>::at[1], b = ToomCookPoints<6>::at[3];
        const V sum_a = d[1] + d[2], sum_b = d[3] + d[4], diff_a = d[1] - d[2], diff_b = d[3] - d[4];
        r[0] = d[0] + sum_a + sum_b;
        r[1] = T(a) * diff_a + T(b) * diff_b;
        r[2] = T(a * a) * sum_a + T(b * b) * sum_b;
        r[3] = T(a * a * a) * diff_a + T(b * b * b) * diff_b + d[5];
    } else {
#pragma GCC unroll 6
        for (int i = 0; i < M; i++) {
            V sum{};
#pragma GCC unroll 8
            for (int j = 0; j < M + 2; j++)
                if (kFilter<M, 3>.a[i][j] != 0) sum += T(kFilter<M, 3>.a[i][j]) * d[j];
            r[i] = sum;
        }
    }
}

// One tile of one block of channels, from `source` with its channels contiguous.
template <int M, class T>
FASTCONV_INLINE void transform_input_tile(const T* source, int64_t row, int64_t pixel, T* out,
                                          int64_t position_stride) {
    using V = vec<T, kLanes<T>>;
    constexpr int S = M + 2;
    V half[S][S];
#pragma GCC unroll 1
    for (int j = 0; j < S; j++) {
        V d[S], r[S];
#pragma GCC unroll 8
        for (int i = 0; i < S; i++) d[i] = load<V>(source + i * row + j * pixel);
        transform_input_line<M, V>(d, r);
#pragma GCC unroll 8
        for (int i = 0; i < S; i++) half[i][j] = r[i];
    }
#pragma GCC unroll 1
    for (int i = 0; i < S; i++) {
        V r[S];
        transform_input_line<M, V>(half[i], r);
#pragma GCC unroll 8
        for (int j = 0; j < S; j++) store(out + (i * S + j) * position_stride, r[j]);
    }
}

// Neighbouring tiles of one row of tiles: what the transforms work on at a time.
struct Strip {
    int64_t image, ty, tx, count;
};

FASTCONV_INLINE Strip strip_at(int64_t tile, int64_t end, int64_t tiles_y, int64_t tiles_x, int64_t longest) {
    const int64_t row = tile / tiles_x, tx = tile % tiles_x;
    int64_t count = tiles_x - tx;
    if (count > end - tile) count = end - tile;
    if (count > longest) count = longest;
    return {row / tiles_y, row % tiles_y, tx, count};
}

constexpr int64_t kStripTiles = 16;  // so that a strip of 6 x 66 pixels of 16 channels (25 KB) stays in L1

template <int M, class T>
struct Winograd {
    using V = vec<T, kLanes<T>>;
    static constexpr int L = kLanes<T>;
    static constexpr int S = M + 2;
    static constexpr int64_t kStripColumns = kStripTiles * M + 2;
    static constexpr int64_t kPaddedColumns = (kStripColumns + L - 1) / L * L;

    // Copies the inputs of a strip as [row][column][lane], zero where the image has none.
    static void gather(const WinogradJob<T>& job, const Strip& strip, int64_t channel, T* out) {
        const int64_t left = job.channels - channel;
        const auto valid = mask<V>(left);
        const int64_t columns = strip.count * M + 2;
        const int32_t* const cols = job.cols + strip.tx * M;
        for (int i = 0; i < S; i++) {
            T* const line = out + i * kPaddedColumns * L;
            const int64_t y = job.rows[strip.ty * M + i];
            if (y < 0) {
                for (int64_t c = 0; c < columns; c++) store(line + c * L, V{});
            } else if (job.channels_last) {
                const T* const source =
                    job.x + (strip.image * job.height + y) * job.width * job.channels + channel;
                for (int64_t c = 0; c < columns; c++)
                    store(line + c * L, cols[c] < 0 ? V{} : load<V>(source + cols[c] * job.channels, valid));
            } else {
                gather_planes(job.x + (strip.image * job.channels + channel) * job.x_plane + y * job.width,
                              left < L ? left : L, job.x_plane, cols, columns, line);
            }
        }
    }

    // A tile of a channels-last image that needs no copy: full channels, no padding.
    static bool in_place(const WinogradJob<T>& job, const Strip& strip, int64_t tile, int64_t channel) {
        if (!job.channels_last || channel + L > job.channels) return false;
        const int32_t* const rows = job.rows + strip.ty * M;
        const int32_t* const cols = job.cols + (strip.tx + tile) * M;
        return rows[0] >= 0 && cols[0] >= 0 && rows[S - 1] == rows[0] + S - 1 &&
               cols[S - 1] == cols[0] + S - 1;
    }

    // The weights of `count` output channels; lanes beyond are zero.
    static void weight(const T* source, int64_t k_step, int64_t c_step, int64_t tap_step, int64_t channels,
                       int64_t count, T* out, int64_t channel_stride, int64_t position_stride) {
        constexpr int D = kLanes<double>;
        using Wide = vec<double, D>;
        using Narrow = vec<T, D>;
        constexpr auto& g = kFilter<M, 3>.g;
        alignas(64) T taps[9][L] = {};
        for (int64_t c = 0; c < channels; c++) {
            for (int tap = 0; tap < 9; tap++)
                for (int64_t k = 0; k < count; k++)
                    taps[tap][k] = source[k * k_step + c * c_step + tap * tap_step];
            for (int part = 0; part < L; part += D) {
                Wide w[9], half[S][3];
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; tap++)
                    w[tap] = __builtin_convertvector(load<Narrow>(taps[tap] + part), Wide);
#pragma GCC unroll 8
                for (int i = 0; i < S; i++)
#pragma GCC unroll 3
                    for (int j = 0; j < 3; j++)
                        half[i][j] = g[i][0] * w[j] + g[i][1] * w[3 + j] + g[i][2] * w[6 + j];
                T* const to = out + c * channel_stride + part;
#pragma GCC unroll 8
                for (int i = 0; i < S; i++)
#pragma GCC unroll 8
                    for (int j = 0; j < S; j++)
                        store(
                            to + (i * S + j) * position_stride,
                            __builtin_convertvector(
                                g[j][0] * half[i][0] + g[j][1] * half[i][1] + g[j][2] * half[i][2], Narrow));
            }
        }
    }

    static void input(const WinogradJob<T>& job, int64_t first, int64_t count, int64_t block_begin,
                      int64_t block_end, const WinogradTiles<T>& v) {
        alignas(64) T strip_values[S * kPaddedColumns * L];
        for (int64_t block = block_begin; block < block_end; block++) {
            for (int64_t tile = first; tile < first + count;) {
                const Strip strip = strip_at(tile, first + count, job.tiles_y, job.tiles_x, kStripTiles);
                bool gathered = false;
                for (int64_t i = 0; i < strip.count; i++, tile++) {
                    T* const out = v.values + block * v.block_stride + (tile - first) * L;
                    if (in_place(job, strip, i, block * L)) {
                        const int64_t y = job.rows[strip.ty * M], x = job.cols[(strip.tx + i) * M];
                        const T* const source =
                            job.x + ((strip.image * job.height + y) * job.width + x) * job.channels +
                            block * L;
                        transform_input_tile<M, T>(source, job.width * job.channels, job.channels, out,
                                                   v.position_stride);
                        continue;
                    }
                    if (!job.channels_last) {
                        if (!gathered) gather(job, strip, block * L, strip_values);
                        gathered = true;
                        transform_input_tile<M, T>(strip_values + i * M * L, kPaddedColumns * L, L, out,
                                                   v.position_stride);
                    } else {  // at a border of a channels-last image: this tile alone
                        gather(job, {strip.image, strip.ty, strip.tx + i, 1}, block * L, strip_values);
                        transform_input_tile<M, T>(strip_values, kPaddedColumns * L, L, out,
                                                   v.position_stride);
                    }
                }
            }
        }
    }

    // The tile's outputs for one vector of channels, summed as the direct algorithm does.
    static void direct_tile(const WinogradJob<T>& job, const Strip& strip, int64_t channel, V (&out)[M][M]) {
        const int64_t plane = job.channels_last ? 1 : job.x_plane;
        const int64_t pixel = job.channels_last ? job.channels : 1;
        const T* const image =
            job.x + strip.image * job.channels * (job.channels_last ? job.height * job.width : plane);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < M; j++) {
                V total{};
                for (int tap = 0; tap < 9; tap++) {
                    const int64_t y = job.rows[strip.ty * M + i + tap / 3],
                                  x = job.cols[strip.tx * M + j + tap % 3];
                    if (y < 0 || x < 0) continue;
                    const T* const p = image + (y * job.width + x) * pixel;
                    const T* const w = job.weight + tap * job.channels * job.weight_row + channel;
                    V sum{};
                    for (int64_t c = 0; c < job.channels; c++)
                        sum += p[c * plane] * load<V>(w + c * job.weight_row);
                    total += sum;
                }
                out[i][j] = total;
            }
        }
    }

    static void output(const WinogradJob<T>& job, int64_t first, int64_t count, int64_t channel, int vectors,
                       const T* products, int64_t position_stride) {
        alignas(64) T strip_values[M * kStripTiles * M * L];
        for (int64_t tile = first; tile < first + count;) {
            const Strip strip = strip_at(tile, first + count, job.tiles_y, job.tiles_x, kStripTiles);
            for (int v = 0; v < vectors; v++) {
                const int64_t k = channel + v * L;
                if (k >= job.out_channels) break;
                for (int64_t i = 0; i < strip.count; i++) {
                    const T* const p = products + ((tile - first + i) * vectors + v) * L;
                    output_tile(job, {strip.image, strip.ty, strip.tx + i, 1}, k, p, position_stride,
                                job.channels_last ? nullptr : strip_values + i * M * L, strip.count * M * L);
                }
                if (!job.channels_last) scatter(job, strip, k, strip_values);
            }
            tile += strip.count;
        }
    }

    // Transforms one tile; writes it to y, or (channels first) as pixels of L channels to `line`.
    static void output_tile(const WinogradJob<T>& job, const Strip& strip, int64_t channel, const T* products,
                            int64_t position_stride, T* line, int64_t line_stride) {
        V half[M][S], out[M][M];
#pragma GCC unroll 1
        for (int j = 0; j < S; j++) {
            V d[S], r[M];
#pragma GCC unroll 8
            for (int i = 0; i < S; i++) d[i] = load<V>(products + (i * S + j) * position_stride);
            transform_output_line<M, V>(d, r);
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) half[i][j] = r[i];
        }
        V all{};
#pragma GCC unroll 1
        for (int i = 0; i < M; i++) {
            transform_output_line<M, V>(half[i], out[i]);
#pragma GCC unroll 6
            for (int j = 0; j < M; j++) all += out[i][j];
        }
        if (!all_finite(all)) direct_tile(job, strip, channel, out);
        const auto valid = mask<V>(job.out_channels - channel);
        const V bias = job.bias ? load<V>(job.bias + channel, valid) : V{};
        if (line != nullptr) {
#pragma GCC unroll 1
            for (int i = 0; i < M; i++)
#pragma GCC unroll 6
                for (int j = 0; j < M; j++) store(line + i * line_stride + j * L, out[i][j] + bias);
            return;
        }
        const int64_t y = strip.ty * M, x = strip.tx * M;
        const int64_t rows = job.out_height - y < M ? job.out_height - y : M;
        const int64_t cols = job.out_width - x < M ? job.out_width - x : M;
        const int64_t start =
            ((strip.image * job.out_height + y) * job.out_width + x) * job.out_channels + channel;
        const int64_t row = job.out_width * job.out_channels;
        const bool whole = rows == M && cols == M && channel + L <= job.out_channels && job.add == nullptr;
        if (whole) {
#pragma GCC unroll 1
            for (int i = 0; i < M; i++)
#pragma GCC unroll 6
                for (int j = 0; j < M; j++)
                    store(job.y + start + i * row + j * job.out_channels,
                          clamped(out[i][j] + bias, job.clamp));
            return;
        }
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < cols; j++) {
                const int64_t at = start + i * row + j * job.out_channels;
                const V add = job.add ? load<V>(job.add + at, valid) : V{};
                store(job.y + at, clamped(out[i][j] + bias + add, job.clamp), valid);
            }
        }
    }

    // A strip of pixels of L channels, biased, into the rows of L planes.
    static void scatter(const WinogradJob<T>& job, const Strip& strip, int64_t channel, const T* line) {
        const int64_t y = strip.ty * M, x = strip.tx * M;
        const int64_t rows = job.out_height - y < M ? job.out_height - y : M;
        const int64_t cols = job.out_width - x < strip.count * M ? job.out_width - x : strip.count * M;
        const int64_t planes = job.out_channels - channel < L ? job.out_channels - channel : L;
        const int64_t plane = job.y_plane;
        const int64_t start = (strip.image * job.out_channels + channel) * plane + y * job.out_width + x;
        for (int64_t i = 0; i < rows; i++) {
            const T* const source = line + i * strip.count * M * L;
            for (int64_t c = 0; c < cols; c += L) {
                const int64_t pixels = strip.count * M - c;
                V values[L];
                if (pixels >= L) {
#pragma GCC unroll 16
                    for (int k = 0; k < L; k++) values[k] = load<V>(source + (c + k) * L);
                } else {
                    for (int64_t k = 0; k < L; k++)
                        values[k] = k < pixels ? load<V>(source + (c + k) * L) : V{};
                }
                transpose(values);
                const int64_t at = start + i * job.out_width + c;
                const auto valid = mask<V>(cols - c);
                if (cols - c >= L && planes == L && job.add == nullptr) {
#pragma GCC unroll 16
                    for (int k = 0; k < L; k++) store(job.y + at + k * plane, clamped(values[k], job.clamp));
                } else {
                    for (int64_t k = 0; k < planes; k++) {
                        const V add = job.add ? load<V>(job.add + at + k * plane, valid) : V{};
                        store(job.y + at + k * plane, clamped(values[k] + add, job.clamp), valid);
                    }
                }
            }
        }
    }

    // x - x is zero for finite numbers only.
    static bool all_finite(V value) {
        alignas(64) uint64_t words[sizeof(V) / 8];
        const auto unequal = value - value != V{};
        __builtin_memcpy(words, &unequal, sizeof(V));
        uint64_t any = 0;
#pragma GCC unroll 8
        for (uint64_t word : words) any |= word;
        return any == 0;
    }
};

template <class T>
constexpr WinogradKernels<T> winograd_of(int m) {
    return m == 2 ? WinogradKernels<T>{Winograd<2, T>::weight, Winograd<2, T>::input, Winograd<2, T>::output}
           : m == 4
               ? WinogradKernels<T>{Winograd<4, T>::weight, Winograd<4, T>::input, Winograd<4, T>::output}
               : WinogradKernels<T>{Winograd<6, T>::weight, Winograd<6, T>::input, Winograd<6, T>::output};
}

}  // namespace

const WinogradSet winograd_kernels = {
    {winograd_of<float>(2), winograd_of<float>(4), winograd_of<float>(6)},
    {winograd_of<double>(2), winograd_of<double>(4), winograd_of<double>(6)}};

FASTCONV_END_ISA
