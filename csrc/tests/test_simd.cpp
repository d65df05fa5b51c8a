#include <vector>

#include "algorithms/probe_kernels.hpp"
#include "simd/dispatch.hpp"
#include "tests/check.hpp"

using namespace fastconv;

TEST(simd_tails_touch_nothing_beyond) {
    for (int n = 0; n < 70; n++) {
        std::vector<float> x(n), y(n + 1, 1.0f);
        for (int i = 0; i < n; i++) x[i] = static_cast<float>(i);
        y[n] = -7.0f;
        probe_kernels().axpy(n, 2.0f, x.data(), y.data());
        for (int i = 0; i < n; i++) CHECK(y[i] == 2.0f * i + 1.0f);
        CHECK(y[n] == -7.0f);
    }
}

TEST(simd_loops_tell_the_work_they_did) {
    const std::vector<float> left(kProbeLeft, 1.0f), right(kProbeRight, 1.0f);
    std::vector<float> sink(kProbeSink);
    CHECK(probe_kernels().multiply_adds(10, sink.data()) > 0);
    CHECK(probe_kernels().multiply_adds(20, sink.data()) ==
          2 * probe_kernels().multiply_adds(10, sink.data()));
    const int64_t done = probe_kernels().cached_product(3, left.data(), right.data(), sink.data());
    float sum = 0;
    for (int i = 0; i < probe_kernels().vector_bytes / 4; i++) sum += sink[i];
    CHECK(static_cast<int64_t>(2 * sum) == done);
}

TEST(simd_active_isa_is_available) {
    CHECK(isa_available(active_isa()));
    CHECK(probe_kernels().vector_bytes >= 16);
}
