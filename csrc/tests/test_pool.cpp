// Pooling against naive loops: tails, primes, size one, NaN, inf, -0.0, windows of padding only, huge
// strides, windows past the end.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "algorithms/pool.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"

using namespace fastconv;

namespace {

struct Case {
    int64_t channels, in[3], kernel[3], stride[3], dilation[3], before[3], after[3];
};

// Plane-like, tails around the vector width, primes, planes of one, deep windows, dilation, overhang
// (negative `after` drops nothing: a positive one stands for padding or for what ceil_mode adds).
const Case kCases[] = {
    {3, {1, 17, 31}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}},
    {3, {1, 17, 31}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 1, 1}},
    {5, {1, 13, 37}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {17, {1, 9, 33}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}},
    {33, {1, 20, 20}, {1, 5, 5}, {1, 1, 1}, {1, 1, 1}, {0, 2, 2}, {0, 2, 2}},
    {2, {1, 40, 40}, {1, 13, 15}, {1, 1, 1}, {1, 1, 1}, {0, 6, 7}, {0, 6, 7}},
    {16, {1, 40, 23}, {1, 13, 15}, {1, 1, 2}, {1, 1, 1}, {0, 0, 3}, {0, 0, 0}},
    {8, {1, 7, 7}, {1, 7, 7}, {1, 7, 7}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}},
    {70, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}},
    {4, {1, 1, 3}, {1, 1, 4}, {1, 1, 5}, {1, 1, 1}, {0, 0, 9}, {0, 0, 9}},
    {4, {1, 5, 19}, {1, 2, 3}, {1, 3, 1000000007}, {1, 1, 2}, {0, 2, 3}, {0, 0, 0}},
    {3, {5, 6, 17}, {3, 2, 3}, {1, 2, 1}, {1, 2, 3}, {1, 1, 2}, {2, 0, 3}},
    {9, {4, 5, 9}, {2, 2, 2}, {3, 1, 3}, {2, 1, 1}, {1, 0, 1}, {0, 1, 2}},
    {1, {1, 1, 1009}, {1, 1, 50}, {1, 1, 1}, {1, 1, 1}, {0, 0, 25}, {0, 0, 24}},
};

PoolShape shape_of(const Case& c, bool last) {
    PoolShape s{};
    s.channels_last = last;
    s.channels = c.channels;
    for (int a = 0; a < 3; a++) {
        s.in[a] = c.in[a];
        s.kernel[a] = c.kernel[a];
        s.stride[a] = c.stride[a];
        s.dilation[a] = c.dilation[a];
        s.before[a] = c.before[a];
        s.out[a] = (c.in[a] + c.before[a] + c.after[a] - s.span(a)) / c.stride[a] + 1;
    }
    return s;
}

int64_t at(const PoolShape& s, int64_t n, int64_t c, int64_t position, int64_t volume) {
    return s.channels_last ? (n * volume + position) * s.channels + c
                           : (n * s.channels + c) * volume + position;
}

// Calls use(position) for the taps inside of window o.
template <class Use>
void taps(const PoolShape& s, int64_t o, Use use) {
    const int64_t place[3] = {o / s.out[2] / s.out[1], o / s.out[2] % s.out[1], o % s.out[2]};
    for (int64_t a = 0; a < s.kernel[0]; a++)
        for (int64_t b = 0; b < s.kernel[1]; b++)
            for (int64_t j = 0; j < s.kernel[2]; j++) {
                const int64_t k[3] = {a, b, j};
                int64_t p[3];
                bool inside = true;
                for (int i = 0; i < 3; i++) {
                    p[i] = place[i] * s.stride[i] - s.before[i] + k[i] * s.dilation[i];
                    inside = inside && p[i] >= 0 && p[i] < s.in[i];
                }
                if (inside) use((p[0] * s.in[1] + p[1]) * s.in[2] + p[2]);
            }
}

template <class T>
bool same(T a, T b) {
    return a == b || (a != a && b != b);
}

template <class T>
std::vector<T> values(int64_t n, int kind, std::mt19937& random) {
    std::vector<T> x(static_cast<size_t>(n));
    for (auto& v : x) {
        v = static_cast<T>(static_cast<int>(random() % 9) - 4);
        if (!std::numeric_limits<T>::has_infinity || kind == 0) continue;
        const unsigned r = random() % 16;
        if (r < 2) v = std::numeric_limits<T>::quiet_NaN();
        if (r == 2) v = std::numeric_limits<T>::infinity();
        if (r > 10 || kind == 2) v = -std::numeric_limits<T>::infinity();
        if (r == 3) v = static_cast<T>(-0.0);
    }
    return x;
}

constexpr int64_t kBatch = 2;

template <class T>
void check_max(const PoolShape& s, PoolType type, int kind) {
    std::mt19937 random(7);
    const int64_t v = s.in_volume(), w = s.out_volume(), planes = kBatch * s.channels;
    const std::vector<T> x = values<T>(planes * v, kind, random);
    std::vector<T> y(static_cast<size_t>(planes * w), T(77)), z = y, g = values<T>(planes * w, 0, random);
    std::vector<int64_t> numbers(y.size(), -99);
    max_pool(s, type, kBatch, x.data(), y.data(), nullptr);
    max_pool(s, type, kBatch, x.data(), z.data(), numbers.data());
    for (const Ties ties : {Ties::first, Ties::all, Ties::split}) {
        const bool floating = std::numeric_limits<T>::has_infinity;
        std::vector<double> want(x.size(), 0.0);
        for (int64_t n = 0; n < kBatch; n++)
            for (int64_t c = 0; c < s.channels; c++)
                for (int64_t o = 0; o < w; o++) {
                    int64_t best = -1, count = 0;
                    const auto value = [&](int64_t p) { return x[static_cast<size_t>(at(s, n, c, p, v))]; };
                    taps(s, o, [&](int64_t p) {
                        if (best < 0 || value(p) > value(best) ||
                            (value(p) != value(p) && value(best) == value(best)))
                            best = p;
                    });
                    const auto to = static_cast<size_t>(at(s, n, c, o, w));
                    if (ties == Ties::first) {
                        const T least =
                            floating ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
                        CHECK(same(y[to], best < 0 ? least : value(best)));
                        CHECK(same(z[to], y[to]));
                        CHECK(numbers[to] == best);
                    }
                    if (best < 0) continue;
                    const double gradient = static_cast<double>(g[to]);
                    if (ties == Ties::first) {
                        want[static_cast<size_t>(at(s, n, c, best, v))] += gradient;
                        continue;
                    }
                    taps(s, o, [&](int64_t p) { count += same(value(p), value(best)); });
                    taps(s, o, [&](int64_t p) {
                        if (same(value(p), value(best)))
                            want[static_cast<size_t>(at(s, n, c, p, v))] +=
                                gradient / static_cast<double>(ties == Ties::split ? count : 1);
                    });
                }
        if (!floating) return;
        std::vector<T> dx(x.size(), T(77));
        max_pool_backward(s, type, ties, kBatch, g.data(), x.data(), dx.data());
        for (size_t i = 0; i < dx.size(); i++) CHECK(std::abs(static_cast<double>(dx[i]) - want[i]) < 1e-4);
    }
}

template <class T>
void check_avg(const PoolShape& s, PoolType type, bool include_pad, const Case& c) {
    std::mt19937 random(9);
    const int64_t v = s.in_volume(), w = s.out_volume(), planes = kBatch * s.channels;
    std::vector<int64_t> counts[3];
    const int64_t* pointers[3];
    for (int a = 0; a < 3; a++) {
        for (int64_t o = 0; o < s.out[a]; o++) {
            int64_t count = 0;
            for (int64_t k = 0; k < s.kernel[a]; k++) {
                const int64_t p = o * s.stride[a] - s.before[a] + k;
                count += include_pad ? p < s.in[a] + c.after[a] : p >= 0 && p < s.in[a];
            }
            counts[a].push_back(count);
        }
        pointers[a] = counts[a].data();
    }
    const std::vector<T> x = values<T>(planes * v, 0, random), g = values<T>(planes * w, 0, random);
    std::vector<T> y(static_cast<size_t>(planes * w), T(77)), dx(x.size(), T(77));
    avg_pool(s, pointers, type, kBatch, x.data(), y.data());
    avg_pool_backward(s, pointers, type, kBatch, g.data(), dx.data());
    std::vector<double> want(x.size(), 0.0);
    for (int64_t n = 0; n < kBatch; n++)
        for (int64_t ch = 0; ch < s.channels; ch++)
            for (int64_t o = 0; o < w; o++) {
                const auto to = static_cast<size_t>(at(s, n, ch, o, w));
                const int64_t count = counts[0][static_cast<size_t>(o / s.out[2] / s.out[1])] *
                                      counts[1][static_cast<size_t>(o / s.out[2] % s.out[1])] *
                                      counts[2][static_cast<size_t>(o % s.out[2])];
                double sum = 0;
                taps(s, o, [&](int64_t p) {
                    sum += static_cast<double>(x[static_cast<size_t>(at(s, n, ch, p, v))]);
                    want[static_cast<size_t>(at(s, n, ch, p, v))] +=
                        static_cast<double>(g[to]) / static_cast<double>(count);
                });
                CHECK(std::abs(static_cast<double>(y[to]) -
                               (count ? sum / static_cast<double>(count) : 0.0)) < 1e-4);
            }
    for (size_t i = 0; i < dx.size(); i++) CHECK(std::abs(static_cast<double>(dx[i]) - want[i]) < 1e-4);
}

}  // namespace

TEST(pool_max_agrees_with_loops) {
    for (const int threads : {1, 3}) {
        set_num_threads(threads);
        for (const Case& c : kCases)
            for (const bool last : {false, true})
                for (const int kind : {0, 1, 2}) {
                    check_max<float>(shape_of(c, last), PoolType::f32, kind);
                    check_max<double>(shape_of(c, last), PoolType::f64, kind);
                }
    }
    set_num_threads(2);
}

TEST(pool_max_of_integers_agrees_with_loops) {
    for (const Case& c : kCases)
        for (const bool last : {false, true}) {
            const PoolShape s = shape_of(c, last);
            check_max<int8_t>(s, PoolType::i8, 0);
            check_max<uint8_t>(s, PoolType::u8, 0);
            check_max<int16_t>(s, PoolType::i16, 0);
            check_max<uint16_t>(s, PoolType::u16, 0);
            check_max<int32_t>(s, PoolType::i32, 0);
            check_max<uint32_t>(s, PoolType::u32, 0);
            check_max<int64_t>(s, PoolType::i64, 0);
            check_max<uint64_t>(s, PoolType::u64, 0);
        }
}

TEST(pool_average_agrees_with_loops) {
    for (Case c : kCases) {
        for (int64_t& d : c.dilation) d = 1;
        for (const bool last : {false, true})
            for (const bool include_pad : {false, true}) {
                check_avg<float>(shape_of(c, last), PoolType::f32, include_pad, c);
                check_avg<double>(shape_of(c, last), PoolType::f64, include_pad, c);
            }
    }
}

TEST(pool_gives_the_same_bits_for_any_threads_and_batch) {
    const Case c{48, {1, 61, 59}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
    for (const bool last : {false, true}) {
        const PoolShape s = shape_of(c, last);
        std::mt19937 random(3);
        const int64_t count = s.channels * s.in_volume(), outputs = s.channels * s.out_volume();
        std::vector<float> x(static_cast<size_t>(4 * count)), g(static_cast<size_t>(4 * outputs));
        for (auto& v : x) v = std::normal_distribution<float>()(random);
        for (auto& v : g) v = std::normal_distribution<float>()(random);
        std::vector<int64_t> nine[3] = {{1},
                                        std::vector<int64_t>(static_cast<size_t>(s.out[1]), 3),
                                        std::vector<int64_t>(static_cast<size_t>(s.out[2]), 3)};
        const int64_t* counts[3] = {nine[0].data(), nine[1].data(), nine[2].data()};
        std::vector<float> first[4];
        for (const int threads : {1, 2, 7}) {
            set_num_threads(threads);
            std::vector<float> out[4] = {g, x, g, x};
            max_pool(s, PoolType::f32, 4, x.data(), out[0].data(), nullptr);
            max_pool_backward(s, PoolType::f32, Ties::first, 4, g.data(), x.data(), out[1].data());
            avg_pool(s, counts, PoolType::f32, 4, x.data(), out[2].data());
            avg_pool_backward(s, counts, PoolType::f32, 4, g.data(), out[3].data());
            for (int i = 0; i < 4; i++) {
                if (threads == 1) first[i] = out[i];
                CHECK(std::memcmp(first[i].data(), out[i].data(), out[i].size() * sizeof(float)) == 0);
            }
        }
        std::vector<float> alone(static_cast<size_t>(count));
        avg_pool_backward(s, counts, PoolType::f32, 1, g.data() + 3 * outputs, alone.data());
        CHECK(std::memcmp(alone.data(), first[3].data() + 3 * count, alone.size() * sizeof(float)) == 0);
    }
    set_num_threads(2);
}
