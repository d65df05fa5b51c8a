// Fourier transforms with a sequence in every lane: no value ever changes its lane, so that a butterfly of any radix is
// whole-vector arithmetic, and the twiddle factors are the same for all lanes.
//
// The transform decimates in frequency (values in order, frequencies in the order that in-place stages leave behind), its
// inverse in time (the other way round): a convolution multiplies spectra place by place and never needs them in order. The
// inverse is the forward transform with real and imaginary parts exchanged. [Cooley & Tukey; Gentleman & Sande]
#pragma once

#include "algorithms/fft_kernels.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class V>
struct Complex {
    V r, i;
};

template <class V>
FASTCONV_INLINE Complex<V> operator+(Complex<V> a, Complex<V> b) {
    return {a.r + b.r, a.i + b.i};
}
template <class V>
FASTCONV_INLINE Complex<V> operator-(Complex<V> a, Complex<V> b) {
    return {a.r - b.r, a.i - b.i};
}
template <class V>
FASTCONV_INLINE Complex<V> operator*(Complex<V> a, Complex<V> b) {
    return {a.r * b.r - a.i * b.i, a.r * b.i + a.i * b.r};
}
// a minus i b, and a plus i b.
template <class V>
FASTCONV_INLINE Complex<V> minus_i(Complex<V> a, Complex<V> b) {
    return {a.r + b.i, a.i - b.r};
}
template <class V>
FASTCONV_INLINE Complex<V> plus_i(Complex<V> a, Complex<V> b) {
    return {a.r - b.i, a.i + b.r};
}
template <class V>
FASTCONV_INLINE Complex<V> scaled(Complex<V> a, scalar_of<V> s) {
    const V v = broadcast<V>(s);
    return {a.r * v, a.i * v};
}

// The transform of R values, in order.
template <int R, class V>
FASTCONV_INLINE void butterfly(Complex<V>* a) {
    using C = Complex<V>;
    using T = scalar_of<V>;
    if constexpr (R == 2) {
        const C b = a[1];
        a[1] = a[0] - b;
        a[0] = a[0] + b;
    } else if constexpr (R == 3) {
        const C sum = a[1] + a[2], turned = scaled(a[1] - a[2], T(0.866025403784438646763723170752936183));
        const V half = broadcast<V>(T(0.5));
        const C middle = {a[0].r - half * sum.r, a[0].i - half * sum.i};
        a[0] = a[0] + sum;
        a[1] = minus_i(middle, turned);
        a[2] = plus_i(middle, turned);
    } else if constexpr (R == 4) {
        const C even = a[0] + a[2], even_less = a[0] - a[2], odd = a[1] + a[3], odd_less = a[1] - a[3];
        a[0] = even + odd;
        a[1] = minus_i(even_less, odd_less);
        a[2] = even - odd;
        a[3] = plus_i(even_less, odd_less);
    } else if constexpr (R == 5) {
        const V c1 = broadcast<V>(T(0.309016994374947424102293417182819059)),
                c2 = broadcast<V>(T(-0.809016994374947424102293417182819059)),
                s1 = broadcast<V>(T(0.951056516295153572116439333379382143)),
                s2 = broadcast<V>(T(0.587785252292473129168705954639072769));
        const C p = a[1] + a[4], q = a[2] + a[3], u = a[1] - a[4], v = a[2] - a[3];
        const C one = {a[0].r + c1 * p.r + c2 * q.r, a[0].i + c1 * p.i + c2 * q.i};
        const C two = {a[0].r + c2 * p.r + c1 * q.r, a[0].i + c2 * p.i + c1 * q.i};
        const C s = {s1 * u.r + s2 * v.r, s1 * u.i + s2 * v.i},
                t = {s2 * u.r - s1 * v.r, s2 * u.i - s1 * v.i};
        a[0] = a[0] + (p + q);
        a[1] = minus_i(one, s);
        a[4] = plus_i(one, s);
        a[2] = minus_i(two, t);
        a[3] = plus_i(two, t);
    } else {
        static_assert(R == 8, "no butterfly of this radix");
        C even[4] = {a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]};
        C odd[4] = {a[0] - a[4], a[1] - a[5], a[2] - a[6], a[3] - a[7]};
        // times exp(-i pi k / 4)
        const T root = T(0.707106781186547524400844362104849039);
        odd[1] = scaled(C{odd[1].r + odd[1].i, odd[1].i - odd[1].r}, root);
        odd[2] = {odd[2].i, -odd[2].r};
        odd[3] = scaled(C{odd[3].i - odd[3].r, -odd[3].r - odd[3].i}, root);
        butterfly<4>(even);
        butterfly<4>(odd);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            a[2 * k] = even[k];
            a[2 * k + 1] = odd[k];
        }
    }
}

// One stage over all blocks of m values, `pitch` numbers apart. In time, factors come before the butterfly, and the parts are exchanged.
template <class T, int R, bool Time>
void stage(T* z, int64_t pitch, int64_t n, int64_t m, const T* twiddles) {
    using V = vec<T, kLanes<T>>;
    using C = Complex<V>;
    constexpr int64_t L = kLanes<T>;
    constexpr int64_t real = Time ? L : 0, imaginary = L - real;
    const int64_t step = m / R * pitch;
    const auto load_all = [&](const T* at, C* a) {
#pragma GCC unroll 8
        for (int k = 0; k < R; k++)
            a[k] = {load<V>(at + k * step + real), load<V>(at + k * step + imaginary)};
    };
    const auto store_all = [&](T* at, const C* a) {
#pragma GCC unroll 8
        for (int k = 0; k < R; k++) {
            store(at + k * step + real, a[k].r);
            store(at + k * step + imaginary, a[k].i);
        }
    };
    const auto turn = [&](C* a, const T* w) {
#pragma GCC unroll 8
        for (int k = 1; k < R; k++) a[k] = a[k] * C{broadcast<V>(w[2 * k - 2]), broadcast<V>(w[2 * k - 1])};
    };
    for (T* block = z; block < z + n * pitch; block += m * pitch) {
        C a[R];
        load_all(block, a);
        butterfly<R>(a);
        store_all(block, a);
        const T* w = twiddles + 2 * (R - 1);
        for (T* at = block + pitch; at < block + step; at += pitch, w += 2 * (R - 1)) {
            load_all(at, a);
            if constexpr (Time) turn(a, w);
            butterfly<R>(a);
            if constexpr (!Time) turn(a, w);
            store_all(at, a);
        }
    }
}

template <class T, bool Time>
void any_stage(int radix, T* z, int64_t pitch, int64_t n, int64_t m, const T* twiddles) {
    switch (radix) {
        case 2:
            return stage<T, 2, Time>(z, pitch, n, m, twiddles);
        case 3:
            return stage<T, 3, Time>(z, pitch, n, m, twiddles);
        case 4:
            return stage<T, 4, Time>(z, pitch, n, m, twiddles);
        case 5:
            return stage<T, 5, Time>(z, pitch, n, m, twiddles);
        default:
            return stage<T, 8, Time>(z, pitch, n, m, twiddles);
    }
}

template <class T>
void fft_forward(const FftAxis<T>& axis, T* z, int64_t step) {
    int64_t m = axis.n;
    for (int s = 0; s < axis.stages; s++) {
        any_stage<T, false>(axis.radix[s], z, step, axis.n, m, axis.twiddles[s]);
        m /= axis.radix[s];
    }
}

template <class T>
void fft_inverse(const FftAxis<T>& axis, T* z, int64_t step) {
    int64_t m = 1;
    for (int s = axis.stages - 1; s >= 0; s--) {
        m *= axis.radix[s];
        any_stage<T, true>(axis.radix[s], z, step, axis.n, m, axis.twiddles[s]);
    }
}

template <class T>
void fft_split(const FftAxis<T>& axis, const T* z, T* to, int64_t pitch) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    for (int64_t f = 0; f <= axis.n / 2; f++, to += pitch) {
        const T *const p = z + axis.place[f] * 2 * L, *const q =
                                                          z + axis.place[f == 0 ? 0 : axis.n - f] * 2 * L;
        const V pr = load<V>(p), pi = load<V>(p + L), qr = load<V>(q), qi = load<V>(q + L);
        store(to, pr + qr);
        store(to + L, pi - qi);
        store(to + 2 * L, pi + qi);
        store(to + 3 * L, qr - pr);
    }
}

template <class T>
void fft_merge(const FftAxis<T>& axis, const T* from, int64_t pitch, int64_t apart, T* z) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    for (int64_t f = 0; f <= axis.n / 2; f++, from += pitch) {
        T *const p = z + axis.place[f] * 2 * L, *const q = z + axis.place[f == 0 ? 0 : axis.n - f] * 2 * L;
        const V ar = load<V>(from), ai = load<V>(from + L), br = load<V>(from + apart),
                bi = load<V>(from + apart + L);
        store(q, ar + bi);
        store(q + L, br - ai);
        store(p, ar - bi);
        store(p + L, ai + br);
    }
}

template <class T>
void times_lanes(const T* w, T* z, int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    for (T* const end = z + n * 2 * L; z < end; z += 2 * L, w += 2 * L) {
        const Complex<V> y = Complex<V>{load<V>(z), load<V>(z + L)} * Complex<V>{load<V>(w), load<V>(w + L)};
        store(z, y.r);
        store(z + L, y.i);
    }
}

template <class T>
void times_all(const T* w, T* z, int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    for (T* const end = z + n * 2 * L; z < end; z += 2 * L, w += 2) {
        const Complex<V> y =
            Complex<V>{load<V>(z), load<V>(z + L)} * Complex<V>{broadcast<V>(w[0]), broadcast<V>(w[1])};
        store(z, y.r);
        store(z + L, y.i);
    }
}

template <class T, int K>
void sums_of(const T* w, const T* x, int64_t x_step, int64_t channels, int64_t fold, T* out, int64_t out_step,
             int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    for (int64_t i = 0; i < n; i++, out += 2 * L) {
        V real[K], imaginary[K];
#pragma GCC unroll 4
        for (int k = 0; k < K; k++) real[k] = imaginary[k] = V{};
        for (int64_t r = 0; r < fold; r++, x += 2 * L) {
            const T* from = x;
            for (int64_t c = 0; c < channels; c++, from += x_step, w += 2 * K) {
                const V re = load<V>(from), im = load<V>(from + L);
#pragma GCC unroll 4
                for (int k = 0; k < K; k++) {
                    const V wr = broadcast<V>(w[2 * k]), wi = broadcast<V>(w[2 * k + 1]);
                    real[k] = real[k] + re * wr;
                    imaginary[k] = imaginary[k] + re * wi;
                    real[k] = real[k] - im * wi;
                    imaginary[k] = imaginary[k] + im * wr;
                }
            }
        }
#pragma GCC unroll 4
        for (int k = 0; k < K; k++) {
            store(out + k * out_step, real[k]);
            store(out + k * out_step + L, imaginary[k]);
        }
    }
}

template <class T>
void sums(const T* w, const T* x, int64_t x_step, int64_t channels, int64_t fold, T* out, int64_t out_step,
          int outputs, int64_t n) {
    static_assert(kFftOutputs == 4, "a case for each");
    switch (outputs) {
        case 1:
            return sums_of<T, 1>(w, x, x_step, channels, fold, out, out_step, n);
        case 2:
            return sums_of<T, 2>(w, x, x_step, channels, fold, out, out_step, n);
        case 3:
            return sums_of<T, 3>(w, x, x_step, channels, fold, out, out_step, n);
        default:
            return sums_of<T, 4>(w, x, x_step, channels, fold, out, out_step, n);
    }
}

template <class T>
void gather(const T* const* rows, int64_t first, int64_t count, T* z) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    z += first * 2 * L;
    for (int64_t j = 0; j < count; j += L, z += 2 * L * L) {
        V v[L];
        if (count - j >= L) {
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) v[r] = load<V>(rows[r] + j);
            transpose(v);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) store(z + r * 2 * L, v[r]);
        } else {
            const auto tail = mask<V>(count - j);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) v[r] = load<V>(rows[r] + j, tail);
            transpose(v);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++)
                if (r < count - j) store(z + r * 2 * L, v[r]);
        }
    }
}

template <class T>
void gather_pixels(const T* x, int64_t pixel, int64_t channels, int64_t first, int64_t count, T* z) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    const auto there = mask<V>(channels);
    z += first * 2 * L;
    for (int64_t j = 0; j < count; j++) store(z + j * 2 * L, load<V>(x + j * pixel, there));
}

// x - x is zero for finite numbers only.
template <class V>
FASTCONV_INLINE bool all_zero(V v) {
    scalar_of<V> sum = 0;
    alignas(64) scalar_of<V> lanes[lanes_of<V>];
    store(lanes, v);
    for (int i = 0; i < lanes_of<V>; i++) sum += lanes[i] == 0 ? 0 : 1;
    return sum == 0;
}

template <class T>
bool scatter(const T* z, int64_t step, T* const* rows, const int64_t* counts, const T* bias) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    int64_t most = 0, least = counts[0];
    for (int r = 0; r < L; r++) {
        most = counts[r] > most ? counts[r] : most;
        least = counts[r] < least ? counts[r] : least;
    }
    const V add = load<V>(bias);
    V seen = V{};
    for (int64_t j = 0; j < most; j += L) {
        V v[L];
        if (least - j >= L) {
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) {
                const V value = load<V>(z + (j + r) * step);
                seen = seen + (value - value);
                v[r] = value + add;
            }
            transpose(v);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) store(rows[r] + j, v[r]);
        } else {
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) {
                const V value = j + r < most ? load<V>(z + (j + r) * step) : V{};
                seen = seen + (value - value);
                v[r] = value + add;
            }
            transpose(v);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++)
                if (counts[r] > j) store(rows[r] + j, v[r], mask<V>(counts[r] - j));
        }
    }
    return all_zero(seen);
}

template <class T>
bool scatter_pixels(const T* z, int64_t step, T* y, int64_t pixel, int64_t channels, int64_t count,
                    const T* bias) {
    using V = vec<T, kLanes<T>>;
    const auto there = mask<V>(channels);
    const V add = load<V>(bias);
    V seen = V{};
    for (int64_t j = 0; j < count; j++) {
        const V value = load<V>(z + j * step);
        seen = seen + (value - value);
        store(y + j * pixel, value + add, there);
    }
    return all_zero(seen);
}

template <class T>
constexpr Fft<T> make_fft() {
    return {kLanes<T>,    fft_forward<T>, fft_inverse<T>, fft_split<T>,     fft_merge<T>, times_lanes<T>,
            times_all<T>, sums<T>,        gather<T>,      gather_pixels<T>, scatter<T>,   scatter_pixels<T>};
}

}  // namespace

const FftKernels fft_kernels = {make_fft<float>(), make_fft<double>()};

FASTCONV_END_ISA
