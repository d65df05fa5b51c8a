// How a matrix product of pixels and channels is cut among threads.
// Not for the sources of one instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan/problem.hpp"

namespace fastconv {

struct ProductSize {
    int64_t pixels, cell;  // cut at multiples of a cell
    int64_t in, out;       // channels,
    int64_t width;         // of which so many outputs are a block
    int64_t element;       // bytes of a number
};

struct ProductGrid {
    int64_t parts, chunks;  // of the pixels, of the output channels
};

// The grid in which the busiest thread takes the least time.
inline ProductGrid cut_product(const ProductSize& s, int64_t lanes, int threads) {
    const int64_t cells = ceil_div(s.pixels, s.cell), blocks = ceil_div(s.out, s.width);
    const double steps = static_cast<double>(s.in),
                 work = static_cast<double>(s.pixels) * steps * static_cast<double>(s.out), enough = 60e3;
    ProductGrid best{1, 1};
    if (threads == 1 || work < 2 * enough) return best;
    double least = 0;
    for (int64_t parts = 1; parts <= std::min<int64_t>(cells, 4 * threads); parts++) {
        for (int64_t chunks = 1; chunks <= std::min<int64_t>(blocks, 3 * threads); chunks++) {
            const int64_t tasks = parts * chunks;
            if (tasks > 1 && work / static_cast<double>(tasks) < enough) break;
            // In cycles: two vector FMAs each; weights at 16 bytes and pixels at 8; the beginning of a task. Both threads
            // read all pixels where channels are cut, and write parts of lines of outputs: 128 > 512 at 28 x 28 313 us so
            // and 275 with the pixels cut.
            const auto n = static_cast<double>(std::min(ceil_div(cells, parts) * s.cell, s.pixels)),
                       width = static_cast<double>(std::min(ceil_div(blocks, chunks) * s.width, s.out)),
                       element = static_cast<double>(s.element);
            const double multiply = n * steps * width / static_cast<double>(lanes) / 2;
            const double time = static_cast<double>(ceil_div(tasks, threads)) *
                                (multiply + steps * width * element / 16 + n * steps * element / 8 + 1000);
            if (least == 0 || time < least) {
                least = time;
                best = {parts, chunks};
            }
        }
    }
    return best;
}

}  // namespace fastconv
