// One line of a tile through the transforms of toom_cook.hpp, in registers.
#pragma once

#include "algorithms/toom_cook.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// r = B^T d. Where all points come in pairs, the two rows of a pair share their even and odd parts.
template <int Tile, class V>
FASTCONV_INLINE void line_input(const V (&d)[Tile], V (&r)[Tile]) {
    using T = scalar_of<V>;
    constexpr auto& b = kToomCook<Tile>.b;
    constexpr int P = ToomCookPoints<Tile>::pairs;
    constexpr bool paired = 2 * P + 2 == Tile;
    const auto row = [&](int i, int first, int step) {
        V sum{};
#pragma GCC unroll 8
        for (int j = first; j < Tile; j += step) {
            if (b[i][j] == 1)
                sum += d[j];
            else if (b[i][j] != 0)
                sum += T(b[i][j]) * d[j];
        }
        return sum;
    };
#pragma GCC unroll 8
    for (int i = 0; i < Tile; i++) {
        if (paired && i > 0 && i < Tile - 1) {
            if (i % 2 == 0) continue;
            const V even = row(i, 0, 2), odd = row(i, 1, 2);
            r[i] = even + odd;
            r[i + 1 < Tile ? i + 1 : i] = i + 1 < Tile - 1 ? even - odd : r[i + 1 < Tile ? i + 1 : i];
        } else {
            r[i] = row(i, 0, 1);
        }
    }
}

// r = A^T d.
template <int Tile, int M, class V>
FASTCONV_INLINE void line_output(const V (&d)[Tile], V (&r)[M]) {
    using T = scalar_of<V>;
    constexpr auto& a = kToomCook<Tile>.power;
    constexpr int P = ToomCookPoints<Tile>::pairs;
    V sum[P + 1], difference[P + 1];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        sum[p] = d[2 * p + 1] + d[2 * p + 2];
        difference[p] = d[2 * p + 1] - d[2 * p + 2];
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        V total = i == 0 ? d[0] : V{};
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            const V part = i % 2 == 0 ? sum[p] : difference[p];
            if (a[i][2 * p + 1] == 1)
                total += part;
            else
                total += T(a[i][2 * p + 1]) * part;
        }
#pragma GCC unroll 8
        for (int j = 2 * P + 1; j < Tile - 1; j++) total += T(a[i][j]) * d[j];
        r[i] = i == M - 1 ? total + d[Tile - 1] : total;
    }
}

}  // namespace
FASTCONV_END_ISA
