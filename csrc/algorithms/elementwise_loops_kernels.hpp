// Loops over flat arrays: activations and optimizer updates. Formulas as in fastconv/backends/protocol.py.
#pragma once

#include <cstdint>

#include "plan/problem.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

struct SgdStep {
    double lr, momentum, decay;
    bool nesterov;
};

struct RmspropStep {
    double lr, rho, momentum, eps, decay;
};

struct AdamStep {
    double alpha, beta1, beta2, eps, decay, l2;
};

template <class T>
struct ElementLoops {
    void (*activate)(int64_t n, const T* x, Activation activation, T* out);  // out may be x
    // out = activation(a + b); out may be either
    void (*add)(int64_t n, const T* a, const T* b, Activation activation, T* out);
    void (*activation_gradient)(int64_t n, const T* dy, const T* x, Activation activation,
                                T* dx);  // dx may be either
    void (*sgd)(int64_t n, const SgdStep& step, T* param, const T* grad,
                T* velocity);  // velocity may be null
    void (*rmsprop)(int64_t n, const RmspropStep& step, T* param, const T* grad, T* square, T* mean,
                    T* velocity);  // so may these
    void (*adam)(int64_t n, const AdamStep& step, T* param, const T* grad, T* m, T* v);
};

struct ElementKernels {
    ElementLoops<float> f32;
    ElementLoops<double> f64;
};

FASTCONV_DECLARE_KERNELS(ElementKernels, element_kernels)

template <class T>
const ElementLoops<T>& element_loops();

template <>
inline const ElementLoops<float>& element_loops<float>() {
    return FASTCONV_DISPATCH(element_kernels).f32;
}

template <>
inline const ElementLoops<double>& element_loops<double>() {
    return FASTCONV_DISPATCH(element_kernels).f64;
}

}  // namespace fastconv
