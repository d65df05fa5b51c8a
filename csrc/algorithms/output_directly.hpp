// One output of a convolution, tap by tap in double precision: for the few that a transform spoils.
#pragma once

#include "plan/conv.hpp"

namespace fastconv {

// Output channel k of plane z, row y and column x, with bias; `weights` are [k][channel of the group][tap].
template <class T>
T output_directly(const ConvProblem& p, const ConvArgs& args, const T* weights, int64_t image, int64_t k,
                  int64_t z, int64_t y, int64_t x) {
    const int64_t pixel = p.channels_last ? p.in_channels : 1, channel = p.channels_last ? 1 : p.in_pixels();
    const T* plane = static_cast<const T*>(args.x) + image * p.in_channels * p.in_pixels() +
                     k / p.group_out() * p.group_in() * channel;
    const T* w = weights + k * p.group_in() * p.taps();
    double sum = args.bias == nullptr ? 0 : static_cast<double>(static_cast<const T*>(args.bias)[k]);
    const auto source = [&](int a, int64_t at, int64_t tap) {
        return axis_source(p.mode, p.in_size[a], at * p.stride[a] + tap * p.dilation[a] - p.pad_lo[a]);
    };
    for (int64_t c = 0; c < p.group_in(); c++, plane += channel) {
        for (int64_t h = 0; h < p.kernel[0]; h++) {
            const int64_t deep = source(0, z, h);
            for (int64_t i = 0; i < p.kernel[1]; i++) {
                const int64_t row = source(1, y, i);
                for (int64_t j = 0; j < p.kernel[2]; j++, w++) {
                    const int64_t column = source(2, x, j);
                    if (deep < 0 || row < 0 || column < 0) continue;
                    const int64_t at = (deep * p.in_size[1] + row) * p.in_size[2] + column;
                    sum += static_cast<double>(*w) * static_cast<double>(plane[at * pixel]);
                }
            }
        }
    }
    return static_cast<T>(sum);
}

}  // namespace fastconv
