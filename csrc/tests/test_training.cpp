#include <cmath>
#include <cstring>
#include <vector>

#include "algorithms/batch_norm.hpp"
#include "algorithms/elementwise_loops_kernels.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"
#include "tests/naive_conv.hpp"

using namespace fastconv;
using namespace fastconv::testing;

namespace {

const NormShape kShapes[] = {{3, 5, 7},     {2, 3, 1},     {1, 1, 1},     {37, 19, 1},
                             {2, 3, 40000}, {3000, 33, 1}, {20000, 1, 1}, {4, 70, 49}};

template <class T>
struct Run {
    std::vector<T> out, mean, var, dx, dw, db;
};

template <class T>
Run<T> run(const NormShape& s, Activation activation) {
    const auto x = reals<T>(s.size(), 1), dy = reals<T>(s.size(), 2), w = reals<T>(s.channels, 3),
               b = reals<T>(s.channels, 4);
    Run<T> r;
    r.out.resize(s.size());
    r.dx.resize(s.size());
    for (auto* v : {&r.mean, &r.var, &r.dw, &r.db}) v->resize(s.channels);
    batch_norm_train(s, x.data(), w.data(), b.data(), 1e-3, activation, r.out.data(), r.mean.data(),
                     r.var.data());
    batch_norm_backward(s, dy.data(), x.data(), w.data(), b.data(), r.mean.data(), r.var.data(), 1e-3,
                        activation, r.dx.data(), r.dw.data(), r.db.data());
    return r;
}

// Against the formulas, in double.
template <class T>
void check(const NormShape& s, double tolerance) {
    const auto x = reals<T>(s.size(), 1), dy = reals<T>(s.size(), 2), w = reals<T>(s.channels, 3),
               b = reals<T>(s.channels, 4);
    const Run<T> r = run<T>(s, Activation::relu);
    const double count = static_cast<double>(s.count());
    for (int64_t c = 0; c < s.channels; c++) {
        const auto each = [&](auto f) {
            for (int64_t n = 0; n < s.outer; n++)
                for (int64_t i = 0; i < s.inner; i++) f((n * s.channels + c) * s.inner + i);
        };
        double mean = 0, var = 0, sum = 0, dot = 0;
        each([&](int64_t i) { mean += x[i] / count; });
        each([&](int64_t i) { var += (x[i] - mean) * (x[i] - mean) / count; });
        CHECK(std::abs(r.mean[c] - mean) < tolerance);
        CHECK(std::abs(r.var[c] - var) < tolerance);
        const double inverse = 1 / std::sqrt(var + 1e-3);
        const auto gradient = [&](int64_t i) {
            return (x[i] - mean) * inverse * w[c] + b[c] > 0 ? dy[i] : T(0);
        };
        each([&](int64_t i) {
            sum += gradient(i);
            dot += gradient(i) * (x[i] - mean) * inverse;
        });
        CHECK(std::abs(r.db[c] - sum) < tolerance * count);
        CHECK(std::abs(r.dw[c] - dot) < tolerance * count);
        double worst = 0;
        each([&](int64_t i) {
            const double hat = (x[i] - mean) * inverse, y = hat * w[c] + b[c];
            worst = std::max(worst, std::abs(r.out[i] - std::max(y, 0.0)));
            const double dx = w[c] * inverse * (gradient(i) - sum / count - hat * dot / count);
            if (std::abs(y) > 1e-5) worst = std::max(worst, std::abs(r.dx[i] - dx) * std::sqrt(1e-3));
        });
        CHECK(worst < tolerance * 10);
    }
}

}  // namespace

TEST(batch_norm_follows_its_formulas) {
    for (const NormShape& s : kShapes) {
        check<float>(s, 2e-6);
        check<double>(s, 1e-12);
    }
}

TEST(batch_norm_does_not_depend_on_threads) {
    for (const NormShape& s : kShapes) {
        set_num_threads(1);
        const Run<float> first = run<float>(s, Activation::silu);
        for (const int threads : {2, 3, 8}) {
            set_num_threads(threads);
            const Run<float> other = run<float>(s, Activation::silu);
            CHECK(std::memcmp(first.out.data(), other.out.data(), first.out.size() * sizeof(float)) == 0);
            CHECK(std::memcmp(first.dx.data(), other.dx.data(), first.dx.size() * sizeof(float)) == 0);
            CHECK(std::memcmp(first.dw.data(), other.dw.data(), first.dw.size() * sizeof(float)) == 0);
        }
    }
    set_num_threads(2);
}

TEST(gelu_is_accurate) {
    std::vector<float> x, y(4001);
    std::vector<double> wide, wide_y(4001);
    for (int i = 0; i <= 4000; i++) {
        wide.push_back((i - 2000) / 150.0);
        x.push_back(static_cast<float>(wide.back()));
    }
    element_loops<float>().activate(4001, x.data(), Activation::gelu, y.data());
    element_loops<double>().activate(4001, wide.data(), Activation::gelu, wide_y.data());
    // Rounding x / sqrt(2) alone costs x * x half ulps of the tail.
    double worst = 0, wide_worst = 0;
    const auto right = [](double v) { return v * 0.5 * std::erfc(v * -std::sqrt(0.5)); };
    for (int i = 0; i <= 4000; i++) {
        const double size = 1 + x[i] * x[i], error = std::abs(y[i] - right(x[i])),
                     wide_error = wide_y[i] - right(wide[i]);
        worst = std::max(worst, (error - 1e-37) / std::abs(size * right(x[i]) + 1e-300));
        wide_worst = std::max(wide_worst, std::abs(wide_error) / std::abs(size * right(wide[i]) + 1e-300));
    }
    CHECK(worst < 1e-6);
    CHECK(wide_worst < 1e-15);
}
