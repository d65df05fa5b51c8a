// The weight gradient with few input and few output channels, channels last: the first layers of small networks.
//
// A window's row of taps and input channels is one run of kw * C numbers in memory. So here lanes are (tap, input channel) and
// the rows of a tile output channels, the other way round than elsewhere: with 8 of them a vector of output channels would be
// half empty, and nothing has to be transposed. Two rows of taps share a tile. (4x4, 3 > 8 channels of 64x64, batch 64: 5.9
// ms by tiles of output channels, 2.6 so.)
//
// Chains of additions: at most kLongest pixels of one output row; rows follow each other in a fixed number of copies, which are
// combined by a fixed tree.
#include <algorithm>
#include <cstring>

#include "algorithms/backward_weight_job.hpp"
#include "algorithms/winograd_gradient_kernels.hpp"

namespace fastconv {

namespace {

constexpr int64_t kLongest = 256;
constexpr int64_t kRoom = 16;  // output channels of the widest tile

template <class T>
struct Narrow {
    const ConvProblem& p;
    const WinogradGradientKernels<T>& kernels = winograd_gradient<T>();
    const int64_t L = kernels.lanes, channels = p.in_channels, outputs = p.out_channels;
    const int64_t pairs = p.kernel[1] / 2, single = p.kernel[1] % 2, pitch_k = round_up(outputs, kRoom);
    const int64_t size = (2 * pairs + single) * pitch_k * L;  // of one copy

    // Where (row of taps h, output channel k) stands in a copy.
    int64_t place(int64_t h, int64_t k) const {
        return h < 2 * pairs ? h / 2 * pitch_k * 2 * L + k * 2 * L + h % 2 * L
                             : (2 * pairs * pitch_k + k) * L;
    }

    // Adds the products of `count` pixels: x_rows are the rows of taps, `pitch` apart, dy the outputs' gradients.
    void add(const T* x_rows, int64_t pitch, const T* dy, int64_t count, T* sum) const {
        OuterTile<T> tile;
        tile.x_step = outputs;
        tile.w_step = p.stride[2] * channels;
        tile.w_block = pitch;
        tile.steps = count;
        tile.accumulate = true;
        for (int64_t h = 0; h < p.kernel[1]; h += tile.out_row / L) {
            const int vectors = h < 2 * pairs ? 2 : 1;
            tile.out_row = vectors * L;
            tile.w = x_rows + h * pitch;
            for (int64_t k = 0; k < outputs; k += kernels.rows[vectors]) {
                tile.x = dy + k;
                tile.out = sum + place(h, k);
                kernels.outer[vectors](tile);
            }
        }
    }

    void run(int64_t batch, const T* dy, const T* x, T* dw, T* db) const {
        const int64_t height = p.out_size[1], width = p.out_size[2], lines = batch * height;
        const int64_t copies =
            std::clamp<int64_t>(std::min(lines, lines * width / kCopyPixels), 1, kMaxCopies);
        const int64_t parts = ceil_div(width, kLongest), most = ceil_div(width, parts),
                      taps = p.kernel[2] * channels;
        const int64_t pitch = ((most - 1) * p.stride[2] + p.kernel[2]) * channels + L;
        ScratchFrame frame;
        T* const all = frame.take<T>(copies * size);
        T* const bias = frame.take<T>(copies * pitch_k);
        parallel_for(copies, [&](int64_t copy) {
            ScratchFrame inner;
            T* const x_rows = inner.take<T>(p.kernel[1] * pitch);
            T* const packed_dy = inner.take<T>(most * outputs + kRoom);
            T* const sum = all + copy * size;
            T* const my_bias = bias + copy * pitch_k;
            std::fill_n(sum, size, T(0));
            std::fill_n(my_bias, pitch_k, T(0));
            std::fill_n(x_rows, p.kernel[1] * pitch, T(0));
            std::fill_n(packed_dy, most * outputs + kRoom, T(0));
            const Range mine = part_of(lines, copies, copy);
            for (int64_t line = mine.begin; line < mine.end; line++) {
                const int64_t n = line / height, oh = line % height;
                for (int64_t part = 0; part < parts; part++) {
                    const Range columns = part_of(width, parts, part);
                    const int64_t first = columns.begin * p.stride[2] - p.pad_lo[2];
                    const int64_t wide = (columns.size() - 1) * p.stride[2] + p.kernel[2];
                    const Range in = inside(first, 1, wide, p.in_size[2]);
                    for (int64_t h = 0; h < p.kernel[1]; h++) {
                        const int64_t ih = oh * p.stride[1] - p.pad_lo[1] + h * p.dilation[1];
                        T* const to = x_rows + h * pitch;
                        if (ih < 0 || ih >= p.in_size[1]) {
                            std::fill_n(to, wide * channels, T(0));
                            continue;
                        }
                        const T* const from = x + ((n * p.in_size[1] + ih) * p.in_size[2] + first) * channels;
                        std::fill_n(to, in.begin * channels, T(0));
                        std::copy(from + in.begin * channels, from + in.end * channels,
                                  to + in.begin * channels);
                        std::fill_n(to + in.end * channels, (wide - in.end) * channels, T(0));
                    }
                    const int64_t count = columns.size() * outputs;
                    std::memcpy(packed_dy, dy + (line * width + columns.begin) * outputs,
                                static_cast<size_t>(count) * sizeof(T));
                    add(x_rows, pitch, packed_dy, columns.size(), sum);
                    if (db != nullptr) add_bias(packed_dy, columns.size(), my_bias);
                }
            }
        });
        for (int64_t h = 0; h < p.kernel[1]; h++)
            for (int64_t j = 0; j < taps; j++)
                for (int64_t k = 0; k < outputs; k++)
                    dw[(h * taps + j) * outputs + k] = tree(all + place(h, k) + j, size, copies);
        for (int64_t k = 0; db != nullptr && k < outputs; k++) db[k] = tree(bias + k, pitch_k, copies);
    }

    // In four sums of every fourth pixel.
    void add_bias(const T* dy, int64_t pixels, T* bias) const {
        T sums[4][kRoom] = {};
        for (int64_t i = 0; i < pixels; i++)
            for (int64_t k = 0; k < outputs; k++) sums[i % 4][k] += dy[i * outputs + k];
        for (int64_t k = 0; k < outputs; k++)
            bias[k] += (sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]);
    }

    static T tree(const T* from, int64_t apart, int64_t copies) {
        T v[kMaxCopies];
        for (int64_t c = 0; c < copies; c++) v[c] = from[c * apart];
        for (int64_t s = 1; s < copies; s *= 2)
            for (int64_t c = 0; c + s < copies; c += 2 * s) v[c] += v[c + s];
        return v[0];
    }
};

}  // namespace

template <class T>
bool takes_narrow(const ConvProblem& p) {
    const int64_t L = winograd_gradient<T>().lanes;
    return p.channels_last && p.groups == 1 && p.kernel[0] == 1 && p.in_size[0] == 1 && p.out_size[0] == 1 &&
           p.pad_lo[0] == 0 && p.dilation[2] == 1 && p.kernel[2] > 1 && p.in_channels > 0 &&
           p.in_channels <= 8 && p.kernel[2] * p.in_channels <= L && p.out_channels <= std::min(L, kRoom);
}

template <class T>
void backward_weight_narrow(const ConvProblem& p, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    Narrow<T>{p}.run(batch, dy, x, dw, db);
}

template bool takes_narrow<float>(const ConvProblem&);
template bool takes_narrow<double>(const ConvProblem&);
template void backward_weight_narrow(const ConvProblem&, int64_t, const float*, const float*, float*, float*);
template void backward_weight_narrow(const ConvProblem&, int64_t, const double*, const double*, double*,
                                     double*);

}  // namespace fastconv
