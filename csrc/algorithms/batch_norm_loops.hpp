// Batch normalisation, vector by vector; what each loop computes stands in batch_norm_loops_kernels.hpp.
//
// A vector of T is widened to doubles before it is summed: two conversions and two additions for 16 floats,
// which memory hides. Columns are the outer loop, so that sums and parameters stay in registers over the
// rows.
#pragma once

#include "algorithms/activation_math.hpp"
#include "algorithms/batch_norm_loops_kernels.hpp"
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
FASTCONV_INLINE Wide<V> load_wide(const double* from) {
    Wide<V> v;
    for (int i = 0; i < Wide<V>::kParts; i++)
        v.part[i] = load<typename Wide<V>::D>(from + i * Wide<V>::kWidth);
    return v;
}

template <class V>
FASTCONV_INLINE double total(const Wide<V>& sum) {
    double all[lanes_of<V>], result = 0;
    for (int i = 0; i < Wide<V>::kParts; i++) store(all + i * Wide<V>::kWidth, sum.part[i]);
    for (int i = 0; i < lanes_of<V>; i++) result += all[i];
    return result;
}

// Calls f(column, lanes used) for every vector of columns; f goes through the rows.
template <class V, class F>
FASTCONV_INLINE void each_column(const NormPiece& piece, F f) {
    for (int64_t c = 0; c < piece.columns; c += lanes_of<V>) f(c, mask<V>(piece.columns - c));
}

// Sums of differences to a pivot, and of their squares, in one pass. The pivot is one of the values, so it lies within
// sqrt(count) standard deviations of the mean, and what cancels at the end is at most `count` times the squares wanted: far
// below the digits of a float. Doubles are summed again about the mean that this gives.
template <class V>
struct Moments {
    using W = Wide<V>;
    W sum{}, square{};
    FASTCONV_INLINE void see(V x, const W& pivot) {
        const W v = widen(x);
        for (int i = 0; i < W::kParts; i++) {
            const auto off = v.part[i] - pivot.part[i];
            sum.part[i] += off;
            square.part[i] += off * off;
        }
    }
    FASTCONV_INLINE void join(const Moments& other) {
        for (int i = 0; i < W::kParts; i++) {
            sum.part[i] += other.sum.part[i];
            square.part[i] += other.square.part[i];
        }
    }
};

FASTCONV_INLINE void finish_moments(double sum, double square, double pivot, double count, double* mean,
                                    double* squares) {
    const double rest = square - sum * (sum / count);
    *mean = pivot + sum / count;
    *squares = rest < 0 ? 0 : rest;  // NaN stays
}

template <class T>
constexpr int kMomentSweeps = sizeof(T) == sizeof(double) ? 2 : 1;

template <class T>
void moments(NormPiece piece, const T* x, double* mean, double* squares) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    if (piece.per_column) {
        each_column<V>(piece, [&](int64_t c, Mask<V> m) {
            const T* const from = x + c;
            const int64_t pitch = piece.columns, used = pitch - c < L ? pitch - c : L;
            double pivot[L] = {}, sum[L], square[L];
            for (int64_t i = 0; i < used; i++) pivot[i] = static_cast<double>(from[i]);
            for (int sweep = 0; sweep < kMomentSweeps<T>; sweep++) {
                const Wide<V> at = load_wide<V>(pivot);
                Moments<V> even, odd;  // two chains of additions, which would wait for each other
                int64_t r = 0;
                for (; r + 2 <= piece.rows; r += 2) {
                    even.see(load<V>(from + r * pitch, m), at);
                    odd.see(load<V>(from + (r + 1) * pitch, m), at);
                }
                if (r < piece.rows) even.see(load<V>(from + r * pitch, m), at);
                even.join(odd);
                store_sums<V>(even.sum, sum, L);
                store_sums<V>(even.square, square, L);
                for (int64_t i = 0; i < used; i++) {
                    finish_moments(sum[i], square[i], pivot[i], static_cast<double>(piece.rows), mean + c + i,
                                   squares + c + i);
                    pivot[i] = mean[c + i];
                }
            }
        });
        return;
    }
    const int64_t n = piece.columns;
    *mean = static_cast<double>(x[0]);
    for (int sweep = 0; sweep < kMomentSweeps<T>; sweep++) {
        const double pivot = *mean;
        double at[L];
        for (int i = 0; i < L; i++) at[i] = pivot;
        const Wide<V> centre = load_wide<V>(at);
        Moments<V> even, odd;
        int64_t i = 0;
        for (; i + 2 * L <= n; i += 2 * L) {
            even.see(load<V>(x + i), centre);
            odd.see(load<V>(x + i + L), centre);
        }
        even.join(odd);
        double sum = total<V>(even.sum), square = total<V>(even.square);
        for (; i < n; i++) {
            const double off = static_cast<double>(x[i]) - pivot;
            sum += off;
            square += off * off;
        }
        finish_moments(sum, square, pivot, static_cast<double>(n), mean, squares);
    }
}

// A parameter as a vector: one for each lane, or the same for all.
template <class V>
FASTCONV_INLINE V parameter(const scalar_of<V>* p, bool per_column, int64_t c, Mask<V> m) {
    if (p == nullptr) return V{};
    return per_column ? load<V>(p + c, m) : broadcast<V>(*p);
}

// Goes through a piece; body(vector index offset, mask) with the parameters of its columns loaded by `begin`.
template <class V, class Begin>
FASTCONV_INLINE void each_vector(const NormPiece& piece, Begin begin) {
    if (piece.per_column) {
        each_column<V>(piece, [&](int64_t c, Mask<V> m) {
            const auto body = begin(c, m);
            for (int64_t r = 0; r < piece.rows; r++) body(r * piece.columns + c, m);
        });
        return;
    }
    const auto all = mask<V>(lanes_of<V>);
    const auto body = begin(0, all);
    int64_t i = 0;
    for (; i + lanes_of<V> <= piece.columns; i += lanes_of<V>) body(i, all);
    if (i < piece.columns) body(i, mask<V>(piece.columns - i));
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
        each_vector<V>(piece, [&](int64_t c, Mask<V> m) {
            const V mean = parameter<V>(p.mean, piece.per_column, c, m),
                    scale = parameter<V>(p.scale, piece.per_column, c, m);
            const V shift = parameter<V>(p.shift, piece.per_column, c, m);
            return [=](int64_t at, Mask<V> lanes) {
                V y = (load<V>(x + at, lanes) - mean) * scale + shift;
                if (add != nullptr) y += load<V>(add + at, lanes);
                store(out + at, activated(A, y), lanes);
            };
        });
    }
};

template <class T>
void apply(NormPiece piece, const T* x, const T* add, const NormParameters<T>& p, Activation activation,
           T* out) {
    for_activation(activation, Apply<T>{piece, x, add, p, out});
}

template <class T>
struct GradientSums {
    NormPiece piece;
    const T *dy, *x;
    const NormParameters<T>& p;
    double *sum, *dot;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        using W = Wide<V>;
        const auto add = [&](int64_t at, Mask<V> m, V mean, V scale, V shift, V inverse, W& sums, W& dots) {
            const V off = load<V>(x + at, m) - mean;
            const V g = activated_gradient(A, load<V>(dy + at, m), off * scale + shift);
            const W wide = widen(g), hat = widen(off * inverse);
            for (int i = 0; i < W::kParts; i++) {
                sums.part[i] += wide.part[i];
                dots.part[i] += wide.part[i] * hat.part[i];
            }
        };
        const bool columns = piece.per_column;
        const auto begin = [&](int64_t c, Mask<V> m, V(&v)[4]) {
            v[0] = parameter<V>(p.mean, columns, c, m);
            v[1] = parameter<V>(p.scale, columns, c, m);
            v[2] = parameter<V>(p.shift, columns, c, m);
            v[3] = parameter<V>(p.inverse, columns, c, m);
        };
        V v[4];
        if (columns) {
            each_column<V>(piece, [&](int64_t c, Mask<V> m) {
                begin(c, m, v);
                W sums{}, dots{};
                for (int64_t r = 0; r < piece.rows; r++)
                    add(r * piece.columns + c, m, v[0], v[1], v[2], v[3], sums, dots);
                store_sums<V>(sums, sum + c, piece.columns - c);
                store_sums<V>(dots, dot + c, piece.columns - c);
            });
            return;
        }
        const auto all = mask<V>(lanes_of<V>);
        begin(0, all, v);
        W sums{}, dots{};
        int64_t i = 0;
        for (; i + lanes_of<V> <= piece.columns; i += lanes_of<V>)
            add(i, all, v[0], v[1], v[2], v[3], sums, dots);
        // Lanes beyond the end have dy = 0, which no slope at their x = 0 makes anything else.
        if (i < piece.columns) add(i, mask<V>(piece.columns - i), v[0], v[1], v[2], v[3], sums, dots);
        *sum = total<V>(sums);
        *dot = total<V>(dots);
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
        each_vector<V>(piece, [&](int64_t c, Mask<V> m) {
            const bool columns = piece.per_column;
            const V mean = parameter<V>(p.mean, columns, c, m), scale = parameter<V>(p.scale, columns, c, m);
            const V shift = parameter<V>(p.shift, columns, c, m),
                    inverse = parameter<V>(p.inverse, columns, c, m);
            const V slope = parameter<V>(p.slope, columns, c, m),
                    constant = parameter<V>(p.constant, columns, c, m);
            return [=](int64_t at, Mask<V> lanes) {
                const V off = load<V>(x + at, lanes) - mean;
                const V g = activated_gradient(A, load<V>(dy + at, lanes), off * scale + shift);
                store(dx + at, (g - (off * inverse * slope + constant)) * scale, lanes);
            };
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
