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

// Polynomials, highest power first, of W. J. Cody: Rational Chebyshev approximations for the error function,
// Mathematics of Computation 23 (1969), 631-637.
constexpr double kErfSmall[2][5] = {
    {1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3},
    {1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3}};
constexpr double kErfMiddle[2][9] = {
    {2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3},
    {1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3}};
constexpr double kErfLarge[2][6] = {{1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
                                     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4},
                                    {1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1,
                                     6.05183413124413191e-2, 2.33520497626869185e-3}};

template <class V, int N>
FASTCONV_INLINE V ratio_of(const double (&polynomials)[2][N], V x) {
    using T = scalar_of<V>;
    V top = broadcast<V>(T(polynomials[0][0])), bottom = broadcast<V>(T(polynomials[1][0]));
#pragma GCC unroll 9
    for (int i = 1; i < N; i++) {
        top = top * x + broadcast<V>(T(polynomials[0][i]));
        bottom = bottom * x + broadcast<V>(T(polynomials[1][i]));
    }
    return top / bottom;
}

// One minus the error function. The middle range's ratio is within 5e-12 from zero on and 4e-10 up to 10, so
// that float needs no other; double takes Cody's three ranges.
template <class V>
FASTCONV_INLINE V erfc_of(V x) {
    using T = scalar_of<V>;
    const V zero{}, top = broadcast<V>(sizeof(T) == 4 ? T(10.5) : T(27));
    V s = x < zero ? -x : x;
    s = s > top ? top : s;
    // exp(-s*s) without the rounding error of s*s: s in sixteenths and a rest.
    const V round = broadcast<V>(ExpConstants<T>::kRound), sixteen = broadcast<V>(T(16));
    const V coarse = ((s * sixteen + round) - round) / sixteen;
    const V fall = exp_of(-coarse * coarse) * exp_of(-(s - coarse) * (s + coarse));
    V result = ratio_of(kErfMiddle, s) * fall;
    if constexpr (sizeof(T) == 8) {
        const V inverse = broadcast<V>(T(1)) / (s * s);
        const V large =
            (broadcast<V>(T(0.56418958354775628695)) - inverse * ratio_of(kErfLarge, inverse)) / s * fall;
        result = s > broadcast<V>(T(4)) ? large : result;
    }
    result = x < zero ? broadcast<V>(T(2)) - result : result;
    if constexpr (sizeof(T) == 8) {
        const V small = broadcast<V>(T(1)) - x * ratio_of(kErfSmall, x * x);
        result = s <= broadcast<V>(T(0.46875)) ? small : result;
    }
    return result;
}

}  // namespace
FASTCONV_END_ISA
