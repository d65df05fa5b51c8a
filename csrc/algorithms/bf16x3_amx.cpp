// Products of matrix tiles (AMX), and float32 in thirds; see bf16x3.hpp. The only file with these instructions.
#include <immintrin.h>

#include "algorithms/bf16x3_kernels.hpp"
#include "algorithms/clamp.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

using V = vec<float, 16>;
using Bits = vec<uint32_t, 16>;
using Form = Bf16x3Form;

// Tiles 0 to 3: sums of (pixel tile, channel tile) 00, 01, 10, 11; 4 and 5: input; 6 and 7: weights.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

void configure() {
    TileShapes shapes;
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = 16;
    }
    asm volatile("ldtilecfg %0" : : "m"(shapes));
}

#define FASTCONV_MULTIPLY(sum, x, w)     \
    do {                                 \
        if constexpr (F != Form::planes) \
            _tile_dpbf16ps(sum, x, w);   \
        else                             \
            _tile_dpbf16ps(sum, w, x);   \
    } while (false)

// Finished sums of a block, up to two by two tiles, on their way to the output: some rows at a time between the products of the
// next block, which the vector units would otherwise wait for. What a row needs is made ready by `begin`: 64 > 64 channels
// 310 GFLOP/s where each row found it out for itself, 450 so.
template <Form F>
class Writer {
  public:
    explicit Writer(const Bf16x3Product& p) : p_(p) {}
    // True after sums that were no numbers, or infinite.
    bool doubtful() const { return _mm512_cmp_ps_mask((__m512)doubt_, (__m512)doubt_, _CMP_UNORD_Q) != 0; }
    // Tiles of `sums` are [pixel tile][channel tile]. The last block's must have been written.
    void begin(int64_t tile, int pixel_tiles, int64_t block, int channel_tiles, float* sums) {
        sums_ = sums;
        row_ = 0;
        channel_tiles_ = channel_tiles;
        pixel_tiles_ = pixel_tiles;
        const int64_t channel = block * 16, left = p_.channels - channel;
        for (int i = 0; i < pixel_tiles; i++) {
            valid_[i] = p_.valid[tile + i];
            at_[i] = p_.first[tile + i] + channel * (kPixels ? 1 : p_.out_row);
        }
        if constexpr (kPixels) {
            rows_ = 16 * pixel_tiles;
            for (int j = 0; j < channel_tiles; j++) {
                mask_[j] = mask<V>(left - 16 * j);
                bias_[j] = p_.bias != nullptr ? load<V>(p_.bias + channel + 16 * j, mask_[j]) : V{};
            }
        } else {
            rows_ = static_cast<int>(left < 16 * channel_tiles ? left : 16 * channel_tiles);
            row_bias_ = p_.bias != nullptr ? p_.bias + channel : nullptr;
            for (int i = 0; i < pixel_tiles; i++) mask_[i] = mask<V>(__builtin_popcount(valid_[i]));
        }
    }
    FASTCONV_INLINE void write(int rows) {
        for (; rows > 0 && row_ < rows_; rows--, row_++) kPixels ? write_pixel() : write_channel();
    }
    void finish() { write(rows_); }

  private:
    static constexpr bool kPixels = F == Form::pixels;

    FASTCONV_INLINE void put(V v, int64_t at, Mask<V> m) {
        doubt_ = doubt_ + v * V{};
        if (p_.add != nullptr) v = v + load<V>(p_.add + at, m);
        store(p_.out + at, clamped(v, p_.clamp), m);
    }
    // Rows of a tile are pixels.
    FASTCONV_INLINE void write_pixel() {
        const int tile = row_ / 16, i = row_ % 16;
        if ((valid_[tile] >> i & 1) == 0) return;
        const float* sum = sums_ + tile * channel_tiles_ * 256 + i * 16;
        for (int j = 0; j < channel_tiles_; j++)
            put(load<V>(sum + j * 256) + bias_[j], at_[tile] + j * 16, mask_[j]);
        at_[tile] += p_.out_row;
    }
    // Rows of a tile become output channels.
    void turn(float* sums) {
        V rows[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) rows[i] = load<V>(sums + 16 * i);
        transpose(rows);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) store(sums + 16 * i, rows[i]);
    }
    // Positions that are no outputs are squeezed out.
    FASTCONV_INLINE void write_channel() {
        if (F == Form::turned && row_ % 16 == 0)
            for (int i = 0; i < pixel_tiles_; i++) turn(sums_ + (i * channel_tiles_ + row_ / 16) * 256);
        const float* sum = sums_ + row_ * 16;
        const V bias = row_bias_ != nullptr ? broadcast<V>(row_bias_[row_]) : V{};
        for (int i = 0; i < pixel_tiles_; i++) {
            V v = load<V>(sum + i * channel_tiles_ * 256) + bias;
            if (valid_[i] != 0xffff)
                v = (V)_mm512_maskz_compress_ps(static_cast<__mmask16>(valid_[i]), (__m512)v);
            put(v, at_[i], mask_[i]);
            at_[i] += p_.out_row;
        }
    }

    const Bf16x3Product& p_;
    float* sums_ = nullptr;
    const float* row_bias_ = nullptr;
    int row_ = 0, rows_ = 0, pixel_tiles_ = 0, channel_tiles_ = 0;
    uint32_t valid_[2] = {};
    int64_t at_[2] = {};
    Mask<V> mask_[2] = {};
    V bias_[2] = {}, doubt_ = {};
};

// Sums of NP x NN tiles over steps begin .. end-1, written to `sums`, 256 numbers a tile. Of the nine products of thirds the
// six largest count.
template <Form F, int NP, int NN>
void sum_steps(const Bf16x3Product& p, int64_t tile, int64_t block, int64_t begin, int64_t end, float* sums,
               Writer<F>& writer) {
    const int64_t x_line = p.x_line, x_split = p.x_split;
    const int64_t w_tile = p.steps * kTileStep;
    const char* const x_first = p.x + p.places[tile];
    const int64_t x_tile = NP > 1 ? p.places[tile + 1] - p.places[tile] : 0;
    const char* w = p.w + block * w_tile + begin * kTileStep;
    _tile_zero(0);
    if constexpr (NN > 1) _tile_zero(1);
    if constexpr (NP > 1) _tile_zero(2);
    if constexpr (NP > 1 && NN > 1) _tile_zero(3);
    const auto load_x = [&](const char* x) __attribute__((always_inline)) {
        _tile_loadd(4, x, x_line);
        if constexpr (NP > 1) _tile_loadd(5, x + x_tile, x_line);
    };
    const auto load_w = [&](const char* from) __attribute__((always_inline)) {
        _tile_loadd(6, from, 64);
        if constexpr (NN > 1) _tile_loadd(7, from + w_tile, 64);
    };
    const int64_t ahead = tile == 0 ? p.w_ahead : 0;
    const char* next = w;
    const int rows = static_cast<int>((32 + 6 * (end - begin) - 1) / (6 * (end - begin)));
    const auto multiply = [&]() __attribute__((always_inline)) {
        FASTCONV_MULTIPLY(0, 4, 6);
        if constexpr (NN > 1) FASTCONV_MULTIPLY(1, 4, 7);
        if constexpr (NP > 1) FASTCONV_MULTIPLY(2, 5, 6);
        if constexpr (NP > 1 && NN > 1) FASTCONV_MULTIPLY(3, 5, 7);
        writer.write(rows);
        if (ahead == 0) return;
        for (int j = 0; j < kTileStep / 6; j += 64) {
            prefetch_l2(next + j);
            if constexpr (NN > 1) prefetch_l2(next + w_tile + j);
        }
        next += kTileStep / 6;
    };
    for (int64_t i = begin; i < end; i++, w += kTileStep) {
        next = w + ahead;
        const char* const x = x_first + p.x_offsets[i];
        load_x(x), load_w(w + 2 * kTileBytes), multiply();
        load_w(w + kTileBytes), multiply();
        load_w(w), multiply();
        load_x(x + 2 * x_split), multiply();
        load_x(x + x_split), multiply();
        load_w(w + kTileBytes), multiply();
    }
    writer.finish();
    _tile_stored(0, sums, 64);
    if constexpr (NN > 1) _tile_stored(1, sums + 256, 64);
    if constexpr (NP > 1) _tile_stored(2, sums + NN * 256, 64);
    if constexpr (NP > 1 && NN > 1) _tile_stored(3, sums + 768, 64);
}

// Chains of additions into one accumulator are cut, so that errors stay bounded.
constexpr int64_t kMostSteps = 80;

// `sums` has room for two blocks: one is written while the next is summed.
template <Form F, int NP, int NN>
void multiply_block(const Bf16x3Product& p, int64_t tile, int64_t block, float* sums, Writer<F>& writer) {
    const int64_t chains = p.steps > kMostSteps ? (p.steps + kMostSteps - 1) / kMostSteps : 1;
    sum_steps<F, NP, NN>(p, tile, block, 0, p.steps / chains, sums, writer);
    alignas(64) float more[NP * NN * 256];
    for (int64_t c = 1; c < chains; c++) {
        sum_steps<F, NP, NN>(p, tile, block, p.steps * c / chains, p.steps * (c + 1) / chains, more, writer);
        for (int i = 0; i < NP * NN * 256; i += 16) store(sums + i, load<V>(sums + i) + load<V>(more + i));
    }
    writer.begin(tile, NP, block, NN, sums);
}

template <Form F>
bool multiply_all(const Bf16x3Product& p) {
    alignas(64) float sums[2 * 4 * 256];
    Writer<F> writer(p);
    const int64_t blocks = (p.channels + 15) / 16;
    int turn = 0;
    for (int64_t block = 0; block < blocks; block += 2)
        for (int64_t tile = 0; tile < p.tiles; tile += 2, turn ^= 1) {
            float* const to = sums + turn * 4 * 256;
            const bool two_blocks = block + 2 <= blocks, two_tiles = tile + 2 <= p.tiles;
            if (two_tiles)
                two_blocks ? multiply_block<F, 2, 2>(p, tile, block, to, writer)
                           : multiply_block<F, 2, 1>(p, tile, block, to, writer);
            else
                two_blocks ? multiply_block<F, 1, 2>(p, tile, block, to, writer)
                           : multiply_block<F, 1, 1>(p, tile, block, to, writer);
        }
    writer.finish();
    return writer.doubtful();
}

bool multiply(const Bf16x3Product& p) {
    configure();
    const bool doubtful = p.form == Form::pixels   ? multiply_all<Form::pixels>(p)
                          : p.form == Form::turned ? multiply_all<Form::turned>(p)
                                                   : multiply_all<Form::planes>(p);
    _tile_release();
    return doubtful;
}

// A number is the sum of three that share its 24 bits: the nearest of eight bits, the highest eight of the rest, what then is
// left. (Were the first cut off as well, all that is dropped from products would have their sign: errors twice as large.) Two
// vectors make one of pairs.
FASTCONV_INLINE void split_vectors(V a, V b, char* to, int64_t split) {
#pragma GCC unroll 3
    for (int third = 0; third < 3; third++) {
        Bits x = (Bits)a, y = (Bits)b;
        if (third == 0) x += 0x8000u, y += 0x8000u;
        y &= 0xffff0000u;
        _mm512_storeu_si512(to + third * split, (__m512i)(x >> 16 | y));
        a = a - (V)(x & 0xffff0000u);
        b = b - (V)y;
    }
}

void split_pixels(const float* x, int64_t step, int64_t n, int64_t channels, char* to, int64_t split) {
    const auto low = mask<V>(channels), high = mask<V>(channels - 16);
    for (int64_t i = 0; i < n; i++, x += step, to += 64)
        split_vectors(load<V>(x, low), load<V>(x + 16, high), to, split);
}

void split_rows(const float* x, int64_t row, int64_t n, int64_t channels, char* const* to, int64_t phases,
                int64_t split) {
    int64_t phase = 0, at = 0;
    for (int64_t i = 0; i < n; i += 16) {
        const int64_t pixels = n - i < 16 ? n - i : 16;
        const auto m = mask<V>(pixels);
        V a[16], b[16];
#pragma GCC unroll 16
        for (int c = 0; c < 16; c++) a[c] = c < channels ? load<V>(x + c * row + i, m) : V{};
        transpose(a);
#pragma GCC unroll 16
        for (int c = 0; c < 16; c++) b[c] = c + 16 < channels ? load<V>(x + (c + 16) * row + i, m) : V{};
        transpose(b);
        for (int64_t j = 0; j < pixels; j++) {
            if (to[phase] != nullptr) split_vectors(a[j], b[j], to[phase] + at, split);
            if (++phase == phases) phase = 0, at += 64;
        }
    }
}

void split_pair(const float* first, const float* second, int64_t n, char* to, int64_t split) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16, to += 64)
        split_vectors(load<V>(first + i), second == nullptr ? V{} : load<V>(second + i), to, split);
    if (i == n) return;
    const auto tail = mask<V>(n - i);
    split_vectors(load<V>(first + i, tail), second == nullptr ? V{} : load<V>(second + i, tail), to, split);
}

}  // namespace

extern const Bf16x3Kernels bf16x3_amx;
const Bf16x3Kernels bf16x3_amx = {multiply, split_pixels, split_rows, split_pair};

FASTCONV_END_ISA
