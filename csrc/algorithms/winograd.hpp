// Winograd's minimal filtering F(m x m, r x r) for small square kernels of stride 2. [Lavin & Gray, arXiv:1509.09308] Stride 1 is
// winograd_lines.hpp's.
//
// A tile of m x m outputs needs (m + r - 1)^2 inputs. Both the inputs and the weights are transformed, B^T d B and G g G^T; then
// each of these positions is a small matrix product over the channels (the micro-kernel), and A^T (.) A gives the outputs. Lanes
// are channels in both transforms; channels-first images are transposed in registers while a strip of rows is copied,
// zero-padded, into L1.
//
// Even and odd rows and columns are four images of their own, and so are the taps four kernels of stride 1, of 2 x 2,
// 2 x 1, 1 x 2 and 1 x 1 taps for 3 x 3. All four run on tiles of one size, so that their products add up at each position as
// if they were more channels, and the way back is one. A phase with a tap less has a zero weight at the point infinity and
// leaves that position out: for 3 x 3, F(2, 2) and F(2, 1) take 25 multiplications for 4 outputs, direct 36, and an input is
// transformed by hardly more than a subtraction; 4 x 4 takes 64 for 9 outputs (direct 144), 5 x 5 121 for 16 (400), 7 x 7 121
// for 9 (441). GFLOP/s on one thread, direct beside it: 3 x 3 128 channels at 56 x 56
// 136 > 179 (channels last 152 > 182), 4 x 4 64 > 128 at 32 x 32 126 > 223, 5 x 5 64 > 96 at 56 x 56 133 > 279.
//
// An inf or NaN smears over its whole tile, and values near 1e37 overflow: a tile whose outputs are not all finite is
// computed again directly, so that results are those of the direct algorithm there.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/plane_strip.hpp"
#include "algorithms/toom_cook_lines.hpp"
#include "algorithms/winograd_kernels.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// One line of a patch, B^T d phase by phase.
template <int Stride, int Tile, int S, class V>
FASTCONV_INLINE void transform_input_line(const V (&d)[S], V (&r)[S]) {
#pragma GCC unroll 2
    for (int phase = 0; phase < Stride; phase++) {
        V part[Tile], turned[Tile];
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++)
            part[i] = phase + Stride * i < S ? d[phase + Stride * i < S ? phase + Stride * i : 0] : V{};
        line_input<Tile, V>(part, turned);
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++)
            if (phase + Stride * i < S) r[phase + Stride * i] = turned[i];
    }
}

template <int Tile, int M, class V>
FASTCONV_INLINE void transform_output_line(const V (&d)[Tile], V (&r)[M]) {
    using T = scalar_of<V>;
    if constexpr (Tile == 6 && M == 4) {
        constexpr double a = ToomCookPoints<6>::at[1], b = ToomCookPoints<6>::at[3];
        const V sum_a = d[1] + d[2], sum_b = d[3] + d[4], diff_a = d[1] - d[2], diff_b = d[3] - d[4];
        r[0] = d[0] + sum_a + sum_b;
        r[1] = T(a) * diff_a + T(b) * diff_b;
        r[2] = T(a * a) * sum_a + T(b * b) * sum_b;
        r[3] = T(a * a * a) * diff_a + T(b * b * b) * diff_b + d[5];
    } else {
        line_output<Tile, M, V>(d, r);
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

template <int Kernel, int Stride, int Tile, class T>
struct Winograd {
    using V = vec<T, kLanes<T>>;
    static constexpr int L = kLanes<T>;
    static constexpr WinogradScheme kScheme{Kernel, Stride, Tile};
    static constexpr int M = kScheme.outputs();
    static constexpr int S = kScheme.patch();
    static constexpr int kStep = kScheme.step();
    // So that a strip of 6 x 66 pixels of 16 channels (25 KB) stays in L1.
    static constexpr int64_t kStripTiles = 64 / kStep;
    static constexpr int64_t kStripColumns = kStripTiles * kStep + S - kStep;
    static constexpr int64_t kPaddedColumns = (kStripColumns + L - 1) / L * L;

    // One tile of one block of channels, from `source` with its channels contiguous.
    static FASTCONV_INLINE void input_tile(const T* source, int64_t row, int64_t pixel, T* out,
                                           int64_t plane_stride) {
        V half[S][S];
#pragma GCC unroll 1
        for (int j = 0; j < S; j++) {
            V d[S], r[S];
#pragma GCC unroll 12
            for (int i = 0; i < S; i++) d[i] = load<V>(source + i * row + j * pixel);
            transform_input_line<Stride, Tile, S, V>(d, r);
#pragma GCC unroll 12
            for (int i = 0; i < S; i++) half[i][j] = r[i];
        }
#pragma GCC unroll 1
        for (int i = 0; i < S; i++) {
            V r[S];
            transform_input_line<Stride, Tile, S, V>(half[i], r);
            const int phases = i < S - S % Stride ? Stride : S % Stride;
            T* const to = out + (i / Stride * Stride * S) * plane_stride;
#pragma GCC unroll 12
            for (int j = 0; j < S; j++) {
                const int before = phases * (j / Stride * Stride),
                          here = j < S - S % Stride ? Stride : S % Stride;
                store(to + (before + i % Stride * here + j % Stride) * plane_stride, r[j]);
            }
        }
    }

    // Copies the inputs of a strip as [row][column][lane], zero where the image has none.
    static void gather(const WinogradJob<T>& job, const Strip& strip, int64_t channel, T* out) {
        const int64_t left = job.channels - channel;
        const auto valid = mask<V>(left);
        const int64_t columns = strip.count * kStep + S - kStep;
        const int32_t* const cols = job.cols + strip.tx * kStep;
        for (int i = 0; i < S; i++) {
            T* const line = out + i * kPaddedColumns * L;
            const int64_t y = job.rows[strip.ty * kStep + i];
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
        const int32_t* const rows = job.rows + strip.ty * kStep;
        const int32_t* const cols = job.cols + (strip.tx + tile) * kStep;
        return rows[0] >= 0 && cols[0] >= 0 && rows[S - 1] == rows[0] + S - 1 &&
               cols[S - 1] == cols[0] + S - 1;
    }

    // The weights of `count` output channels; lanes beyond are zero.
    static void weight(const T* source, int64_t k_step, int64_t c_step, int64_t tap_step, int64_t channels,
                       int64_t count, T* out, int64_t channel_stride, int64_t plane_stride) {
        alignas(64) T taps[Kernel * Kernel][L] = {};
        for (int64_t c = 0; c < channels; c++) {
            for (int tap = 0; tap < Kernel * Kernel; tap++)
                for (int64_t k = 0; k < count; k++)
                    taps[tap][k] = source[k * k_step + c * c_step + tap * tap_step];
            for (int part = 0; part < L; part += kLanes<double>)
                for (int down = 0; down < Stride; down++)
                    for (int along = 0; along < Stride; along++)
                        phase_weight(&taps[0][0] + part, down, along, out + c * channel_stride + part,
                                     plane_stride);
        }
    }

    static FASTCONV_INLINE void phase_weight(const T* taps, int down, int along, T* out,
                                             int64_t plane_stride) {
        constexpr int D = kLanes<double>, most = kScheme.taps();
        using Wide = vec<double, D>;
        using Narrow = vec<T, D>;
        constexpr auto& g = kFilter<M, most>.g;
        Wide w[most][most] = {}, half[Tile][most];
#pragma GCC unroll 4
        for (int i = 0; i < most; i++)
#pragma GCC unroll 4
            for (int j = 0; j < most; j++)
                if (down + Stride * i < Kernel && along + Stride * j < Kernel)
                    w[i][j] = __builtin_convertvector(
                        load<Narrow>(taps + ((down + Stride * i) * Kernel + along + Stride * j) * L), Wide);
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++)
#pragma GCC unroll 4
            for (int j = 0; j < most; j++) {
                half[i][j] = g[i][0] * w[0][j];
#pragma GCC unroll 4
                for (int k = 1; k < most; k++) half[i][j] += g[i][k] * w[k][j];
            }
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) {
            if (down + Stride * i >= S) continue;
#pragma GCC unroll 8
            for (int j = 0; j < Tile; j++) {
                if (along + Stride * j >= S) continue;
                Wide sum = g[j][0] * half[i][0];
#pragma GCC unroll 4
                for (int k = 1; k < most; k++) sum += g[j][k] * half[i][k];
                store(out + (kScheme.plane(i, j) + down * kScheme.phases(j) + along) * plane_stride,
                      __builtin_convertvector(sum, Narrow));
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
                        const int64_t y = job.rows[strip.ty * kStep], x = job.cols[(strip.tx + i) * kStep];
                        const T* const source =
                            job.x + ((strip.image * job.height + y) * job.width + x) * job.channels +
                            block * L;
                        input_tile(source, job.width * job.channels, job.channels, out, v.plane_stride);
                        continue;
                    }
                    if (!job.channels_last) {
                        if (!gathered) gather(job, strip, block * L, strip_values);
                        gathered = true;
                        input_tile(strip_values + i * kStep * L, kPaddedColumns * L, L, out, v.plane_stride);
                    } else {  // at a border of a channels-last image: this tile alone
                        gather(job, {strip.image, strip.ty, strip.tx + i, 1}, block * L, strip_values);
                        input_tile(strip_values, kPaddedColumns * L, L, out, v.plane_stride);
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
                for (int tap = 0; tap < Kernel * Kernel; tap++) {
                    const int64_t y = job.rows[strip.ty * kStep + i * Stride + tap / Kernel],
                                  x = job.cols[strip.tx * kStep + j * Stride + tap % Kernel];
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
        V half[M][Tile], out[M][M];
        if (line == nullptr) {
            // The next tile's outputs are asked for: batches write beyond L2. (64 > 128 at 56 x 56, 8 images: 5.3 to 5.0 ms; inputs
            // below as well brought nothing.)
            const int64_t pixel =
                (strip.image * job.out_height + strip.ty * M) * job.out_width + (strip.tx + 1) * M;
#pragma GCC unroll 6
            for (int i = 0; i < M; i++)
#pragma GCC unroll 6
                for (int j = 0; j < M; j++)
                    __builtin_prefetch(job.y + (pixel + i * job.out_width + j) * job.out_channels + channel,
                                       1, 3);
        }
#pragma GCC unroll 1
        for (int j = 0; j < Tile; j++) {
            V d[Tile], r[M];
#pragma GCC unroll 8
            for (int i = 0; i < Tile; i++) d[i] = load<V>(products + (i * Tile + j) * position_stride);
            transform_output_line<Tile, M, V>(d, r);
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) half[i][j] = r[i];
        }
        V all{};
#pragma GCC unroll 1
        for (int i = 0; i < M; i++) {
            transform_output_line<Tile, M, V>(half[i], out[i]);
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

template <class T, int I = 0>
constexpr void each_scheme(WinogradKernels<T> (&kernels)[kWinogradSchemeCount]) {
    constexpr WinogradScheme scheme = kWinogradSchemes[I];
    using Own = Winograd<scheme.kernel, scheme.stride, scheme.tile, T>;
    kernels[I] = {Own::weight, Own::input, Own::output};
    if constexpr (I + 1 < kWinogradSchemeCount) each_scheme<T, I + 1>(kernels);
}

constexpr WinogradSet make_winograd() {
    WinogradSet set = {};
    each_scheme(set.f32);
    each_scheme(set.f64);
    return set;
}

}  // namespace

const WinogradSet winograd_kernels = make_winograd();

FASTCONV_END_ISA
