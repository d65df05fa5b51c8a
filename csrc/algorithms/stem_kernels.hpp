// Stems: first layers, channels last, with channels in lanes. The driver is first_layer_stem.cpp, the kernel stem.hpp.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int kStemVectors = 4;  // vectors of output channels of one call, at most

// What streaming keeps from one call to the next: the last vector of sums, which begins a line that the next one ends.
struct StemCarry {
    alignas(64) float last[16] = {};
    bool empty = true;  // nothing was written yet: the first line is written from `out` on
};

// Neighbouring pixels of one output row, all of them of one block of output channels.
struct StemRow {
    const float* x;        // under the first tap of the first pixel
    int64_t x_pixel;       // from one output pixel to the next
    const int64_t* steps;  // from the input of each term to that of the next
    int64_t terms;
    bool triples;       // three terms at a time read neighbours in x
    const float* w;     // [term][vector][lane], zero beyond the channels that exist
    const float* bias;  // [vector][lane]; the sums start from it
    float* out;
    int64_t out_pixel;
    int64_t pixels, channels;
    const float* add = nullptr;  // laid out as out
    Clamp clamp = Clamp::none;
    const char* ahead = nullptr;  // lines that later calls read: brought into L2, a few with every tile
    int64_t ahead_lines = 0;
    // Not null: outputs go past the caches, whole lines wherever `out` begins in one. Pixels must be whole vectors and follow
    // each other in memory, those of the next call too.
    StemCarry* carry = nullptr;
};

// Pixels of the tile, by its vectors of output channels, that comes next where so many are left. Those beyond the last are
// computed and not stored: x is read for as many.
static constexpr int kStemTiles[kStemVectors + 1][3] = {{}, {14, 8, 4}, {14, 8, 4}, {9, 6, 3}, {6, 4, 2}};
static constexpr int stem_tile_of(int vectors, int64_t left) {
    const auto& sizes = kStemTiles[vectors];
    if (left >= sizes[0] || left > sizes[1] + sizes[2]) return sizes[0];
    return left > sizes[2] ? sizes[1] : sizes[2];
}

struct StemKernels {
    // [vectors of output channels]; null where the instruction set has too few registers
    void (*row[kStemVectors + 1])(const StemRow&);
};

FASTCONV_DECLARE_KERNELS(StemKernels, stem_kernels)

inline const StemKernels& stems() { return FASTCONV_DISPATCH(stem_kernels); }

}  // namespace fastconv
