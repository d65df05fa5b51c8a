// Rows of outputs that stand apart in a larger array (ConvArgs::place), and tiles that go on from one to the next.
// Not for the sources of one instruction set.
#pragma once

#include <cstring>

#include "algorithms/direct.hpp"
#include "plan/conv.hpp"

namespace fastconv {

constexpr int64_t kWidest = 64, kMostRows = 16;  // of a tile of the channels in lanes

// Where a row of placed outputs begins; rows count images, planes and rows.
template <class T>
T* placed_row(const ConvProblem& p, const ConvArgs& args, int64_t row) {
    const Placement& at = *args.place;
    const int64_t plane = row / p.out_size[1];
    return static_cast<T*>(args.out) + plane / p.out_size[0] * at.image + plane % p.out_size[0] * at.plane +
           row % p.out_size[1] * at.row;
}
// A tile of placed outputs that goes on in the next row, from or to where it stands in one piece.
template <class T>
void cut_tile(const ConvProblem& p, const ConvArgs& args, int64_t pixel, int64_t n, const LaneBlock& block,
              T* tile, bool reads) {
    const size_t bytes = static_cast<size_t>(block.count) * sizeof(T);
    for (int64_t i = pixel; i < pixel + n; i++, tile += kWidest) {
        T* const at =
            placed_row<T>(p, args, i / p.out_size[2]) + i % p.out_size[2] * args.place->pixel + block.first;
        reads ? std::memcpy(tile, at, bytes) : std::memcpy(at, tile, bytes);
    }
}

}  // namespace fastconv
