// Small and narrow planes, channels first: some planes are turned, so that each is a lane, and pooled as channels last.
//
// Channels first, a plane is walked row by row, and a row costs some 20 ns however short it is; windows of depth and
// strides of three and more cost more. Channels last, neighbouring planes fill the vectors whatever the plane's
// shape: 3x3 on 60x3 took 7.2 ns a pixel beside 0.45, and 0.9 with the turning; the gradient of an average over 3x3x3
// on 12x14x3 27 beside 0.74. Planes do not know of each other, so that any of them may share a block: all images'
// planes are cut into blocks of a number that follows from the shape alone, and the last block is filled with zeros.
#pragma once

#include <algorithm>
#include <cstdint>

#include "algorithms/gradient_loops_kernels.hpp"
#include "algorithms/pool_shape.hpp"
#include "plan/problem.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

// The gradient of a maximum with ties "first" has kernels of its own.
enum class PoolPass { max, average, max_gradient, tied_gradient, average_gradient };

// Planes turned together; zero where rows are predicted to take less time.
int64_t turned_planes(const PoolShape& shape, PoolPass pass, int64_t item);

// One or two arrays of planes that are read and one that is written, each with the elements of a plane.
template <class T>
struct TurnedArrays {
    const T *first, *second;
    int64_t first_volume, second_volume;
    T* out;
    int64_t out_volume;
};

// Calls run(shape, first, second, out) for each block of turned planes, on the pool.
template <class T, class Run>
void for_turned_planes(const PoolShape& s, int64_t planes, int64_t together, const TurnedArrays<T>& arrays,
                       Run&& run) {
    PoolShape turned = s;
    turned.channels_last = true;
    turned.channels = together;
    const auto run_block = [&](int64_t block) {
        const int64_t begin = block * together, count = std::min(together, planes - begin);
        ScratchFrame frame;
        const auto read = [&](const T* from, int64_t volume) {
            T* const to = frame.take<T>(volume * together);
            if (count < together) std::fill_n(to, volume * together, T(0));
            gradient_loops<T>().transpose(from + begin * volume, volume, count, volume, to, together);
            return to;
        };
        const T* const first = read(arrays.first, arrays.first_volume);
        const T* const second =
            arrays.second == nullptr ? nullptr : read(arrays.second, arrays.second_volume);
        T* const out = frame.take<T>(arrays.out_volume * together);
        run(turned, first, second, out);
        gradient_loops<T>().transpose(out, together, arrays.out_volume, count,
                                      arrays.out + begin * arrays.out_volume, arrays.out_volume);
    };
    const int64_t elements = planes * (arrays.first_volume + arrays.second_volume + arrays.out_volume);
    parallel_for(ceil_div(planes, together), run_block, 0, static_cast<double>(elements) * 0.2e-9);
}

}  // namespace fastconv
