// The weight gradient with few channels per group: one output channel in each lane, x spread to the lanes
// that need it.
#include "algorithms/backward_weight_job.hpp"

namespace fastconv {

namespace {

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

    // Adds up one block of output channels; x and dy hold `apart` vectors for each packed pixel.
    void run_block(const Chunk& chunk, const T* packed_x, const T* packed_dy, int64_t apart,
                   const std::vector<int64_t>& offsets, const std::vector<int64_t>& taps, T* sum) const {
        this->each_chain(chunk, [&](Range part, Range columns) {
            LaneTile<T> tile;
            tile.x = packed_x + columns.begin * axis[2].step * apart * loops.lanes;
            tile.rows = offsets.data() + part.begin;
            tile.row_count = part.size();
            tile.width = columns.size();
            tile.step = axis[2].step * apart;
            tile.dy = packed_dy + (part.begin * chunk.width() + columns.begin) * apart * loops.lanes;
            tile.dy_step = apart;
            tile.taps = taps.data();
            tile.tap_count = p.taps();
            tile.sum = sum;
            tile.sum_row = p.group_in() * loops.lanes;
            loops.lane_tile(tile);
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
        // Depthwise and channels last: all channels of a pixel are packed at once, in the order of memory.
        const bool at_once = p.channels_last && !spreads;
        const int64_t pixels = this->packed_rows() * width;
        const int64_t most = ((sums.used - 1) / outputs + 1) * channels,
                      pitch = spreads ? round_up(most, L) : L;
        parallel_for(copies * block_tiles, [&](int64_t task) {
            const int64_t copy = task / block_tiles;
            const Range blocks = part_of(sums.blocks, block_tiles, task % block_tiles);
            const int64_t apart = at_once ? blocks.size() : 1;
            T* const mine = all + copy * sums.size();
            T* const my_bias = bias + copy * sums.blocks * L;
            std::fill(mine + blocks.begin * sums.rows * L, mine + blocks.end * sums.rows * L, T(0));
            std::fill(my_bias + blocks.begin * L, my_bias + blocks.end * L, T(0));
            ScratchFrame inner;
            T* const packed_x = inner.take<T>(pixels * pitch * apart);
            T* const lanes_x = spreads ? inner.take<T>(pixels * L) : packed_x;
            T* const packed_dy = inner.take<T>(chunks.pixels() * L * apart);
            std::vector<int64_t> offsets, taps;
            std::vector<int32_t> index(L);
            const Range part = part_of(chunks.count(), copies, copy);
            for (int64_t c = part.begin; c < part.end; c++) {
                const Chunk chunk = chunks[c];
                const int64_t n = axis[2].length(chunk.width(), p.kernel[2]);
                const int64_t height = axis[1].length(chunk.box[1].size(), p.kernel[1]);
                const int64_t depth = axis[0].length(chunk.box[0].size(), p.kernel[0]);
                this->row_offsets(chunk, n * apart, offsets);
                taps.clear();
                for (int64_t d = 0; d < p.kernel[0]; d++)
                    for (int64_t h = 0; h < p.kernel[1]; h++)
                        for (int64_t w = 0; w < p.kernel[2]; w++)
                            taps.push_back(
                                ((d * axis[0].tap * height + h * axis[1].tap) * n + w * axis[2].tap) * apart);
                if (at_once) {
                    const int64_t k0 = sums.first(blocks.begin),
                                  columns = std::min(apart * L, p.out_channels - k0);
                    this->pack_dy(chunk, k0, columns, apart * L, packed_dy);
                    if (db != nullptr)
                        loops.add_rows(packed_dy, chunk.pixels(), apart * L, my_bias + blocks.begin * L);
                    pack_x(chunk, k0, columns, apart * L, packed_x);
                    for (int64_t b = 0; b < apart; b++)
                        run_block(chunk, packed_x + b * L, packed_dy + b * L, apart, offsets, taps,
                                  mine + (blocks.begin + b) * sums.rows * L);
                    continue;
                }
                for (int64_t block = blocks.begin; block < blocks.end; block++) {
                    const int64_t k0 = sums.first(block), columns = sums.count(block);
                    this->pack_dy(chunk, k0, columns, L, packed_dy);
                    if (db != nullptr) loops.add_rows(packed_dy, chunk.pixels(), L, my_bias + block * L);
                    const int64_t c0 = k0 / outputs * channels,
                                  count = ((columns - 1) / outputs + 1) * channels;
                    pack_x(chunk, c0, count, pitch, packed_x);
                    for (int64_t j = 0; j < channels; j++) {
                        if (spreads) {
                            for (int64_t l = 0; l < L; l++)
                                index[l] =
                                    static_cast<int32_t>(std::min(l, columns - 1) / outputs * channels + j);
                            loops.spread(packed_x, pitch, chunk.image.size() * depth * height * n, count,
                                         index.data(), lanes_x);
                        }
                        run_block(chunk, lanes_x, packed_dy, 1, offsets, taps,
                                  mine + (block * sums.rows + j) * L);
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
void backward_weight_lanes(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    Lanes<T>(problem, batch, dy, x).run(dw, db);
}

template void backward_weight_lanes(const ConvProblem&, int64_t, const float*, const float*, float*, float*);
template void backward_weight_lanes(const ConvProblem&, int64_t, const double*, const double*, double*,
                                    double*);

}  // namespace fastconv
