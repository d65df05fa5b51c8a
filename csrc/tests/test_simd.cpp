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

TEST(simd_active_isa_is_available) {
    CHECK(isa_available(active_isa()));
    CHECK(probe_kernels().vector_bytes >= 16);
}
