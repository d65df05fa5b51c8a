#include "algorithms/unfold.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/float_mode.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kTaskBytes = 200 << 10;

// Calls run(first, last) for ranges of planes.
template <class F>
void for_planes(const PoolShape& s, int64_t planes, int64_t bytes, F run) {
    int64_t plane_bytes = s.out_volume() * bytes;
    for (const int64_t k : s.kernel) plane_bytes *= k;
    const int64_t wanted =
        num_threads() == 1 ? 1 : std::min<int64_t>(planes * plane_bytes / kTaskBytes, 4 * num_threads());
    const int64_t tasks = std::min(planes, wanted);
    if (tasks <= 1) return run(0, planes);
    parallel_for(tasks, [&](int64_t t) { run(t * planes / tasks, (t + 1) * planes / tasks); });
}

// The outputs [first, last) along one axis for which tap k lies inside.
struct Inside {
    int64_t first, last;
};
Inside inside(const PoolShape& s, int axis, int64_t k) {
    const int64_t shift = k * s.dilation[axis] - s.before[axis], st = s.stride[axis],
                  room = s.in[axis] - shift;
    const int64_t first = shift < 0 ? (-shift + st - 1) / st : 0;
    const int64_t last = room > 0 ? std::min(s.out[axis], (room + st - 1) / st) : 0;
    return {std::min(first, last), last};
}

// Calls row(tap's output row, input row or null, where the row's first output reads, its range) for every tap
// and output row of a plane, in the order of the columns.
template <class Row>
void for_rows(const PoolShape& s, Row row) {
    for (int64_t a = 0; a < s.kernel[0]; a++) {
        for (int64_t b = 0; b < s.kernel[1]; b++) {
            for (int64_t j = 0; j < s.kernel[2]; j++) {
                const Inside d = inside(s, 0, a), h = inside(s, 1, b), w = inside(s, 2, j);
                const int64_t shift = j * s.dilation[2] - s.before[2];
                for (int64_t od = 0; od < s.out[0]; od++) {
                    const int64_t id = od * s.stride[0] - s.before[0] + a * s.dilation[0];
                    for (int64_t oh = 0; oh < s.out[1]; oh++) {
                        const int64_t ih = oh * s.stride[1] - s.before[1] + b * s.dilation[1];
                        const bool within =
                            od >= d.first && od < d.last && oh >= h.first && oh < h.last && w.first < w.last;
                        row(within ? (id * s.in[1] + ih) * s.in[2] : -1, shift, w);
                    }
                }
            }
        }
    }
}

template <class T>
void unfold_planes(const PoolShape& s, const T* x, T* to, int64_t planes) {
    const int64_t n = s.out[2], st = s.stride[2];
    for (int64_t p = 0; p < planes; p++, x += s.in_volume()) {
        for_rows(s, [&](int64_t from, int64_t shift, Inside w) {
            if (from < 0) {
                std::fill_n(to, n, T(0));
            } else {
                std::fill_n(to, w.first, T(0));
                const T* in = x + from + shift;
                if (st == 1) {
                    std::memcpy(to + w.first, in + w.first,
                                static_cast<size_t>(w.last - w.first) * sizeof(T));
                } else {
                    for (int64_t o = w.first; o < w.last; o++) to[o] = in[o * st];
                }
                std::fill_n(to + w.last, n - w.last, T(0));
            }
            to += n;
        });
    }
}

template <class T>
void unfold_as(const PoolShape& s, int64_t batch, const void* x, void* columns) {
    const int64_t column = s.out_volume() * s.kernel[0] * s.kernel[1] * s.kernel[2];
    for_planes(s, batch * s.channels, sizeof(T), [&](int64_t first, int64_t last) {
        unfold_planes(s, static_cast<const T*>(x) + first * s.in_volume(),
                      static_cast<T*>(columns) + first * column, last - first);
    });
}

}  // namespace

void im2col(const PoolShape& s, int bytes, int64_t batch, const void* x, void* columns) {
    if (bytes == 1) return unfold_as<uint8_t>(s, batch, x, columns);
    if (bytes == 2) return unfold_as<uint16_t>(s, batch, x, columns);
    if (bytes == 4) return unfold_as<uint32_t>(s, batch, x, columns);
    unfold_as<uint64_t>(s, batch, x, columns);
}

template <class T>
void col2im(const PoolShape& s, int64_t batch, const T* columns, T* x) {
    const FlushToZero guard;
    const int64_t column = s.out_volume() * s.kernel[0] * s.kernel[1] * s.kernel[2], n = s.out[2],
                  st = s.stride[2];
    for_planes(s, batch * s.channels, sizeof(T), [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; p++) {
            T* const plane = x + p * s.in_volume();
            const T* from = columns + p * column;
            std::fill_n(plane, s.in_volume(), T(0));
            for_rows(s, [&](int64_t to, int64_t shift, Inside w) {
                if (to >= 0) {
                    T* const out = plane + to + shift;
                    if (st == 1) {
                        for (int64_t o = w.first; o < w.last; o++) out[o] += from[o];
                    } else {
                        for (int64_t o = w.first; o < w.last; o++) out[o * st] += from[o];
                    }
                }
                from += n;
            });
        }
    });
}

template void col2im<float>(const PoolShape&, int64_t, const float*, float*);
template void col2im<double>(const PoolShape&, int64_t, const double*, double*);

}  // namespace fastconv
