// Which way the weight gradient of a problem takes.
#include "algorithms/backward_weight.hpp"

#include <cmath>

#include "algorithms/backward_weight_job.hpp"
#include "plan/reduce.hpp"
#include "runtime/float_mode.hpp"

namespace fastconv {

namespace {

// A 1x1 convolution with stride 1 sees the pixels of an image as one line; channels last, those of all images.
ConvProblem flattened(ConvProblem p, int64_t& batch) {
    if (p.taps() != 1 || p.reads_padding()) return p;
    for (int a = 0; a < 3; a++)
        if (p.stride[a] != 1 || p.pad_lo[a] != 0 || p.in_size[a] != p.out_size[a]) return p;
    p.in_size[2] = p.out_size[2] = p.in_pixels();
    for (int a = 0; a < 2; a++) p.in_size[a] = p.out_size[a] = 1;
    if (p.channels_last) {
        p.in_size[2] = p.out_size[2] = batch * p.in_size[2];
        batch = std::min<int64_t>(batch, 1);
    }
    return p;
}

// A lane of its own for each output channel wins where a vector of them would span several groups.
template <class T>
bool in_lanes(const ConvProblem& p) {
    return p.groups > 1 && 2 * p.group_out() <= gradient_loops<T>().lanes && p.group_in() <= 16 &&
           p.group_in() > 0;
}

// Vectors of products for each pixel and tap: rows are input channels, lanes output channels.
template <class T>
int64_t vectors_of(const ConvProblem& p) {
    const int64_t lanes = gradient_loops<T>().lanes;
    const int64_t blocks = in_lanes<T>(p) ? ceil_div(p.out_channels, lanes / p.group_out() * p.group_out())
                                          : p.groups * ceil_div(p.group_out(), lanes);
    return blocks * p.group_in();
}

// The problem whose input is dY and whose outputs' gradient is x: the same sums with the channels exchanged and the taps in
// reverse. Where there are many input and few output channels it fills its lanes (32 > 10 channels in 2 groups, 7x7 on
// 10 x 44, 155 us and 75 so).
ConvProblem exchanged(const ConvProblem& p) {
    ConvProblem q = p;
    std::swap(q.in_channels, q.out_channels);
    for (int a = 0; a < 3; a++) {
        std::swap(q.in_size[a], q.out_size[a]);
        const int64_t reach = (p.kernel[a] - 1) * p.dilation[a];
        q.pad_lo[a] = reach - p.pad_lo[a];
        q.pad_hi[a] = (q.out_size[a] - 1) + reach + 1 - q.pad_lo[a] - q.in_size[a];
    }
    return q;
}

// Channels last, x is turned over and dY copied: with half as many outputs as inputs, and few, there is less to turn, if the
// weights are few beside it (1x1, batch 8, one thread: 96 > 24 channels at 56x56 1.46 ms, 1.18 so; 32 > 16 at 112x112 2.08 and
// 1.78; 256 > 64 at 56x56 7.9 and 7.5; 512 > 128 at 28x28 would take 6% more).
template <class T>
bool turns_less(const ConvProblem& p, int64_t batch) {
    const int64_t spared = (p.in_channels - p.out_channels) * p.out_pixels() * batch;
    return p.channels_last && p.taps() == 1 && p.groups == 1 && p.out_channels <= 64 &&
           p.in_channels >= 2 * p.out_channels && 30 * p.weights() < spared &&
           vectors_of<T>(exchanged(p)) <= vectors_of<T>(p);
}

template <class T>
bool exchange_pays(const ConvProblem& p, int64_t batch) {
    if (p.in_channels == 0) return false;
    for (int a = 0; a < 3; a++)
        if (p.stride[a] != 1 || p.pad_lo[a] < 0 || p.pad_lo[a] > (p.kernel[a] - 1) * p.dilation[a])
            return false;
    const ConvProblem q = exchanged(p);
    return turns_less<T>(p, batch) ||
           3 * vectors_of<T>(q) * q.out_pixels() < 2 * vectors_of<T>(p) * p.out_pixels();
}

// dW out of that of the exchanged problem `q`.
template <class T>
void exchange_back(const ConvProblem& q, const T* from, T* dw) {
    const int64_t taps = q.taps(), inner = q.group_out(), outer = q.group_in();  // of dW
    for (int64_t g = 0; g < q.groups; g++)
        for (int64_t k = 0; k < outer; k++)
            for (int64_t c = 0; c < inner; c++)
                for (int64_t t = 0; t < taps; t++) {
                    const int64_t back = taps - 1 - t, column = g * outer + k, row = g * inner + c;
                    if (q.channels_last)
                        dw[(t * inner + c) * q.in_channels + column] =
                            from[(back * outer + k) * q.out_channels + row];
                    else
                        dw[(column * inner + c) * taps + t] = from[(row * outer + k) * taps + back];
                }
}

// The sums of dY over all pixels, in eight sums of every eighth pixel, 512 pixels at a time.
template <class T>
void bias_alone(const ConvProblem& p, int64_t batch, const T* dy, T* db) {
    constexpr int64_t kBlock = 512, kApart = 8;
    const int64_t pixels = p.out_pixels(), channels = p.out_channels;
    // Channels last, all channels of a pixel are added at once.
    const int64_t together = p.channels_last ? channels : 1;
    const int64_t pixel = p.channels_last ? channels : 1, channel = p.channels_last ? 1 : pixels;
    std::vector<T> sums(kApart * together);
    std::vector<double> total(together);
    for (int64_t k = 0; k < channels; k += together) {
        std::fill(total.begin(), total.end(), 0.0);
        for (int64_t n = 0; n < batch; n++)
            for (int64_t begin = 0; begin < pixels; begin += kBlock) {
                const T* const from = dy + n * channels * pixels + k * channel;
                std::fill(sums.begin(), sums.end(), T(0));
                for (int64_t i = begin; i < std::min(pixels, begin + kBlock); i++) {
                    T* const to = sums.data() + i % kApart * together;
                    for (int64_t j = 0; j < together; j++) to[j] += from[i * pixel + j];
                }
                for (int64_t i = 0; i < kApart; i++)
                    for (int64_t j = 0; j < together; j++)
                        total[j] += static_cast<double>(sums[i * together + j]);
            }
        for (int64_t j = 0; j < together; j++) db[k + j] = static_cast<T>(total[j]);
    }
}

template <class T>
void run_problem(const ConvProblem& given, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    ConvProblem problem = flattened(given, batch);
    // An image of one channel is the same in both layouts.
    if (problem.in_channels == 1 && problem.out_channels == 1) problem.channels_last = true;
    if (batch == 0) {
        std::fill_n(dw, problem.weights(), T(0));
        if (db != nullptr) std::fill_n(db, problem.out_channels, T(0));
        return;
    }
    if (problem.group_in() == 0 && db == nullptr) return;
    const FlushToZero guard;
    if (takes_narrow<T>(problem)) return backward_weight_narrow(problem, batch, dy, x, dw, db);
    if (takes_depthwise<T>(problem) && backward_weight_depthwise(problem, batch, dy, x, dw, db)) return;
    if (prefers_winograd<T>(problem, batch) && backward_weight_winograd(problem, batch, dy, x, dw, db))
        return;
    if (exchange_pays<T>(problem, batch)) {
        const ConvProblem q = exchanged(problem);
        ScratchFrame frame;
        T* const sums = frame.take<T>(problem.weights());
        if (in_lanes<T>(q))
            backward_weight_lanes<T>(q, batch, x, dy, sums, nullptr);
        else
            backward_weight_dense<T>(q, batch, x, dy, sums, nullptr);
        // Else zeros beside dY met what is not finite in x, or padding would have met what is not finite in dY.
        if (std::all_of(sums, sums + problem.weights(), [](T sum) { return std::isfinite(sum); })) {
            exchange_back(q, sums, dw);
            if (db != nullptr) bias_alone(problem, batch, dy, db);
            return;
        }
    }
    if (in_lanes<T>(problem))
        backward_weight_lanes(problem, batch, dy, x, dw, db);
    else
        backward_weight_dense(problem, batch, dy, x, dw, db);
}

}  // namespace

template <class T>
void backward_weight(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    if (problem.out_channels == 0) return;
    const Reduced r = reduce(problem);
    if (!r.trimmed) return run_problem(r.problem, batch * r.images, dy, x, dw, db);
    ScratchFrame frame;
    T* const kept = frame.take<T>(r.problem.weights());
    run_problem(r.problem, batch * r.images, dy, x, kept, db);
    spread_taps(problem, r, sizeof(T) == 4 ? DType::f32 : DType::f64, kept, dw);
}

template void backward_weight(const ConvProblem&, int64_t, const float*, const float*, float*, float*);
template void backward_weight(const ConvProblem&, int64_t, const double*, const double*, double*, double*);

}  // namespace fastconv
