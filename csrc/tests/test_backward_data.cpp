#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "plan/backward_data.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"
#include "tests/naive_conv.hpp"

using namespace fastconv;
using namespace fastconv::testing;

namespace {

template <class T>
void integer(const ConvProblem& p, int64_t batch, DType dtype) {
    const auto w = integers<T>(p.weights(), 1);
    const auto dy = integers<T>(batch * p.out_channels * p.out_pixels(), 2);
    std::vector<T> dx(batch * p.in_channels * p.in_pixels() + 1, T(77));
    BackwardData(p, dtype).run({batch, dy.data(), dx.data()}, w.data());
    std::vector<T> want(dx.size() - 1, T(0));
    each_product(p, batch,
                 [&](int64_t at_y, int64_t at_x, int64_t at_w) { want[at_x] += dy[at_y] * w[at_w]; });
    // Winograd rounds: within a half of the integers that are right.
    const auto near = [](T a, T b) { return std::abs(a - b) < T(0.5); };
    CHECK(std::equal(want.begin(), want.end(), dx.begin(), near));
    CHECK(dx.back() == T(77));
}

}  // namespace

TEST(backward_data_finds_the_right_integers) {
    for (const Case& c : cases()) {
        for (const bool last : {false, true}) {
            integer<float>(c.problem(last), c.batch, DType::f32);
            integer<double>(c.problem(last), c.batch, DType::f64);
        }
    }
}

TEST(backward_data_does_not_depend_on_threads_or_batch) {
    const Case strided{3, 20, 37, 1, {1, 17, 19}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}};
    for (const bool last : {false, true}) {
        const ConvProblem p = strided.problem(last);
        const auto w = reals<float>(p.weights(), 3);
        const auto dy = reals<float>(3 * p.out_channels * p.out_pixels(), 4);
        const int64_t image = p.in_channels * p.in_pixels();
        const BackwardData gradient(p, DType::f32);
        std::vector<float> first, other(3 * image);
        for (const int threads : {1, 2, 3, 8}) {
            set_num_threads(threads);
            gradient.run({3, dy.data(), other.data()}, w.data());
            if (first.empty()) first = other;
            CHECK(std::memcmp(first.data(), other.data(), first.size() * sizeof(float)) == 0);
        }
        set_num_threads(2);
        gradient.run({1, dy.data() + p.out_channels * p.out_pixels(), other.data()}, w.data());
        CHECK(std::memcmp(first.data() + image, other.data(), image * sizeof(float)) == 0);
    }
}
