// What both ways of computing the weight gradient share: how sums stand, chunks, packed axes, the packing of
// dY.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/backward_weight.hpp"
#include "algorithms/backward_weight_chunks.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

// Many channels per group; see backward_weight_dense.cpp.
template <class T>
void backward_weight_dense(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db);

// Few channels per group; see backward_weight_lanes.cpp.
template <class T>
void backward_weight_lanes(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db);

// 3 x 3 with stride 1; see backward_weight_winograd.cpp. Whether it takes a problem and is expected to be the faster way.
template <class T>
bool prefers_winograd(const ConvProblem& problem, int64_t batch);
// False where a result is not finite: dw and db are then arbitrary.
template <class T>
bool backward_weight_winograd(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw,
                              T* db);

// Few input and output channels, channels last; see backward_weight_narrow.cpp.
template <class T>
bool takes_narrow(const ConvProblem& problem);
template <class T>
void backward_weight_narrow(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db);

// One channel per group, channels last; see backward_weight_depthwise.cpp. False where a result is not finite, as above.
template <class T>
bool takes_depthwise(const ConvProblem& problem);
template <class T>
bool backward_weight_depthwise(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw,
                               T* db);

constexpr int64_t kTasks = 32;              // wanted: two to four for each thread of a large machine
constexpr int64_t kCopyPixels = 768;        // adding up a copy costs as much as some 50 pixels
constexpr size_t kCopiesBytes = 64u << 20;  // of all copies
constexpr size_t kTileBytes = 1u << 20;  // of the sums that one task goes through for each chunk: an L2 cache
constexpr int64_t kTileRows = 512;       // input channels of a task
constexpr int64_t kTileColumns = 256;    // output channels of a task

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
                T* to = p.channels_last ? dw + (tap * channels + c) * p.out_channels + k0
                                        : total + ((c - c0) * taps + tap) * sums.lanes;
                loops.add_copies(row, sums.size(), count, columns, to);
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
          chunks(problem, batch, kBandPixels),
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

    // Calls f(rows, columns) for the parts of a packed chunk that make one chain of additions.
    template <class F>
    static void each_chain(const Chunk& chunk, F f) {
        const int64_t width = chunk.width(), columns = ceil_div(width, kChunkPixels);
        const int64_t parts = ceil_div(chunk.rows(), columns > 1 ? 1 : kChunkPixels / width);
        for (int64_t i = 0; i < parts; i++) {
            const Range rows = part_of(chunk.rows(), parts, i);
            for (int64_t j = 0; j < columns; j++) f(rows, part_of(width, columns, j));
        }
    }

    int64_t packed_rows() const {
        return chunks.images() * axis[0].length(chunks.size(0), p.kernel[0]) *
               axis[1].length(chunks.size(1), p.kernel[1]);
    }
};

}  // namespace fastconv
