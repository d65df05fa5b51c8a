// The register-tiled micro-kernels: one building block for convolution, its gradients and matrix products.
//
// Both compute a small tile of  out = sum over steps of x * w  and keep it in registers all the way. What a
// step reads is said by a list of offsets, so that taps, channels, dilation, stride and padding are only
// entries of that list. Steps run in order into one accumulator per output, which starts at zero: the same
// steps give the same bits in every tile shape.
//
//   pixels in lanes    x is read as vectors of neighbouring pixels, w as scalars     (channels first)
//   channels in lanes  w is read as vectors of output channels, x as scalars         (channels last)
//
// [Georganas 2019: batch-reduce GEMM; Dukhan 2019: indirect convolution]
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

// What happens to a finished sum, in this order: + partial, + bias, + add, clamp.
enum class Clamp : int { none, relu, relu6 };

// rows: output channels; columns: pixels. out[r][p] = sum_i x[offsets[i] + p] * w[r * w_row + i]
template <class T>
struct PixelTile {
    const T* x;
    const int64_t* offsets;  // in elements, one per step
    int64_t steps;
    const T* w;
    int64_t w_row;
    T* out;
    int64_t out_row;
    int64_t pixels;              // valid ones, 1 to vectors * lanes; x must be readable for all vectors
    const T* partial = nullptr;  // earlier sums, readable for all vectors
    int64_t partial_row = 0;
    const T* bias = nullptr;  // one per row
    const T* add = nullptr;   // laid out as out
    Clamp clamp = Clamp::none;
};

// rows: pixels; columns: output channels.
// out[r][k] = sum over segments s, i of x[offsets[s] + i * x_step + r * x_row] * w[s, i, k]
template <class T>
struct ChannelTile {
    const T* x;
    int64_t x_row;           // elements from one pixel to the next
    const int64_t* offsets;  // in elements, one per segment
    int64_t segments;
    int64_t length;  // steps of one segment
    const T* w;      // [segment][step][vectors * lanes], zero beyond the channels that exist
    T* out;
    int64_t out_row;
    int64_t channels;         // valid ones, 1 to vectors * lanes
    bool accumulate = false;  // add to earlier sums
    const T* bias = nullptr;  // one per channel
    const T* add = nullptr;   // laid out as out
    Clamp clamp = Clamp::none;
    int64_t x_step = 1;  // elements from one step of a segment to the next
    // Weights where the user has them instead (channels last, x_step 1): a step of segment s, lane by lane, is found
    // w_offsets[s] elements beyond w and w_step from one to the next, and brings what stands w_ahead further into L2.
    // Null: as above.
    const int64_t* w_offsets = nullptr;
    int64_t w_step = 0, w_ahead = 0;
    const T* ahead = nullptr;  // what later calls will need is brought into L2, a few lines in every segment
    int64_t ahead_lines = 0;   // of each segment
    const T* ahead_x = nullptr;  // the same for their inputs or outputs
    int64_t ahead_x_lines = 0;
    const T* earlier = nullptr;  // where earlier sums stand; null: in out
    int64_t earlier_row = 0;
};

constexpr int kMaxPixelRows = 6;     // output channels of a pixel tile
constexpr int kMaxPixelVectors = 4;  // vectors of pixels
constexpr int kMaxChannelRows = 14;  // pixels of a channel tile
constexpr int kMaxChannelVectors = 4;

template <class T>
struct Micro {
    int lanes;
    int pixel_rows, pixel_vectors;  // largest tile of this instruction set
    int channel_rows, channel_vectors;
    // A wider tile of fewer pixels, where there are registers for it; else the same. Its steps are neighbours in x, and its
    // weights packed.
    int wide_rows, wide_vectors;
    void (*pixels[kMaxPixelRows + 1][kMaxPixelVectors + 1])(const PixelTile<T>&);          // [rows][vectors]
    void (*channels[kMaxChannelRows + 1][kMaxChannelVectors + 1])(const ChannelTile<T>&);  // [rows][vectors]
};

struct MicroKernels {
    Micro<float> f32;
    Micro<double> f64;
};

FASTCONV_DECLARE_KERNELS(MicroKernels, micro_kernels)

template <class T>
const Micro<T>& micro();

template <>
inline const Micro<float>& micro<float>() {
    return FASTCONV_DISPATCH(micro_kernels).f32;
}

template <>
inline const Micro<double>& micro<double>() {
    return FASTCONV_DISPATCH(micro_kernels).f64;
}

}  // namespace fastconv
