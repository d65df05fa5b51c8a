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

// Thirds of the next 32 pixels of a dense problem, some units at a time: 32 channels of a pixel, or 32 pixels of two channels.
// They lie as [block of channels][third][tile], rows of tiles being pixels or pairs of channels.
template <Form F>
class Splitter {
  public:
    static constexpr int64_t kThird = kDensePixels * 64, kBlock = 3 * kThird;

    explicit Splitter(const Bf16x3Dense& d) : d_(d), blocks_((d.in_channels + 31) / 32) {}
    int64_t blocks() const { return blocks_; }
    int units() const { return static_cast<int>(blocks_) * (F == Form::pixels ? 32 : 16); }
    void begin(int64_t pixel, char* to) {
        to_ = to;
        n_ = d_.pixels - pixel < kDensePixels ? d_.pixels - pixel : kDensePixels;
        x_ = d_.x + pixel * (F == Form::pixels ? d_.step : 1);
        unit_ = 0;
        block_ = 0;
        left_ = F == Form::pixels ? static_cast<int>(n_ * blocks_) : units();
    }
    // State is kept in registers over some units: from one to the next by way of memory it took longer than the work.
    FASTCONV_INLINE void some(int units) {
        if (left_ == 0) return;
        const int n = units < left_ ? units : left_;
        left_ -= n;
        int64_t unit = unit_, block = block_;
        for (int i = 0; i < n; i++)
            F == Form::pixels ? split_pixel(unit, block) : split_channels(unit, block);
        unit_ = unit;
        block_ = block;
    }
    void finish() { some(left_); }

  private:
    // Blocks of a pixel follow each other.
    FASTCONV_INLINE void split_pixel(int64_t& unit, int64_t& block) const {
        const int64_t c = block * 32, left = d_.in_channels - c;
        const float* const x = x_ + unit * d_.step + c;
        prefetch_l1(x + kDensePixels * d_.step);
        prefetch_l1(x + kDensePixels * d_.step + 16);
        char* const to = to_ + block * kBlock + unit * 64;
        if (left >= 32)
            split_vectors(load<V>(x), load<V>(x + 16), to, kThird);
        else
            split_vectors(load<V>(x, mask<V>(left)), load<V>(x + 16, mask<V>(left - 16)), to, kThird);
        if (++block == blocks_) block = 0, unit++;
    }
    FASTCONV_INLINE void split_channels(int64_t& unit, int64_t& block) const {
        const int64_t c = block * 32 + unit;
        const bool one = c < d_.in_channels, two = c + 16 < d_.in_channels;
        const float *const a = x_ + c * d_.step, *const b = a + 16 * d_.step;
        if (one) prefetch_l1(a + kDensePixels), prefetch_l1(a + kDensePixels + 16);
        if (two) prefetch_l1(b + kDensePixels), prefetch_l1(b + kDensePixels + 16);
        char* const to = to_ + block * kBlock + unit * 128;
#pragma GCC unroll 2
        for (int64_t i = 0; i < 2; i++) {
            const auto m = mask<V>(n_ - 16 * i);
            split_vectors(one ? load<V>(a + 16 * i, m) : V{}, two ? load<V>(b + 16 * i, m) : V{}, to + 64 * i,
                          kThird);
        }
        if (++unit == 16) unit = 0, block++;
    }

    const Bf16x3Dense& d_;
    int64_t blocks_, unit_ = 0, block_ = 0, n_ = 0;
    int left_ = 0;
    const float* x_ = nullptr;
    char* to_ = nullptr;
};

// Finished sums of a block, up to two by two tiles, on their way to the output: some rows at a time between the products of the
// next block, which the vector units would otherwise wait for. What a row needs is made ready by `begin`: 64 > 64 channels
// 310 GFLOP/s where each row found it out for itself, 450 so.
template <Form F>
class Writer {
  public:
    explicit Writer(const Bf16x3Product& p) : p_(p) {}
    // True after sums that were no numbers, or infinite.
    bool doubtful() const { return doubt_ != 0; }
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
    // State is kept in registers over some rows.
    FASTCONV_INLINE void write(int rows) {
        if (row_ == rows_) return;
        const int begin = row_, end = begin + rows < rows_ ? begin + rows : rows_;
        uint32_t doubt = doubt_;
        kPixels ? write_pixels(begin, end, doubt) : write_channels(begin, end, doubt);
        row_ = end;
        doubt_ = doubt;
    }
    void finish() { write(rows_); }

  private:
    static constexpr bool kPixels = F == Form::pixels;

    FASTCONV_INLINE void put(V v, int64_t at, Mask<V> m, uint32_t& doubt) const {
        doubt |= _mm512_fpclass_ps_mask((__m512)v, 0x99);  // NaN, quiet or not, and both infinities
        if (p_.out_ahead != 0) __builtin_prefetch(p_.out + at + p_.out_ahead, 1, 3);
        if (p_.add != nullptr) v = v + load<V>(p_.add + at, m);
        store(p_.out + at, clamped(v, p_.clamp), m);
    }
    // Rows of a tile are pixels.
    FASTCONV_INLINE void write_pixels(int begin, int end, uint32_t& doubt) {
        const int tile = begin / 16, channel_tiles = channel_tiles_;
        if (end > 16 * (tile + 1)) {  // rows of two tiles
            write_pixels(begin, 16 * (tile + 1), doubt);
            return write_pixels(16 * (tile + 1), end, doubt);
        }
        const uint32_t valid = valid_[tile];
        const float* sum = sums_ + (tile * channel_tiles * 16 + begin % 16) * 16;
        int64_t at = at_[tile];
        for (int row = begin % 16, n = row + end - begin; row < n; row++, sum += 16) {
            if ((valid >> row & 1) == 0) continue;
            put(load<V>(sum) + bias_[0], at, mask_[0], doubt);
            if (channel_tiles > 1) put(load<V>(sum + 256) + bias_[1], at + 16, mask_[1], doubt);
            at += p_.out_row;
        }
        at_[tile] = at;
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
    FASTCONV_INLINE V squeezed(const float* sum, V bias, uint32_t valid) const {
        const V v = load<V>(sum) + bias;
        return valid == 0xffff ? v : (V)_mm512_maskz_compress_ps(static_cast<__mmask16>(valid), (__m512)v);
    }
    FASTCONV_INLINE void write_channels(int begin, int end, uint32_t& doubt) {
        const int pixel_tiles = pixel_tiles_;
        const int64_t second = channel_tiles_ * 256;
        int64_t at = at_[0], at_second = at_[1];
        for (int row = begin; row < end; row++) {
            if (F == Form::turned && row % 16 == 0)
                for (int i = 0; i < pixel_tiles; i++) turn(sums_ + i * second + row / 16 * 256);
            const float* const sum = sums_ + row * 16;
            const V bias = row_bias_ != nullptr ? broadcast<V>(row_bias_[row]) : V{};
            put(squeezed(sum, bias, valid_[0]), at, mask_[0], doubt);
            if (pixel_tiles > 1) put(squeezed(sum + second, bias, valid_[1]), at_second, mask_[1], doubt);
            at += p_.out_row;
            at_second += p_.out_row;
        }
        at_[0] = at;
        at_[1] = at_second;
    }

    const Bf16x3Product& p_;
    float* sums_ = nullptr;
    const float* row_bias_ = nullptr;
    int row_ = 0, rows_ = 0, pixel_tiles_ = 0, channel_tiles_ = 0;
    uint32_t valid_[2] = {};
    int64_t at_[2] = {};
    Mask<V> mask_[2] = {};
    V bias_[2] = {};
    uint32_t doubt_ = 0;
};

// What the vector units do between products.
template <Form F>
struct Background {
    Writer<F> writer;
    Splitter<F>* splitter = nullptr;
    int rows = 0, units = 0;

    explicit Background(const Bf16x3Product& p) : writer(p) {}
    FASTCONV_INLINE void some() {
        writer.write(rows);
        if (splitter != nullptr) splitter->some(units);
    }
};

// Sums of NP x NN tiles over steps begin .. end-1, written to `sums`, 256 numbers a tile. Of the nine products of thirds the
// six largest count.
template <Form F, int NP, int NN>
void sum_steps(const Bf16x3Product& p, int64_t tile, int64_t block, int64_t begin, int64_t end, float* sums,
               Background<F>& background) {
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
    background.rows = static_cast<int>((32 + 6 * (end - begin) - 1) / (6 * (end - begin)));
    const auto multiply = [&]() __attribute__((always_inline)) {
        FASTCONV_MULTIPLY(0, 4, 6);
        if constexpr (NN > 1) FASTCONV_MULTIPLY(1, 4, 7);
        if constexpr (NP > 1) FASTCONV_MULTIPLY(2, 5, 6);
        if constexpr (NP > 1 && NN > 1) FASTCONV_MULTIPLY(3, 5, 7);
        background.some();
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
    background.writer.finish();
    _tile_stored(0, sums, 64);
    if constexpr (NN > 1) _tile_stored(1, sums + 256, 64);
    if constexpr (NP > 1) _tile_stored(2, sums + NN * 256, 64);
    if constexpr (NP > 1 && NN > 1) _tile_stored(3, sums + 768, 64);
}

// Chains of additions into one accumulator are cut, so that errors stay bounded.
constexpr int64_t kMostSteps = 80;

// `sums` has room for two blocks: one is written while the next is summed.
template <Form F, int NP, int NN>
void multiply_block(const Bf16x3Product& p, int64_t tile, int64_t block, float* sums,
                    Background<F>& background) {
    const int64_t chains = p.steps > kMostSteps ? (p.steps + kMostSteps - 1) / kMostSteps : 1;
    sum_steps<F, NP, NN>(p, tile, block, 0, p.steps / chains, sums, background);
    alignas(64) float more[NP * NN * 256];
    for (int64_t c = 1; c < chains; c++) {
        sum_steps<F, NP, NN>(p, tile, block, p.steps * c / chains, p.steps * (c + 1) / chains, more,
                             background);
        for (int i = 0; i < NP * NN * 256; i += 16) store(sums + i, load<V>(sums + i) + load<V>(more + i));
    }
    background.writer.begin(tile, NP, block, NN, sums);
}

// The block of up to two by two tiles that begins at (tile, block).
template <Form F>
void multiply_at(const Bf16x3Product& p, int64_t tile, int64_t block, float* sums,
                 Background<F>& background) {
    const bool two_blocks = (block + 1) * 16 < p.channels, two_tiles = tile + 2 <= p.tiles;
    if (two_tiles)
        two_blocks ? multiply_block<F, 2, 2>(p, tile, block, sums, background)
                   : multiply_block<F, 2, 1>(p, tile, block, sums, background);
    else
        two_blocks ? multiply_block<F, 1, 2>(p, tile, block, sums, background)
                   : multiply_block<F, 1, 1>(p, tile, block, sums, background);
}

constexpr int kBlockSums = 4 * 256;

template <Form F>
bool multiply_all(const Bf16x3Product& p) {
    alignas(64) float sums[2 * kBlockSums];
    Background<F> background(p);
    int turn = 0;
    for (int64_t block = 0; block * 16 < p.channels; block += 2)
        for (int64_t tile = 0; tile < p.tiles; tile += 2, turn ^= 1)
            multiply_at(p, tile, block, sums + turn * kBlockSums, background);
    background.writer.finish();
    return background.writer.doubtful();
}

template <Form F>
bool multiply_pixels(const Bf16x3Dense& d) {
    alignas(64) float sums[2 * kBlockSums];
    constexpr bool kPixels = F == Form::pixels;
    Bf16x3Product p = d.product;
    const int64_t places[2] = {0, kPixels ? kTilePixels * 64 : 64};
    int64_t first[2];
    uint16_t valid[2];
    p.x_line = kPixels ? 64 : 128;
    p.x_split = Splitter<F>::kThird;
    p.places = places;
    p.first = first;
    p.valid = valid;
    Splitter<F> splitter(d);
    Background<F> background(p);
    background.splitter = &splitter;
    const auto groups = static_cast<int>(6 * p.steps * ((p.channels + 31) / 32));
    background.units = (splitter.units() + groups - 1) / groups;
    const int64_t size = splitter.blocks() * Splitter<F>::kBlock;
    splitter.begin(0, d.thirds);
    splitter.finish();
    int turn = 0, half = 0;
    for (int64_t pixel = 0; pixel < d.pixels; pixel += kDensePixels, half ^= 1) {
        p.x = d.thirds + half * size;
        if (pixel + kDensePixels < d.pixels)
            splitter.begin(pixel + kDensePixels, d.thirds + (half ^ 1) * size);
        p.tiles = d.pixels - pixel > kTilePixels ? 2 : 1;
        for (int i = 0; i < p.tiles; i++) {
            const int64_t from = pixel + i * kTilePixels, n = d.pixels - from;
            first[i] = from * (kPixels ? p.out_row : 1);
            valid[i] = static_cast<uint16_t>(n >= 16 ? 0xffff : (1u << n) - 1);
        }
        for (int64_t block = 0; block * 16 < p.channels; block += 2, turn ^= 1)
            multiply_at(p, 0, block, sums + turn * kBlockSums, background);
        splitter.finish();
    }
    background.writer.finish();
    return background.writer.doubtful();
}

bool multiply(const Bf16x3Product& p) {
    configure();
    const bool doubtful = p.form == Form::pixels   ? multiply_all<Form::pixels>(p)
                          : p.form == Form::turned ? multiply_all<Form::turned>(p)
                                                   : multiply_all<Form::planes>(p);
    _tile_release();
    return doubtful;
}

bool multiply_dense(const Bf16x3Dense& d) {
    configure();
    const bool doubtful =
        d.product.form == Form::pixels ? multiply_pixels<Form::pixels>(d) : multiply_pixels<Form::planes>(d);
    _tile_release();
    return doubtful;
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
const Bf16x3Kernels bf16x3_amx = {multiply_dense, multiply, split_pixels, split_rows, split_pair};

FASTCONV_END_ISA
