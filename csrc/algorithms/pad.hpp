// Padding in five modes, and its adjoint. Rows are copied whole; only their ends are put together by
// position.
#pragma once

#include <cstdint>

#include "plan/problem.hpp"

namespace fastconv {

constexpr int kPadAxes = 5;

// Axes are aligned to the end: fewer than five are preceded by axes of length one.
struct PadShape {
    PadMode mode;
    int64_t in[kPadAxes], before[kPadAxes], after[kPadAxes];
};

// Elements of 1, 2, 4 or 8 bytes, seen as bits.
void pad(const PadShape& shape, int bytes, const void* x, const void* value, void* out);

// dx = sum over all copies of each element; T is float or double.
template <class T>
void pad_backward(const PadShape& shape, const T* dy, T* dx);

}  // namespace fastconv
