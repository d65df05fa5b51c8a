// Batch normalisation with its activation, forward and backward, in as few passes over memory as there can
// be.
//
// An array is (outer, channels, inner), contiguous; inner = 1 is channels last. It is cut into pieces that
// fit a second-level cache. Forward: one pass finds mean and squared differences of every piece, pieces are
// combined in order in float64, a second pass writes. Backward: one pass sums dy and dy * hat, a second writes
// dx; the value before the activation is computed again in both. The second pass goes back through the pieces,
// so that it begins with what the first one left in the caches. Pieces follow from the shape alone, so the
// number of threads does not show in the result.
#pragma once

#include <cstdint>

#include "plan/problem.hpp"

namespace fastconv {

struct NormShape {
    int64_t outer, channels, inner;
    int64_t count() const { return outer * inner; }
    int64_t size() const { return outer * channels * inner; }
};

// out = activation((x - mean) * scale + bias).
template <class T>
void batch_norm(const NormShape& shape, const T* x, const T* mean, const T* scale, const T* bias,
                Activation activation, T* out);

// Normalises by the batch's own mean and biased variance, which are written to `mean` and `var`; count()
// >= 1. `add`, where given, is added before the activation: a residual connection in the same pass.
template <class T>
void batch_norm_train(const NormShape& shape, const T* x, const T* weight, const T* bias, double eps,
                      Activation activation, T* out, T* mean, T* var, const T* add = nullptr);

// Gradients of batch_norm_train, through mean and variance; dy is after the activation.
template <class T>
void batch_norm_backward(const NormShape& shape, const T* dy, const T* x, const T* weight, const T* bias,
                         const T* mean, const T* var, double eps, Activation activation, T* dx, T* dweight,
                         T* dbias);

#define FASTCONV_EACH_NORM(prefix, T)                                                                     \
    prefix template void batch_norm(const NormShape&, const T*, const T*, const T*, const T*, Activation, \
                                    T*);                                                                  \
    prefix template void batch_norm_train(const NormShape&, const T*, const T*, const T*, double,         \
                                          Activation, T*, T*, T*, const T*);                              \
    prefix template void batch_norm_backward(const NormShape&, const T*, const T*, const T*, const T*,    \
                                             const T*, const T*, double, Activation, T*, T*, T*);
FASTCONV_EACH_NORM(extern, float)
FASTCONV_EACH_NORM(extern, double)

}  // namespace fastconv
