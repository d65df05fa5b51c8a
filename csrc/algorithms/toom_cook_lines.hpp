// One line of a tile through the transforms of toom_cook.hpp, in registers.
#pragma once

#include "algorithms/toom_cook.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// r = B^T d. Where all points come in pairs +-p, the rows of a pair share their even parts and, but for the factor p, their odd
// ones: F(4, 3) takes 12 operations. An axis that is not transformed has tiles of one.
template <int Tile, class V>
FASTCONV_INLINE void line_input(const V (&d)[Tile], V (&r)[Tile]) {
    if constexpr (Tile == 1) {
        r[0] = d[0];
    } else {
        using T = scalar_of<V>;
        constexpr auto& b = kToomCook<Tile>.b;
        constexpr bool paired = 2 * ToomCookPoints<Tile>::pairs + 2 == Tile;
        const auto row = [&](int i, int first, int step, double scale) {
            V sum{};
            bool begun = false;
#pragma GCC unroll 8
            for (int j = first; j < Tile; j += step) {
                const double factor = b[i][j] / scale;
                if (factor == 0) continue;
                if (factor == 1)
                    sum = begun ? sum + d[j] : d[j];
                else
                    sum = begun ? sum + T(factor) * d[j] : T(factor) * d[j];
                begun = true;
            }
            return sum;
        };
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) {
            if (paired && i % 2 == 1 && i < Tile - 1) {
                const double p = ToomCookPoints<Tile>::at[i < Tile - 1 ? i : 0];
                const V even = row(i, 0, 2, 1), odd = row(i, 1, 2, p);
                r[i] = p == 1 ? even + odd : even + T(p) * odd;
                r[i + 1 < Tile ? i + 1 : i] = p == 1 ? even - odd : even - T(p) * odd;
            } else if (!paired || i == 0 || i == Tile - 1) {
                r[i] = row(i, 0, 1, 1);
            }
        }
    }
}

// r = A^T d.
template <int Tile, int M, class V>
FASTCONV_INLINE void line_output(const V (&d)[Tile], V (&r)[M]) {
    if constexpr (Tile == 1) {
        r[0] = d[0];
    } else {
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
            V total = d[0];
            bool begun = i == 0;
            const auto take = [&](V part, double factor) {
                if (factor == 1)
                    total = begun ? total + part : part;
                else
                    total = begun ? total + T(factor) * part : T(factor) * part;
                begun = true;
            };
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) take(i % 2 == 0 ? sum[p] : difference[p], a[i][2 * p + 1]);
#pragma GCC unroll 8
            for (int j = 2 * P + 1; j < Tile - 1; j++) take(d[j], a[i][j]);
            r[i] = i == M - 1 ? total + d[Tile - 1] : total;
        }
    }
}

}  // namespace
FASTCONV_END_ISA
