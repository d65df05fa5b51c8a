// exp and its relatives on vectors, and the activations made of them.
//
// exp(x) = 2^n (1 + p(r)) with n = round(x / ln 2), r = x - n ln 2 in two parts, and p the Taylor series of
// exp - 1: on |r| <= 0.35 its terms fall below half an ulp after r^7 (float) and r^13 (double). expm1 = 2^n p
// + (2^n - 1) keeps small results accurate, and tanh follows from it. The error is at most a few ulps.
#pragma once

#include "plan/problem.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
    using Int = int32_t;
    static constexpr int kTerms = 7, kMantissa = 23, kBias = 127;
    static constexpr float kLow = -87.0f, kHigh = 88.0f, kTanhOne = 10.0f;
    static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.428606765330187e-06f;
    static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting rounds to an integer
};

template <>
struct ExpConstants<double> {
    using Int = int64_t;
    static constexpr int kTerms = 13, kMantissa = 52, kBias = 1023;
    static constexpr double kLow = -708.0, kHigh = 709.0, kTanhOne = 20.0;
    static constexpr double kLn2High = 0.69314718036912381649, kLn2Low = 1.9082149292705877e-10;
    static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
};

constexpr double factorial(int n) { return n < 2 ? 1.0 : n * factorial(n - 1); }

template <class V>
struct Scaled {
    V power;  // 2^n
    V minus;  // exp(r) - 1
};

template <class V>
FASTCONV_INLINE Scaled<V> exp_parts(V x) {
    using T = scalar_of<V>;
    using C = ExpConstants<T>;
    using I = vec<typename C::Int, lanes_of<V>>;
    const V low = broadcast<V>(C::kLow), high = broadcast<V>(C::kHigh);
    x = x < low ? low : x;
    x = x > high ? high : x;
    // The rounded quotient as a number and, from the same bits, as an integer.
    const V shifted = x * broadcast<V>(T(1.4426950408889634)) + broadcast<V>(C::kRound);
    const V n = shifted - broadcast<V>(C::kRound);
    const I exponent = ((I)shifted << C::kMantissa) + (((I)broadcast<V>(T(1))));
    const V r = (x - n * broadcast<V>(C::kLn2High)) - n * broadcast<V>(C::kLn2Low);
    V p = broadcast<V>(T(1 / factorial(C::kTerms)));
#pragma GCC unroll 16
    for (int k = C::kTerms - 1; k >= 1; k--) p = p * r + broadcast<V>(T(1 / factorial(k)));
    return {(V)exponent, p * r};
}

template <class V>
FASTCONV_INLINE V exp_of(V x) {
    const Scaled<V> e = exp_parts(x);
    return e.power * e.minus + e.power;
}

template <class V>
FASTCONV_INLINE V sigmoid_of(V x) {
    const V one = broadcast<V>(1);
    return one / (one + exp_of(-x));
}

template <class V>
FASTCONV_INLINE V tanh_of(V x) {
    using T = scalar_of<V>;
    const V top = broadcast<V>(ExpConstants<T>::kTanhOne);
    x = x > top ? top : x;
    x = x < -top ? -top : x;
    const V one = broadcast<V>(1);
    const Scaled<V> e = exp_parts(x + x);
    const V m = e.power * e.minus + (e.power - one);  // expm1(2x)
    return m / (m + broadcast<V>(2));
}

}  // namespace
FASTCONV_END_ISA
