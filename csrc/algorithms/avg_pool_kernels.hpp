// Average pooling per instruction set: float and double.
#pragma once

#include "algorithms/pool_shape.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

struct AvgPoolKernels {
    int64_t (*forward_scratch)(const PoolShape&);
    void (*forward[2])(const PoolShape&, const int64_t* const* counts, const void* x, void* out,
                       const PoolPart&, void* scratch, const void** rows);
    int64_t (*backward_scratch)(const PoolShape&);  // elements; the rows of a part are rows of the input
    void (*backward[2])(const PoolShape&, const int64_t* const* counts, const void* dy, void* dx,
                        const PoolPart&, void* scratch);
};

FASTCONV_DECLARE_KERNELS(AvgPoolKernels, avg_pool_kernels)

inline const AvgPoolKernels& avg_pool_kernels() { return FASTCONV_DISPATCH(avg_pool_kernels); }

}  // namespace fastconv
