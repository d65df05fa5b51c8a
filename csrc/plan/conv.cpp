#include "plan/conv.hpp"

#include <atomic>
#include <cstdio>

#include "plan/candidates.hpp"
#include "plan/reduce.hpp"
#include "plan/relayout.hpp"
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

// What is predicted for a problem laid out otherwise counts so many times: it must be better by a tenth.
constexpr double kRelaidCost = 1.1;

// The way to put a problem with which an algorithm is predicted to be fastest, among those that it takes: reduced, and perhaps
// laid out otherwise and reduced again. Rows of another problem are reduced as that one is, and keep their layout.
struct Best {
    const WhyNot why_not;
    const Predict predict;
    Reduced reduced, again;  // again: where `relaid`, of relayout.problem
    Relayout relayout;
    double seconds = 0;
    bool taken = false, relaid = false;

    Best(WhyNot why_not_, Predict predict_, const ConvProblem& problem, DType dtype)
        : why_not(why_not_), predict(predict_) {
        Reduction best = Reduction::none;
        for (const Reduction how : {Reduction::dense, Reduction::joined, Reduction::plain, Reduction::none}) {
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
        if (problem.whole_out == 0) relay(problem, dtype);
    }

    void relay(const ConvProblem& problem, DType dtype) {
        const Reduced plain = reduce(problem, Reduction::plain);
        for (const Relayout& r : relayouts(plain.problem, dtype)) {
            const Reduced inner = reduce(r.problem, Reduction::plain);
            if (!why_not(inner.problem, dtype).empty()) continue;
            const double each =
                (predict(inner.problem, dtype) * static_cast<double>(inner.images) + r.seconds) *
                static_cast<double>(plain.images) * kRelaidCost;
            if (taken && each >= seconds) continue;
            seconds = each;
            taken = relaid = true;
            reduced = plain;
            relayout = r;
            again = inner;
        }
    }
};

template <WhyNot why_not, Predict predict>
std::string why_not_reduced(const ConvProblem& problem, DType dtype) {
    const Best best(why_not, predict, problem, dtype);
    return best.taken && problem.whole_out == 0 ? "" : why_not(best.reduced.problem, dtype);
}

template <WhyNot why_not, Predict predict>
double predict_reduced(const ConvProblem& problem, DType dtype) {
    return Best(why_not, predict, problem, dtype).seconds;
}

template <WhyNot why_not, Predict predict, Make make>
std::unique_ptr<ConvKernel> make_by_reduction(const ConvProblem& problem, DType dtype) {
    const Best best(why_not, predict, problem, dtype);
    const auto reduced = [dtype](const ConvProblem& of, const Reduced& r,
                                 std::unique_ptr<ConvKernel> kernel) {
        return r.changed() ? make_reduced(of, r, dtype, std::move(kernel)) : std::move(kernel);
    };
    if (!best.relaid) return reduced(problem, best.reduced, make(best.reduced.problem, dtype));
    const Relayout& r = best.relayout;
    std::unique_ptr<ConvKernel> inner = reduced(r.problem, best.again, make(best.again.problem, dtype));
    return reduced(problem, best.reduced, make_relaid(best.reduced.problem, r, dtype, std::move(inner)));
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
