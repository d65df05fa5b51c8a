// The smallest kernel family: what a family looks like, and what `fastconv info` and the tests of simd/ look
// at.
#pragma once

#include "algorithms/probe_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// y[i] = a * x[i] + y[i], with a masked tail.
void axpy(int64_t n, float a, const float* x, float* y) {
    using V = vec<float, kLanes<float>>;
    const V scale = broadcast<V>(a);
    int64_t i = 0;
    for (; i + lanes_of<V> <= n; i += lanes_of<V>) store(y + i, scale * load<V>(x + i) + load<V>(y + i));
    const auto tail = mask<V>(n - i);
    if (i < n) store(y + i, scale * load<V>(x + i, tail) + load<V>(y + i, tail), tail);
}

}  // namespace

const ProbeKernels probe_kernels = {kVectorBytes, kRegisters, axpy};

FASTCONV_END_ISA
