// Padding and columns against naive loops.
#include <algorithm>
#include <random>
#include <vector>

#include "algorithms/pad.hpp"
#include "algorithms/unfold.hpp"
#include "tests/check.hpp"

using namespace fastconv;

namespace {

// Where position p of an axis comes from, found by walking; -1 where a constant stands.
int64_t walk(PadMode mode, int64_t p, int64_t n) {
    if (p >= 0 && p < n) return p;
    if (mode == PadMode::constant) return -1;
    if (mode == PadMode::edge) return p < 0 ? 0 : n - 1;
    if (n == 1) return 0;
    while (p < 0 || p >= n) {
        if (mode == PadMode::wrap) {
            p += p < 0 ? n : -n;
        } else if (mode == PadMode::symmetric) {
            p = p < 0 ? -1 - p : 2 * n - 1 - p;
        } else {
            p = p < 0 ? -p : 2 * (n - 1) - p;
        }
    }
    return p;
}

template <class T>
void check_pad(const PadShape& s, std::mt19937& random) {
    int64_t count = 1, padded = 1, out[kPadAxes];
    for (int a = 0; a < kPadAxes; a++) {
        count *= s.in[a];
        out[a] = s.before[a] + s.in[a] + s.after[a];
        padded *= out[a];
    }
    std::vector<T> x(static_cast<size_t>(count)), y(static_cast<size_t>(padded), T(99));
    for (auto& v : x) v = static_cast<T>(random() % 100);
    const T value = 7;
    pad(s, sizeof(T), x.data(), &value, y.data());
    std::vector<double> dy(y.size()), dx(x.size(), 55.0), want(x.size(), 0.0);
    for (auto& v : dy) v = static_cast<double>(random() % 9);
    for (int64_t i = 0; i < padded; i++) {
        int64_t rest = i, from = 0, weight = 1;
        for (int a = kPadAxes - 1; a >= 0; a--) {
            const int64_t q = walk(s.mode, rest % out[a] - s.before[a], s.in[a]);
            rest /= out[a];
            from = q < 0 || from < 0 ? -1 : from + q * weight;
            weight *= s.in[a];
        }
        CHECK(y[static_cast<size_t>(i)] == (from < 0 ? value : x[static_cast<size_t>(from)]));
        if (from >= 0) want[static_cast<size_t>(from)] += dy[static_cast<size_t>(i)];
    }
    pad_backward(s, dy.data(), dx.data());
    CHECK(dx == want);
}

}  // namespace

TEST(pad_agrees_with_walking) {
    std::mt19937 random(5);
    for (int round = 0; round < 300; round++) {
        PadShape s{static_cast<PadMode>(round % 5), {}, {}, {}};
        for (int a = 0; a < kPadAxes; a++) {
            s.in[a] = 1 + random() % 4;
            const bool some = random() % 2 == 0;
            s.before[a] = some ? random() % 6 : 0;
            s.after[a] = some ? random() % 6 : 0;
        }
        check_pad<uint8_t>(s, random);
        check_pad<uint16_t>(s, random);
        check_pad<uint32_t>(s, random);
        check_pad<uint64_t>(s, random);
    }
}

TEST(unfold_agrees_with_loops) {
    std::mt19937 random(6);
    for (int round = 0; round < 200; round++) {
        PoolShape s{};
        s.channels = 1 + random() % 3;
        int64_t taps = 1;
        for (int a = 0; a < 3; a++) {
            s.in[a] = 1 + random() % (a == 2 ? 20 : 4);
            s.kernel[a] = 1 + random() % 3;
            s.stride[a] = 1 + random() % 3;
            s.dilation[a] = 1 + random() % 2;
            s.before[a] = random() % 4;
            const int64_t room = s.in[a] + s.before[a] + static_cast<int64_t>(random() % 4) - s.span(a);
            s.out[a] = std::max<int64_t>(room, 0) / s.stride[a] + 1;
            taps *= s.kernel[a];
        }
        const int64_t batch = 2, planes = batch * s.channels, v = s.in_volume(), w = s.out_volume();
        std::vector<float> x(static_cast<size_t>(planes * v)),
            columns(static_cast<size_t>(planes * taps * w), 99.0f);
        for (auto& e : x) e = static_cast<float>(random() % 100);
        im2col(s, 4, batch, x.data(), columns.data());
        std::vector<float> given(columns.size()), back(x.size(), 55.0f), want(x.size(), 0.0f);
        for (auto& e : given) e = static_cast<float>(random() % 9);
        col2im(s, batch, given.data(), back.data());
        size_t i = 0;
        for (int64_t p = 0; p < planes; p++)
            for (int64_t t = 0; t < taps; t++)
                for (int64_t o = 0; o < w; o++, i++) {
                    const int64_t k[3] = {t / s.kernel[2] / s.kernel[1], t / s.kernel[2] % s.kernel[1],
                                          t % s.kernel[2]};
                    const int64_t place[3] = {o / s.out[2] / s.out[1], o / s.out[2] % s.out[1], o % s.out[2]};
                    int64_t from = 0;
                    bool inside = true;
                    for (int a = 0; a < 3; a++) {
                        const int64_t q = place[a] * s.stride[a] - s.before[a] + k[a] * s.dilation[a];
                        inside = inside && q >= 0 && q < s.in[a];
                        from = from * s.in[a] + q;
                    }
                    const auto source = static_cast<size_t>(p * v + from);
                    CHECK(columns[i] == (inside ? x[source] : 0.0f));
                    if (inside) want[source] += given[i];
                }
        CHECK(back == want);
    }
}
