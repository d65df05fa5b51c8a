// The clamp of a finished sum in a register.
#pragma once

#include "algorithms/microkernel_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// NaN stays NaN: the comparisons are false for it.
template <class V>
FASTCONV_INLINE V clamped(V v, Clamp clamp) {
    if (clamp == Clamp::none) return v;
    const V zero{};
    v = v < zero ? zero : v;
    if (clamp == Clamp::relu) return v;
    const V six = broadcast<V>(6);
    return v > six ? six : v;
}

}  // namespace
FASTCONV_END_ISA
