// Checks that pooling and unfolding share: a geometry that the kernels can trust, arrays of its shape.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "algorithms/pool_shape.hpp"
#include "bindings/bindings.hpp"

namespace fastconv {

inline PoolShape window_shape(bool channels_last, int64_t channels, const std::array<int64_t, 3>& in,
                              const std::array<int64_t, 3>& kernel, const std::array<int64_t, 3>& stride,
                              const std::array<int64_t, 3>& dilation, const std::array<int64_t, 3>& before,
                              const std::array<int64_t, 3>& out) {
    PoolShape s{};
    s.channels_last = channels_last;
    s.channels = channels;
    if (channels < 0) throw py::value_error("negative channels");
    for (int a = 0; a < 3; a++) {
        s.in[a] = in[a];
        s.kernel[a] = kernel[a];
        s.stride[a] = stride[a];
        s.dilation[a] = dilation[a];
        s.before[a] = before[a];
        s.out[a] = out[a];
        int64_t reach, span;
        if (in[a] < 1 || kernel[a] < 1 || stride[a] < 1 || dilation[a] < 1 || before[a] < 0 || out[a] < 1 ||
            __builtin_mul_overflow(out[a], stride[a], &reach) ||
            __builtin_mul_overflow(kernel[a], dilation[a], &span) || reach > INT64_MAX / 8 ||
            span > INT64_MAX / 8 || before[a] > INT64_MAX / 8)
            throw py::value_error("sizes, strides, dilations and paddings are out of range");
    }
    return s;
}

// What an average divides by at each output position, along three axes; empty where there is no average.
using WindowCounts = std::array<std::vector<int64_t>, 3>;
using WindowCountArrays = std::array<py::array_t<int64_t, py::array::c_style | py::array::forcecast>, 3>;

inline WindowCounts window_counts(const WindowCountArrays& given, const PoolShape& s) {
    WindowCounts counts;
    for (int a = 0; a < 3; a++) {
        if ((given[a].size() == 0) != (given[0].size() == 0) ||
            (given[a].size() != 0 && given[a].size() != s.out[a]))
            throw py::value_error("one count is needed for each output position");
        counts[a].assign(given[a].data(), given[a].data() + given[a].size());
    }
    return counts;
}

inline void check_shape(const py::array& a, const PoolShape& s, const int64_t (&size)[3], int64_t batch,
                        const char* name) {
    const int64_t want[5] = {batch, s.channels_last ? size[0] : s.channels,
                             s.channels_last ? size[1] : size[0], s.channels_last ? size[2] : size[1],
                             s.channels_last ? s.channels : size[2]};
    bool same = a.ndim() == 5 && (a.flags() & py::array::c_style) != 0 &&
                (a.dtype().byteorder() == '=' || a.dtype().byteorder() == '|');
    for (int i = 0; same && i < 5; i++) same = a.shape(i) == want[i];
    if (!same)
        throw py::value_error(std::string(name) +
                              " must be C-contiguous, native, and of the geometry's shape");
}

// Checks an input and returns its batch size.
inline int64_t check_data(const py::array& a, const PoolShape& s, const int64_t (&size)[3],
                          const char* name) {
    const int64_t batch = a.ndim() == 5 ? a.shape(0) : -1;
    check_shape(a, s, size, batch, name);
    return batch;
}

inline void check_same_type(const py::array& a, const py::array& b) {
    if (a.dtype().kind() != b.dtype().kind() || a.itemsize() != b.itemsize())
        throw py::type_error("dtypes differ");
}

// Checks a result: the shape that `size` says, dtype and batch of the input.
inline void check_result(const py::array& a, const py::array& input, const PoolShape& s,
                         const int64_t (&size)[3], const char* name) {
    check_shape(a, s, size, input.shape(0), name);
    check_same_type(a, input);
    if (!a.writeable()) throw py::value_error(std::string(name) + " is read-only");
}

}  // namespace fastconv
