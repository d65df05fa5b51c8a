// Transposition of a square of vectors in registers: from rows of pixels to pixels of channels and back.
#pragma once

#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <int Bytes>
struct IntOf {
    using type = int32_t;
};
template <>
struct IntOf<8> {
    using type = int64_t;
};

template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
    using type = Indices<I...>;
};

// Blocks of S lanes taken in turn from a and b: the even blocks of both, or the odd ones.
template <int S, bool Odd, class V, int... I>
FASTCONV_INLINE V blocks(V a, V b, Indices<I...>) {
    constexpr int L = lanes_of<V>;
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, ((I & S) ? (I - S + (Odd ? S : 0) + L) : (I + (Odd ? S : 0)))...);
#else
    using Int = vec<typename IntOf<sizeof(scalar_of<V>)>::type, L>;
    return __builtin_shuffle(a, b, Int{((I & S) ? (I - S + (Odd ? S : 0) + L) : (I + (Odd ? S : 0)))...});
#endif
}

template <int S, class V>
FASTCONV_INLINE void transpose_step(V* rows) {
    constexpr int L = lanes_of<V>;
    using All = typename MakeIndices<L>::type;
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
        if (i & S) continue;
        const V a = rows[i], b = rows[i + S];
        rows[i] = blocks<S, false>(a, b, All{});
        rows[i + S] = blocks<S, true>(a, b, All{});
    }
}

// rows[i][j] -> rows[j][i]; as many vectors as a vector has lanes, kept in registers where there are enough.
template <class V>
FASTCONV_INLINE void transpose(V* rows) {
    constexpr int L = lanes_of<V>;
    if constexpr (L >= 2) transpose_step<1>(rows);
    if constexpr (L >= 4) transpose_step<2>(rows);
    if constexpr (L >= 8) transpose_step<4>(rows);
    if constexpr (L >= 16) transpose_step<8>(rows);
}

// to[c][r] = from[r][c]. Neighbouring columns of `from` and neighbouring rows of `to` are next to each other
// in memory.
template <class T>
void transpose_matrix(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t r = 0; r < rows; r += L) {
        const int64_t deep = rows - r < L ? rows - r : L;
        const auto down = mask<V>(deep);
        for (int64_t c = 0; c < columns; c += L) {
            const int64_t wide = columns - c < L ? columns - c : L;
            V v[L];
            if (deep == L && wide == L) {
                // three rows share a pointer, so that all addresses stay in registers
                const T* in[(L + 2) / 3];
                T* out[(L + 2) / 3];
#pragma GCC unroll 6
                for (int i = 0; i < (L + 2) / 3; i++) in[i] = from + (r + 3 * i) * from_row + c;
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) v[i] = load<V>(in[i / 3] + i % 3 * from_row);
                transpose(v);
#pragma GCC unroll 6
                for (int i = 0; i < (L + 2) / 3; i++) out[i] = to + (c + 3 * i) * to_row + r;
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) store(out[i / 3] + i % 3 * to_row, v[i]);
            } else {
                const auto across = mask<V>(wide);
#pragma GCC unroll 16
                for (int i = 0; i < L; i++)
                    v[i] = i < deep ? load<V>(from + (r + i) * from_row + c, across) : V{};
                transpose(v);
#pragma GCC unroll 16
                for (int i = 0; i < L; i++)
                    if (i < wide) store(to + (c + i) * to_row + r, v[i], down);
            }
        }
    }
}

}  // namespace
FASTCONV_END_ISA
