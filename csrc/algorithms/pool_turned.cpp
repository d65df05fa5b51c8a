#include "algorithms/pool_turned.hpp"

#include <cmath>

#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr double kTurned = 0.22;  // ns for an element, turned

// Nanoseconds for a plane, fitted to windows of 2 to 7 on planes 3 to 24 wide, on volumes and on lines (AVX-512).
struct Nanoseconds {
    double by_rows, by_lanes;
};

Nanoseconds predict(const PoolShape& s, PoolPass pass) {
    const auto in = static_cast<double>(s.in_volume()), out = static_cast<double>(s.out_volume());
    const auto taps = [&](int a) { return static_cast<double>(std::min(s.kernel[a], s.in[a])); };
    // Rows of the result that an input row adds to.
    const double covered = std::max(1.0, taps(0) / static_cast<double>(s.stride[0])) *
                           std::max(1.0, taps(1) / static_cast<double>(s.stride[1]));
    const auto in_rows = static_cast<double>(s.in[0] * s.in[1]),
               out_rows = static_cast<double>(s.out[0] * s.out[1]);
    const double sums = out * (0.2 + 0.01 * (taps(0) * taps(1) + taps(2)));
    switch (pass) {
        case PoolPass::max:
        case PoolPass::average: {
            const double strided = s.stride[2] > 2 ? (pass == PoolPass::max ? 2.8 : 0.8) * out * taps(2) : 0;
            return {(16 + 6 * std::ceil(static_cast<double>(s.in[2]) / 16)) * out_rows + strided,
                    kTurned * (in + out) + 0.15 * in + sums};
        }
        case PoolPass::average_gradient: {
            const bool gathered = s.kernel[0] == 1 && s.stride[2] <= 2 && s.kernel[1] * s.kernel[2] <= 27;
            return {gathered ? 18 * in_rows + 0.5 * in : (15 + 8 * covered) * in_rows + 0.4 * in,
                    kTurned * (in + out) + 0.15 * in + sums};
        }
        case PoolPass::max_gradient:
            // One window: 14 x 14 28 ns, 7 x 7 18; by lanes 92 and 27.
            if (is_one_window(s)) return {0, 1};
            if (s.adaptive) {
                // max_pool_scattered.hpp; 256 planes of 13 x 13 to 3 x 3 0.74 ns a pixel by lanes, to 6 x 6 0.83.
                const double deep = taps(0) * taps(1), vectors = std::ceil(taps(2) / 16);
                return {out * (18 + 1.7 * deep * vectors) + 0.05 * in, 0.6 * in + 0.1 * out * deep * taps(2)};
            }
            [[fallthrough]];
        case PoolPass::tied_gradient:
            if (s.adaptive) return {2, 1};
            // Columns at a stride of three and more have no kernel of their own.
            if (s.kernel[0] == 1 && s.kernel[1] > 1 && s.kernel[2] > 1 && s.stride[2] > 2) return {2, 1};
            if (s.in[0] == 1 || s.kernel[0] == 1) {
                if (s.kernel[1] == 1 || s.kernel[2] == 1) return {0, 1};
                // 512 planes of 1x1 to 14x14, windows of 2 to 5: 3x3 stride 1 on 7x7 129 ns and 54.
                const double planes = static_cast<double>(s.in[0]), sides = taps(1) + taps(2);
                if (s.stride[1] == s.kernel[1] && s.stride[2] == s.kernel[2])
                    return {15 * planes + 0.345 * in, 9 * planes + 0.36 * in};
                if (pass == PoolPass::max_gradient && s.kernel[1] == 3 && s.kernel[2] == 3 &&
                    s.stride[1] == 2 && s.stride[2] == 2)
                    // max_pool_halved.hpp: 28 x 28 260 ns, 55 x 55 890.
                    return {10 * planes + 19 * out_rows * std::ceil(static_cast<double>(s.out[2] + 1) / 16),
                            9 * planes + 0.42 * in + (0.065 * sides + 0.2) * out};
                return {60 * planes + 0.45 * in + (0.105 * sides - 0.33) * out,
                        9 * planes + 0.42 * in + (0.065 * sides + 0.2) * out};
            }
            return {(25 + 10 * taps(0) * taps(1) / static_cast<double>(s.stride[0] * s.stride[1])) * in_rows,
                    kTurned * (2 * in + out) + 0.3 * in + 0.12 * out * taps(0) * taps(1) * taps(2)};
    }
    return {0, 1};
}

}  // namespace

int64_t turned_planes(const PoolShape& s, PoolPass pass, int64_t item) {
    const bool maximum = pass == PoolPass::max_gradient || pass == PoolPass::tied_gradient;
    if (s.channels_last || s.channels < 8 || (s.out_volume() <= 1 && !maximum)) return 0;
    const Nanoseconds ns = s.adaptive && !maximum ? Nanoseconds{2, 1} : predict(s, pass);
    if (ns.by_rows < 1.15 * ns.by_lanes) return 0;
    const int64_t lanes = 64 / item, room = static_cast<int64_t>(l2_bytes()) / 2;
    const int64_t plane = (s.in_volume() * (maximum ? 2 : 1) + s.out_volume()) * item;
    const int64_t most = room / plane / lanes * lanes;
    return std::min({most, round_up(s.channels, lanes), 2 * lanes});
}

}  // namespace fastconv
