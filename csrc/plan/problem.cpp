#include "plan/problem.hpp"

#include <algorithm>

namespace fastconv {

int64_t axis_source(PadMode mode, int64_t n, int64_t at) {
    if (at >= 0 && at < n) return at;
    const auto modulo = [](int64_t a, int64_t b) { return (a % b + b) % b; };
    switch (mode) {
        case PadMode::constant:
            return -1;
        case PadMode::edge:
            return at < 0 ? 0 : n - 1;
        case PadMode::wrap:
            return modulo(at, n);
        case PadMode::symmetric: {
            const int64_t folded = modulo(at, 2 * n);
            return std::min(folded, 2 * n - 1 - folded);
        }
        case PadMode::reflect: {
            const int64_t period = std::max<int64_t>(1, 2 * (n - 1));  // an axis of one position repeats it
            const int64_t folded = modulo(at, period);
            return std::min(folded, period - folded);
        }
    }
    return -1;
}

}  // namespace fastconv
