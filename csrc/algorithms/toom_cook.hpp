// The numbers of minimal filtering F(m, r) for tiles of t = m + r - 1 inputs along one axis, t = 3 to 8.
//
// The points belong to the tile: t - 1 finite ones and infinity. 3: 0, 1. 4: 0, +-1. 5: 0, 1/2, -1, 2. 6: 0, +-2/3, +-3/2, whose
// error is three to four times below that of the usual 0, +-1, +-2 at the same cost (reciprocal pairs make the constant term
// one). 7: 0, +-1, +-2, 1/2. 8: 0, +-1, +-2, +-1/2, the best of 286 symmetric sets. Errors of one tile in both axes with 64
// channels of random numbers, as the largest share of the sum of absolute products, in roundings of 6e-8: 1.4 for F(3, 2), 3.2
// for F(3, 3) (12 with 0, +-1, 2), 3.2 for F(4, 3), 2.9 for F(3, 4), 1.5 for F(2, 5), 13 for F(4, 4), 16 for F(4, 5). [Lavin &
// Gray, arXiv:1509.09308; Toom-Cook as in Blahut, Fast Algorithms for Signal Processing, ch. 5]
//
// With M(x) = prod (x - p_j), N_j = prod_{l != j} (p_j - p_l):
//   G[j] = (1, p_j, ..., p_j^(r-1)) / N_j, and (0, ..., 0, 1) for infinity    weights, r -> t
//   B[j] = coefficients of M(x) / (x - p_j), and of M(x)                      inputs,  t -> t
//   A[i][j] = p_j^i, and 1 for infinity in the last row                      outputs, t -> m
#pragma once

namespace fastconv {

constexpr int kLongestTile = 8;

template <int Tile>
struct ToomCookPoints;  // finite points; pairs +-p stand first, after 0

template <>
struct ToomCookPoints<3> {
    static constexpr double at[2] = {0, 1};
    static constexpr int pairs = 0;
};
template <>
struct ToomCookPoints<4> {
    static constexpr double at[3] = {0, 1, -1};
    static constexpr int pairs = 1;
};
template <>
struct ToomCookPoints<5> {
    static constexpr double at[4] = {0, 0.5, -1, 2};
    static constexpr int pairs = 0;
};
template <>
struct ToomCookPoints<6> {
    static constexpr double at[5] = {0, 2.0 / 3, -2.0 / 3, 1.5, -1.5};
    static constexpr int pairs = 2;
};
template <>
struct ToomCookPoints<7> {
    static constexpr double at[6] = {0, 1, -1, 2, -2, 0.5};
    static constexpr int pairs = 2;
};
template <>
struct ToomCookPoints<8> {
    static constexpr double at[7] = {0, 1, -1, 2, -2, 0.5, -0.5};
    static constexpr int pairs = 3;
};

template <int Tile>
struct ToomCook {
    double b[Tile][Tile] = {};
    double power[Tile][Tile] = {};  // power[i][j] = p_j^i
    double n[Tile] = {};            // N_j

    constexpr ToomCook() {
        constexpr int P = Tile - 1;
        const auto& p = ToomCookPoints<Tile>::at;
        for (int skip = 0; skip <= P;
             skip++) {  // skip == P: the product over all points, which is infinity's row
            double poly[Tile + 1] = {1};
            int degree = 0;
            for (int l = 0; l < P; l++) {
                if (l == skip) continue;
                for (int i = ++degree; i >= 0; i--)
                    poly[i] = (i ? poly[i - 1] : 0) - p[l] * (i < degree ? poly[i] : 0);
            }
            for (int i = 0; i < Tile; i++) b[skip][i] = i <= degree ? poly[i] : 0;
        }
        for (int j = 0; j < P; j++) {
            n[j] = 1;
            for (int l = 0; l < P; l++)
                if (l != j) n[j] *= p[j] - p[l];
            power[0][j] = 1;
            for (int i = 1; i < Tile; i++) power[i][j] = power[i - 1][j] * p[j];
        }
    }

    // G[j][i] and A[i][j] for r taps and m outputs.
    constexpr double weight(int j, int i, int taps) const {
        return j == Tile - 1 ? (i == taps - 1 ? 1 : 0) : power[i][j] / n[j];
    }
    constexpr double output(int i, int j, int outputs) const {
        return j == Tile - 1 ? (i == outputs - 1 ? 1 : 0) : power[i][j];
    }
};

template <int Tile>
inline constexpr ToomCook<Tile> kToomCook{};

// G of one F(m, r) as numbers known when a kernel is compiled.
template <int M, int R>
struct FilterMatrices {
    static constexpr int kSize = M + R - 1;
    double g[kSize][R] = {};

    constexpr FilterMatrices() {
        for (int j = 0; j < kSize; j++)
            for (int i = 0; i < R; i++) g[j][i] = kToomCook<kSize>.weight(j, i, R);
    }
};

template <int M, int R>
inline constexpr FilterMatrices<M, R> kFilter{};

}  // namespace fastconv
