// The driver of grouped convolution: which kernel takes what, and how it is cut into tasks. The idea stands in grouped.hpp.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "algorithms/grouped_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kMostTerms = 512;      // of one sum
constexpr int64_t kMostTapColumns = 32;  // whose masks the kernel keeps

// Channels first.
template <class T>
class GroupedFirst final : public ConvKernel {
  public:
    explicit GroupedFirst(const ConvProblem& problem)
        : p_(problem), parts_(ceil_div(p_.group_out(), int64_t{kGroupedOutputs})) {}

    size_t scratch_bytes() const override { return static_cast<size_t>(2 * planes()) * sizeof(int64_t); }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int64_t height = p_.out_size[1], pieces = args.batch * p_.groups * parts_ * p_.out_size[0];
        const int64_t bands =
            std::clamp<int64_t>(ceil_div(4 * num_threads(), pieces), 1, ceil_div(height, 4 * kGroupedRows));
        const int64_t units = pieces * bands;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            int64_t* const sources = frame.take<int64_t>(2 * planes());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++)
                run_piece(args, unit / bands, part_of(height, bands, unit % bands), sources);
        };
        parallel_for(tasks, run_part, threads());
    }

  private:
    int64_t planes() const { return p_.group_in() * p_.kernel[0]; }

    // `index` counts images, groups, parts of a group's outputs, and planes of depth.
    void run_piece(const ConvArgs& args, int64_t index, Range rows, int64_t* sources) const {
        const int64_t depth = index % p_.out_size[0];
        index /= p_.out_size[0];
        const int64_t group = index / parts_ % p_.groups, image = index / parts_ / p_.groups;
        const Range outputs = part_of(p_.group_out(), parts_, index % parts_);
        const int64_t k = group * p_.group_out() + outputs.begin;
        const int64_t in_channel = args.x_plane_of(p_), out_channel = args.out_plane_of(p_);
        const int64_t pixels = p_.out_size[1] * p_.out_size[2];
        const int64_t at = (image * p_.out_channels + k) * out_channel + depth * pixels;
        const int64_t taps = p_.kernel[1] * p_.kernel[2];
        int64_t* const w_planes = sources + planes();
        GroupedPlanes<T> call;
        call.planes = 0;
        for (int64_t c = 0; c < p_.group_in(); c++) {
            for (int64_t d = 0; d < p_.kernel[0]; d++) {
                const int64_t z = axis_source(p_.mode, p_.in_size[0],
                                              depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
                if (z < 0) continue;
                sources[call.planes] = c * in_channel + z * p_.in_size[1] * p_.in_size[2];
                w_planes[call.planes++] = (c * p_.kernel[0] + d) * taps;
            }
        }
        call.x =
            static_cast<const T*>(args.x) + (image * p_.in_channels + group * p_.group_in()) * in_channel;
        call.sources = sources;
        call.in_rows = p_.in_size[1];
        call.in_width = p_.in_size[2];
        call.first_row = -p_.pad_lo[1];
        call.first_column = -p_.pad_lo[2];
        call.row_step = p_.stride[1];
        call.tap_rows = p_.kernel[1];
        call.tap_columns = p_.kernel[2];
        call.row_dilation = p_.dilation[1];
        call.column_dilation = p_.dilation[2];
        call.w_planes = w_planes;
        call.w_output = planes() * taps;
        call.w = static_cast<const T*>(args.weight) + k * call.w_output;
        call.outputs = outputs.size();
        call.out = static_cast<T*>(args.out) + at;
        call.add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + at;
        call.bias = args.bias == nullptr ? nullptr : static_cast<const T*>(args.bias) + k;
        call.out_plane = out_channel;
        call.out_width = p_.out_size[2];
        call.begin = rows.begin;
        call.end = rows.end;
        call.clamp = clamp_of(args.activation);
        grouped_of<T>().planes(call, p_.stride[2]);
        if (needs_pass(args.activation))
            rows_of<T>().activate(args.activation, call.out + rows.begin * call.out_width, outputs.size(),
                                  out_channel, rows.size() * call.out_width);
    }

    ConvProblem p_;
    int64_t parts_;
};

// Channels last, how many neighbouring groups share a vector of outputs.
int64_t groups_together(const ConvProblem& p, int64_t lanes) {
    const int64_t fit = std::max<int64_t>(1, lanes / std::max<int64_t>(1, p.group_out()));
    return std::min({fit, std::max<int64_t>(1, 2 * lanes / p.group_in()), p.groups});
}

// Channels last, of how many groups rows are in turns; 0 where they are expanded.
int64_t groups_in_turns(const ConvProblem& p, int64_t lanes, int64_t most) {
    const int64_t together = groups_together(p, lanes);
    const bool close = p.kernel[2] == 3 && p.stride[2] <= 2 && p.dilation[2] == 1;
    return close && together <= most && (together == 2 || together == 4) && together * p.group_in() <= lanes
               ? together
               : 0;
}

// Channels last, how many columns of outputs are computed at a time: their expanded rows, of so many vectors for a pixel, one for
// each tap row, take two thirds of L1.
int64_t columns_together(const ConvProblem& p, int64_t lanes, int64_t vectors, int64_t element) {
    const int64_t reach = (p.kernel[2] - 1) * p.dilation[2] + 1;
    const int64_t row = p.kernel[0] * p.kernel[1] * vectors * lanes;
    const int64_t most = static_cast<int64_t>(l1_bytes() * 2 / 3) / element / row;
    const int64_t columns =
        std::clamp<int64_t>((most - reach) / p.stride[2] + 1, 8, std::max<int64_t>(8, p.out_size[2]));
    return std::min(columns, p.out_size[2]);
}

// How many of at most `most` columns make pieces that are computed in whole blocks, and expand few columns twice.
int64_t columns_of_pieces(const ConvProblem& p, int64_t most) {
    const int64_t width = p.out_size[2], overlap = (p.kernel[2] - 1) * p.dilation[2] + 1;
    int64_t best = most, least = INT64_MAX;
    for (int64_t columns = most; columns >= std::max<int64_t>(1, most / 2); columns--) {
        const int64_t pieces = ceil_div(width, columns), rest = width - (pieces - 1) * columns;
        const int64_t cost = (pieces - 1) * row_cost(columns) + row_cost(rest) + pieces * overlap;
        if (cost >= least) continue;
        least = cost;
        best = columns;
    }
    return best;
}

// Channels last. A lane block is the outputs of some neighbouring groups, or of one.
template <class T>
class GroupedLast final : public ConvKernel {
  public:
    explicit GroupedLast(const ConvProblem& problem) : p_(problem), lanes_(micro<T>().lanes) {
        const int64_t k = p_.group_out(), c = p_.group_in();
        together_ = groups_together(p_, lanes_);
        blocks_ = ceil_div(p_.groups, together_);
        turns_ = groups_in_turns(p_, lanes_, grouped_of<T>().turns);
        vectors_ = turns_ > 0 ? 1 : c;
        index_.assign(static_cast<size_t>(vectors_ * lanes_), 0);
        order_.assign(static_cast<size_t>(lanes_), 0);
        for (int64_t l = 0; l < together_ * k; l++) order_[static_cast<size_t>(l)] = lane_of(l);
        for (int64_t i = 0; turns_ > 0 && i < turns_ * c; i++)
            index_[static_cast<size_t>(i)] = static_cast<int32_t>(i % turns_ * c + i / turns_);
        for (int64_t j = 0; turns_ == 0 && j < c; j++)
            for (int64_t l = 0; l < together_ * k; l++)
                index_[static_cast<size_t>(j * lanes_ + l)] = static_cast<int32_t>(l / k * c + j);
        columns_ = columns_of_pieces(p_, columns_together(p_, lanes_, vectors_, sizeof(T)));
        pieces_ = ceil_div(p_.out_size[2], columns_);
    }

    // [lane block][tap][input channel][lane]
    size_t packed_bytes() const override { return static_cast<size_t>(blocks_ * block_size()) * sizeof(T); }
    void pack(const void* weight, void* packed) const override {
        for (int64_t block = 0; block < blocks_; block++)
            pack_block(static_cast<const T*>(weight), block, static_cast<T*>(packed) + block * block_size());
    }

    bool places_pixels() const override { return true; }
    size_t scratch_bytes() const override {
        return static_cast<size_t>((tap_rows() + 1) * row_size() + block_size()) * sizeof(T) +
               2 * static_cast<size_t>(tap_rows()) * sizeof(int64_t);
    }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int64_t height = p_.out_size[1], planes = args.batch * p_.out_size[0];
        const int64_t bands = std::clamp<int64_t>(ceil_div(4 * num_threads(), planes * blocks_ * pieces_), 1,
                                                  ceil_div(height, 8));
        const int64_t units = planes * bands * pieces_ * blocks_;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            const Range part = part_of(units, tasks, task);
            ScratchFrame frame;
            T* const own = frame.take<T>(args.packed == nullptr ? block_size() : 0);
            T* const expanded = frame.take<T>((tap_rows() + 1) * row_size());
            const T** const rows = frame.take<const T*>(tap_rows());
            int64_t* const holds = frame.take<int64_t>(tap_rows());
            std::memset(expanded, 0, static_cast<size_t>(row_size()) * sizeof(T));  // the row of the padding
            int64_t ready = -1;
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const int64_t piece = unit % pieces_, band = unit / pieces_ % bands,
                              block = unit / pieces_ / bands % blocks_,
                              plane = unit / pieces_ / bands / blocks_;
                const T* w = own;
                if (args.packed != nullptr) {
                    w = static_cast<const T*>(args.packed) + block * block_size();
                } else if (ready != block) {
                    pack_block(static_cast<const T*>(args.weight), block, own);
                    ready = block;
                }
                const Range columns{piece * columns_, std::min((piece + 1) * columns_, p_.out_size[2])};
                run_band(args, plane, block, part_of(height, bands, band), columns, w, expanded, rows, holds);
            }
        };
        parallel_for(tasks, run_part, threads());
    }

  private:
    int64_t tap_rows() const { return p_.kernel[0] * p_.kernel[1]; }
    int64_t reach() const { return (p_.kernel[2] - 1) * p_.dilation[2] + 1; }
    int64_t in_columns(int64_t columns) const { return (columns - 1) * p_.stride[2] + reach(); }
    int64_t row_size() const { return in_columns(columns_) * vectors_ * lanes_; }
    // Of an output of a block.
    int32_t lane_of(int64_t output) const {
        const int64_t k = p_.group_out();
        return static_cast<int32_t>(turns_ > 0 ? output % k * turns_ + output / k : output);
    }
    int64_t block_size() const { return p_.taps() * p_.group_in() * lanes_; }
    int64_t groups_of(int64_t block) const { return std::min(together_, p_.groups - block * together_); }

    void pack_block(const T* weight, int64_t block, T* to) const {
        const int64_t outputs = groups_of(block) * p_.group_out(), first = block * together_ * p_.group_out();
        for (int64_t i = 0; i < p_.taps() * p_.group_in(); i++, to += lanes_) {
            std::fill_n(to, lanes_, T(0));
            const T* const from = weight + i * p_.out_channels + first;
            for (int64_t l = 0; l < outputs; l++) to[order_[static_cast<size_t>(l)]] = from[l];
        }
    }

    // `plane` counts images and planes of depth.
    void run_band(const ConvArgs& args, int64_t plane, int64_t block, Range band, Range columns, const T* w,
                  T* expanded, const T** rows, int64_t* holds) const {
        const int64_t k = block * together_ * p_.group_out(), depth = plane % p_.out_size[0],
                      image = plane / p_.out_size[0];
        std::fill_n(holds, tap_rows(), -1);
        for (int64_t row = band.begin; row < band.end; row++) {
            // Rows of one window are dilation apart, so that the quotient tells their places from each other.
            const int64_t first_place = row * p_.stride[1] / p_.dilation[1] % p_.kernel[1];
            for (int64_t d = 0; d < p_.kernel[0]; d++) {
                const int64_t z = axis_source(p_.mode, p_.in_size[0],
                                              depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
                for (int64_t i = 0; i < p_.kernel[1]; i++) {
                    const int64_t padded = row * p_.stride[1] + i * p_.dilation[1],
                                  tap = d * p_.kernel[1] + i;
                    const int64_t y = axis_source(p_.mode, p_.in_size[1], padded - p_.pad_lo[1]);
                    if (z < 0 || y < 0) {
                        rows[tap] = expanded;
                        continue;
                    }
                    const int64_t wrapped = first_place + i < p_.kernel[1] ? 0 : p_.kernel[1];
                    const int64_t place = d * p_.kernel[1] + first_place + i - wrapped;
                    T* const to = expanded + (1 + place) * row_size();
                    if (holds[place] != padded)
                        expand_row(args, (image * p_.in_size[0] + z) * p_.in_size[1] + y, block, columns, to);
                    holds[place] = padded;
                    rows[tap] = to;
                }
            }
            const Placement place = args.placement(p_);
            const int64_t at =
                image * place.image + depth * place.plane + row * place.row + columns.begin * place.pixel + k;
            GroupedRow<T> call;
            call.rows = rows;
            call.tap_rows = tap_rows();
            call.tap_columns = p_.kernel[2];
            call.depth = p_.group_in();
            call.stride = p_.stride[2];
            call.dilation = p_.dilation[2];
            call.w = w;
            call.out = static_cast<T*>(args.out) + at;
            call.add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + at;
            call.bias = args.bias == nullptr ? nullptr : static_cast<const T*>(args.bias) + k;
            call.out_pixel = place.pixel;
            call.pixels = columns.size();
            call.lanes = groups_of(block) * p_.group_out();
            call.clamp = clamp_of(args.activation);
            call.turns = turns_;
            call.order = order_.data();
            grouped_of<T>().row(call);
            if (needs_pass(args.activation))
                rows_of<T>().activate(args.activation, call.out, call.pixels, call.out_pixel, call.lanes);
        }
    }

    // `line` counts images, planes and rows of x.
    void expand_row(const ConvArgs& args, int64_t line, int64_t block, Range columns, T* to) const {
        const int64_t c = p_.group_in(), first = block * together_ * c, valid = groups_of(block) * c,
                      size = vectors_ * lanes_;
        const int64_t pitch = p_.in_size[2] * p_.in_channels;
        const T* const x = static_cast<const T*>(args.x) + line * pitch + first;
        const int64_t begin = columns.begin * p_.stride[2] - p_.pad_lo[2], count = in_columns(columns.size());
        const int64_t inner = std::clamp<int64_t>(-begin, 0, count),
                      outer = std::clamp<int64_t>(p_.in_size[2] - begin, inner, count);
        const auto put = [&](int64_t at, int64_t pixels, int64_t source) {
            if (pixels <= 0) return;
            T* const into = to + at * size;
            if (source < 0)
                std::memset(into, 0, static_cast<size_t>(pixels * size) * sizeof(T));
            else
                grouped_of<T>().expand(x + source * p_.in_channels, p_.in_channels, pixels, valid,
                                       index_.data(), vectors_, into, p_.stride[1] * pitch);
        };
        for (int64_t i = 0; i < inner; i++) put(i, 1, axis_source(p_.mode, p_.in_size[2], begin + i));
        put(inner, outer - inner, begin + inner);
        for (int64_t i = outer; i < count; i++) put(i, 1, axis_source(p_.mode, p_.in_size[2], begin + i));
    }

    ConvProblem p_;
    int64_t lanes_, together_, turns_, vectors_, blocks_, columns_, pieces_;  // vectors_: of a pixel of a row
    std::vector<int32_t> index_, order_;
};

}  // namespace

std::string why_not_grouped(const ConvProblem& p, DType dtype) {
    if (p.groups == 1) return "it needs groups";
    if (p.in_channels == 0 || p.out_channels == 0) return "there are no channels";
    if (p.group_in() * p.taps() > kMostTerms) return "it adds at most 512 terms into one sum";
    if (p.channels_last) {
        if (p.group_out() > (dtype == DType::f32 ? micro<float>().lanes : micro<double>().lanes))
            return "channels last, the outputs of a group must fit into one vector";
        return "";
    }
    if (p.stride[2] > 2) return "channels first, it needs a stride of 1 or 2 along the width";
    if (p.kernel[2] > kMostTapColumns) return "channels first, it takes at most 32 columns of taps";
    if (p.mode != PadMode::constant && p.reads_padding()) return "channels first, it pads with zeros only";
    return "";
}

namespace {

// Cycles seen in 2,000 random problems (one thread of AVX-512, 1 to 16 channels a group, planes of 1 to 4,000 columns), within
// a third of what it took for nine in ten of them.
double cycles_first(const ConvProblem& p, int64_t lanes, int64_t element) {
    const int64_t parts = ceil_div(p.group_out(), int64_t{kGroupedOutputs}),
                  most = ceil_div(p.group_out(), parts),
                  together = most == 1   ? 8
                             : most == 2 ? 6
                                         : kGroupedRows;
    const bool whole = p.out_size[1] >= together;  // else rows go one by one
    const double pieces = static_cast<double>(p.groups * parts * p.out_size[0]),
                 columns = static_cast<double>(ceil_div(p.out_size[2], lanes)),
                 blocks = pieces * columns *
                          static_cast<double>(whole ? ceil_div(p.out_size[1], together) : p.out_size[1]);
    const double rows = whole ? static_cast<double>(together) : 1,
                 outputs = static_cast<double>(p.group_out()) / static_cast<double>(parts),
                 terms = static_cast<double>(p.group_in() * p.taps());
    const double lines =
        static_cast<double>((p.in_channels * p.in_pixels() * parts + p.out_channels * p.out_pixels()) *
                            element) /
        64;
    // Planes of a group that leave L2 while one column of vectors after the other goes down them.
    const bool far =
        static_cast<size_t>((p.group_in() + p.group_out()) * p.in_pixels() * element) > l2_bytes() / 2;
    // A stride sorts every vector it loads.
    const double multiply = 0.46 * rows * outputs / 2 + 0.7 * (rows + outputs);
    return 103 * pieces + pieces * columns * static_cast<double>(p.kernel[2]) + (far ? 25 : 4.5) * lines +
           blocks * (14 + terms * (multiply * (p.stride[2] > 1 ? 2 : 1) + (whole ? 0 : 0.3)));
}

double cycles_last(const ConvProblem& p, int64_t lanes, int64_t element) {
    const double blocks = static_cast<double>(ceil_div(p.groups, groups_together(p, lanes))),
                 pixels = static_cast<double>(p.out_pixels()), channels = static_cast<double>(p.group_in());
    const int64_t turns = groups_in_turns(p, lanes, element == 4 ? grouped_of<float>().turns : 0);
    const int64_t columns = columns_together(p, lanes, turns > 0 ? 1 : p.group_in(), element);
    const double pieces = static_cast<double>(ceil_div(p.out_size[2], columns)),
                 rows = static_cast<double>(p.out_size[0] * p.out_size[1]) * pieces,
                 tap_rows = static_cast<double>(p.kernel[0] * p.kernel[1]);
    // Rows of one window share what they expand, unless the stride passes over it.
    const int64_t each = p.stride[1] <= p.kernel[1] ? (p.out_size[1] - 1) * p.stride[1] + p.kernel[1]
                                                    : p.out_size[1] * p.kernel[1];
    const double expanded = static_cast<double>(p.out_size[0] * p.kernel[0] * each) * pieces,
                 reach =
                     static_cast<double>((columns - 1) * p.stride[2] + (p.kernel[2] - 1) * p.dilation[2] + 1);
    // Eight columns of expanded rows that L1 does not hold: 7x1 taps of 16 channels.
    const bool spills =
        static_cast<size_t>(p.kernel[0] * p.kernel[1] * p.group_in() * lanes * 8 * element) > l1_bytes();
    const double terms = channels * static_cast<double>(p.taps());
    if (turns > 0) {
        // 4 and 8 channels a group, 14x14 to 112x112, one image and eight: within a quarter, and a third where arrays leave L2.
        const double lines =
            static_cast<double>((p.in_channels * p.in_pixels() + p.out_channels * p.out_pixels()) * element) /
            64;
        const bool far = 64 * lines > static_cast<double>(l2_bytes());
        return blocks * (pixels * (7 + 0.55 * terms * (p.stride[2] > 1 ? 1.2 : 1)) +
                         rows * (6 + 21 * tap_rows) + expanded * (37 + 1.75 * reach) + 3 * terms) +
               (far ? 8 * lines : 0);
    }
    return blocks * (pixels * (9 + 0.6 * terms * (spills ? 2 : 1) * (p.stride[2] > 1 ? 1.5 : 1)) +
                     rows * (6 + 21 * tap_rows) + expanded * (37 + 1.75 * reach * channels) + 3 * terms);
}

}  // namespace

double predict_grouped(const ConvProblem& p, DType dtype) {
    const int64_t lanes = dtype == DType::f32 ? micro<float>().lanes : micro<double>().lanes,
                  element = dtype == DType::f32 ? 4 : 8;
    const double seconds =
        (p.channels_last ? cycles_last(p, lanes, element) : cycles_first(p, lanes, element)) * kCycleSeconds;
    // The usual depthwise kernels can be joined in chains.
    const bool usual = p.group_in() == 1 && p.group_out() == 1 && p.kernel[1] == p.kernel[2] &&
                       (p.kernel[2] <= 1 || p.kernel[2] == 3 || p.kernel[2] == 5);
    return usual ? std::max(seconds, 1.1 * predict_depthwise(p, dtype)) : seconds;
}

std::unique_ptr<ConvKernel> make_grouped(const ConvProblem& p, DType dtype) {
    if (dtype == DType::f32) {
        if (p.channels_last) return std::make_unique<GroupedLast<float>>(p);
        return std::make_unique<GroupedFirst<float>>(p);
    }
    if (p.channels_last) return std::make_unique<GroupedLast<double>>(p);
    return std::make_unique<GroupedFirst<double>>(p);
}

}  // namespace fastconv
