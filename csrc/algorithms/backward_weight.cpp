// The weight gradient by the micro-kernel, for many channels per group.
#include "algorithms/backward_weight.hpp"

#include <cmath>

#include "algorithms/backward_weight_job.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/reduce.hpp"
#include "runtime/float_mode.hpp"

namespace fastconv {

namespace {

// Rows of a tile are input channels and taps are offsets into packed x, which holds one copy for each phase
// of the stride along the width, so that neighbouring pixels are neighbours in memory. With few channels the
// rows are (tap along the width, channel) and each such tap has a packed copy of its own (`spread`).
// Channels-first 1x1 reads x as it is.
template <class T>
struct Dense : Job<T> {
    using Job<T>::p, Job<T>::x, Job<T>::axis, Job<T>::chunks, Job<T>::loops;
    const Micro<T>& kernels = micro<T>();
    bool spread, in_place;
    std::vector<int64_t> phases;  // of the stride along the width, those that some tap reads
    int64_t rows, taps;           // rows of all tiles, and what is left of the taps
    int64_t width;                // of a packed row
    int64_t pitch;                // elements from one packed channel to the next
    Sums sums;
    int64_t tile_rows, tile_blocks;

    Dense(const ConvProblem& problem, int64_t batch, const T* dy, const T* x_)
        : Job<T>(problem, batch, dy, x_) {
        const int64_t L = kernels.lanes, channels = p.group_in(), outputs = p.group_out();
        spread = p.kernel[2] > 1 && channels < 8;
        in_place = !p.channels_last && p.taps() == 1 && p.in_pixels() == p.in_size[2] &&
                   p.out_size[2] == p.in_size[2] && !p.reads_padding() && chunks.images() == 1;
        for (int64_t w = 0; w < p.kernel[2] && !spread; w++)
            if (phase_index(w) == static_cast<int64_t>(phases.size())) phases.push_back(phase(w));
        if (spread) phases = {0};
        rows = channels * (spread ? p.kernel[2] : 1);
        taps = p.taps() / (spread ? p.kernel[2] : 1);
        width = packed_width(chunks.size(2));
        // An odd number of cache lines, so that the channels of a tile do not fall on the same lines of the
        // cache.
        const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
        pitch = in_place ? p.in_pixels() : (ceil_div(this->packed_rows() * width, line) | 1) * line;
        const int64_t lanes = outputs > L ? 2 * L : L, blocks = ceil_div(outputs, lanes);
        sums = {p.groups * blocks, rows * taps, lanes, blocks, lanes, outputs};
        tile_rows = ceil_div(rows, std::max<int64_t>(1, ceil_div(rows, kTileRows)));
        const int64_t block_bytes =
            std::max<int64_t>(1, tile_rows * taps * lanes * static_cast<int64_t>(sizeof(T)));
        tile_blocks =
            std::clamp<int64_t>(static_cast<int64_t>(kTileBytes) / block_bytes, 1, kTileColumns / lanes);
        tile_blocks = ceil_div(blocks, ceil_div(blocks, tile_blocks));
    }

    int64_t phase(int64_t tap) const { return tap * axis[2].tap % axis[2].step; }
    int64_t phase_index(int64_t tap) const {
        return std::find(phases.begin(), phases.end(), phase(tap)) - phases.begin();
    }
    int64_t packed_width(int64_t outputs) const {
        return outputs + (spread ? 0 : (p.kernel[2] - 1) * axis[2].tap / axis[2].step);
    }

    // Rows q0 .. q1 - 1 of group g, as [phase][row][packed pixel].
    void pack_x(const Chunk& chunk, int64_t g, int64_t q0, int64_t q1, T* to) const {
        const int64_t channels = p.group_in(), size = p.in_size[2];
        const int64_t n = packed_width(chunk.width()), skip = p.stride[2];
        // Going through the phases and, within each, through runs of channels with the same tap.
        for (int64_t at_row = 0; at_row < static_cast<int64_t>(phases.size()) * (q1 - q0);) {
            const int64_t f = at_row / (q1 - q0), q = q0 + at_row % (q1 - q0);
            const int64_t tap = q / channels, c = q % channels;
            const int64_t count = std::min(q1 - q, channels - c);
            const int64_t first = chunk.box[2].begin * p.stride[2] - p.pad_lo[2] + tap * p.dilation[2] +
                                  phases[f] * axis[2].skip;
            const Range in = inside(first, skip, n, size);
            T* const rows_to = to + at_row * pitch;
            if (p.channels_last) {
                this->each_row(chunk, [&](const T* row, int64_t at) {
                    T* const begin = rows_to + at * n;
                    const Range valid = row == nullptr ? Range{n, n} : in;
                    for (int64_t i = 0; i < count && valid.size() < n; i++) {
                        std::fill(begin + i * pitch, begin + i * pitch + valid.begin, T(0));
                        std::fill(begin + i * pitch + valid.end, begin + i * pitch + n, T(0));
                    }
                    if (valid.size() > 0)
                        loops.transpose(row + (first + valid.begin * skip) * p.in_channels + g * channels + c,
                                        skip * p.in_channels, valid.size(), count, begin + valid.begin,
                                        pitch);
                });
            } else {
                const Rows<T>& copy = rows_of<T>();
                for (int64_t i = 0; i < count; i++) {
                    const int64_t plane = (g * channels + c + i) * p.in_pixels();
                    this->each_row(chunk, [&](const T* row, int64_t at) {
                        T* const begin = rows_to + i * pitch + at * n;
                        if (row == nullptr)
                            std::fill(begin, begin + n, T(0));
                        else
                            copy.pack(row + plane, size, PadMode::constant, first, skip, begin, n);
                    });
                }
            }
            at_row += count;
        }
    }

    void run_chunk(const Chunk& chunk, int64_t block0, int64_t block1, int64_t q0, int64_t q1,
                   const T* packed_x, const T* packed_dy, const std::vector<int64_t>& offsets, bool fresh,
                   T* to) const {
        const int64_t L = kernels.lanes;
        const int64_t n = packed_width(chunk.width());
        const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
        const int64_t tiles = ceil_div(q1 - q0, kernels.channel_rows);
        ChannelTile<T> tile{};
        tile.x_row = pitch;
        tile.out_row = sums.lanes;
        this->each_chain(chunk, [&](Range part, Range columns) {
            tile.offsets = offsets.data() + part.begin;
            tile.accumulate = !fresh || part.begin > 0 || columns.begin > 0;
            tile.segments = part.size();
            tile.length = columns.size();
            for (int64_t block = block0; block < block1; block++) {
                const int64_t vectors = ceil_div(sums.count(block), L);
                tile.channels = vectors * L;
                tile.w = packed_dy + (block - block0) * chunks.pixels() * sums.lanes +
                         (part.begin * chunk.width() + columns.begin) * vectors * L;
                T* const sum = to + block * sums.rows * sums.lanes;
                for (int64_t i = 0; i < tiles; i++) {
                    const Range q = part_of(q1 - q0, tiles, i);
                    const auto run = kernels.channels[q.size()][vectors];
                    for (int64_t tap = 0; tap < taps; tap++) {
                        const int64_t w = spread ? 0 : tap % p.kernel[2],
                                      rest = spread ? tap : tap / p.kernel[2];
                        const int64_t h = rest % p.kernel[1], d = rest / p.kernel[1];
                        const int64_t first_row = spread ? 0 : phase_index(w) * (q1 - q0);
                        tile.x = packed_x + (first_row + q.begin) * pitch +
                                 (d * axis[0].tap * height + h * axis[1].tap) * n +
                                 w * axis[2].tap / axis[2].step + columns.begin;
                        tile.out = sum + (tap * rows + q0 + q.begin) * sums.lanes;
                        run(tile);
                    }
                }
            }
        });
    }

    void run(T* dw, T* db) const {
        const int64_t L = kernels.lanes,
                      row_tiles = std::max<int64_t>(1, ceil_div(rows, std::max<int64_t>(tile_rows, 1)));
        const int64_t block_tiles = ceil_div(sums.per_group, tile_blocks),
                      tiles = p.groups * block_tiles * row_tiles;
        const int64_t copies = this->copies(tiles, sums.size() * static_cast<int64_t>(sizeof(T)));
        ScratchFrame frame;
        T* const all = frame.take<T>(copies * sums.size());
        T* const bias = frame.take<T>(copies * sums.blocks * sums.lanes);
        parallel_for(copies * tiles, [&](int64_t task) {
            const int64_t copy = task / tiles, group = task % tiles / row_tiles / block_tiles;
            const Range in_group =
                part_of(sums.per_group, block_tiles, task % tiles / row_tiles % block_tiles);
            const int64_t block0 = group * sums.per_group + in_group.begin,
                          block1 = group * sums.per_group + in_group.end;
            const Range q = part_of(rows, row_tiles, task % row_tiles);
            T* const mine = all + copy * sums.size();
            T* const my_bias = bias + copy * sums.blocks * sums.lanes;
            const bool sums_bias = db != nullptr && q.begin == 0;
            if (sums_bias) std::fill_n(my_bias + block0 * sums.lanes, (block1 - block0) * sums.lanes, T(0));
            ScratchFrame inner;
            T* const packed_x =
                in_place ? nullptr : inner.take<T>(static_cast<int64_t>(phases.size()) * q.size() * pitch);
            T* const packed_dy = inner.take<T>((block1 - block0) * chunks.pixels() * sums.lanes);
            std::vector<int64_t> offsets;
            const Range part = part_of(chunks.count(), copies, copy);
            for (int64_t c = part.begin; c < part.end; c++) {
                const Chunk chunk = chunks[c];
                const T* from = packed_x;
                if (in_place)
                    from = x + (chunk.image.begin * p.in_channels + group * rows + q.begin) * pitch +
                           chunk.box[2].begin;
                else
                    pack_x(chunk, group, q.begin, q.end, packed_x);
                for (int64_t block = block0; block < block1; block++) {
                    const int64_t lanes = ceil_div(sums.count(block), L) * L;
                    T* const panel = packed_dy + (block - block0) * chunks.pixels() * sums.lanes;
                    this->pack_dy(chunk, sums.first(block), sums.count(block), lanes, panel);
                    if (sums_bias) loops.add_rows(panel, chunk.pixels(), lanes, my_bias + block * sums.lanes);
                }
                this->row_offsets(chunk, packed_width(chunk.width()), offsets);
                run_chunk(chunk, block0, block1, q.begin, q.end, from, packed_dy, offsets, c == part.begin,
                          mine);
            }
        });
        write_weight(p, sums, all, copies, dw);
        if (db != nullptr) write_bias(sums, bias, copies, db);
    }
};

// A 1x1 convolution with stride 1 sees the pixels of an image as one line.
ConvProblem flattened(ConvProblem p) {
    if (p.taps() != 1 || p.reads_padding()) return p;
    for (int a = 0; a < 3; a++)
        if (p.stride[a] != 1 || p.pad_lo[a] != 0 || p.in_size[a] != p.out_size[a]) return p;
    p.in_size[2] = p.out_size[2] = p.in_pixels();
    for (int a = 0; a < 2; a++) p.in_size[a] = p.out_size[a] = 1;
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

template <class T>
bool exchange_pays(const ConvProblem& p) {
    if (p.in_channels == 0) return false;
    for (int a = 0; a < 3; a++)
        if (p.stride[a] != 1 || p.pad_lo[a] < 0 || p.pad_lo[a] > (p.kernel[a] - 1) * p.dilation[a])
            return false;
    const ConvProblem q = exchanged(p);
    return 3 * vectors_of<T>(q) * q.out_pixels() < 2 * vectors_of<T>(p) * p.out_pixels();
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
    const int64_t pixel = p.channels_last ? channels : 1, channel = p.channels_last ? 1 : pixels;
    for (int64_t k = 0; k < channels; k++) {
        double total = 0;
        for (int64_t n = 0; n < batch; n++)
            for (int64_t begin = 0; begin < pixels; begin += kBlock) {
                const T* const from = dy + n * channels * pixels + k * channel;
                T sums[kApart] = {};
                for (int64_t i = begin; i < std::min(pixels, begin + kBlock); i++)
                    sums[i % kApart] += from[i * pixel];
                for (const T sum : sums) total += static_cast<double>(sum);
            }
        db[k] = static_cast<T>(total);
    }
}

template <class T>
void run_problem(const ConvProblem& given, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    ConvProblem problem = flattened(given);
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
    if (exchange_pays<T>(problem)) {
        const ConvProblem q = exchanged(problem);
        ScratchFrame frame;
        T* const sums = frame.take<T>(problem.weights());
        if (in_lanes<T>(q))
            backward_weight_lanes<T>(q, batch, x, dy, sums, nullptr);
        else
            Dense<T>(q, batch, x, dy).run(sums, nullptr);
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
        Dense<T>(problem, batch, dy, x).run(dw, db);
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
