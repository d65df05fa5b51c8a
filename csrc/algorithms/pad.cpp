#include "algorithms/pad.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/float_mode.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kTaskBytes = 200 << 10;
constexpr int kOuter = kPadAxes;  // axes before the row, once the row's own is taken apart

// Where each position of a padded axis comes from; -1 where a constant stands. Reflections wider than the
// axis go on reflecting.
std::vector<int64_t> sources(PadMode mode, int64_t size, int64_t before, int64_t after) {
    std::vector<int64_t> from(static_cast<size_t>(before + size + after));
    const int64_t period = mode == PadMode::symmetric ? 2 * size : std::max<int64_t>(1, 2 * (size - 1));
    for (int64_t i = 0; i < static_cast<int64_t>(from.size()); i++) {
        const int64_t p = i - before;
        int64_t q = p;
        if (p < 0 || p >= size) {
            if (mode == PadMode::constant) {
                q = -1;
            } else if (mode == PadMode::edge) {
                q = p < 0 ? 0 : size - 1;
            } else if (mode == PadMode::wrap) {
                q = (p % size + size) % size;
            } else {
                const int64_t folded = (p % period + period) % period;
                q = std::min(folded, (mode == PadMode::symmetric ? period - 1 : period) - folded);
            }
        }
        from[static_cast<size_t>(i)] = q;
    }
    return from;
}

// The shape as rows: outer axes, then one axis of `size` chunks of `chunk` neighbouring elements.
struct Rows {
    int64_t in[kOuter], out[kOuter], size, before, after, chunk, count_in = 1, count_out = 1;
    std::vector<int64_t> from[kOuter], along;

    explicit Rows(const PadShape& s) {
        const bool plain_last = s.before[kPadAxes - 1] == 0 && s.after[kPadAxes - 1] == 0;
        const int row = plain_last ? kPadAxes - 2 : kPadAxes - 1;
        chunk = plain_last ? s.in[kPadAxes - 1] : 1;
        size = s.in[row];
        before = s.before[row];
        after = s.after[row];
        along = sources(s.mode, size, before, after);
        for (int a = 0; a < kOuter; a++) {
            const int axis = a - kOuter + row;
            in[a] = axis < 0 ? 1 : s.in[axis];
            out[a] = axis < 0 ? 1 : s.before[axis] + s.in[axis] + s.after[axis];
            from[a] = axis < 0 ? std::vector<int64_t>{0}
                               : sources(s.mode, s.in[axis], s.before[axis], s.after[axis]);
            count_in *= in[a];
            count_out *= out[a];
        }
    }
    int64_t length_in() const { return size * chunk; }
    int64_t length_out() const { return (before + size + after) * chunk; }
};

// Calls run(first, last) for ranges of `count` rows of `bytes` each.
template <class F>
void for_row_ranges(int64_t count, int64_t bytes, F run) {
    const int64_t wanted =
        num_threads() == 1 ? 1 : std::min<int64_t>(count * bytes / kTaskBytes, 4 * num_threads());
    const int64_t tasks = std::min(count, wanted);
    if (tasks <= 1) return run(0, count);
    parallel_for(tasks, [&](int64_t t) { run(t * count / tasks, (t + 1) * count / tasks); });
}

// The digits of a row number in the mixed base of the outer axes.
struct Place {
    int64_t at[kOuter];
    Place(const int64_t* base, int64_t row) {
        for (int a = kOuter - 1; a >= 0; a--) {
            at[a] = row % base[a];
            row /= base[a];
        }
    }
    void next(const int64_t* base) {
        for (int a = kOuter - 1; a >= 0; a--) {
            if (++at[a] < base[a]) return;
            at[a] = 0;
        }
    }
};

template <class T>
void pad_rows(const Rows& r, const T* x, T value, T* out, int64_t first, int64_t last) {
    const int64_t left = r.before * r.chunk, middle = r.length_in(), length = r.length_out(), chunk = r.chunk;
    const bool constant = r.before + r.after > 0 && r.along[r.before > 0 ? 0 : r.along.size() - 1] < 0;
    Place place(r.out, first);
    for (int64_t row = first; row < last; row++, place.next(r.out)) {
        T* to = out + row * length;
        int64_t source = 0;
        for (int a = 0; a < kOuter && source >= 0; a++) {
            const int64_t from = r.from[a][static_cast<size_t>(place.at[a])];
            source = from < 0 ? -1 : source * r.in[a] + from;
        }
        if (source < 0) {
            std::fill_n(to, length, value);
            continue;
        }
        const T* in = x + source * middle;
        if (constant) {
            std::fill_n(to, left, value);
            std::fill_n(to + left + middle, length - left - middle, value);
        } else if (chunk == 1) {
            for (int64_t i = 0; i < left; i++) to[i] = in[r.along[static_cast<size_t>(i)]];
            for (int64_t i = left + middle; i < length; i++) to[i] = in[r.along[static_cast<size_t>(i)]];
        } else {
            const auto copy = [&](int64_t i) {
                std::memcpy(to + i * chunk, in + r.along[static_cast<size_t>(i)] * chunk,
                            static_cast<size_t>(chunk) * sizeof(T));
            };
            for (int64_t i = 0; i < r.before; i++) copy(i);
            for (int64_t i = r.before + r.size; i < r.before + r.size + r.after; i++) copy(i);
        }
        if (middle > 0) std::memcpy(to + left, in, static_cast<size_t>(middle) * sizeof(T));
    }
}

template <class T>
void pad_as(const Rows& r, const void* x, const void* value, void* out) {
    T bits;
    std::memcpy(&bits, value, sizeof(T));
    for_row_ranges(r.count_out, 2 * r.length_out() * static_cast<int64_t>(sizeof(T)),
                   [&](int64_t first, int64_t last) {
                       pad_rows(r, static_cast<const T*>(x), bits, static_cast<T*>(out), first, last);
                   });
}

// For each position of an unpadded axis the padded positions that are copies of it.
struct Copies {
    std::vector<int64_t> begin, items;
    Copies(const std::vector<int64_t>& from, int64_t size) : begin(static_cast<size_t>(size) + 1, 0) {
        for (const int64_t q : from)
            if (q >= 0) begin[static_cast<size_t>(q) + 1]++;
        for (size_t i = 1; i < begin.size(); i++) begin[i] += begin[i - 1];
        items.resize(static_cast<size_t>(begin.back()));
        std::vector<int64_t> next(begin.begin(), begin.end());
        for (size_t p = 0; p < from.size(); p++)
            if (from[p] >= 0)
                items[static_cast<size_t>(next[static_cast<size_t>(from[p])]++)] = static_cast<int64_t>(p);
    }
};

// Adds one padded row to dx: its middle, then its ends.
template <class T>
void fold_row(const Rows& r, const T* dy, T* dx, bool begun) {
    const int64_t left = r.before * r.chunk, n = r.length_in(), positions = r.before + r.size + r.after;
    if (begun) {
        for (int64_t i = 0; i < n; i++) dx[i] += dy[left + i];
    } else {
        std::memcpy(dx, dy + left, static_cast<size_t>(n) * sizeof(T));
    }
    const auto add = [&](int64_t p) {
        const int64_t q = r.along[static_cast<size_t>(p)];
        if (q < 0) return;
        for (int64_t c = 0; c < r.chunk; c++) dx[q * r.chunk + c] += dy[p * r.chunk + c];
    };
    for (int64_t p = 0; p < r.before; p++) add(p);
    for (int64_t p = r.before + r.size; p < positions; p++) add(p);
}

}  // namespace

void pad(const PadShape& shape, int bytes, const void* x, const void* value, void* out) {
    const Rows r(shape);
    if (r.count_out * r.length_out() == 0) return;
    if (bytes == 1) return pad_as<uint8_t>(r, x, value, out);
    if (bytes == 2) return pad_as<uint16_t>(r, x, value, out);
    if (bytes == 4) return pad_as<uint32_t>(r, x, value, out);
    pad_as<uint64_t>(r, x, value, out);
}

template <class T>
void pad_backward(const PadShape& shape, const T* dy, T* dx) {
    const Rows r(shape);
    if (r.count_in * r.length_in() == 0) return;
    const FlushToZero guard;
    const Copies copies[kOuter] = {{r.from[0], r.in[0]},
                                   {r.from[1], r.in[1]},
                                   {r.from[2], r.in[2]},
                                   {r.from[3], r.in[3]},
                                   {r.from[4], r.in[4]}};
    for_row_ranges(
        r.count_in, 2 * r.length_out() * static_cast<int64_t>(sizeof(T)), [&](int64_t first, int64_t last) {
            Place place(r.in, first);
            for (int64_t row = first; row < last; row++, place.next(r.in)) {
                // every combination of copies along the outer axes, in order
                int64_t many[kOuter], total = 1;
                for (int a = 0; a < kOuter; a++) {
                    const auto at = static_cast<size_t>(place.at[a]);
                    many[a] = copies[a].begin[at + 1] - copies[a].begin[at];
                    total *= many[a];
                }
                Place choice(many, 0);
                for (int64_t i = 0; i < total; i++, choice.next(many)) {
                    int64_t source = 0;
                    for (int a = 0; a < kOuter; a++) {
                        const int64_t item = copies[a].begin[static_cast<size_t>(place.at[a])] + choice.at[a];
                        source = source * r.out[a] + copies[a].items[static_cast<size_t>(item)];
                    }
                    fold_row(r, dy + source * r.length_out(), dx + row * r.length_in(), i > 0);
                }
            }
        });
}

template void pad_backward<float>(const PadShape&, const float*, float*);
template void pad_backward<double>(const PadShape&, const double*, double*);

}  // namespace fastconv
