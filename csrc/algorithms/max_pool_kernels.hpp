// Max pooling per instruction set.
#pragma once

#include "algorithms/pool_shape.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// The order of the kernels' dtype tables.
enum class PoolType { f32, f64, i8, u8, i16, u16, i32, u32, i64, u64 };

struct MaxPoolKernels {
    // `scratch` has room for forward_scratch elements and `rows` for window_row_limit pointers
    int64_t (*forward_scratch)(const PoolShape&);
    void (*forward[10])(const PoolShape&, const int64_t* const* counts, const void* x, void* out,
                        const PoolPart&, void* scratch, const void** rows);
    // f32 and f64; `scratch` has gradient_scratch bytes (for indices too). A part holds whole slabs.
    int64_t (*gradient_scratch[2])(const PoolShape&);
    void (*indices[2])(const PoolShape&, const void* x, void* out, int64_t* indices, const PoolPart&,
                       void* scratch);
    void (*backward[2])(const PoolShape&, Ties, const void* dy, const void* x, void* dx, const PoolPart&,
                        void* scratch);
};

FASTCONV_DECLARE_KERNELS(MaxPoolKernels, max_pool_kernels)

inline const MaxPoolKernels& max_pool_kernels() { return FASTCONV_DISPATCH(max_pool_kernels); }

}  // namespace fastconv
