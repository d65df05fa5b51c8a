// The register tile of 1x1 convolutions with pixels in lanes: panels of pixels against rows of weights.
//
// It computes what the other micro-kernels do (microkernel_kernels.hpp: one accumulator per output, steps in order, from
// zero), but brings its operands along. The first call over a tile of pixels reads them from their planes and leaves them
// in a panel for the calls that follow; every call asks for some lines of the next panel's pixels and for the outputs of
// the next call. In L1 the tile runs at 97% of the FMA units; from planes in L3, one line of every plane at a time, a
// separate copy and cold outputs cost another half: 256 > 128 at 56 x 56 took 143 GFLOP/s of 200 with a copy, 157 with
// its lines asked for ahead, 181 copied by the first call.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// Runs of a tile's width that are brought into L2. Where lines begin within vectors it is the end of each vector that is
// asked for: its beginning came with the run before.
template <class T>
struct Lines {
    const T* first = nullptr;
    int64_t step = 0;  // from one to the next
    int64_t count = 0;
};

// rows: output channels; columns: pixels. out[r][p] = sum_i x[i * x_step + p] * w[r * w_row + i * w_step]
template <class T>
struct PanelTile {
    const T* x;
    int64_t x_step;
    int64_t steps;
    const T* w;
    int64_t w_row, w_step;
    T* out;
    int64_t out_row;
    int64_t pixels;              // valid ones, more than vectors - 1 hold; x must be readable for all vectors
    T* copy = nullptr;           // where a copying tile leaves x, one step after another
    const T* partial = nullptr;  // earlier sums, readable for all vectors
    int64_t partial_row = 0;
    const T* bias = nullptr;  // one per row
    const T* add = nullptr;   // laid out as out
    Clamp clamp = Clamp::none;
    bool waits = false;  // out holds earlier sums for a later call
    Lines<T> ahead[2];   // inputs and outputs of later calls, at most one for two steps altogether
};

constexpr int kPanelVectors = 2;

template <class T>
struct PanelTiles {
    int rows;  // largest tile of this instruction set; kPanelVectors wide
    // [copies][rows][vectors]
    void (*run[2][kMaxChannelRows + 1][kPanelVectors + 1])(const PanelTile<T>&);
    // One vector and one pixel, from rows of two vectors. Weights are packed (w_row is 1), and a vector is read from each
    // step's. Null where an instruction set has none. [rows]
    void (*beside[kMaxChannelRows + 1])(const PanelTile<T>&);
    // to[c * to_row + j] = from[c * from_row + 2 * j] for j < n.
    void (*take_even)(const T* from, int64_t from_row, int64_t channels, int64_t n, T* to, int64_t to_row);
};

struct PanelTileKernels {
    PanelTiles<float> f32;
    PanelTiles<double> f64;
};

FASTCONV_DECLARE_KERNELS(PanelTileKernels, panel_tile_kernels)

template <class T>
const PanelTiles<T>& panel_tiles();

template <>
inline const PanelTiles<float>& panel_tiles<float>() {
    return FASTCONV_DISPATCH(panel_tile_kernels).f32;
}

template <>
inline const PanelTiles<double>& panel_tiles<double>() {
    return FASTCONV_DISPATCH(panel_tile_kernels).f64;
}

}  // namespace fastconv
