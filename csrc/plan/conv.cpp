#include "plan/conv.hpp"

#include <atomic>
#include <cstdio>

#include "plan/candidates.hpp"
#include "runtime/check.hpp"

namespace fastconv {

ConvKernel::ConvKernel() {
    static std::atomic<uint64_t> next{0};
    serial_ = ++next;
}

void ConvKernel::pack(const void*, void*) const { FASTCONV_DCHECK(packed_bytes() == 0); }

const std::vector<ConvAlgorithm>& conv_algorithms() {
    static const std::vector<ConvAlgorithm> all = {
#define FASTCONV_ALGORITHM(name, exact, chain, automatic) \
    {#name, exact, chain, automatic, why_not_##name, predict_##name, make_##name},
#include "plan/algorithms.inc"
#undef FASTCONV_ALGORITHM
    };
    return all;
}

const ConvAlgorithm* find_conv_algorithm(const std::string& name) {
    for (const ConvAlgorithm& candidate : conv_algorithms())
        if (name == candidate.name) return &candidate;
    return nullptr;
}

const ConvAlgorithm& choose_conv_algorithm(const ConvProblem& problem, DType dtype) {
    const ConvAlgorithm* best = nullptr;
    double least = 0;
    for (const ConvAlgorithm& candidate : conv_algorithms()) {
        if (!candidate.automatic || !candidate.why_not(problem, dtype).empty()) continue;
        const double time = candidate.predict(problem, dtype);
        if (best == nullptr || time < least) {
            best = &candidate;
            least = time;
        }
    }
    return *best;  // direct takes everything
}

std::string describe_conv(const ConvProblem& problem, DType dtype, const std::string& chosen) {
    std::string text;
    for (const ConvAlgorithm& candidate : conv_algorithms()) {
        char line[160];
        const std::string reason = candidate.why_not(problem, dtype);
        if (reason.empty()) {
            std::snprintf(line, sizeof line, "%c %-13s predicted %.1f us an image on one thread\n",
                          chosen == candidate.name ? '*' : ' ', candidate.name,
                          candidate.predict(problem, dtype) * 1e6);
            text += line;
        } else {
            std::snprintf(line, sizeof line, "  %-13s ", candidate.name);
            text += line + reason + "\n";
        }
    }
    return text;
}

}  // namespace fastconv
