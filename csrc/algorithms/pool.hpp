// Max and average pooling as the rest of the library calls them: the work cut into parts, scratch, threads.
//
// Arrays are C-contiguous, (N, C, D, H, W) or (N, D, H, W, C), and do not overlap.
#pragma once

#include <cstddef>

#include "algorithms/max_pool_kernels.hpp"

namespace fastconv {

// Bytes of an element of a PoolType.
int64_t pool_type_bytes(PoolType type);

// `indices` may be null; where given: flat in the unpadded D * H * W volume, -1 for a window of padding only.
void max_pool(const PoolShape& shape, PoolType type, int64_t batch, const void* x, void* out,
              int64_t* indices);

// Scratch of one thread, at most, of a maximum without indices, or of an average of floats.
size_t pool_scratch_bytes(const PoolShape& shape, PoolType type, bool average);

// float32 and float64.
void max_pool_backward(const PoolShape& shape, PoolType type, Ties ties, int64_t batch, const void* dy,
                       const void* x, void* dx);

// float32 and float64. `counts[axis][o]` multiply to what output position o is divided by; zero gives zero.
void avg_pool(const PoolShape& shape, const int64_t* const* counts, PoolType type, int64_t batch,
              const void* x, void* out);
void avg_pool_backward(const PoolShape& shape, const int64_t* const* counts, PoolType type, int64_t batch,
                       const void* dy, void* dx);

}  // namespace fastconv
