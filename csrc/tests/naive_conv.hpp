// The definition of convolution and cases that its kernels are held to.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/problem.hpp"

namespace fastconv::testing {

struct Case {
    int64_t batch, in_channels, out_channels, groups;
    int64_t in_size[3], kernel[3], stride[3], dilation[3], pad[3];
    int64_t more_after[3] = {0, 0, 0};  // padding after, beyond that before

    ConvProblem problem(bool channels_last) const {
        ConvProblem p{};
        p.channels_last = channels_last;
        p.in_channels = in_channels;
        p.out_channels = out_channels;
        p.groups = groups;
        p.mode = PadMode::constant;
        for (int a = 0; a < 3; a++) {
            p.in_size[a] = in_size[a];
            p.kernel[a] = kernel[a];
            p.stride[a] = stride[a];
            p.dilation[a] = dilation[a];
            p.pad_lo[a] = pad[a];
            p.pad_hi[a] = pad[a] + more_after[a];
            p.out_size[a] =
                (in_size[a] + p.pad_lo[a] + p.pad_hi[a] - dilation[a] * (kernel[a] - 1) - 1) / stride[a] + 1;
        }
        return p;
    }
};

// Tails, primes, stride > kernel, groups = channels, asymmetric padding, every rank, nothing at all.
inline const std::vector<Case>& cases() {
    static const std::vector<Case> all = {
        {2, 3, 5, 1, {1, 7, 9}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {3, 17, 33, 1, {1, 13, 11}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {2, 16, 32, 1, {1, 16, 16}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
        {2, 19, 64, 1, {1, 15, 17}, {1, 1, 1}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}},
        {1, 3, 40, 1, {1, 33, 37}, {1, 7, 7}, {1, 2, 2}, {1, 1, 1}, {0, 3, 3}},
        {2, 20, 12, 1, {1, 14, 15}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 0, 1}},
        {2, 8, 8, 1, {1, 20, 21}, {1, 2, 2}, {1, 3, 5}, {1, 1, 1}, {0, 0, 0}},
        {1, 9, 10, 1, {1, 31, 29}, {1, 3, 3}, {1, 1, 1}, {1, 4, 3}, {0, 4, 3}},
        {1, 9, 10, 1, {1, 31, 29}, {1, 3, 3}, {1, 2, 3}, {1, 4, 2}, {0, 3, 5}, {0, 2, 0}},
        {2, 24, 24, 24, {1, 9, 12}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {2, 18, 18, 18, {1, 12, 13}, {1, 5, 5}, {1, 2, 2}, {1, 1, 1}, {0, 2, 2}},
        {2, 6, 18, 6, {1, 8, 9}, {1, 3, 3}, {1, 1, 1}, {1, 2, 2}, {0, 2, 2}},
        {2, 32, 32, 8, {1, 9, 8}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {2, 12, 20, 4, {1, 9, 8}, {1, 3, 2}, {1, 1, 2}, {1, 1, 1}, {0, 1, 1}},
        {2, 34, 66, 2, {1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 2, 0}},
        {2, 5, 7, 1, {1, 1, 500}, {1, 1, 9}, {1, 1, 1}, {1, 1, 4}, {0, 0, 16}},
        {1, 1, 8, 1, {1, 1, 700}, {1, 1, 31}, {1, 1, 4}, {1, 1, 1}, {0, 0, 0}},
        {2, 4, 6, 1, {5, 6, 7}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
        {1, 6, 4, 2, {7, 9, 8}, {3, 2, 3}, {2, 1, 2}, {1, 2, 1}, {1, 1, 0}, {0, 1, 2}},
        {2, 8, 8, 8, {4, 5, 6}, {3, 3, 3}, {1, 2, 1}, {1, 1, 1}, {1, 1, 1}},
        {70, 10, 3, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
        {9, 30, 20, 1, {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {1, 2, 2, 1, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {0, 5, 4}},
        {2, 17, 34, 1, {1, 12, 13}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}},
        {2, 17, 34, 1, {1, 9, 10}, {1, 1, 1}, {1, 2, 2}, {1, 1, 1}, {0, 2, 1}},
        {1, 16, 16, 16, {1, 13, 19}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 4, 3}},
        {2, 20, 36, 1, {1, 18, 21}, {1, 4, 4}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}},
        {0, 4, 4, 1, {1, 5, 5}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {2, 0, 4, 1, {1, 5, 5}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {2, 4, 0, 1, {1, 5, 5}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
    };
    return all;
}

// Calls f(index of y, index of x, index of weight) for every product of the convolution.
template <class F>
void each_product(const ConvProblem& p, int64_t batch, F f) {
    const int64_t channels = p.group_in(), outputs = p.group_out();
    for (int64_t n = 0; n < batch; n++)
        for (int64_t k = 0; k < p.out_channels; k++)
            for (int64_t o = 0; o < p.out_pixels(); o++) {
                const int64_t at[3] = {o / p.out_size[2] / p.out_size[1], o / p.out_size[2] % p.out_size[1],
                                       o % p.out_size[2]};
                const int64_t y = p.channels_last ? (n * p.out_pixels() + o) * p.out_channels + k
                                                  : (n * p.out_channels + k) * p.out_pixels() + o;
                for (int64_t tap = 0; tap < p.taps(); tap++) {
                    const int64_t t[3] = {tap / p.kernel[2] / p.kernel[1], tap / p.kernel[2] % p.kernel[1],
                                          tap % p.kernel[2]};
                    int64_t pixel = 0;
                    bool is_inside = true;
                    for (int a = 0; a < 3; a++) {
                        const int64_t i = at[a] * p.stride[a] - p.pad_lo[a] + t[a] * p.dilation[a];
                        is_inside = is_inside && i >= 0 && i < p.in_size[a];
                        pixel = pixel * p.in_size[a] + i;
                    }
                    if (!is_inside) continue;
                    for (int64_t c = 0; c < channels; c++) {
                        const int64_t from = k / outputs * channels + c;
                        const int64_t x = p.channels_last
                                              ? (n * p.in_pixels() + pixel) * p.in_channels + from
                                              : (n * p.in_channels + from) * p.in_pixels() + pixel;
                        const int64_t w = p.channels_last ? (tap * channels + c) * p.out_channels + k
                                                          : (k * channels + c) * p.taps() + tap;
                        f(y, x, w);
                    }
                }
            }
}

// Small integers, and numbers in -1 .. 1, from a generator of our own: the same everywhere.
template <class T>
std::vector<T> integers(int64_t count, uint32_t seed) {
    std::vector<T> v(count);
    uint32_t state = seed * 2654435761u + 1;
    for (T& x : v) {
        state = state * 1664525u + 1013904223u;
        x = static_cast<T>(static_cast<int>(state >> 28) - 8);
    }
    return v;
}

template <class T>
std::vector<T> reals(int64_t count, uint32_t seed) {
    std::vector<T> v(count);
    uint32_t state = seed * 2654435761u + 1;
    for (T& x : v) {
        state = state * 1664525u + 1013904223u;
        x = static_cast<T>(static_cast<int32_t>(state)) / T(2147483648.0);
    }
    return v;
}

}  // namespace fastconv::testing
