#include "algorithms/pool.hpp"

#include <algorithm>
#include <limits>

#include "algorithms/avg_pool_kernels.hpp"
#include "algorithms/pool_turned.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// Bytes read and written that are worth a task (about 20 us at the bandwidth of one core).
constexpr int64_t kTaskBytes = 200 << 10;

// What a core's own cache holds about: as little is cut once for each thread, so that a repeated call finds it where it was;
// more is cut finer, so that a slow core does less.
constexpr int64_t kCacheBytes = 2 << 20;

// Calls run(part) for parts that cover all slabs, rows and channels. Every element is computed alike wherever
// a part begins, so the cut may depend on the number of threads.
template <class F>
void for_each_part(const PoolShape& s, int64_t batch, int64_t rows, bool cut_rows, bool cut_channels,
                   int64_t bytes, F run) {
    const int64_t slabs = s.channels_last ? batch : batch * s.channels, unit = s.unit();
    if (slabs == 0 || unit == 0) return;
    const int64_t threads = num_threads(), each = bytes <= threads * kCacheBytes ? 1 : 4;
    const int64_t wanted = threads == 1 ? 1 : std::min<int64_t>(bytes / kTaskBytes, each * threads);
    if (wanted <= 1) return run(PoolPart{0, slabs, 0, rows, 0, unit});
    const int64_t slab_parts = std::min(slabs, wanted);
    int64_t more = (wanted + slab_parts - 1) / slab_parts;
    const int64_t row_parts = cut_rows ? std::min(rows, more) : 1;
    more = (more + row_parts - 1) / row_parts;
    // channels are cut at multiples of a cache line's worth
    const int64_t channel_parts = cut_channels ? std::min(std::max<int64_t>(unit / 64, 1), more) : 1;
    const int64_t width = ((unit + channel_parts - 1) / channel_parts + 15) / 16 * 16;
    parallel_for(slab_parts * row_parts * channel_parts, [&](int64_t task) {
        const int64_t c = task % channel_parts, r = task / channel_parts % row_parts,
                      b = task / channel_parts / row_parts;
        const PoolPart part{b * slabs / slab_parts,    (b + 1) * slabs / slab_parts,
                            r * rows / row_parts,      (r + 1) * rows / row_parts,
                            std::min(c * width, unit), std::min((c + 1) * width, unit)};
        if (part.c0 < part.c1) run(part);
    });
}

int64_t traffic(const PoolShape& s, int64_t batch, int64_t bytes, int64_t times = 1) {
    return batch * s.channels * (s.in_volume() + s.out_volume()) * bytes * times;
}

// Most rows and most taps of one window that can lie inside.
int64_t row_limit(const PoolShape& s) {
    return std::min(s.kernel[0], s.in[0]) * std::min(s.kernel[1], s.in[1]);
}

// Whether the vector kernels find a maximum's place: floats, not too many taps for numbers in a float, no
// padding out of all proportion.
bool by_vectors(const PoolShape& s, PoolType type) {
    if (type != PoolType::f32 && type != PoolType::f64) return false;
    int64_t taps = 1, reach = 0;
    for (int a = 0; a < 3; a++) {
        if (__builtin_mul_overflow(taps, s.kernel[a], &taps) || taps >= int64_t{1} << 24) return false;
        reach = std::max(reach,
                         (s.out[a] - 1) * s.stride[a] + s.span(a) + s.before[a] - 8 * (s.in[a] + s.out[a]));
    }
    return reach <= 4096;
}

// Calls use(position) for the taps of a window that lie inside.
template <class Use>
void for_taps(const PoolShape& s, int64_t o, Use use) {
    const Taps d = taps_of(s, 0, o / s.out[2] / s.out[1]), h = taps_of(s, 1, o / s.out[2] % s.out[1]),
               w = taps_of(s, 2, o % s.out[2]);
    for (int64_t a = d.first; a < d.last; a++)
        for (int64_t b = h.first; b < h.last; b++)
            for (int64_t j = w.first; j < w.last; j++)
                use(((d.start + a * s.dilation[0]) * s.in[1] + h.start + b * s.dilation[1]) * s.in[2] +
                    w.start + j * s.dilation[2]);
}

// Position of a window's maximum, or -1.
template <class T>
int64_t place_of_maximum(const PoolShape& s, const T* x, int64_t o, int64_t unit) {
    int64_t place = -1;
    for_taps(s, o, [&](int64_t at) {
        if (place < 0) {
            place = at;
            return;
        }
        const T v = x[at * unit], best = x[place * unit];
        if (v > best || (v != v && best == best)) place = at;
    });
    return place;
}

// One window after another, one value at a time: what the vector kernels do not take.
template <class T>
void plain_indices(const PoolShape& s, const void* x, void* out, int64_t* indices, const PoolPart& part) {
    using Limits = std::numeric_limits<T>;
    const int64_t u = s.unit();
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t o = part.row0 * s.out[2]; o < part.row1 * s.out[2]; o++) {
            for (int64_t c = part.c0; c < part.c1; c++) {
                const T* const in = static_cast<const T*>(x) + slab * s.in_volume() * u + c;
                const int64_t to = (slab * s.out_volume() + o) * u + c, place = place_of_maximum(s, in, o, u);
                static_cast<T*>(out)[to] = place >= 0             ? in[place * u]
                                           : Limits::has_infinity ? -Limits::infinity()
                                                                  : Limits::lowest();
                indices[to] = place;
            }
        }
    }
}

constexpr void (*kPlainIndices[10])(const PoolShape&, const void*, void*, int64_t*, const PoolPart&) = {
    plain_indices<float>,   plain_indices<double>,   plain_indices<int8_t>,  plain_indices<uint8_t>,
    plain_indices<int16_t>, plain_indices<uint16_t>, plain_indices<int32_t>, plain_indices<uint32_t>,
    plain_indices<int64_t>, plain_indices<uint64_t>};

template <class T>
void plain_backward(const PoolShape& s, Ties ties, const void* dy, const void* x, void* dx,
                    const PoolPart& part) {
    const int64_t u = s.unit();
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t c = part.c0; c < part.c1; c++) {
            const T* const in = static_cast<const T*>(x) + slab * s.in_volume() * u + c;
            T* const to = static_cast<T*>(dx) + slab * s.in_volume() * u + c;
            for (int64_t i = 0; i < s.in_volume(); i++) to[i * u] = T(0);
            for (int64_t o = 0; o < s.out_volume(); o++) {
                const int64_t place = place_of_maximum(s, in, o, u);
                if (place < 0) continue;
                T g = static_cast<const T*>(dy)[(slab * s.out_volume() + o) * u + c];
                const T best = in[place * u];
                const auto tied = [&](int64_t at) { return in[at * u] == best || in[at * u] != in[at * u]; };
                if (ties == Ties::first) {
                    to[place * u] += g;
                    continue;
                }
                int64_t count = 0;
                for_taps(s, o, [&](int64_t at) { count += tied(at); });
                if (ties == Ties::split) g /= static_cast<T>(count);
                for_taps(s, o, [&](int64_t at) {
                    if (tied(at)) to[at * u] += g;
                });
            }
        }
    }
}

// Calls run(T{}) with the type of a pooling of floats.
template <class Run>
void with_type(PoolType type, Run run) {
    if (type == PoolType::f32)
        run(float{});
    else
        run(double{});
}

template <class T, class Kernel>
void forward_turned(const PoolShape& s, int64_t batch, int64_t together, const void* x, void* out,
                    int64_t elements, Kernel kernel) {
    const TurnedArrays<T> arrays{static_cast<const T*>(x), nullptr,       s.in_volume(), 0,
                                 static_cast<T*>(out),     s.out_volume()};
    for_turned_planes<T>(s, batch * s.channels, together, arrays,
                         [&](const PoolShape& turned, const T* from, const T*, T* to) {
                             ScratchFrame frame;
                             kernel(turned, from, to, PoolPart{0, 1, 0, s.out[0] * s.out[1], 0, together},
                                    frame.take<T>(elements), frame.take<const void*>(row_limit(s)));
                         });
}

PoolShape channels_last(PoolShape s, int64_t channels) {
    s.channels_last = true;
    s.channels = channels;
    return s;
}

}  // namespace

int64_t pool_type_bytes(PoolType type) {
    constexpr int64_t bytes[10] = {4, 8, 1, 1, 2, 2, 4, 4, 8, 8};
    return bytes[static_cast<int>(type)];
}

size_t pool_scratch_bytes(const PoolShape& s, PoolType type, bool average) {
    const int64_t bytes = pool_type_bytes(type);
    const bool floats = type == PoolType::f32 || type == PoolType::f64;
    const int64_t together =
        floats ? turned_planes(s, average ? PoolPass::average : PoolPass::max, bytes) : 0;
    const PoolShape shape = together > 0 ? channels_last(s, together) : s;
    const int64_t elements =
        (average ? avg_pool_kernels().forward_scratch(shape) : max_pool_kernels().forward_scratch(shape)) +
        together * (s.in_volume() + s.out_volume());
    constexpr int64_t kPieces = 4;
    return static_cast<size_t>(elements * bytes + row_limit(s) * static_cast<int64_t>(sizeof(void*))) +
           kPieces * kScratchAlignment;
}

void max_pool(const PoolShape& s, PoolType type, int64_t batch, const void* x, void* out, int64_t* indices) {
    if (batch == 0 || s.channels == 0) return;  // scratch is shared out by channels
    const MaxPoolKernels& kernels = max_pool_kernels();
    const int t = static_cast<int>(type);
    const int64_t bytes = pool_type_bytes(type), rows = s.out[0] * s.out[1];
    const bool floats = type == PoolType::f32 || type == PoolType::f64;
    const int64_t together = floats && indices == nullptr ? turned_planes(s, PoolPass::max, bytes) : 0;
    if (together > 0) {
        const int64_t elements = kernels.forward_scratch(channels_last(s, together));
        return with_type(type, [&](auto number) {
            forward_turned<decltype(number)>(s, batch, together, x, out, elements,
                                             [&](const PoolShape& turned, const void* from, void* to,
                                                 const PoolPart& part, void* scratch, const void** pointers) {
                                                 kernels.forward[t](turned, nullptr, from, to, part, scratch,
                                                                    pointers);
                                             });
        });
    }
    if (indices == nullptr) {
        const int64_t elements = kernels.forward_scratch(s), pointers = row_limit(s);
        for_each_part(s, batch, rows, true, elements == 0, traffic(s, batch, bytes),
                      [&](const PoolPart& part) {
                          ScratchFrame frame;
                          kernels.forward[t](s, nullptr, x, out, part,
                                             frame.take_bytes(static_cast<size_t>(elements * bytes)),
                                             frame.take<const void*>(pointers));
                      });
        return;
    }
    const bool vectors = by_vectors(s, type);
    const int64_t room = vectors ? kernels.gradient_scratch[t](s) : 0;
    for_each_part(s, batch, rows, true, true, traffic(s, batch, bytes, 4), [&](const PoolPart& part) {
        ScratchFrame frame;
        if (vectors) {
            kernels.indices[t](s, x, out, indices, part, frame.take_bytes(static_cast<size_t>(room)));
        } else {
            kPlainIndices[t](s, x, out, indices, part);
        }
    });
}

void max_pool_backward(const PoolShape& s, PoolType type, Ties ties, int64_t batch, const void* dy,
                       const void* x, void* dx) {
    if (batch == 0 || s.channels == 0) return;
    const MaxPoolKernels& kernels = max_pool_kernels();
    const int t = static_cast<int>(type);
    const int64_t rows = s.in[0] * s.in[1], bytes = traffic(s, batch, pool_type_bytes(type), 4);
    const PoolPass pass = ties == Ties::first ? PoolPass::max_gradient : PoolPass::tied_gradient;
    const int64_t together = turned_planes(s, pass, pool_type_bytes(type));
    if (s.adaptive && together == 0) {
        return for_each_part(s, batch, rows, false, true, bytes, [&](const PoolPart& part) {
            kernels.backward[t](s, ties, dy, x, dx, part, nullptr);
        });
    }
    if (!s.adaptive && !by_vectors(s, type)) {
        return for_each_part(s, batch, rows, false, true, bytes, [&](const PoolPart& part) {
            (type == PoolType::f32 ? plain_backward<float> : plain_backward<double>)(s, ties, dy, x, dx,
                                                                                     part);
        });
    }
    if (together > 0) {
        const int64_t each = s.adaptive ? 0 : kernels.gradient_scratch[t](channels_last(s, together));
        return with_type(type, [&](auto number) {
            using T = decltype(number);
            const TurnedArrays<T> arrays{static_cast<const T*>(dy),
                                         static_cast<const T*>(x),
                                         s.out_volume(),
                                         s.in_volume(),
                                         static_cast<T*>(dx),
                                         s.in_volume()};
            for_turned_planes<T>(s, batch * s.channels, together, arrays,
                                 [&](const PoolShape& turned, const T* g, const T* from, T* to) {
                                     ScratchFrame frame;
                                     kernels.backward[t](turned, ties, g, from, to,
                                                         PoolPart{0, 1, 0, rows, 0, together},
                                                         frame.take_bytes(static_cast<size_t>(each)));
                                 });
        });
    }
    const int64_t room = kernels.gradient_scratch[t](s);
    for_each_part(s, batch, rows, true, true, bytes, [&](const PoolPart& part) {
        ScratchFrame frame;
        kernels.backward[t](s, ties, dy, x, dx, part, frame.take_bytes(static_cast<size_t>(room)));
    });
}

void avg_pool(const PoolShape& s, const int64_t* const* counts, PoolType type, int64_t batch, const void* x,
              void* out) {
    const FlushToZero guard;
    const AvgPoolKernels& kernels = avg_pool_kernels();
    const int t = static_cast<int>(type);
    const int64_t bytes = pool_type_bytes(type), elements = kernels.forward_scratch(s),
                  pointers = row_limit(s);
    if (const int64_t together = turned_planes(s, PoolPass::average, bytes); together > 0) {
        const int64_t each = kernels.forward_scratch(channels_last(s, together));
        return with_type(type, [&](auto number) {
            forward_turned<decltype(number)>(s, batch, together, x, out, each,
                                             [&](const PoolShape& turned, const void* from, void* to,
                                                 const PoolPart& part, void* scratch, const void** rows) {
                                                 kernels.forward[t](turned, counts, from, to, part, scratch,
                                                                    rows);
                                             });
        });
    }
    for_each_part(s, batch, s.out[0] * s.out[1], true, elements == 0, traffic(s, batch, bytes),
                  [&](const PoolPart& part) {
                      ScratchFrame frame;
                      kernels.forward[t](s, counts, x, out, part,
                                         frame.take_bytes(static_cast<size_t>(elements * bytes)),
                                         frame.take<const void*>(pointers));
                  });
}

void avg_pool_backward(const PoolShape& s, const int64_t* const* counts, PoolType type, int64_t batch,
                       const void* dy, void* dx) {
    const FlushToZero guard;
    const AvgPoolKernels& kernels = avg_pool_kernels();
    const int t = static_cast<int>(type);
    const int64_t bytes = pool_type_bytes(type), elements = kernels.backward_scratch(s);
    if (const int64_t together = turned_planes(s, PoolPass::average_gradient, bytes); together > 0) {
        const int64_t each = kernels.backward_scratch(channels_last(s, together));
        return with_type(type, [&](auto number) {
            using T = decltype(number);
            const TurnedArrays<T> arrays{static_cast<const T*>(dy), nullptr,      s.out_volume(), 0,
                                         static_cast<T*>(dx),       s.in_volume()};
            for_turned_planes<T>(s, batch * s.channels, together, arrays,
                                 [&](const PoolShape& turned, const T* g, const T*, T* to) {
                                     ScratchFrame frame;
                                     kernels.backward[t](turned, counts, g, to,
                                                         PoolPart{0, 1, 0, s.in[0] * s.in[1], 0, together},
                                                         frame.take<T>(each));
                                 });
        });
    }
    for_each_part(s, batch, s.in[0] * s.in[1], true, false, traffic(s, batch, bytes),
                  [&](const PoolPart& part) {
                      ScratchFrame frame;
                      kernels.backward[t](s, counts, dy, dx, part,
                                          frame.take_bytes(static_cast<size_t>(elements * bytes)));
                  });
}

}  // namespace fastconv
