// Kernels of bf16x3; the driver is bf16x3.cpp.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"

namespace fastconv {

constexpr int64_t kTilePixels = 16;   // of a tile of outputs, with as many output channels
constexpr int64_t kTileDepth = 32;    // input channels of one step
constexpr int64_t kTileBytes = 1024;  // of one third of the weights of a step and of a tile's output channels
constexpr int64_t kTileStep = 3 * kTileBytes;
constexpr int64_t kMostColumnPhases = 16;  // stride along a line

// How tiles lie. Rows are positions, columns output channels, and so is the output; the same, with finished tiles turned over
// for an output of planes; rows are output channels, columns positions.
enum class Bf16x3Form { pixels, turned, planes };

// Outputs of some pixels and output channels: sums over steps of products of tiles. Input channel i of a step's 32 stands in
// pair i % 16, first if i < 16.
struct Bf16x3Product {
    Bf16x3Form form;
    // Thirds of the input, x_split bytes apart: 64 bytes a position; `planes`: pairs of channels in lines of x_line bytes, four
    // bytes a position.
    const char* x;
    int64_t x_line, x_split;
    const int64_t* x_offsets;  // of each step
    const char* w;             // [tile of output channels][step][third][tile]
    int64_t steps;
    int64_t tiles;          // of positions
    const int64_t* places;  // of each tile: where it begins, in bytes from x
    const uint16_t* valid;  // of each tile: which of its positions are outputs
    const int64_t* first;   // of each tile: where its first output goes, in elements from out
    int64_t channels;       // outputs
    float* out;             // of the first channel
    int64_t out_row;        // `pixels`: from one pixel to the next; else from one channel to the next
    int64_t out_ahead =
        0;                // elements by which outputs are asked for before they are written; 0: they are not
    int64_t w_ahead = 0;  // bytes by which weights are asked for before they are used; 0: L2 holds them
    const float* bias = nullptr;
    const float* add = nullptr;  // laid out as out
    Clamp clamp = Clamp::none;
};

// 1x1 whose weights L2 holds: the thirds of 32 pixels are made while those before them are multiplied, and stay in L1.
struct Bf16x3Dense {
    Bf16x3Product product;  // but for its x, tiles, places, valid and first
    const float* x;         // of the first pixel and channel
    int64_t step;           // `pixels`: from one pixel to the next; `planes`: from one channel to the next
    int64_t pixels, in_channels;
    char* thirds;  // of kDensePixels for each block of 32 input channels, twice
};
constexpr int64_t kDensePixels = 32;

struct Bf16x3Kernels {
    bool (*multiply_dense)(const Bf16x3Dense& dense);
    // True where a sum came out as NaN or infinite.
    bool (*multiply)(const Bf16x3Product& product);
    // Thirds of the first `channels` (up to 32) numbers of n positions, `step` numbers apart: 64 bytes a position.
    void (*split_pixels)(const float* x, int64_t step, int64_t n, int64_t channels, char* to, int64_t split);
    // The same of rows of n pixels, `row` numbers from one channel to the next. Pixel i goes to phase i % phases (up to
    // kMostColumnPhases), at place i / phases of it; a phase that is null is left out.
    void (*split_rows)(const float* x, int64_t row, int64_t n, int64_t channels, char* const* to,
                       int64_t phases, int64_t split);
    // Thirds of n numbers of two channels, zeros where the second is null: four bytes a position. Up to 15 positions more are written, as zeros.
    void (*split_pair)(const float* first, const float* second, int64_t n, char* to, int64_t split);
};

// nullptr where this build or this machine has no matrix tiles, or FASTCONV_ISA forbids them.
const Bf16x3Kernels* bf16x3_kernels();

}  // namespace fastconv
