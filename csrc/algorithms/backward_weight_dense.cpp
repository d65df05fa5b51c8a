// The weight gradient by the micro-kernel, for many channels per group.
//
// Rows of a tile are input channels, its lanes output channels, its steps pixels; taps are offsets into x as it is packed:
//
//   in place   1x1, channels first: x as it is
//   planes     [phase][row][pixel], one copy for each phase of the stride along the width, so that neighbouring steps are
//              neighbours in memory; channels last that is a transposition, shared by all taps
//   runs       few channels: rows are (tap along the width, channel), a window's row is one run of [pixel][channel], and
//              neighbouring windows share it
//
// Dropped, channels last: 1x1 in place, rows of a tile apart by all channels (15-30% slower from 256 channels on: lines of the
// caches that drive each other out); [tile][pixel][row], copied and not transposed (up to 10% slower: rows cut lines).
#include "algorithms/backward_weight_job.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"

namespace fastconv {

namespace {

constexpr int64_t kFewChannels = 8;  // fewer are spread over the taps of a row
// Of x, packed for a task. (3x3 with stride 2, batch 8: 512 channels at 14x14 24.4 ms without a limit, 16.4 so; 256 at 28x28
// 16.7 and 13.0.)
constexpr int64_t kPackedBytes = 768 << 10;

enum class Form { in_place, planes, runs };

template <class T>
struct Dense : Job<T> {
    using Job<T>::p, Job<T>::x, Job<T>::axis, Job<T>::chunks, Job<T>::loops;
    const Micro<T>& kernels = micro<T>();
    Form form;
    bool spread;                  // whether rows are (tap along the width, channel)
    std::vector<int64_t> phases;  // of the stride along the width, those that some tap reads
    int64_t rows, taps;           // rows of all tiles, and what is left of the taps
    int64_t pixels;               // packed, of a chunk
    int64_t pitch;                // planes: elements from one packed channel to the next
    Sums sums;
    int64_t tile_rows, tile_blocks;

    Dense(const ConvProblem& problem, int64_t batch, const T* dy, const T* x_)
        : Job<T>(problem, batch, dy, x_) {
        const int64_t L = kernels.lanes, channels = p.group_in(), outputs = p.group_out();
        spread = p.kernel[2] > 1 && channels < kFewChannels;
        form = spread && p.dilation[2] == 1                              ? Form::runs
               : !p.channels_last && p.taps() == 1 && !p.reads_padding() ? Form::in_place
                                                                         : Form::planes;
        phases = {0};
        for (int64_t w = 0; w < p.kernel[2] && form == Form::planes && !spread; w++)
            if (phase_index(w) == static_cast<int64_t>(phases.size())) phases.push_back(phase(w));
        rows = channels * (spread ? p.kernel[2] : 1);
        taps = p.taps() / (spread ? p.kernel[2] : 1);
        pixels = this->packed_rows() * packed_width(chunks.size(2));
        // An odd number of cache lines, so that the channels of a tile do not fall on the same lines of the
        // cache.
        const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
        pitch = form == Form::in_place ? p.in_pixels() : (ceil_div(pixels, line) | 1) * line;
        const int64_t lanes = outputs > L ? 2 * L : L, blocks = ceil_div(outputs, lanes);
        sums = {p.groups * blocks, rows * taps, lanes, blocks, lanes, outputs};
        const int64_t fit =
            std::max<int64_t>(kernels.channel_rows, kPackedBytes / static_cast<int64_t>(sizeof(T)) /
                                                        std::max<int64_t>(1, packed_size(1)));
        const int64_t most = form == Form::runs ? kTileRows : std::min(kTileRows, fit);
        tile_rows = ceil_div(rows, std::max<int64_t>(1, ceil_div(rows, most)));
        const int64_t block_bytes =
            std::max<int64_t>(1, tile_rows * taps * lanes * static_cast<int64_t>(sizeof(T)));
        tile_blocks = std::clamp<int64_t>(static_cast<int64_t>(kTileBytes) / block_bytes, 1,
                                          std::max<int64_t>(1, kTileColumns / lanes));
        tile_blocks = ceil_div(blocks, ceil_div(blocks, tile_blocks));
    }

    int64_t phase(int64_t tap) const { return tap * axis[2].tap % axis[2].step; }
    int64_t phase_index(int64_t tap) const {
        return std::find(phases.begin(), phases.end(), phase(tap)) - phases.begin();
    }
    // Pixels of a packed row for so many outputs, from one output to the next, and elements of one.
    int64_t packed_width(int64_t outputs) const {
        if (form == Form::runs) return axis[2].length(outputs, p.kernel[2]);
        return outputs + (spread ? 0 : (p.kernel[2] - 1) * axis[2].tap / axis[2].step);
    }
    int64_t step() const {
        return form == Form::in_place ? p.stride[2] : form == Form::runs ? axis[2].step : 1;
    }
    int64_t unit() const { return form == Form::runs ? p.group_in() : 1; }
    int64_t packed_size(int64_t count) const {
        return form == Form::in_place ? 0
               : form == Form::runs   ? pixels * unit()
                                      : static_cast<int64_t>(phases.size()) * count * pitch;
    }

    // Where an output pixel of an image lies in x, read in place.
    int64_t place(int64_t n, int64_t d, int64_t h, int64_t w) const {
        const int64_t at[3] = {d * p.stride[0] - p.pad_lo[0], h * p.stride[1] - p.pad_lo[1],
                               w * p.stride[2] - p.pad_lo[2]};
        return n * p.in_channels * p.in_pixels() + (at[0] * p.in_size[1] + at[1]) * p.in_size[2] + at[2];
    }

    // Of the rows of dY of a chunk, where their first pixels lie in x.
    void offsets_of(const Chunk& chunk, std::vector<int64_t>& offsets) const {
        if (form != Form::in_place) {
            this->row_offsets(chunk, packed_width(chunk.width()), offsets);
            for (int64_t& offset : offsets) offset *= unit();
            return;
        }
        const Range &images = chunk.image, &depth = chunk.box[0], &height = chunk.box[1];
        offsets.clear();
        for (int64_t n = images.begin; n < images.end; n++)
            for (int64_t d = depth.begin; d < depth.end; d++)
                for (int64_t h = height.begin; h < height.end; h++)
                    offsets.push_back(place(n, d, h, chunk.box[2].begin));
    }

    // All channels of group g, as [packed row][packed pixel][channel].
    void pack_runs(const Chunk& chunk, int64_t g, T* to) const {
        const int64_t channels = p.group_in(), n = packed_width(chunk.width());
        const int64_t first = chunk.box[2].begin * p.stride[2] - p.pad_lo[2];
        const Range in = inside(first, 1, n, p.in_size[2]);
        this->each_row(chunk, [&](const T* row, int64_t at) {
            T* const begin = to + at * n * channels;
            const Range valid = row == nullptr ? Range{n, n} : in;
            std::fill(begin, begin + valid.begin * channels, T(0));
            std::fill(begin + valid.end * channels, begin + n * channels, T(0));
            if (valid.size() == 0) return;
            T* const into = begin + valid.begin * channels;
            const T* const from = row + g * channels * (p.channels_last ? 1 : p.in_pixels()) +
                                  (first + valid.begin) * (p.channels_last ? p.in_channels : 1);
            if (channels == 1 && p.in_channels == 1)
                std::copy_n(from, valid.size(), into);
            else if (p.channels_last)
                loops.copy(from, p.in_channels, valid.size(), channels, into, channels, channels);
            else
                loops.transpose(from, p.in_pixels(), channels, valid.size(), into, channels);
        });
    }

    // Rows q0 .. q1 - 1 of group g, as [phase][row][packed pixel].
    void pack_planes(const Chunk& chunk, int64_t g, int64_t q0, int64_t q1, T* to) const {
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
                   const T* from_x, const T* packed_dy, const std::vector<int64_t>& offsets, bool fresh,
                   T* to) const {
        const int64_t L = kernels.lanes, each = unit();
        const int64_t n = packed_width(chunk.width());
        const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
        const int64_t tiles = ceil_div(q1 - q0, kernels.channel_rows);
        ChannelTile<T> tile{};
        tile.x_row = form == Form::runs ? 1 : pitch;
        tile.x_step = step() * each;
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
                    const T* const first_row = from_x + columns.begin * tile.x_step + q.begin * tile.x_row;
                    const auto run = kernels.channels[q.size()][vectors];
                    for (int64_t tap = 0; tap < taps; tap++) {
                        const int64_t w = spread ? 0 : tap % p.kernel[2],
                                      rest = spread ? tap : tap / p.kernel[2];
                        const int64_t h = rest % p.kernel[1], d = rest / p.kernel[1];
                        const int64_t first_phase = spread ? 0 : phase_index(w) * (q1 - q0);
                        tile.x = first_row + first_phase * pitch +
                                 ((d * axis[0].tap * height + h * axis[1].tap) * n +
                                  w * axis[2].tap / axis[2].step) *
                                     each;
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
            T* const packed_x = inner.take<T>(packed_size(q.size()));
            T* const packed_dy = inner.take<T>((block1 - block0) * chunks.pixels() * sums.lanes);
            const T* const from = form == Form::in_place ? x + (group * rows + q.begin) * pitch : packed_x;
            std::vector<int64_t> offsets;
            const Range part = part_of(chunks.count(), copies, copy);
            for (int64_t c = part.begin; c < part.end; c++) {
                const Chunk chunk = chunks[c];
                if (form == Form::runs) pack_runs(chunk, group, packed_x);
                if (form == Form::planes) pack_planes(chunk, group, q.begin, q.end, packed_x);
                for (int64_t block = block0; block < block1; block++) {
                    const int64_t lanes = ceil_div(sums.count(block), L) * L;
                    T* const panel = packed_dy + (block - block0) * chunks.pixels() * sums.lanes;
                    this->pack_dy(chunk, sums.first(block), sums.count(block), lanes, panel);
                    if (sums_bias) loops.add_rows(panel, chunk.pixels(), lanes, my_bias + block * sums.lanes);
                }
                offsets_of(chunk, offsets);
                run_chunk(chunk, block0, block1, q.begin, q.end, from, packed_dy, offsets, c == part.begin,
                          mine);
            }
        });
        write_weight(p, sums, all, copies, dw);
        if (db != nullptr) write_bias(sums, bias, copies, db);
    }
};

}  // namespace

template <class T>
void backward_weight_dense(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    Dense<T>(problem, batch, dy, x).run(dw, db);
}

template void backward_weight_dense(const ConvProblem&, int64_t, const float*, const float*, float*, float*);
template void backward_weight_dense(const ConvProblem&, int64_t, const double*, const double*, double*,
                                    double*);

}  // namespace fastconv
