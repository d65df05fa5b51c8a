// Batch normalisation, vector by vector; what each loop computes stands in batch_norm_loops_kernels.hpp.
//
// A vector of T is widened to doubles before it is summed: two conversions and two additions for 16 floats,
// which memory hides. Columns are the outer loop, so that sums and parameters stay in registers over the
// rows.
#pragma once

#include "algorithms/activation_math.hpp"
#include "algorithms/batch_norm_loops_kernels.hpp"
#include "simd/ahead.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// The doubles of a vector, in as many vectors as they need.
template <class V>
struct Wide {
    static constexpr int kParts = static_cast<int>(sizeof(double) / sizeof(scalar_of<V>));
    static constexpr int kWidth = lanes_of<V> / kParts;
    using D = vec<double, kWidth>;
    D part[kParts];
};

template <class V>
FASTCONV_INLINE Wide<V> widen(V v) {
    if constexpr (Wide<V>::kParts == 1) {
        return {{v}};
    } else {
        using Half = vec<scalar_of<V>, Wide<V>::kWidth>;
        union {
            V whole;
            Half half[2];
        } u = {v};
        return {{__builtin_convertvector(u.half[0], typename Wide<V>::D),
                 __builtin_convertvector(u.half[1], typename Wide<V>::D)}};
    }
}

template <class V>
FASTCONV_INLINE void store_sums(const Wide<V>& sum, double* to, int64_t count) {
    double all[lanes_of<V>];
    for (int i = 0; i < Wide<V>::kParts; i++) store(all + i * Wide<V>::kWidth, sum.part[i]);
    for (int i = 0; i < lanes_of<V> && i < count; i++) to[i] = all[i];
}

template <class V>
FASTCONV_INLINE double total(const Wide<V>& sum) {
    double all[lanes_of<V>], result = 0;
    for (int i = 0; i < Wide<V>::kParts; i++) store(all + i * Wide<V>::kWidth, sum.part[i]);
    for (int i = 0; i < lanes_of<V>; i++) result += all[i];
    return result;
}

// Calls f(c) for the channels of a piece, a vector of columns at a time, or for its one channel.
template <class V, class F>
FASTCONV_INLINE void each_group(const NormPiece& piece, F f) {
    for (int64_t c = 0; c < (piece.per_column ? piece.columns : 1); c += lanes_of<V>) f(c);
}

// Vectors of a group of channels: `rows` of them from element `first` on, `step` apart, of which `lanes` are used.
template <class V>
struct Strip {
    int64_t first, rows, step;
    Mask<V> lanes;
};

// Goes through one copy of the loop that f holds: inlined for whole and for masked vectors, the activations took twice the room.
template <class V, class F>
FASTCONV_INLINE void each_strip(const NormPiece& piece, int64_t c, F f) {
    constexpr int L = lanes_of<V>;
    const int64_t n = piece.columns;
    Strip<V> strips[2] = {{c, piece.rows, n, mask<V>(n - c)}, {}};
    if (!piece.per_column) {
        strips[0] = {0, n / L, L, mask<V>(L)};
        strips[1] = {n / L * L, n % L == 0 ? 0 : 1, L, mask<V>(n % L)};
    }
    for (const Strip<V>& strip : strips) f(strip);
}

// Sums of u and of u * w over the vectors of a group. Floats are added in two chains of at most kChain / 2 and those as
// doubles: doubles all the way took three times the instructions, a tenth of the time.
template <class V>
struct Sums {
    Wide<V> u{}, uw{};

    template <class Term>  // term(at, u, w)
    FASTCONV_INLINE void add(const Strip<V>& strip, Term term) {
        constexpr int64_t kChain = 64;
        int64_t at = strip.first;
        for (int64_t done = 0; done < strip.rows; done += kChain) {
            const int64_t count = strip.rows - done < kChain ? strip.rows - done : kChain;
            V a{}, b{}, next_a{}, next_b{};
            for (int64_t r = 0; r < count; r++, at += strip.step) {
                V v, w;
                term(at, v, w);
                const V sum = a + v, dot = b + v * w;  // the chains take turns
                a = next_a;
                b = next_b;
                next_a = sum;
                next_b = dot;
            }
            const Wide<V> x = widen(a + next_a), y = widen(b + next_b);
            for (int i = 0; i < Wide<V>::kParts; i++) {
                u.part[i] += x.part[i];
                uw.part[i] += y.part[i];
            }
        }
    }

    // To a number for each channel of the group.
    __attribute__((noinline)) void write(const NormPiece& piece, int64_t c, double* sum, double* dot) const {
        if (piece.per_column) {
            store_sums<V>(u, sum + c, piece.columns - c);
            store_sums<V>(uw, dot + c, piece.columns - c);
        } else {
            *sum = total<V>(u);
            *dot = total<V>(uw);
        }
    }
};

// Moments about a pivot, in one pass: at the end the squared distance of pivot and mean cancels. The mean of a few values is
// the first pivot; where it lies more than two standard deviations off, or the numbers are doubles, they are summed again
// about the mean found.
constexpr int64_t kPivotRows = 8;

template <class T>
void moments(NormPiece piece, const T* x, double* mean, double* squares) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t rows = piece.per_column ? piece.rows : piece.columns,
                  pitch = piece.per_column ? piece.columns : 1, some = rows < kPivotRows ? rows : kPivotRows;
    each_group<V>(piece, [&](int64_t c) {
        const int64_t left = piece.per_column ? piece.columns - c : 1, used = left < L ? left : L;
        T pivot[L] = {};
        for (int64_t i = 0; i < used; i++) {
            double first = 0;
            for (int64_t r = 0; r < some; r++) first += static_cast<double>(x[r * pitch + c + i]);
            pivot[i] = static_cast<T>(first / static_cast<double>(some));
        }
        for (bool again = true, last = false; again; last = true) {
            again = sizeof(T) == sizeof(double) && !last;
            Sums<V> sums;
            each_strip<V>(piece, c, [&](const Strip<V>& strip) __attribute__((always_inline)) {
                // Zero beyond the lanes, as what is loaded there.
                V centre = load<V>(pivot);
                if (!piece.per_column) {
                    T all[L] = {};
                    store(all, broadcast<V>(pivot[0]), strip.lanes);
                    centre = load<V>(all);
                }
                sums.add(strip, [&](int64_t at, V& u, V& w) __attribute__((always_inline)) {
                    read_ahead(x + at);
                    u = w = load<V>(x + at, strip.lanes) - centre;
                });
            });
            sums.write(piece, c, mean, squares);
            for (int64_t i = 0; i < used; i++) {
                double &m = mean[c + i], &s = squares[c + i];
                const double off = m / static_cast<double>(rows), rest = s - m * off;
                again |= !last && m * off > 4 * rest;
                m = static_cast<double>(pivot[i]) + off;
                s = rest < 0 ? 0 : rest;  // NaN stays
                pivot[i] = static_cast<T>(m);
            }
        }
    });
}

// A parameter as a vector: one for each lane, or the same for all.
template <class V>
FASTCONV_INLINE V parameter(const scalar_of<V>* p, const NormPiece& piece, int64_t c) {
    if (p == nullptr) return V{};
    return piece.per_column ? load<V>(p + c, mask<V>(piece.columns - c)) : broadcast<V>(*p);
}

template <class T>
struct Apply {
    NormPiece piece;
    const T *x, *add;
    const NormParameters<T>& p;
    T* out;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        each_group<V>(piece, [&](int64_t c) __attribute__((always_inline)) {
            const V mean = parameter<V>(p.mean, piece, c), scale = parameter<V>(p.scale, piece, c),
                    shift = parameter<V>(p.shift, piece, c);
            each_strip<V>(piece, c, [&](const Strip<V>& strip) {
                for (int64_t r = 0, at = strip.first; r < strip.rows; r++, at += strip.step) {
                    read_ahead(x + at);
                    write_ahead(out + at);
                    V y = (load<V>(x + at, strip.lanes) - mean) * scale + shift;
                    if (add != nullptr) {
                        read_ahead(add + at);
                        y += load<V>(add + at, strip.lanes);
                    }
                    store(out + at, activated(A, y), strip.lanes);
                }
            });
        });
    }
};

template <class T>
void apply(NormPiece piece, const T* x, const T* add, const NormParameters<T>& p, Activation activation,
           T* out) {
    for_activation(activation, Apply<T>{piece, x, add, p, out});
}

// What the gradient of a group of channels is computed from, vector by vector.
template <class T, Activation A>
struct BeforeActivation {
    using V = vec<T, kLanes<T>>;
    const T *dy, *x;
    V mean, scale, shift, inverse;

    FASTCONV_INLINE BeforeActivation(const T* dy_, const T* x_, const NormParameters<T>& p,
                                     const NormPiece& piece, int64_t c)
        : dy(dy_),
          x(x_),
          mean(parameter<V>(p.mean, piece, c)),
          scale(parameter<V>(p.scale, piece, c)),
          shift(parameter<V>(p.shift, piece, c)),
          inverse(parameter<V>(p.inverse, piece, c)) {}

    FASTCONV_INLINE void see(int64_t at, Mask<V> lanes, V& g, V& hat) const {
        read_ahead(x + at);
        read_ahead(dy + at);
        const V off = load<V>(x + at, lanes) - mean;
        g = activated_gradient(A, load<V>(dy + at, lanes), off * scale + shift);
        hat = off * inverse;
    }
};

template <class T>
struct GradientSums {
    NormPiece piece;
    const T *dy, *x;
    const NormParameters<T>& p;
    double *sum, *dot;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        each_group<V>(piece, [&](int64_t c) __attribute__((always_inline)) {
            const BeforeActivation<T, A> before(dy, x, p, piece, c);
            Sums<V> sums;
            // Lanes beyond the end have dy = 0, which no slope at their x = 0 makes anything else.
            each_strip<V>(piece, c, [&](const Strip<V>& strip) {
                sums.add(strip, [&](int64_t at, V& g, V& hat)
                                    __attribute__((always_inline)) { before.see(at, strip.lanes, g, hat); });
            });
            sums.write(piece, c, sum, dot);
        });
    }
};

template <class T>
void gradient_sums(NormPiece piece, const T* dy, const T* x, const NormParameters<T>& p,
                   Activation activation, double* sum, double* dot) {
    for_activation(activation, GradientSums<T>{piece, dy, x, p, sum, dot});
}

template <class T>
struct Gradient {
    NormPiece piece;
    const T *dy, *x;
    const NormParameters<T>& p;
    T* dx;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        each_group<V>(piece, [&](int64_t c) __attribute__((always_inline)) {
            const BeforeActivation<T, A> before(dy, x, p, piece, c);
            const V slope = parameter<V>(p.slope, piece, c), constant = parameter<V>(p.constant, piece, c);
            each_strip<V>(piece, c, [&](const Strip<V>& strip) {
                for (int64_t r = 0, at = strip.first; r < strip.rows; r++, at += strip.step) {
                    V g, hat;
                    before.see(at, strip.lanes, g, hat);
                    write_ahead(dx + at);
                    store(dx + at, (g - (hat * slope + constant)) * before.scale, strip.lanes);
                }
            });
        });
    }
};

template <class T>
void gradient(NormPiece piece, const T* dy, const T* x, const NormParameters<T>& p, Activation activation,
              T* dx) {
    for_activation(activation, Gradient<T>{piece, dy, x, p, dx});
}

template <class T>
constexpr NormLoops<T> make_norm_loops() {
    return {moments<T>, apply<T>, gradient_sums<T>, gradient<T>};
}

}  // namespace

const NormKernels norm_kernels = {make_norm_loops<float>(), make_norm_loops<double>()};

FASTCONV_END_ISA
