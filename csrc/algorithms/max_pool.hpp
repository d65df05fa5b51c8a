// Max pooling: values, indices, gradient.
//
// The maximum alone is the walk of pool_forward.hpp. Indices and gradient look at a window twice: once for
// its maximum, once more for the taps that hold it (hits), so that no index is kept and the tie rules differ
// in a line. A window is a list of offsets from a base, the same for x and dx:
// - channels last: offsets in the image itself, channels in lanes;
// - channels first: rows are split into `stride` phases of every stride-th position, with -inf at both ends,
// so
//   that every tap of neighbouring windows is one contiguous run. Split rows live in a ring as high as a
//   window; finished gradient rows are merged into dx, and rows that no window touches are zeroed on the way.
#pragma once

#include "algorithms/max_pool_kernels.hpp"
#include "algorithms/pool_forward.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class V>
FASTCONV_INLINE V window_max(const scalar_of<V>* x, const int64_t* offsets, int64_t taps, Mask<V> tail,
                             bool whole) {
    V m = broadcast<V>(least<scalar_of<V>>());
    if (whole) {
        for (int64_t t = 0; t < taps; t++) m = MaxOp::apply(m, load<V>(x + offsets[t]));
    } else {
        for (int64_t t = 0; t < taps; t++) m = MaxOp::apply(m, load<V>(x + offsets[t], tail));
    }
    return m;
}

// Adds g to dx at the taps that hold the maximum m.
template <class V, Ties kTies, bool kTail>
FASTCONV_INLINE void spread(const scalar_of<V>* x, scalar_of<V>* dx, const int64_t* offsets, int64_t taps,
                            V m, V g, Mask<V> tail) {
    const auto read = [&](const scalar_of<V>* p) { return kTail ? load<V>(p, tail) : load<V>(p); };
    const auto add = [&](scalar_of<V>* p, Hits<V> h) {
        const V sum = add_where(h, read(p), g);
        if (kTail) {
            store(p, sum, tail);
        } else {
            store(p, sum);
        }
    };
    if constexpr (kTies == Ties::split) {
        V count{};
        for (int64_t t = 0; t < taps; t++)
            count = add_where(hits(read(x + offsets[t]), m), count, broadcast<V>(scalar_of<V>(1)));
        g = g / count;
    }
    Hits<V> done = no_hits<V>();
    for (int64_t t = 0; t < taps; t++) {
        Hits<V> h = hits(read(x + offsets[t]), m);
        if constexpr (kTies == Ties::first) {
            h = without(h, done);
            done = either(h, done);
        }
        add(dx + offsets[t], h);
    }
}

// The number of the first tap that holds m, per lane.
template <class V>
FASTCONV_INLINE void first_tap(const scalar_of<V>* x, const int64_t* offsets, int64_t taps, V m, Mask<V> tail,
                               bool whole, scalar_of<V>* numbers) {
    V number{};
    for (int64_t t = taps - 1; t >= 0; t--) {
        const V v = whole ? load<V>(x + offsets[t]) : load<V>(x + offsets[t], tail);
        const Hits<V> h = hits(v, m);
        // written as a sum so that one masked operation does it: number + h * (t - number)
        number = add_where(h, number, broadcast<V>(static_cast<scalar_of<V>>(t)) - number);
    }
    store(numbers, number);
}

// The taps of one window that lie inside, as offsets from its first tap's own position.
struct Window {
    Taps axis[3];
    int64_t count;
    bool operator==(const Window& o) const {
        bool same = true;
        for (int a = 0; a < 3; a++)
            same = same && axis[a].first == o.axis[a].first && axis[a].last == o.axis[a].last;
        return same;
    }
};

// ---- channels last (and, with one channel, any plane whose rows are not worth splitting)

// Calls body(slab, output position, window's base offset, offsets, count) for every window of the part.
template <class Row, class Body>
FASTCONV_INLINE void for_each_window(const PoolShape& s, const PoolPart& part, int64_t* offsets,
                                     Row row_begins, Body body) {
    const int64_t u = s.unit(), h = s.in[1], w = s.in[2];
    Window last{};
    last.count = -1;
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t row = 0; row < s.out[0] * s.out[1]; row++) {
            Window now{{taps_of(s, 0, row / s.out[1]), taps_of(s, 1, row % s.out[1]), {}}, 0};
            row_begins(slab, now);
            for (int64_t ow = 0; ow < s.out[2]; ow++) {
                now.axis[2] = taps_of(s, 2, ow);
                if (last.count < 0 || !(now == last)) {
                    last = now;
                    last.count = 0;
                    for (int64_t a = now.axis[0].first; a < now.axis[0].last; a++)
                        for (int64_t b = now.axis[1].first; b < now.axis[1].last; b++)
                            for (int64_t j = now.axis[2].first; j < now.axis[2].last; j++)
                                offsets[last.count++] =
                                    ((a * s.dilation[0] * h + b * s.dilation[1]) * w + j * s.dilation[2]) * u;
                }
                const int64_t base =
                    ((now.axis[0].start * h + now.axis[1].start) * w + now.axis[2].start) * u;
                body(slab, row * s.out[2] + ow, base, last.count);
            }
        }
    }
}

template <class T, Ties kTies>
void backward_positions(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part,
                        int64_t* offsets) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit(), rows = s.in[0] * s.in[1], width = part.c1 - part.c0;
    int64_t slab_now = part.slab0, zeroed = 0;  // rows of dx that have been zeroed so far
    const auto zero_to = [&](int64_t row) {
        for (; zeroed < row; zeroed++) {
            T* to = dx + (slab_now * rows + zeroed) * s.in[2] * u;
            if (width == u) {
                fill(to, s.in[2] * u, T(0));
            } else {
                for (int64_t i = 0; i < s.in[2]; i++) fill(to + i * u + part.c0, width, T(0));
            }
        }
    };
    for_each_window(
        s, part, offsets,
        [&](int64_t slab, const Window& window) {
            if (slab != slab_now) {
                zero_to(rows);
                slab_now = slab;
                zeroed = 0;
            }
            const Taps &d = window.axis[0], &h = window.axis[1];
            if (d.empty() || h.empty()) return;
            zero_to((d.start + (d.last - 1) * s.dilation[0]) * s.in[1] + h.start +
                    (h.last - 1) * s.dilation[1] + 1);
        },
        [&](int64_t slab, int64_t position, int64_t base, int64_t taps) {
            const T* const g = dy + (slab * s.out_volume() + position) * u;
            const int64_t at = slab * s.in_volume() * u + base;
            int64_t c = part.c0;
            const auto all = mask<V>(lanes_of<V>);
            for (; c + lanes_of<V> <= part.c1; c += lanes_of<V>)
                spread<V, kTies, false>(x + at + c, dx + at + c, offsets, taps,
                                        window_max<V>(x + at + c, offsets, taps, all, true), load<V>(g + c),
                                        all);
            if (c < part.c1) {
                const auto tail = mask<V>(part.c1 - c);
                spread<V, kTies, true>(x + at + c, dx + at + c, offsets, taps,
                                       window_max<V>(x + at + c, offsets, taps, tail, false),
                                       load<V>(g + c, tail), tail);
            }
        });
    zero_to(rows);
    for (slab_now++; slab_now < part.slab1; slab_now++) {
        zeroed = 0;
        zero_to(rows);
    }
}

template <class T>
void indices_positions(const PoolShape& s, const T* x, T* out, int64_t* indices, const PoolPart& part,
                       int64_t* offsets) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit();
    for_each_window(
        s, part, offsets, [](int64_t, const Window&) {},
        [&](int64_t slab, int64_t position, int64_t base, int64_t taps) {
            const int64_t to = (slab * s.out_volume() + position) * u;
            const T* const from = x + slab * s.in_volume() * u + base;
            for (int64_t c = part.c0; c < part.c1; c += lanes_of<V>) {
                const auto tail = mask<V>(part.c1 - c);
                const bool whole = c + lanes_of<V> <= part.c1;
                const V m = window_max<V>(from + c, offsets, taps, tail, whole);
                T numbers[lanes_of<V>];
                first_tap<V>(from + c, offsets, taps, m, tail, whole, numbers);
                store(out + to + c, m, tail);
                for (int64_t i = 0; i < lanes_of<V> && c + i < part.c1; i++)
                    indices[to + c + i] = taps ? (base + offsets[static_cast<int64_t>(numbers[i])]) / u : -1;
            }
        });
}

// ---- channels first: rows split into phases

template <class T>
struct PhasedRows {
    int64_t stride, before, width, length, slot;  // `length` elements per phase, `slot` per row

    explicit PhasedRows(const PoolShape& s)
        : stride(s.stride[2]), before(s.before[2]), width(s.in[2]), length(0), slot(0) {
        const int64_t read = s.out[2] + (s.span(2) - 1) / stride + kLanes<T>,
                      held = (before + width) / stride + 1;
        length = (read > held ? read : held) + kLanes<T>;
        slot = stride * length;
    }
    int64_t tap(int64_t j_dilated) const { return j_dilated % stride * length + j_dilated / stride; }

    void split(const T* from, T* to) const {
        using V = vec<T, kLanes<T>>;
        constexpr int L = lanes_of<V>;
        if (stride == 1) {
            for (int64_t i = 0; i < width; i += L)
                store(to + before + i, load<V>(from + i, mask<V>(width - i)), mask<V>(width - i));
        } else if (stride == 2) {
            T *first = to + tap(before), *second = to + tap(before + 1);
            for (int64_t i = 0; i < width; i += 2 * L) {
                const V a = load<V>(from + i, mask<V>(width - i)),
                        b = load<V>(from + i + L, mask<V>(width - i - L));
                store(first + i / 2, even_lanes(a, b), mask<V>((width - i + 1) / 2));
                store(second + i / 2, odd_lanes(a, b), mask<V>((width - i) / 2));
            }
        } else {
            for (int64_t r = 0; r < stride && r < width; r++) {
                T* phase = to + tap(before + r);
                for (int64_t i = r; i < width; i += stride) *phase++ = from[i];
            }
        }
    }

    void merge(const T* from, T* to) const {
        using V = vec<T, kLanes<T>>;
        constexpr int L = lanes_of<V>;
        if (stride == 1) {
            for (int64_t i = 0; i < width; i += L)
                store(to + i, load<V>(from + before + i, mask<V>(width - i)), mask<V>(width - i));
        } else if (stride == 2) {
            const T *first = from + tap(before), *second = from + tap(before + 1);
            for (int64_t i = 0; i < width; i += 2 * L) {
                const V a = load<V>(first + i / 2), b = load<V>(second + i / 2);
                store(to + i, interleave_low(a, b), mask<V>(width - i));
                store(to + i + L, interleave_high(a, b), mask<V>(width - i - L));
            }
        } else {
            for (int64_t r = 0; r < stride && r < width; r++) {
                const T* phase = from + tap(before + r);
                for (int64_t i = r; i < width; i += stride) to[i] = *phase++;
            }
        }
    }
};

// Whether splitting rows pays: few phases, enough windows in a row, and no padding out of proportion.
inline bool is_phased(const PoolShape& s) {
    const int64_t reach = (s.out[2] - 1) * s.stride[2] + s.span(2) + s.before[2];
    return !s.channels_last && s.stride[2] <= 4 && s.out[2] >= 2 && reach <= 8 * (s.in[2] + s.out[2]) + 4096;
}

// Rows of the ring: a window of depth one walks down each plane, a deeper one needs whole planes.
inline int64_t ring_rows(const PoolShape& s) {
    const int64_t depth = s.span(0) < s.in[0] ? s.span(0) : s.in[0],
                  height = s.span(1) < s.in[1] ? s.span(1) : s.in[1];
    return s.kernel[0] == 1 ? height : depth * s.in[1];
}

// Offsets of a window's taps, at most as many as there are positions.
inline int64_t tap_limit(const PoolShape& s) {
    int64_t taps = 1;
    for (int a = 0; a < 2; a++) taps *= s.kernel[a] < s.in[a] ? s.kernel[a] : s.in[a];
    return taps * (is_phased(s) || s.kernel[2] < s.in[2] ? s.kernel[2] : s.in[2]);
}

// Walks the output rows of a plane; body(oh-row number, offsets, taps, row slots, rows) has the split rows in
// place.
template <class T>
struct Ring {
    const PoolShape& s;
    PhasedRows<T> phases;
    int64_t rows, *offsets, *held, *slots;
    T *x, *dx;  // dx null where only values are wanted

    Ring(const PoolShape& shape, void* scratch, bool gradient)
        : s(shape), phases(shape), rows(ring_rows(shape)) {
        offsets = static_cast<int64_t*>(scratch);
        held = offsets + tap_limit(s);
        slots = held + rows;
        x = reinterpret_cast<T*>(slots + rows);
        dx = gradient ? x + rows * phases.slot : nullptr;
        fill(x, rows * phases.slot, least<T>());
    }
    static int64_t bytes(const PoolShape& s) {
        return (tap_limit(s) + 2 * ring_rows(s)) * 8 +
               2 * ring_rows(s) * PhasedRows<T>(s).slot * static_cast<int64_t>(sizeof(T));
    }

    // First input row that output rows after (od, oh) still touch.
    int64_t finished(int64_t od, int64_t oh) const {
        const int64_t all = s.in[0] * s.in[1];
        if (oh + 1 < s.out[1] && s.kernel[0] == 1) {
            const int64_t id = od * s.stride[0] - s.before[0], ih = (oh + 1) * s.stride[1] - s.before[1];
            if (id >= s.in[0]) return all;
            return id < 0 ? 0 : id * s.in[1] + (ih < 0 ? 0 : ih > s.in[1] ? s.in[1] : ih);
        }
        if (od + 1 == s.out[0] && oh + 1 == s.out[1]) return all;
        const int64_t id = (oh + 1 == s.out[1] ? od + 1 : od) * s.stride[0] - s.before[0];
        return id < 0 ? 0 : id > s.in[0] ? all : id * s.in[1];
    }

    template <class Body>
    FASTCONV_INLINE void walk(const T* plane, T* gradient, Body body) {
        for (int64_t i = 0; i < rows; i++) held[i] = -1;
        int64_t done = 0;
        for (int64_t row = 0; row < s.out[0] * s.out[1]; row++) {
            const int64_t od = row / s.out[1], oh = row % s.out[1];
            const Taps td = taps_of(s, 0, od), th = taps_of(s, 1, oh);
            int64_t count = 0, taps = 0;
            for (int64_t a = td.first; a < td.last; a++) {
                for (int64_t b = th.first; b < th.last; b++) {
                    const int64_t r = (td.start + a * s.dilation[0]) * s.in[1] + th.start + b * s.dilation[1];
                    const int64_t slot = r % rows;
                    if (held[slot] != r) {
                        held[slot] = r;
                        phases.split(plane + r * s.in[2], x + slot * phases.slot);
                        if (gradient) fill(dx + slot * phases.slot, phases.slot, T(0));
                    }
                    slots[count++] = slot * phases.slot;
                    for (int64_t j = 0; j < s.kernel[2]; j++)
                        offsets[taps++] = slot * phases.slot + phases.tap(j * s.dilation[2]);
                }
            }
            body(row, td, th, count, taps);
            if (!gradient) continue;
            const int64_t limit = finished(od, oh);
            for (; done < limit; done++) {
                T* const to = gradient + done * s.in[2];
                if (held[done % rows] == done) {
                    phases.merge(dx + done % rows * phases.slot, to);
                } else {
                    fill(to, s.in[2], T(0));
                }
            }
        }
    }
};

template <class T, Ties kTies>
void backward_phased(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part,
                     void* scratch) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const auto all = mask<V>(L);
    Ring<T> ring(s, scratch, true);
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        ring.walk(
            x + slab * s.in_volume(), dx + slab * s.in_volume(),
            [&](int64_t row, const Taps&, const Taps&, int64_t count, int64_t taps) {
                if (count == 0) return;
                const T* const g = dy + slab * s.out_volume() + row * s.out[2];
                for (int64_t i = 0; i < s.out[2]; i += L) {
                    const V m = window_max<V>(ring.x + i, ring.offsets, taps, all, true);
                    V gradient = load<V>(g + i, mask<V>(s.out[2] - i));
                    if (any_equal(m, broadcast<V>(least<T>()))) {
                        // such windows hold only -inf: their taps are told by place, not by value
                        T low[L], back[L];
                        store(low, m);
                        store(back, gradient);
                        for (int64_t lane = 0; lane < L && i + lane < s.out[2]; lane++) {
                            const Taps tw = taps_of(s, 2, i + lane);
                            if (low[lane] != least<T>() || tw.empty()) continue;
                            const int64_t share = kTies == Ties::split ? count * (tw.last - tw.first) : 1;
                            for (int64_t r = 0; r < (kTies == Ties::first ? 1 : count); r++)
                                for (int64_t j = tw.first;
                                     j < (kTies == Ties::first ? tw.first + 1 : tw.last); j++)
                                    ring.dx[ring.slots[r] + ring.phases.tap(j * s.dilation[2]) + i + lane] +=
                                        back[lane] / static_cast<T>(share);
                            back[lane] = T(0);
                        }
                        gradient = load<V>(back);
                    }
                    spread<V, kTies, false>(ring.x + i, ring.dx + i, ring.offsets, taps, m, gradient, all);
                }
            });
    }
}

template <class T>
void indices_phased(const PoolShape& s, const T* x, T* out, int64_t* indices, const PoolPart& part,
                    void* scratch) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const auto all = mask<V>(L);
    Ring<T> ring(s, scratch, false);
    const int64_t k = s.kernel[2], h = s.in[1], w = s.in[2];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        ring.walk(x + slab * s.in_volume(), nullptr,
                  [&](int64_t row, const Taps& td, const Taps& th, int64_t count, int64_t taps) {
                      const int64_t to = slab * s.out_volume() + row * s.out[2];
                      const int64_t across = th.last - th.first;
                      for (int64_t i = 0; i < s.out[2]; i += L) {
                          const V m = window_max<V>(ring.x + i, ring.offsets, taps, all, true);
                          T numbers[L], values[L];
                          first_tap<V>(ring.x + i, ring.offsets, taps, m, all, true, numbers);
                          store(out + to + i, m, mask<V>(s.out[2] - i));
                          store(values, m);
                          for (int64_t lane = 0; lane < L && i + lane < s.out[2]; lane++) {
                              int64_t r = static_cast<int64_t>(numbers[lane]) / k,
                                      j = static_cast<int64_t>(numbers[lane]) % k;
                              if (values[lane] == least<T>()) {
                                  const Taps tw = taps_of(s, 2, i + lane);
                                  if (count == 0 || tw.empty()) {
                                      indices[to + i + lane] = -1;
                                      continue;
                                  }
                                  r = 0;
                                  j = tw.first;
                              }
                              const int64_t id = td.start + (td.first + r / across) * s.dilation[0];
                              const int64_t ih = th.start + (th.first + r % across) * s.dilation[1];
                              indices[to + i + lane] = (id * h + ih) * w + (i + lane) * s.stride[2] -
                                                       s.before[2] + j * s.dilation[2];
                          }
                      }
                  });
    }
}

// ---- entries

template <class T>
int64_t gradient_scratch(const PoolShape& s) {
    return is_phased(s) ? Ring<T>::bytes(s) : tap_limit(s) * 8;
}

template <class T>
void indices(const PoolShape& s, const void* x, void* out, int64_t* numbers, const PoolPart& part,
             void* scratch) {
    const T* const from = static_cast<const T*>(x);
    T* const to = static_cast<T*>(out);
    if (is_phased(s)) return indices_phased<T>(s, from, to, numbers, part, scratch);
    indices_positions<T>(s, from, to, numbers, part, static_cast<int64_t*>(scratch));
}

template <class T, Ties kTies>
void backward_ties(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part, void* scratch) {
    if (is_phased(s)) return backward_phased<T, kTies>(s, dy, x, dx, part, scratch);
    backward_positions<T, kTies>(s, dy, x, dx, part, static_cast<int64_t*>(scratch));
}

template <class T>
void backward(const PoolShape& s, Ties ties, const void* dy, const void* x, void* dx, const PoolPart& part,
              void* scratch) {
    const T *const g = static_cast<const T*>(dy), *const from = static_cast<const T*>(x);
    T* const to = static_cast<T*>(dx);
    if (ties == Ties::first) return backward_ties<T, Ties::first>(s, g, from, to, part, scratch);
    if (ties == Ties::all) return backward_ties<T, Ties::all>(s, g, from, to, part, scratch);
    backward_ties<T, Ties::split>(s, g, from, to, part, scratch);
}

}  // namespace

const MaxPoolKernels max_pool_kernels = {
    forward_scratch,
    {forward<float, MaxOp>, forward<double, MaxOp>, forward<int8_t, MaxOp>, forward<uint8_t, MaxOp>,
     forward<int16_t, MaxOp>, forward<uint16_t, MaxOp>, forward<int32_t, MaxOp>, forward<uint32_t, MaxOp>,
     forward<int64_t, MaxOp>, forward<uint64_t, MaxOp>},
    {gradient_scratch<float>, gradient_scratch<double>},
    {indices<float>, indices<double>},
    {backward<float>, backward<double>},
};

FASTCONV_END_ISA
