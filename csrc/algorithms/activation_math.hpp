// Activations of a vector, and their gradients, by PyTorch's definitions.
#pragma once

#include "algorithms/vector_math.hpp"
#include "plan/problem.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class V>
FASTCONV_INLINE V activated(Activation activation, V v) {
    using T = scalar_of<V>;
    const V zero{}, six = broadcast<V>(6);
    switch (activation) {
        case Activation::none:
            return v;
        case Activation::relu:
            return v < zero ? zero : v;
        case Activation::relu6:
            v = v < zero ? zero : v;
            return v > six ? six : v;
        case Activation::leaky_relu:
            return v < zero ? v * broadcast<V>(T(0.01)) : v;
        case Activation::sigmoid:
            return sigmoid_of(v);
        case Activation::tanh:
            return tanh_of(v);
        case Activation::silu:
            return v * sigmoid_of(v);
        case Activation::hard_swish: {
            V gate = v + broadcast<V>(3);
            gate = gate < zero ? zero : gate;
            gate = gate > six ? six : gate;
            return v * gate / six;
        }
        case Activation::gelu: {
            const V tail = erfc_of(v * broadcast<V>(T(-0.70710678118654752440)));
            return v * broadcast<V>(T(0.5)) * tail;
        }
    }
    return v;
}

// dy times the activation's slope at x. Written so that the gradient at a NaN goes through clamps, as
// PyTorch's does.
template <class V>
FASTCONV_INLINE V activated_gradient(Activation activation, V dy, V x) {
    using T = scalar_of<V>;
    const V zero{}, one = broadcast<V>(1);
    switch (activation) {
        case Activation::none:
            return dy;
        case Activation::relu:
            return x <= zero ? zero : dy;
        case Activation::relu6:
            dy = x <= zero ? zero : dy;
            return x >= broadcast<V>(6) ? zero : dy;
        case Activation::leaky_relu:
            return x > zero ? dy : dy * broadcast<V>(T(0.01));
        case Activation::sigmoid: {
            const V s = sigmoid_of(x);
            return dy * (s * (one - s));
        }
        case Activation::tanh: {
            const V t = tanh_of(x);
            return dy * (one - t * t);
        }
        case Activation::silu: {
            const V s = sigmoid_of(x);
            return dy * (s * (one + x * (one - s)));
        }
        case Activation::hard_swish: {
            V slope = x / broadcast<V>(3) + broadcast<V>(T(0.5));
            slope = x <= broadcast<V>(-3) ? zero : slope;
            slope = x >= broadcast<V>(3) ? one : slope;
            return dy * slope;
        }
        case Activation::gelu: {
            const V tail = erfc_of(x * broadcast<V>(T(-0.70710678118654752440)));
            const V density = exp_of(x * x * broadcast<V>(T(-0.5))) * broadcast<V>(T(0.39894228040143267794));
            return dy * (tail * broadcast<V>(T(0.5)) + x * density);
        }
    }
    return dy;
}

// Calls f.template run<A>() for the activation: the switch stands outside the loop.
template <class F>
FASTCONV_INLINE void for_activation(Activation activation, F f) {
    switch (activation) {
        case Activation::none:
            return f.template run<Activation::none>();
        case Activation::relu:
            return f.template run<Activation::relu>();
        case Activation::relu6:
            return f.template run<Activation::relu6>();
        case Activation::leaky_relu:
            return f.template run<Activation::leaky_relu>();
        case Activation::sigmoid:
            return f.template run<Activation::sigmoid>();
        case Activation::tanh:
            return f.template run<Activation::tanh>();
        case Activation::silu:
            return f.template run<Activation::silu>();
        case Activation::gelu:
            return f.template run<Activation::gelu>();
        case Activation::hard_swish:
            return f.template run<Activation::hard_swish>();
    }
}

}  // namespace
FASTCONV_END_ISA
