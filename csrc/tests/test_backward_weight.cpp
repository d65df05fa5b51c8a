#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "algorithms/backward_weight.hpp"
#include "algorithms/backward_weight_job.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"
#include "tests/naive_conv.hpp"

using namespace fastconv;
using namespace fastconv::testing;

namespace {

// Integer-valued data: the right answer is exact, and so is every order of additions (but for Winograd's transforms).
template <class T>
void exact(const ConvProblem& p, int64_t batch) {
    if (prefers_winograd<T>(p, batch)) return;
    const auto x = integers<T>(batch * p.in_channels * p.in_pixels(), 1);
    const auto dy = integers<T>(batch * p.out_channels * p.out_pixels(), 2);
    std::vector<T> dw(p.weights() + 1, T(77)), db(p.out_channels + 1, T(77));
    backward_weight<T>(p, batch, dy.data(), x.data(), dw.data(), db.data());
    std::vector<T> want(p.weights(), T(0)), want_bias(p.out_channels, T(0));
    each_product(p, batch,
                 [&](int64_t at_y, int64_t at_x, int64_t at_w) { want[at_w] += dy[at_y] * x[at_x]; });
    for (int64_t i = 0; i < static_cast<int64_t>(dy.size()); i++) {
        const int64_t k = p.channels_last ? i % p.out_channels : i / p.out_pixels() % p.out_channels;
        want_bias[k] += dy[i];
    }
    CHECK(std::equal(want.begin(), want.end(), dw.begin()));
    CHECK(std::equal(want_bias.begin(), want_bias.end(), db.begin()));
    CHECK(dw.back() == T(77) && db.back() == T(77));
}

// Integer-valued data: rounding gives the right answer; reals err by no more than what is promised.
template <class T>
void near(const ConvProblem& p, int64_t batch, bool whole) {
    const int64_t xs = batch * p.in_channels * p.in_pixels(), ys = batch * p.out_channels * p.out_pixels();
    const auto x = whole ? integers<T>(xs, 1) : reals<T>(xs, 1),
               dy = whole ? integers<T>(ys, 2) : reals<T>(ys, 2);
    std::vector<T> dw(p.weights() + 1, T(77)), db(p.out_channels + 1, T(77));
    CHECK(backward_weight_winograd<T>(p, batch, dy.data(), x.data(), dw.data(), db.data()));
    std::vector<double> want(p.weights(), 0), size(p.weights(), 0), want_bias(p.out_channels, 0);
    each_product(p, batch, [&](int64_t at_y, int64_t at_x, int64_t at_w) {
        const double product = static_cast<double>(dy[at_y]) * static_cast<double>(x[at_x]);
        want[at_w] += product;
        size[at_w] += std::fabs(product);
    });
    for (int64_t i = 0; i < ys; i++) {
        const int64_t k = p.channels_last ? i % p.out_channels : i / p.out_pixels() % p.out_channels;
        want_bias[k] += static_cast<double>(dy[i]);
    }
    double largest = 0, worst = 0, worst_bias = 0;
    for (double v : size) largest = std::max(largest, v);
    for (int64_t i = 0; i < p.weights(); i++) {
        if (whole) CHECK(std::nearbyint(dw[i]) == want[i]);
        worst = std::max(worst, std::fabs(static_cast<double>(dw[i]) - want[i]));
    }
    for (int64_t k = 0; k < p.out_channels; k++)
        worst_bias = std::max(worst_bias, std::fabs(static_cast<double>(db[k]) - want_bias[k]));
    const double promise = sizeof(T) == 4 ? 5e-6 : 1e-14;
    CHECK(worst <= promise * largest);
    CHECK(worst_bias <= promise * static_cast<double>(batch * p.out_pixels()));
    CHECK(dw.back() == T(77) && db.back() == T(77));
}

// Tails of channels and tiles, one tile and many chunks, padding of every kind.
const Case kThree[] = {
    {1, 1, 1, 1, {1, 3, 3}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
    {2, 3, 5, 1, {1, 7, 9}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
    {3, 17, 33, 1, {1, 13, 11}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
    {2, 16, 32, 1, {1, 12, 16}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 2, 3}, {0, 2, 1}},
    {5, 20, 48, 1, {1, 30, 79}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, {0, 1, 0}},
    {2, 70, 90, 1, {1, 6, 5}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
};

}  // namespace

TEST(backward_weight_by_winograd) {
    for (const Case& c : kThree) {
        for (const bool last : {false, true}) {
            for (const bool whole : {false, true}) {
                near<float>(c.problem(last), c.batch, whole);
                near<double>(c.problem(last), c.batch, whole);
            }
        }
    }
}

// A value that is not finite reaches every tap of its channel whose windows see it, and nothing else.
TEST(backward_weight_leaves_what_is_not_finite_to_the_direct_way) {
    const Case c{4, 32, 32, 1, {1, 16, 16}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}};
    const ConvProblem p = c.problem(true);
    CHECK(prefers_winograd<float>(p, c.batch));
    auto x = reals<float>(c.batch * p.in_channels * p.in_pixels(), 1);
    const auto dy = reals<float>(c.batch * p.out_channels * p.out_pixels(), 2);
    x[7] = INFINITY;  // the first pixel: seen by the first tap alone
    std::vector<float> dw(p.weights());
    CHECK(!backward_weight_winograd<float>(p, c.batch, dy.data(), x.data(), dw.data(), nullptr));
    backward_weight<float>(p, c.batch, dy.data(), x.data(), dw.data(), nullptr);
    for (int64_t i = 0; i < p.weights(); i++) CHECK(std::isfinite(dw[i]) == !(i / p.out_channels == 7));
}

TEST(backward_weight_is_exact_on_integers) {
    for (const Case& c : cases()) {
        for (const bool last : {false, true}) {
            exact<float>(c.problem(last), c.batch);
            exact<double>(c.problem(last), c.batch);
        }
    }
}

TEST(backward_weight_does_not_depend_on_threads) {
    const Case dense{3, 20, 37, 1, {1, 17, 19}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}};
    const Case depthwise{9, 24, 24, 24, {1, 23, 14}, {1, 3, 3}, {1, 2, 1}, {1, 1, 1}, {0, 1, 1}};
    const Case winograd{6, 40, 40, 1, {1, 30, 30}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}};
    CHECK(prefers_winograd<float>(winograd.problem(true), winograd.batch));
    for (const Case& c : {dense, depthwise, winograd}) {
        for (const bool last : {false, true}) {
            const ConvProblem p = c.problem(last);
            const auto x = reals<float>(c.batch * p.in_channels * p.in_pixels(), 3);
            const auto dy = reals<float>(c.batch * p.out_channels * p.out_pixels(), 4);
            std::vector<float> first, other(p.weights());
            for (const int threads : {1, 2, 3, 8}) {
                set_num_threads(threads);
                backward_weight<float>(p, c.batch, dy.data(), x.data(), other.data(), nullptr);
                if (first.empty()) first = other;
                CHECK(std::memcmp(first.data(), other.data(), first.size() * sizeof(float)) == 0);
            }
            set_num_threads(2);
        }
    }
}
