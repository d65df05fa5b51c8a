#include "plan/conv.hpp"

#include <atomic>
#include <cstdio>

#include "plan/candidates.hpp"
#include "plan/reduce.hpp"
#include "runtime/check.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

uint64_t next_serial() {
    static std::atomic<uint64_t> next{0};
    return ++next;
}

ConvKernel::ConvKernel() : serial_(next_serial()) {}

ScratchShare ConvKernel::scratch_share() const {
    int threads = num_threads();
    if (limit_ == SIZE_MAX) return {threads, SIZE_MAX};
    for (; threads > 1; threads--) {
        const size_t each = limit_ / static_cast<size_t>(threads);
        if (each > kScratchRounding && scratch_within(each - kScratchRounding) <= each - kScratchRounding)
            break;
    }
    const size_t budget = limit_ / static_cast<size_t>(threads);
    return {threads, budget > kScratchRounding ? budget - kScratchRounding : 0};
}

size_t ConvKernel::workspace_bytes() const {
    const ScratchShare share = scratch_share();
    const size_t each = scratch_within(share.budget);
    return each == 0 ? 0 : (each + kScratchRounding) * static_cast<size_t>(share.threads);
}

void ConvKernel::pack(const void*, void*) const { FASTCONV_DCHECK(packed_bytes() == 0); }

namespace {

using WhyNot = std::string (*)(const ConvProblem&, DType);
using Predict = double (*)(const ConvProblem&, DType);
using Make = std::unique_ptr<ConvKernel> (*)(const ConvProblem&, DType);

// The reduction of a problem with which an algorithm is predicted to be fastest, among those that it takes. Rows of another
// problem are reduced as that one is.
template <WhyNot why_not, Predict predict>
struct Best {
    Reduced reduced;
    double seconds = 0;
    bool taken = false;

    Best(const ConvProblem& problem, DType dtype) {
        Reduction best = Reduction::none;
        for (const Reduction how : {Reduction::joined, Reduction::plain, Reduction::none}) {
            const Reduced r = reduce(problem.whole(), how);
            if (!why_not(r.problem, dtype).empty()) continue;
            const double each = predict(r.problem, dtype) * static_cast<double>(r.images);
            if (!taken || each < seconds) {
                best = how;
                seconds = each;
                taken = true;
            }
            if (!r.changed()) break;
        }
        reduced = reduce(problem, best);
    }
};

template <WhyNot why_not, Predict predict>
std::string why_not_reduced(const ConvProblem& problem, DType dtype) {
    const Best<why_not, predict> best(problem, dtype);
    return best.taken && problem.whole_out == 0 ? "" : why_not(best.reduced.problem, dtype);
}

template <WhyNot why_not, Predict predict>
double predict_reduced(const ConvProblem& problem, DType dtype) {
    return Best<why_not, predict>(problem, dtype).seconds;
}

template <WhyNot why_not, Predict predict, Make make>
std::unique_ptr<ConvKernel> make_by_reduction(const ConvProblem& problem, DType dtype) {
    const Reduced reduced = Best<why_not, predict>(problem, dtype).reduced;
    std::unique_ptr<ConvKernel> kernel = make(reduced.problem, dtype);
    return reduced.changed() ? make_reduced(problem, reduced, dtype, std::move(kernel)) : std::move(kernel);
}

}  // namespace

const std::vector<ConvAlgorithm>& conv_algorithms() {
    static const std::vector<ConvAlgorithm> all = {
#define FASTCONV_ALGORITHM(name, exact, chain, automatic) \
    {#name,                                               \
     exact,                                               \
     chain,                                               \
     automatic,                                           \
     why_not_reduced<why_not_##name, predict_##name>,     \
     predict_reduced<why_not_##name, predict_##name>,     \
     make_by_reduction<why_not_##name, predict_##name, make_##name>},
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

LimitedChoice choose_within(const ConvProblem& problem, DType dtype, size_t limit) {
    LimitedChoice best{nullptr, nullptr}, smallest{nullptr, nullptr};
    double least = 0;
    size_t bytes = 0;
    for (const ConvAlgorithm& candidate : conv_algorithms()) {
        if (!candidate.automatic || !candidate.why_not(problem, dtype).empty()) continue;
        std::unique_ptr<ConvKernel> kernel = candidate.make(problem, dtype);
        kernel->limit_workspace(limit);
        if (const size_t needed = kernel->workspace_bytes(); needed > limit) {
            if (smallest.algorithm == nullptr || needed < bytes) {
                smallest = {&candidate, std::move(kernel)};
                bytes = needed;
            }
            continue;
        }
        const double time = candidate.predict(problem, dtype) * num_threads() / kernel->threads();
        if (best.algorithm == nullptr || time < least) {
            best = {&candidate, std::move(kernel)};
            least = time;
        }
    }
    return best.algorithm != nullptr ? std::move(best) : std::move(smallest);
}

std::string describe_conv(const ConvProblem& problem, DType dtype, const std::string& chosen,
                          size_t workspace) {
    std::string text;
    for (const ConvAlgorithm& candidate : conv_algorithms()) {
        char line[160];
        const bool runs = chosen == candidate.name;
        const std::string reason = candidate.why_not(problem, dtype);
        if (reason.empty()) {
            const size_t bytes = runs ? workspace : candidate.make(problem, dtype)->workspace_bytes();
            std::snprintf(line, sizeof line,
                          "%c %-13s predicted %.1f us an image on one thread, workspace %zu bytes%s\n",
                          runs ? '*' : ' ', candidate.name, candidate.predict(problem, dtype) * 1e6, bytes,
                          candidate.automatic ? "" : ", only on request");
            text += line;
        } else {
            std::snprintf(line, sizeof line, "  %-13s ", candidate.name);
            text += line + reason + "\n";
        }
    }
    return text;
}

}  // namespace fastconv
