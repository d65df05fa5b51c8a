// Every window as a column (im2col), and its adjoint (col2im). Channels first; columns are
// (N, C, kd, kh, kw, D', H', W'). One task owns whole planes, so no two write to one place.
#pragma once

#include "algorithms/pool_shape.hpp"

namespace fastconv {

// Elements of 1, 2, 4 or 8 bytes, seen as bits; positions outside give zero bits.
void im2col(const PoolShape& shape, int bytes, int64_t batch, const void* x, void* columns);

// Adds every column back to where it came from, taps in order; T is float or double.
template <class T>
void col2im(const PoolShape& shape, int64_t batch, const T* columns, T* x);

}  // namespace fastconv
