// Every algorithm against the sum written down as it is defined, in double.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "algorithms/direct.hpp"
#include "algorithms/pointwise.hpp"
#include "plan/conv.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"

using namespace fastconv;

namespace {

uint32_t state = 1;
int small_integer() {  // -3 .. 3
    state = state * 1664525u + 1013904223u;
    return static_cast<int>(state >> 16) % 7 - 3;
}

struct Shape {
    int64_t channels, out, groups, size[3], kernel[3], stride[3], dilation[3], lo[3], hi[3];
};

ConvProblem problem_of(const Shape& s, bool last, PadMode mode) {
    ConvProblem p;
    p.channels_last = last;
    p.in_channels = s.channels;
    p.out_channels = s.out;
    p.groups = s.groups;
    p.mode = mode;
    for (int a = 0; a < 3; a++) {
        p.in_size[a] = s.size[a];
        p.kernel[a] = s.kernel[a];
        p.stride[a] = s.stride[a];
        p.dilation[a] = s.dilation[a];
        p.pad_lo[a] = s.lo[a];
        p.pad_hi[a] = s.hi[a];
        p.out_size[a] =
            (s.size[a] + s.lo[a] + s.hi[a] - s.dilation[a] * (s.kernel[a] - 1) - 1) / s.stride[a] + 1;
    }
    return p;
}

// Index of (n, channel, pixel) in either layout.
int64_t place(bool last, int64_t n, int64_t c, int64_t pixel, int64_t channels, int64_t pixels) {
    return last ? (n * pixels + pixel) * channels + c : (n * channels + c) * pixels + pixel;
}

template <class T>
std::vector<double> oracle(const ConvProblem& p, int64_t batch, const std::vector<T>& x,
                           const std::vector<T>& w, const std::vector<T>& bias) {
    std::vector<double> out(batch * p.out_channels * p.out_pixels());
    for (int64_t n = 0; n < batch; n++)
        for (int64_t k = 0; k < p.out_channels; k++)
            for (int64_t pixel = 0; pixel < p.out_pixels(); pixel++) {
                const int64_t at[3] = {pixel / (p.out_size[1] * p.out_size[2]),
                                       pixel / p.out_size[2] % p.out_size[1], pixel % p.out_size[2]};
                double sum = bias[k];
                for (int64_t tap = 0; tap < p.taps(); tap++) {
                    const int64_t t[3] = {tap / (p.kernel[1] * p.kernel[2]), tap / p.kernel[2] % p.kernel[1],
                                          tap % p.kernel[2]};
                    int64_t source = 0;
                    bool zero = false;
                    for (int a = 0; a < 3; a++) {
                        const int64_t i = axis_source(
                            p.mode, p.in_size[a], at[a] * p.stride[a] + t[a] * p.dilation[a] - p.pad_lo[a]);
                        zero |= i < 0;
                        source = source * p.in_size[a] + i;
                    }
                    if (zero) continue;
                    for (int64_t c = 0; c < p.group_in(); c++) {
                        const int64_t channel = k / p.group_out() * p.group_in() + c;
                        const int64_t weight = p.channels_last ? (tap * p.group_in() + c) * p.out_channels + k
                                                               : (k * p.group_in() + c) * p.taps() + tap;
                        sum +=
                            static_cast<double>(
                                x[place(p.channels_last, n, channel, source, p.in_channels, p.in_pixels())]) *
                            static_cast<double>(w[weight]);
                    }
                }
                out[place(p.channels_last, n, k, pixel, p.out_channels, p.out_pixels())] = sum;
            }
    return out;
}

// Small integers make the right answer exact; thread counts, packing and the place in the batch must not
// change a bit of an answer on fractions either.
template <class T>
void check_kernel(const ConvKernel& kernel, const char* name, const ConvProblem& p, int64_t batch,
                  const std::vector<T>& x, const std::vector<T>& w, const std::vector<T>& bias,
                  const std::vector<double>& want) {
    std::vector<T> out(want.size(), T(99)), first, packed(kernel.packed_bytes() / sizeof(T) + 1);
    kernel.pack(w.data(), packed.data());
    ConvArgs args{batch, x.data(), w.data()};
    args.bias = bias.data();
    args.out = out.data();
    if (kernel.keeps_packed()) args.packed = packed.data();
    set_num_threads(1);
    kernel.run(args);
    bool exact = true;
    for (size_t i = 0; i < want.size(); i++) exact &= static_cast<double>(out[i]) == want[i];
    CHECK(exact);
    if (!exact)
        std::printf("  %s last=%d mode=%d C=%d K=%d g=%d in=%d,%d,%d k=%d,%d,%d s=%d d=%d T=%d\n", name,
                    p.channels_last, int(p.mode), int(p.in_channels), int(p.out_channels), int(p.groups),
                    int(p.in_size[0]), int(p.in_size[1]), int(p.in_size[2]), int(p.kernel[0]),
                    int(p.kernel[1]), int(p.kernel[2]), int(p.stride[2]), int(p.dilation[2]), int(sizeof(T)));

    std::vector<T> fractions(x.size());
    for (size_t i = 0; i < x.size(); i++) fractions[i] = x[i] / T(7) + T(0.1);
    args.x = fractions.data();
    kernel.run(args);
    first = out;
    for (const int threads : {2, 3, 7}) {
        set_num_threads(threads);
        const bool plain = (threads == 3 && !kernel.keeps_packed()) || kernel.packed_bytes() == 0;
        args.packed = plain ? nullptr : packed.data();
        std::fill(out.begin(), out.end(), T(99));
        kernel.run(args);
        CHECK(std::memcmp(first.data(), out.data(), out.size() * sizeof(T)) == 0);
    }
    const size_t half = out.size() / 2;
    args.batch = 1;
    args.x = fractions.data() + x.size() / 2;
    kernel.run(args);
    CHECK(std::memcmp(first.data() + half, out.data(), half * sizeof(T)) == 0);
    set_num_threads(2);
}

template <class T>
void check_shape(const Shape& shape, bool last, PadMode mode) {
    const ConvProblem p = problem_of(shape, last, mode);
    const DType dtype = sizeof(T) == 4 ? DType::f32 : DType::f64;
    const int64_t batch = 2;
    std::vector<T> x(batch * p.in_channels * p.in_pixels()), w(p.weights()), bias(p.out_channels);
    for (T& v : x) v = static_cast<T>(small_integer());
    for (T& v : w) v = static_cast<T>(small_integer());
    for (T& v : bias) v = static_cast<T>(small_integer());
    const std::vector<double> want = oracle(p, batch, x, w, bias);
    for (const ConvAlgorithm& algorithm : conv_algorithms()) {
        if (!algorithm.why_not(p, dtype).empty() || !algorithm.exact_on_integers) continue;
        check_kernel(*algorithm.make(p, dtype), algorithm.name, p, batch, x, w, bias, want);
    }
    // Both orientations, whichever of them the model takes.
    check_kernel(*make_direct_lanes<T>(p), "channels in lanes", p, batch, x, w, bias, want);
    if (!last) check_kernel(*make_direct_first<T>(p), "pixels in lanes", p, batch, x, w, bias, want);
    if (!last && p.taps() == 1 && find_conv_algorithm("pointwise")->why_not(p, dtype).empty())
        check_kernel(*make_pointwise_first<T>(p), "pixels in lanes, 1x1", p, batch, x, w, bias, want);
}

void check_all(const Shape& shape) {
    for (const bool last : {false, true}) {
        check_shape<float>(shape, last, PadMode::constant);
        check_shape<double>(shape, last, PadMode::constant);
    }
}

}  // namespace

TEST(conv_plain) {
    check_all({8, 16, 1, {1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({64, 40, 1, {1, 14, 14}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({3, 7, 1, {1, 21, 23}, {1, 7, 7}, {1, 2, 2}, {1, 1, 1}, {0, 3, 3}, {0, 3, 3}});
    check_all({1, 1, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({130, 33, 1, {1, 7, 7}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
}

TEST(conv_pointwise) {
    check_all({70, 50, 1, {1, 7, 7}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({600, 19, 1, {1, 5, 5}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({24, 144, 1, {1, 20, 21}, {1, 1, 1}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({5, 6, 1, {1, 40, 40}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 1, 0}, {0, 0, 2}});
    check_all({12, 20, 4, {2, 5, 6}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
}

// Images of one pixel, and kernels as large as the image: one product for all images.
TEST(conv_one_pixel) {
    check_all({37, 19, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({700, 131, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({21, 35, 1, {1, 4, 5}, {1, 4, 5}, {1, 2, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({9, 70, 1, {2, 3, 3}, {2, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({30, 18, 1, {1, 1, 1}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({16, 24, 2, {1, 2, 3}, {1, 2, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
}

// Tails in every direction: tiles of 14, 6 and fewer pixels, lanes, lines, several blocks of channels and taps.
TEST(conv_tails) {
    check_all({37, 31, 1, {1, 13, 29}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({67, 47, 1, {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({331, 17, 1, {1, 7, 7}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    // Panels: tiles that share one, a pixel beside a vector, weights larger than half of L2.
    check_all({9, 31, 1, {1, 13, 37}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({37, 15, 1, {1, 1, 17}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({1100, 260, 1, {1, 9, 9}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({20, 14, 2, {1, 16, 16}, {1, 1, 1}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({293, 66, 1, {1, 13, 11}, {1, 1, 1}, {1, 2, 3}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}});
    check_all({26, 41, 1, {1, 1, 271}, {1, 1, 3}, {1, 1, 1}, {1, 1, 2}, {0, 0, 2}, {0, 0, 5}});
    check_all({19, 34, 1, {1, 11, 150}, {1, 2, 5}, {1, 1, 1}, {1, 3, 1}, {0, 0, 2}, {0, 3, 1}});
    check_all({38, 22, 2, {3, 8, 9}, {2, 3, 3}, {2, 1, 2}, {1, 1, 1}, {1, 1, 0}, {0, 1, 2}});
    check_all({33, 35, 1, {1, 9, 9}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, -1, -2}, {0, -1, 0}});
    check_all({18, 20, 1, {1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, -1, 2}, {0, 1, -2}});
}

TEST(conv_groups_and_depthwise) {
    check_all({12, 24, 3, {1, 8, 9}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({20, 20, 20, {1, 14, 30}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({33, 33, 33, {1, 15, 17}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}});
    check_all({9, 18, 9, {1, 11, 11}, {1, 5, 5}, {1, 1, 1}, {1, 1, 1}, {0, 2, 2}, {0, 2, 2}});
    check_all({17, 17, 17, {1, 12, 40}, {1, 5, 5}, {1, 2, 2}, {1, 1, 1}, {0, 1, 2}, {0, 2, 1}});
    check_all({6, 6, 6, {1, 20, 20}, {1, 3, 3}, {1, 1, 1}, {1, 2, 3}, {0, 2, 3}, {0, 2, 3}});
}

TEST(conv_strides_dilations_and_asymmetric_padding) {
    check_all({5, 9, 1, {1, 17, 19}, {1, 3, 2}, {1, 3, 2}, {1, 2, 3}, {0, 2, 0}, {0, 0, 3}});
    check_all({4, 8, 2, {1, 12, 13}, {1, 4, 4}, {1, 5, 1}, {1, 1, 1}, {0, 1, 1}, {0, 2, 2}});
    check_all({3, 8, 1, {1, 64, 64}, {1, 4, 4}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 2, 2}});
    check_all({2, 3, 1, {1, 1, 700}, {1, 1, 9}, {1, 1, 1}, {1, 1, 4}, {0, 0, 16}, {0, 0, 16}});
    check_all({1, 2, 1, {1, 1, 1500}, {1, 1, 1100}, {1, 1, 1}, {1, 1, 1}, {0, 0, 3}, {0, 0, 0}});
    check_all({4, 5, 1, {6, 7, 8}, {3, 3, 3}, {2, 1, 2}, {1, 2, 1}, {1, 2, 1}, {1, 2, 0}});
}

TEST(conv_padding_modes) {
    const Shape shape = {4, 6, 2, {3, 5, 6}, {2, 3, 3}, {1, 1, 2}, {1, 1, 1}, {1, 7, 2}, {2, 3, 8}};
    for (const PadMode mode : {PadMode::edge, PadMode::reflect, PadMode::symmetric, PadMode::wrap})
        for (const bool last : {false, true}) {
            check_shape<float>(shape, last, mode);
            check_shape<double>(shape, last, mode);
        }
    const Shape depthwise = {5, 5, 5, {1, 5, 6}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 4, 2}, {0, 3, 1}};
    for (const bool last : {false, true}) check_shape<float>(depthwise, last, PadMode::reflect);
}

TEST(conv_activations_and_addition) {
    for (const bool last : {false, true}) {
        const ConvProblem p =
            problem_of({4, 18, 1, {1, 6, 9}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, last,
                       PadMode::constant);
        std::vector<float> x(p.in_channels * p.in_pixels()), w(p.weights()), bias(p.out_channels, 0.25f);
        std::vector<float> out(p.out_channels * p.out_pixels()), add(out.size());
        for (float& v : x) v = static_cast<float>(small_integer()) / 4;
        for (float& v : w) v = static_cast<float>(small_integer()) / 4;
        for (float& v : add) v = static_cast<float>(small_integer());
        const std::vector<double> plain = oracle(p, 1, x, w, bias);
        for (int a = 0; a <= static_cast<int>(Activation::hard_swish); a++) {
            ConvArgs args{1, x.data(), w.data()};
            args.bias = bias.data();
            args.add = add.data();
            args.out = out.data();
            args.activation = static_cast<Activation>(a);
            conv_algorithms().back().make(p, DType::f32)->run(args);
            for (size_t i = 0; i < out.size(); i++) {
                const double v = plain[i] + add[i];
                const double want[] = {v,
                                       std::fmax(v, 0),
                                       std::fmin(std::fmax(v, 0), 6),
                                       v < 0 ? 0.01 * v : v,
                                       1 / (1 + std::exp(-v)),
                                       std::tanh(v),
                                       v / (1 + std::exp(-v)),
                                       0.5 * v * std::erfc(-v / std::sqrt(2.0)),
                                       v * std::fmin(std::fmax(v + 3, 0), 6) / 6};
                CHECK(std::fabs(out[i] - want[a]) <= 2e-6 * std::fmax(1, std::fabs(v)));
            }
        }
    }
}
