// The numbers of Winograd's minimal filtering F(m, 3), for m = 2, 4, 6.
//
// Points: m = 2: 0, 1, -1, inf. m = 4: 0, +-2/3, +-3/2, inf, whose error is three to four times below that of the usual 0, +-1,
// +-2, inf at the same cost (reciprocal pairs make the constant term one). m = 6: 0, +-1, +-2, +-1/2, inf, the best of 286
// symmetric sets. [Lavin & Gray, arXiv:1509.09308; Toom-Cook as in Blahut, Fast Algorithms for Signal Processing, ch. 5]
//
// With M(x) = prod (x - p_j), N_j = prod_{l != j} (p_j - p_l):
//   G[j] = (1, p_j, p_j^2) / N_j, and (0, 0, 1) for inf        weights, 3 -> m + 2
//   B[j] = coefficients of M(x) / (x - p_j), and of M(x)       inputs,  m + 2 -> m + 2
//   A[i][j] = p_j^i, and 1 for inf in the last row             outputs, m + 2 -> m
#pragma once

namespace fastconv {

template <int M>
struct WinogradPoints;

template <>
struct WinogradPoints<2> {
    static constexpr double at[3] = {0, 1, -1};
};
template <>
struct WinogradPoints<4> {
    static constexpr double at[5] = {0, 2.0 / 3, -2.0 / 3, 1.5, -1.5};
};
template <>
struct WinogradPoints<6> {
    static constexpr double at[7] = {0, 1, -1, 2, -2, 0.5, -0.5};
};

template <int M>
struct WinogradMatrices {
    static constexpr int kSize = M + 2;
    double g[kSize][3] = {};
    double b[kSize][kSize] = {};
    double a[M][kSize] = {};

    constexpr WinogradMatrices() {
        constexpr int P = M + 1;
        const auto& p = WinogradPoints<M>::at;
        for (int skip = 0; skip <= P; skip++) {  // skip == P: the product over all points, which is inf's row
            double poly[kSize + 1] = {1};
            int degree = 0;
            for (int l = 0; l < P; l++) {
                if (l == skip) continue;
                for (int i = ++degree; i >= 0; i--)
                    poly[i] = (i ? poly[i - 1] : 0) - p[l] * (i < degree ? poly[i] : 0);
            }
            for (int i = 0; i < kSize; i++) b[skip][i] = i <= degree ? poly[i] : 0;
        }
        for (int j = 0; j < P; j++) {
            double n = 1;
            for (int l = 0; l < P; l++)
                if (l != j) n *= p[j] - p[l];
            double power = 1;
            for (int i = 0; i < (M > 3 ? M : 3); i++) {
                if (i < 3) g[j][i] = power / n;
                if (i < M) a[i][j] = power;
                power *= p[j];
            }
        }
        g[P][2] = 1;
        a[M - 1][P] = 1;
    }
};

template <int M>
inline constexpr WinogradMatrices<M> kWinograd{};

}  // namespace fastconv
