#include "algorithms/pointwise_few.hpp"

#include <algorithm>

#include "algorithms/rows_kernels.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// Numbers of the sums that wait together. Few pixels then leave long rows of weights: one pixel of 4096 > 4096 2.6 ms in
// rows of 2,048 outputs and 2.4 in whole ones.
constexpr int64_t kSums = 32768;
// Weights are read at so many bytes a second by one thread.
constexpr double kRead = 25e9;

template <class T>
struct Few {
    const ConvProblem& p;
    const ConvArgs& args;
    const std::vector<Range>& chains;
    bool turned;
    int64_t pixels;

    // The sums of one chain of the outputs `k`, added to those before.
    void run_chain(Range k, const Range& chain, T* sums, int64_t sum_row) const {
        FewPixels<T> call;
        call.x = static_cast<const T*>(args.x) + chain.begin;
        call.x_row = p.in_channels;
        call.pixels = pixels;
        call.steps = chain.size();
        call.w = static_cast<const T*>(args.weight) +
                 (turned ? k.begin * p.in_channels + chain.begin : chain.begin * p.out_channels + k.begin);
        call.w_row = turned ? p.in_channels : p.out_channels;
        call.channels = k.size();
        call.sum = sums;
        call.sum_row = sum_row;
        turned ? few_pixels<T>().outputs_outer(call) : few_pixels<T>().inputs_outer(call);
        T* const out = static_cast<T*>(args.out) + k.begin;
        add(sums, sum_row, k.size(), chain.begin > 0 ? out : nullptr, out);
    }
    // to = from + more
    void add(const T* from, int64_t from_row, int64_t n, const T* more, T* to) const {
        const Segment whole{0, 0, n};
        rows_of<T>().finish(from, from_row, pixels, &whole, 1, more, to, p.out_channels, Activation::none);
    }
    void finish(Range k) const {
        T* const out = static_cast<T*>(args.out) + k.begin;
        const Segment whole{0, 0, k.size()};
        for (int64_t i = 0; args.bias != nullptr && i < pixels; i++)
            rows_of<T>().finish(out + i * p.out_channels, 0, 1, &whole, 1,
                                static_cast<const T*>(args.bias) + k.begin, out + i * p.out_channels, 0,
                                Activation::none);
        if (args.add != nullptr)
            add(out, p.out_channels, k.size(), static_cast<const T*>(args.add) + k.begin, out);
        if (args.activation != Activation::none)
            rows_of<T>().activate(args.activation, out, pixels, p.out_channels, k.size());
    }
};

}  // namespace

template <class T>
size_t few_pixels_scratch() {
    return static_cast<size_t>(kSums + kMostFewPixels * (64 / sizeof(T))) * sizeof(T);
}

template <class T>
void run_few_pixels(const ConvProblem& p, const ConvArgs& args, const std::vector<Range>& chains, bool turned,
                    int threads) {
    const Few<T> few{p, args, chains, turned, args.batch * p.out_pixels()};
    // Pieces of whole lines of outputs, one for each thread where they are not too wide.
    constexpr int64_t line = 64 / sizeof(T);
    const int64_t lines = ceil_div(p.out_channels, line);
    const double seconds = static_cast<double>(p.weights()) * sizeof(T) / kRead;
    const int64_t tasks = std::max(ceil_div(lines, kSums / few.pixels / line),
                                   seconds < kSmallJob ? 1 : std::min<int64_t>(lines, threads));
    note_weight_parts(tasks);
    const auto piece = [&](int64_t task) {
        const Range part = part_of(lines, tasks, task),
                    all{part.begin * line, std::min(part.end * line, p.out_channels)};
        // Rows of weights are read to their ends before the next where they are rows of inputs.
        const int64_t width = turned ? line : all.size(), sum_row = round_up(width, line);
        ScratchFrame frame;
        T* const sums = frame.take<T>(few.pixels * sum_row);
        for (int64_t begin = all.begin; begin < all.end; begin += width) {
            const Range k{begin, std::min(begin + width, all.end)};
            for (const Range& chain : chains) few.run_chain(k, chain, sums, sum_row);
            few.finish(k);
        }
    };
    parallel_for(tasks, piece, threads, seconds);
}

template size_t few_pixels_scratch<float>();
template size_t few_pixels_scratch<double>();
template void run_few_pixels<float>(const ConvProblem&, const ConvArgs&, const std::vector<Range>&, bool,
                                    int);
template void run_few_pixels<double>(const ConvProblem&, const ConvArgs&, const std::vector<Range>&, bool,
                                     int);

}  // namespace fastconv
