#include "algorithms/backward_weight.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/backward_weight_chunks.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kTasks = 32;              // wanted: two to four for each thread of a large machine
constexpr int64_t kCopyPixels = 768;        // adding up a copy costs as much as some 50 pixels
constexpr size_t kCopiesBytes = 64u << 20;  // of all copies
constexpr size_t kTileBytes =
    640u << 10;                     // of the sums that one task goes through for each chunk: half an L2 cache
constexpr int64_t kTileRows = 256;  // input channels of a task
constexpr int64_t kTileColumns = 256;  // output channels of a task

// How the sums of one copy stand: [block of output channels][tap and input channel][lanes of the block].
struct Sums {
    int64_t blocks, rows,
        lanes;          // rows: taps * input channels of a group, in the order of a channels-last weight
    int64_t per_group;  // blocks of one group; all of them where a block holds several groups
    int64_t used;       // output channels of a full block
    int64_t group_out;  // output channels of per_group blocks
    int64_t size() const { return blocks * rows * lanes; }
    int64_t first(int64_t block) const { return block / per_group * group_out + block % per_group * used; }
    int64_t count(int64_t block) const { return std::min(used, group_out - block % per_group * used); }
};

// Adds up the copies and writes the weight in its layout.
template <class T>
void write_weight(const ConvProblem& p, const Sums& sums, const T* copies, int64_t count, T* dw) {
    const GradientLoops<T>& loops = gradient_loops<T>();
    const int64_t taps = p.taps(), channels = p.group_in();
    const int64_t part = std::max<int64_t>(1, 4096 / (taps * sums.lanes));  // input channels of a task
    const int64_t parts = ceil_div(channels, part);
    parallel_for(sums.blocks * parts, [&](int64_t task) {
        const int64_t block = task / parts, c0 = task % parts * part, c1 = std::min(channels, c0 + part);
        const int64_t k0 = sums.first(block), columns = sums.count(block);
        const T* from = copies + block * sums.rows * sums.lanes;
        ScratchFrame frame;
        T* total = frame.take<T>((c1 - c0) * taps * sums.lanes);
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t c = c0; c < c1; c++) {
                const T* row = from + (tap * channels + c) * sums.lanes;
                T* to = total + ((c - c0) * taps + tap) * sums.lanes;
                loops.add_copies(row, sums.size(), count, columns, to);
                if (p.channels_last)
                    std::memcpy(dw + (tap * channels + c) * p.out_channels + k0, to, columns * sizeof(T));
            }
        }
        if (!p.channels_last)
            loops.transpose(total, sums.lanes, (c1 - c0) * taps, columns, dw + (k0 * channels + c0) * taps,
                            channels * taps);
    });
}

template <class T>
void write_bias(const Sums& sums, const T* copies, int64_t count, T* db) {
    for (int64_t block = 0; block < sums.blocks; block++)
        gradient_loops<T>().add_copies(copies + block * sums.lanes, sums.blocks * sums.lanes, count,
                                       sums.count(block), db + sums.first(block));
}

// What both ways of computing share: chunks, packed axes and the packing of dY.
template <class T>
struct Job {
    const ConvProblem& p;
    const T *dy, *x;
    Chunks chunks;
    PackedAxis axis[3];
    const GradientLoops<T>& loops = gradient_loops<T>();

    Job(const ConvProblem& problem, int64_t batch, const T* dy_, const T* x_)
        : p(problem),
          dy(dy_),
          x(x_),
          chunks(problem, batch, kChunkPixels),
          axis{{problem, 0}, {problem, 1}, {problem, 2}} {}

    int64_t copies(int64_t tasks, int64_t bytes) const {
        const int64_t pixels = chunks.count() * chunks.pixels();
        const int64_t most =
            std::min({kMaxCopies, chunks.count(), pixels / kCopyPixels, ceil_div(kTasks, tasks),
                      static_cast<int64_t>(kCopiesBytes) / std::max<int64_t>(bytes, 1)});
        return std::max<int64_t>(most, 1);
    }

    // dY of a chunk, output channels k0 .. k0 + columns - 1, as [pixel][lanes]; zero beyond the columns.
    void pack_dy(const Chunk& chunk, int64_t k0, int64_t columns, int64_t lanes, T* to) const {
        const int64_t plane = p.out_pixels(), width = chunk.width();
        if (!p.channels_last && columns < lanes) std::memset(to, 0, chunk.pixels() * lanes * sizeof(T));
        // Rows that follow each other in memory are moved at once.
        const bool whole = width == p.out_size[2];
        const int64_t run = whole ? chunk.box[1].size() : 1;
        for (int64_t n = chunk.image.begin; n < chunk.image.end; n++) {
            for (int64_t d = chunk.box[0].begin; d < chunk.box[0].end; d++) {
                for (int64_t h = chunk.box[1].begin; h < chunk.box[1].end; h += run) {
                    const int64_t pixel = (d * p.out_size[1] + h) * p.out_size[2] + chunk.box[2].begin;
                    if (p.channels_last)
                        loops.copy(dy + (n * plane + pixel) * p.out_channels + k0, p.out_channels,
                                   run * width, columns, to, lanes, lanes);
                    else
                        loops.transpose(dy + (n * p.out_channels + k0) * plane + pixel, plane, columns,
                                        run * width, to, lanes);
                    to += run * width * lanes;
                }
            }
        }
    }

    // Calls row(source, at) for every packed row of a chunk: the row's first element in x, or null where it
    // is padding.
    template <class F>
    void each_row(const Chunk& chunk, F row) const {
        const int64_t depth = axis[0].length(chunk.box[0].size(), p.kernel[0]);
        const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
        const int64_t pixel = p.channels_last ? p.in_channels : 1;
        int64_t at = 0;
        for (int64_t n = chunk.image.begin; n < chunk.image.end; n++) {
            for (int64_t i = 0; i < depth; i++) {
                const int64_t d = chunk.box[0].begin * p.stride[0] - p.pad_lo[0] + i * axis[0].skip;
                for (int64_t j = 0; j < height; j++, at++) {
                    const int64_t h = chunk.box[1].begin * p.stride[1] - p.pad_lo[1] + j * axis[1].skip;
                    const bool is_inside = d >= 0 && d < p.in_size[0] && h >= 0 && h < p.in_size[1];
                    const int64_t line = (d * p.in_size[1] + h) * p.in_size[2] * pixel;
                    row(is_inside ? x + n * p.in_channels * p.in_pixels() + line : nullptr, at);
                }
            }
        }
    }

    // Offsets of the chunk's rows of dY in the packed x, in packed pixels, for rows of `width` pixels.
    void row_offsets(const Chunk& chunk, int64_t width, std::vector<int64_t>& offsets) const {
        const int64_t depth = axis[0].length(chunk.box[0].size(), p.kernel[0]);
        const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
        offsets.clear();
        for (int64_t n = 0; n < chunk.image.size(); n++)
            for (int64_t d = 0; d < chunk.box[0].size(); d++)
                for (int64_t h = 0; h < chunk.box[1].size(); h++)
                    offsets.push_back(((n * depth + d * axis[0].step) * height + h * axis[1].step) * width);
    }

    int64_t packed_rows() const {
        return chunks.images() * axis[0].length(chunks.size(0), p.kernel[0]) *
               axis[1].length(chunks.size(1), p.kernel[1]);
    }
};

// ---- many channels per group: the micro-kernel

// Rows of a tile are (tap along the width, input channel) where each tap has a packed copy of its own, which
// a stride needs and few channels profit from; else they are input channels, and taps along the width are
// offsets.
template <class T>
struct Dense : Job<T> {
    using Job<T>::p, Job<T>::x, Job<T>::axis, Job<T>::chunks, Job<T>::loops;
    const Micro<T>& kernels = micro<T>();
    bool spread;
    int64_t rows, taps;  // rows of all tiles, and what is left of the taps
    int64_t width;       // of a packed row
    int64_t pitch;       // elements from one packed channel to the next
    Sums sums;
    int64_t tile_rows, tile_blocks;

    Dense(const ConvProblem& problem, int64_t batch, const T* dy, const T* x_)
        : Job<T>(problem, batch, dy, x_) {
        const int64_t L = kernels.lanes, channels = p.group_in(), outputs = p.group_out();
        spread = p.kernel[2] > 1 && (axis[2].step > 1 || channels < 8);
        rows = channels * (spread ? p.kernel[2] : 1);
        taps = p.taps() / (spread ? p.kernel[2] : 1);
        width = spread ? chunks.size(2) : axis[2].length(chunks.size(2), p.kernel[2]);
        // An odd number of cache lines, so that the channels of a tile do not fall on the same lines of the
        // cache.
        const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
        pitch = (ceil_div(this->packed_rows() * width, line) | 1) * line;
        const int64_t lanes = outputs > L ? 2 * L : L, blocks = ceil_div(outputs, lanes);
        sums = {p.groups * blocks, rows * taps, lanes, blocks, lanes, outputs};
        tile_rows = ceil_div(rows, std::max<int64_t>(1, ceil_div(rows, kTileRows)));
        const int64_t block_bytes =
            std::max<int64_t>(1, tile_rows * taps * lanes * static_cast<int64_t>(sizeof(T)));
        tile_blocks =
            std::clamp<int64_t>(static_cast<int64_t>(kTileBytes) / block_bytes, 1, kTileColumns / lanes);
        tile_blocks = ceil_div(blocks, ceil_div(blocks, tile_blocks));
    }

    // Rows q0 .. q1 - 1 of group g, as [row][packed pixel].
    void pack_x(const Chunk& chunk, int64_t g, int64_t q0, int64_t q1, T* to) const {
        const int64_t channels = p.group_in(), size = p.in_size[2];
        const int64_t n = spread ? chunk.width() : axis[2].length(chunk.width(), p.kernel[2]);
        const int64_t skip = spread ? p.stride[2] : axis[2].skip;
        for (int64_t q = q0; q < q1;) {
            const int64_t tap = q / channels, c = q % channels;
            const int64_t count = std::min(q1 - q, channels - c);
            const int64_t first = chunk.box[2].begin * p.stride[2] - p.pad_lo[2] + tap * p.dilation[2];
            const Range in = inside(first, skip, n, size);
            T* const rows_to = to + (q - q0) * pitch;
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
            q += count;
        }
    }

    void run_chunk(const Chunk& chunk, int64_t block0, int64_t block1, int64_t q0, int64_t q1,
                   const T* packed_x, const T* packed_dy, const std::vector<int64_t>& offsets, T* to) const {
        const int64_t L = kernels.lanes;
        const int64_t n = spread ? chunk.width() : axis[2].length(chunk.width(), p.kernel[2]);
        const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
        const int64_t tiles = ceil_div(q1 - q0, kernels.channel_rows);
        ChannelTile<T> tile{};
        tile.x_row = pitch;
        tile.offsets = offsets.data();
        tile.segments = chunk.rows();
        tile.length = chunk.width();
        tile.out_row = sums.lanes;
        tile.accumulate = true;
        for (int64_t block = block0; block < block1; block++) {
            const int64_t vectors = ceil_div(sums.count(block), L);
            tile.channels = vectors * L;
            tile.w = packed_dy + (block - block0) * chunks.pixels() * sums.lanes;
            T* const sum = to + block * sums.rows * sums.lanes;
            for (int64_t i = 0; i < tiles; i++) {
                const Range q = part_of(q1 - q0, tiles, i);
                const auto run = kernels.channels[q.size()][vectors];
                for (int64_t tap = 0; tap < taps; tap++) {
                    const int64_t w = spread ? 0 : tap % p.kernel[2], rest = spread ? tap : tap / p.kernel[2];
                    const int64_t h = rest % p.kernel[1], d = rest / p.kernel[1];
                    tile.x = packed_x + q.begin * pitch + (d * axis[0].tap * height + h * axis[1].tap) * n +
                             w * axis[2].tap;
                    tile.out = sum + (tap * rows + q0 + q.begin) * sums.lanes;
                    run(tile);
                }
            }
        }
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
            for (int64_t block = block0; block < block1; block++)
                for (int64_t tap = 0; tap < taps; tap++)
                    std::fill_n(mine + (block * sums.rows + tap * rows + q.begin) * sums.lanes,
                                q.size() * sums.lanes, T(0));
            if (sums_bias) std::fill_n(my_bias + block0 * sums.lanes, (block1 - block0) * sums.lanes, T(0));
            ScratchFrame inner;
            T* const packed_x = inner.take<T>(q.size() * pitch);
            T* const packed_dy = inner.take<T>((block1 - block0) * chunks.pixels() * sums.lanes);
            std::vector<int64_t> offsets;
            const Range part = part_of(chunks.count(), copies, copy);
            for (int64_t c = part.begin; c < part.end; c++) {
                const Chunk chunk = chunks[c];
                pack_x(chunk, group, q.begin, q.end, packed_x);
                for (int64_t block = block0; block < block1; block++) {
                    const int64_t lanes = ceil_div(sums.count(block), L) * L;
                    T* const panel = packed_dy + (block - block0) * chunks.pixels() * sums.lanes;
                    this->pack_dy(chunk, sums.first(block), sums.count(block), lanes, panel);
                    if (sums_bias) loops.add_rows(panel, chunk.pixels(), lanes, my_bias + block * sums.lanes);
                }
                this->row_offsets(chunk, spread ? chunk.width() : axis[2].length(chunk.width(), p.kernel[2]),
                                  offsets);
                run_chunk(chunk, block0, block1, q.begin, q.end, packed_x, packed_dy, offsets, mine);
            }
        });
        write_weight(p, sums, all, copies, dw);
        if (db != nullptr) write_bias(sums, bias, copies, db);
    }
};

// ---- few channels per group: one output channel in each lane, x spread to the lanes that need it

template <class T>
struct Lanes : Job<T> {
    using Job<T>::p, Job<T>::x, Job<T>::axis, Job<T>::chunks, Job<T>::loops;
    int64_t width;  // of the longest packed row
    Sums sums;

    Lanes(const ConvProblem& problem, int64_t batch, const T* dy, const T* x_)
        : Job<T>(problem, batch, dy, x_) {
        const int64_t L = loops.lanes, used = L / p.group_out() * p.group_out(),
                      blocks = ceil_div(p.out_channels, used);
        width = axis[2].length(chunks.size(2), p.kernel[2]);
        sums = {blocks, p.taps() * p.group_in(), L, blocks, used, p.out_channels};
    }

    // Input channels c0 .. c0 + count - 1 as [packed pixel][pitch].
    void pack_x(const Chunk& chunk, int64_t c0, int64_t count, int64_t pitch, T* to) const {
        const int64_t n = axis[2].length(chunk.width(), p.kernel[2]), skip = axis[2].skip;
        const int64_t first = chunk.box[2].begin * p.stride[2] - p.pad_lo[2];
        const Range in = inside(first, skip, n, p.in_size[2]);
        ScratchFrame frame;
        T* const line = !p.channels_last && skip > 1 ? frame.take<T>(count * n) : nullptr;
        this->each_row(chunk, [&](const T* row, int64_t at) {
            T* const begin = to + at * n * pitch;
            const Range valid = row == nullptr ? Range{n, n} : in;
            std::fill(begin, begin + valid.begin * pitch, T(0));
            std::fill(begin + valid.end * pitch, begin + n * pitch, T(0));
            if (valid.size() == 0) return;
            T* const into = begin + valid.begin * pitch;
            const int64_t from = first + valid.begin * skip;
            if (p.channels_last) {
                loops.copy(row + from * p.in_channels + c0, skip * p.in_channels, valid.size(), count, into,
                           pitch, pitch);
                return;
            }
            const T* planes = row + c0 * p.in_pixels() + from;
            if (line != nullptr) {
                for (int64_t c = 0; c < count; c++)
                    loops.gather(planes + c * p.in_pixels(), skip, valid.size(), line + c * n);
                loops.transpose(line, n, count, valid.size(), into, pitch);
            } else {
                loops.transpose(planes, p.in_pixels(), count, valid.size(), into, pitch);
            }
        });
    }

    void run(T* dw, T* db) const {
        const int64_t L = loops.lanes, channels = p.group_in(), outputs = p.group_out();
        const int64_t copies = this->copies(1, sums.size() * static_cast<int64_t>(sizeof(T)));
        const int64_t block_tiles = ceil_div(sums.blocks, std::max<int64_t>(1, kTileColumns / L));
        ScratchFrame frame;
        T* const all = frame.take<T>(copies * sums.size());
        T* const bias = frame.take<T>(copies * sums.blocks * L);
        const bool spreads = channels > 1 || outputs > 1;
        const int64_t pixels = this->packed_rows() * width;
        const int64_t most = ((sums.used - 1) / outputs + 1) * channels,
                      pitch = spreads ? round_up(most, L) : L;
        parallel_for(copies * block_tiles, [&](int64_t task) {
            const int64_t copy = task / block_tiles;
            const Range blocks = part_of(sums.blocks, block_tiles, task % block_tiles);
            T* const mine = all + copy * sums.size();
            T* const my_bias = bias + copy * sums.blocks * L;
            std::fill(mine + blocks.begin * sums.rows * L, mine + blocks.end * sums.rows * L, T(0));
            std::fill(my_bias + blocks.begin * L, my_bias + blocks.end * L, T(0));
            ScratchFrame inner;
            T* const packed_x = inner.take<T>(pixels * pitch);
            T* const lanes_x = spreads ? inner.take<T>(pixels * L) : packed_x;
            T* const packed_dy = inner.take<T>(chunks.pixels() * L);
            std::vector<int64_t> offsets, taps;
            std::vector<int32_t> index(L);
            const Range part = part_of(chunks.count(), copies, copy);
            for (int64_t c = part.begin; c < part.end; c++) {
                const Chunk chunk = chunks[c];
                const int64_t n = axis[2].length(chunk.width(), p.kernel[2]);
                const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
                const int64_t depth = axis[0].length(chunk.box[0].size(), p.kernel[0]);
                this->row_offsets(chunk, n, offsets);
                taps.clear();
                for (int64_t d = 0; d < p.kernel[0]; d++)
                    for (int64_t h = 0; h < p.kernel[1]; h++)
                        for (int64_t w = 0; w < p.kernel[2]; w++)
                            taps.push_back((d * axis[0].tap * height + h * axis[1].tap) * n +
                                           w * axis[2].tap);
                for (int64_t block = blocks.begin; block < blocks.end; block++) {
                    const int64_t k0 = sums.first(block), columns = sums.count(block);
                    this->pack_dy(chunk, k0, columns, L, packed_dy);
                    if (db != nullptr) loops.add_rows(packed_dy, chunk.pixels(), L, my_bias + block * L);
                    const int64_t c0 = k0 / outputs * channels,
                                  count = ((columns - 1) / outputs + 1) * channels;
                    pack_x(chunk, c0, count, pitch, packed_x);
                    LaneTile<T> tile{lanes_x,   offsets.data(), chunk.rows(), chunk.width(), axis[2].step,
                                     packed_dy, taps.data(),    p.taps(),     nullptr,       channels * L};
                    for (int64_t j = 0; j < channels; j++) {
                        if (spreads) {
                            for (int64_t l = 0; l < L; l++)
                                index[l] =
                                    static_cast<int32_t>(std::min(l, columns - 1) / outputs * channels + j);
                            loops.spread(packed_x, pitch, chunk.image.size() * depth * height * n, count,
                                         index.data(), lanes_x);
                        }
                        tile.sum = mine + (block * sums.rows + j) * L;
                        loops.lane_tile(tile);
                    }
                }
            }
        });
        write_weight(p, sums, all, copies, dw);
        if (db != nullptr) write_bias(sums, bias, copies, db);
    }
};

}  // namespace

template <class T>
void backward_weight(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    if (problem.out_channels == 0) return;
    if (batch == 0) {
        std::fill_n(dw, problem.weights(), T(0));
        if (db != nullptr) std::fill_n(db, problem.out_channels, T(0));
        return;
    }
    if (problem.group_in() == 0 && db == nullptr) return;
    const FlushToZero guard;
    // A lane of its own for each output channel wins where a vector of them would span several groups.
    const bool lanes = problem.groups > 1 && 2 * problem.group_out() <= gradient_loops<T>().lanes &&
                       problem.group_in() <= 16 && problem.group_in() > 0;
    if (lanes)
        Lanes<T>(problem, batch, dy, x).run(dw, db);
    else
        Dense<T>(problem, batch, dy, x).run(dw, db);
}

template void backward_weight(const ConvProblem&, int64_t, const float*, const float*, float*, float*);
template void backward_weight(const ConvProblem&, int64_t, const double*, const double*, double*, double*);

}  // namespace fastconv
