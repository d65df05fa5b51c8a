#include <cmath>
#include <cstring>
#include <vector>

#include "algorithms/backward_weight.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"
#include "tests/naive_conv.hpp"

using namespace fastconv;
using namespace fastconv::testing;

namespace {

// Integer-valued data: the right answer is exact, and so is every order of additions.
template <class T>
void exact(const ConvProblem& p, int64_t batch) {
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

}  // namespace

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
    for (const Case& c : {dense, depthwise}) {
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
