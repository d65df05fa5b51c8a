// The weight gradient by Winograd; the idea stands in winograd_gradient.hpp.
//
// A task owns a block of input times output channels, so that its 36 sums stay in L2 beside the transformed tiles of one chunk.
// Transforms are repeated by the tasks that share channels: for 64 x 64 channels they are a quarter of the work, and keeping all
// of them instead would move as much memory as they cost.
#include <atomic>

#include "algorithms/backward_weight_job.hpp"
#include "algorithms/winograd_gradient_kernels.hpp"
#include "algorithms/winograd_inputs.hpp"
#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr int64_t kPositions = 36, kTile = 4;
constexpr int64_t kLongest = 256;    // tiles of one chain of additions, at most
constexpr int64_t kStrip = 16;       // tiles whose dY is copied at a time: 16 KB of a vector of channels
constexpr int64_t kCopyTiles = 128;  // a private copy of the sums costs about as much as this many tiles

template <class T>
struct Tiled {
    const ConvProblem& p;
    const T *dy, *x;
    const WinogradGradientKernels<T>& kernels = winograd_gradient<T>();
    const GradientLoops<T>& loops = gradient_loops<T>();
    const int64_t L = kernels.lanes, line = 64 / static_cast<int64_t>(sizeof(T));
    int64_t tiles_y, tiles_x, tiles;  // of an image, and of the batch
    int64_t in_blocks, out_blocks;    // of L channels
    int64_t in_each, out_each;        // blocks of a task, at most
    int64_t in_tasks, out_tasks;
    int64_t chunks;
    Sums sums;

    Tiled(const ConvProblem& problem, int64_t batch, const T* dy_, const T* x_) : p(problem), dy(dy_), x(x_) {
        tiles_y = ceil_div(p.out_size[1], kTile);
        tiles_x = ceil_div(p.out_size[2], kTile);
        tiles = batch * tiles_y * tiles_x;
        in_blocks = ceil_div(p.in_channels, L);
        out_blocks = ceil_div(p.out_channels, L);
        // The sums of a task take a quarter of L2 or so, then the tiles of a chunk another third.
        const auto l2 = static_cast<int64_t>(l2_bytes() / sizeof(T));
        const int64_t most = std::max<int64_t>(1, l2 * 3 / 10 / (kPositions * L * L));
        int64_t side = 1;
        while ((side + 1) * (side + 1) <= most) side++;
        in_each = std::min(in_blocks, side);
        out_each = std::min(out_blocks, most / in_each);
        in_each = std::min(in_blocks, most / out_each);
        in_tasks = ceil_div(in_blocks, in_each);
        out_tasks = ceil_div(out_blocks, out_each);
        in_each = ceil_div(in_blocks, in_tasks);
        out_each = ceil_div(out_blocks, out_tasks);
        const int64_t room = l2 * 65 / 100 - kPositions * in_each * out_each * L * L;
        const int64_t fit = std::clamp<int64_t>(room / (kPositions * (in_each + out_each) * L), 8, kLongest);
        chunks = ceil_div(tiles, fit);
        const int64_t lanes = out_blocks > 1 ? 2 * L : L, panels = ceil_div(p.out_channels, lanes);
        sums = {panels, p.in_channels * 9, lanes, panels, lanes, p.out_channels};
    }

    int64_t copies() const {
        const int64_t bytes = sums.size() * static_cast<int64_t>(sizeof(T));
        return std::max<int64_t>(
            1, std::min({kMaxCopies, chunks, tiles / kCopyTiles, ceil_div(kTasks, in_tasks * out_tasks),
                         static_cast<int64_t>(kCopiesBytes) / bytes}));
    }

    // Transforms tiles first .. first + count of dY for one block of channels.
    void transform(int64_t first, int64_t count, int64_t block, T* out, int64_t position_stride,
                   T* bias) const {
        const int64_t k0 = block * L, channels = std::min(L, p.out_channels - k0);
        const int64_t height = p.out_size[1], width = p.out_size[2];
        ScratchFrame frame;
        T* const strip = frame.take<T>(kTile * kStrip * kTile * L);
        for (int64_t tile = first; tile < first + count;) {
            const int64_t tx = tile % tiles_x, ty = tile / tiles_x % tiles_y, n = tile / tiles_x / tiles_y;
            const int64_t length = std::min({tiles_x - tx, first + count - tile, kStrip}), y0 = ty * kTile,
                          x0 = tx * kTile;
            const int64_t valid_rows = std::min(kTile, height - y0);
            const int64_t columns = length * kTile, valid = std::min(columns, width - x0);
            int64_t done = 0;  // tiles read where they are
            const T* const source = p.channels_last
                                        ? dy + ((n * height + y0) * width + x0) * p.out_channels + k0
                                        : dy + ((n * p.out_channels + k0) * height + y0) * width + x0;
            if (p.channels_last && channels == L && valid_rows == kTile) {
                done = valid / kTile;
                kernels.output(source, width * p.out_channels, p.out_channels, done, out + (tile - first) * L,
                               position_stride, bias);
            }
            if (done < length) {
                const int64_t from = done * kTile, wide = columns - from, inside = valid - from;
                for (int64_t i = 0; i < kTile; i++) {
                    T* const to = strip + i * wide * L;
                    if (i >= valid_rows || inside < wide || channels < L) std::fill_n(to, wide * L, T(0));
                    if (i >= valid_rows) continue;
                    if (p.channels_last)
                        loops.copy(source + (i * width + from) * p.out_channels, p.out_channels, inside,
                                   channels, to, L, L);
                    else
                        loops.transpose(source + i * width + from, height * width, channels, inside, to, L);
                }
                kernels.output(strip, wide * L, L, length - done, out + (tile - first + done) * L,
                               position_stride, bias);
            }
            tile += length;
        }
    }

    // Adds the products of one chunk's tiles to the sums, [position][input channel][output channel].
    void multiply(const T* v, int64_t v_position, const T* u, int64_t u_position, int64_t block_stride,
                  int64_t count, int64_t ins, int64_t outs, bool accumulate, T* to) const {
        const int64_t out_row = outs * L;
        OuterTile<T> call;
        call.x_step = call.w_step = L;
        call.w_block = block_stride;
        call.steps = count;
        call.out_row = out_row;
        call.accumulate = accumulate;
        for (int64_t position = 0; position < kPositions; position++) {
            T* const sum = to + position * (ins * L * out_row + line);
            for (int64_t k = 0; k < outs; k += 2) {
                const int64_t vectors = std::min<int64_t>(2, outs - k), step = kernels.rows[vectors];
                call.w = u + position * u_position + k * block_stride;
                for (int64_t c = 0; c < ins * L; c += step) {
                    call.x = v + position * v_position + c / L * block_stride + c % L;
                    call.out = sum + c * out_row + k * L;
                    kernels.outer[vectors](call);
                }
            }
        }
    }

    // False where a result is not finite.
    bool run(T* dw, T* db) const {
        const int64_t copies = this->copies(), tasks = in_tasks * out_tasks;
        const Tiling tiling = square_tiling(p, kTile);
        const WinogradInputs<T> inputs(p, tiling);
        const int64_t largest = ceil_div(tiles, chunks), block_stride = largest * L;
        ScratchFrame frame;
        T* const all = frame.take<T>(copies * sums.size());
        T* const bias = frame.take<T>(copies * sums.blocks * sums.lanes);
        std::atomic<bool> finite{true};
        parallel_for(copies * tasks, [&](int64_t task) {
            const int64_t copy = task / tasks;
            const Range in = part_of(in_blocks, in_tasks, task % tasks / out_tasks);
            const Range out = part_of(out_blocks, out_tasks, task % out_tasks);
            const int64_t ins = in.size(), outs = out.size(), v_position = ins * block_stride + line,
                          u_position = outs * block_stride + line, sum_position = ins * L * outs * L + line;
            ScratchFrame inner;
            T* const v = inner.take<T>(kPositions * v_position);
            T* const u = inner.take<T>(kPositions * u_position);
            T* const sum = inner.take<T>(kPositions * sum_position);
            T* const my_bias = bias + copy * sums.blocks * sums.lanes;
            const bool sums_bias = db != nullptr && in.begin == 0;
            if (sums_bias) std::fill_n(my_bias + out.begin * L, outs * L, T(0));
            const Range part = part_of(chunks, copies, copy);
            for (int64_t c = part.begin; c < part.end; c++) {
                const Range chunk = part_of(tiles, chunks, c);
                const TileBlock block = run_of(tiling, chunk.begin, chunk.size());
                for (int64_t i = 0; i < ins; i++)
                    inputs.transform(x, p.in_pixels(), block, in.begin + i, v + i * block_stride, v_position);
                for (int64_t k = 0; k < outs; k++)
                    transform(chunk.begin, chunk.size(), out.begin + k, u + k * block_stride, u_position,
                              sums_bias ? my_bias + (out.begin + k) * L : nullptr);
                multiply(v, v_position, u, u_position, block_stride, chunk.size(), ins, outs, c > part.begin,
                         sum);
            }
            T* const mine = all + copy * sums.size();
            const int64_t c0 = in.begin * L, channels = std::min(ins * L, p.in_channels - c0),
                          panel = sums.lanes / L;
            for (int64_t k = 0; k < outs; k++) {
                const int64_t block = out.begin + k;
                T* const to = mine + (block / panel * sums.rows + c0) * sums.lanes + block % panel * L;
                if (!kernels.weight(sum + k * L, sum_position, outs * L, channels, 1, to,
                                    p.in_channels * sums.lanes, sums.lanes))
                    finite.store(false, std::memory_order_relaxed);
            }
        });
        if (!finite.load()) return false;
        write_weight(p, sums, all, copies, dw);
        if (db != nullptr) write_bias(sums, bias, copies, db);
        return true;
    }
};

}  // namespace

template <class T>
bool prefers_winograd(const ConvProblem& p, int64_t batch) {
    if (batch == 0 || p.out_channels == 0 || p.groups != 1 || p.kernel[0] != 1 || p.kernel[1] != 3 ||
        p.kernel[2] != 3 || p.stride[1] != 1 || p.stride[2] != 1 || p.dilation[1] != 1 ||
        p.dilation[2] != 1 || p.in_size[0] != 1 || p.out_size[0] != 1 || p.pad_lo[0] != 0 ||
        p.in_channels == 0)
        return false;
    // Cycles, as seen on AVX-512: 1.6 vector FMAs in each; a transformed vector six and five; a sum's zero, stores, inverse and
    // way to dW 500, a direct one's 40.
    const Tiled<T> tiled(p, batch, nullptr, nullptr);
    const auto in = static_cast<double>(tiled.in_blocks), out = static_cast<double>(tiled.out_blocks),
               tiles = static_cast<double>(tiled.tiles), lanes = static_cast<double>(tiled.L),
               channels = static_cast<double>(p.in_channels),
               pixels = static_cast<double>(batch * p.out_pixels());
    const double winograd = tiles * kPositions *
                                (in * lanes * out / 1.6 + 6 * in * static_cast<double>(tiled.out_tasks) +
                                 5 * out * static_cast<double>(tiled.in_tasks)) +
                            500 * channels * out * static_cast<double>(tiled.copies());
    const double direct = 9 * channels * out * (pixels / 1.6 + 40);
    return winograd < direct;
}

template <class T>
bool backward_weight_winograd(const ConvProblem& p, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    return Tiled<T>(p, batch, dy, x).run(dw, db);
}

template bool prefers_winograd<float>(const ConvProblem&, int64_t);
template bool prefers_winograd<double>(const ConvProblem&, int64_t);
template bool backward_weight_winograd(const ConvProblem&, int64_t, const float*, const float*, float*,
                                       float*);
template bool backward_weight_winograd(const ConvProblem&, int64_t, const double*, const double*, double*,
                                       double*);

}  // namespace fastconv
