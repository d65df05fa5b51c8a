// Winograd convolution by the tiles of winograd_tiling.hpp: any kernel of stride 1, in one to three dimensions, dilated too.
//
// Of every box of tiles: a strip of rows is copied, zero-padded, and transformed along both axes; each position is a matrix
// product by the micro-kernel, whose list of segments runs over groups of taps and blocks of channels; the way back ends in a
// strip too, which is stored with bias, residual and clamp. An inf or NaN smears over its tile: a tile whose outputs are not
// all finite is computed again directly.
#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/winograd_lines_kernels.hpp"
#include "algorithms/winograd_tiling.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int kPanelVectors = 2;
constexpr int64_t kChain = 256;  // additions into one accumulator before a partial sum is set aside

template <class T>
TileMachine machine_of() {
    return {micro<T>().lanes, micro<T>().channel_rows, sizeof(T)};
}

template <class T>
class WinogradTiles final : public ConvKernel {
  public:
    WinogradTiles(const ConvProblem& p, const Tiling& tiling)
        : p_(p),
          tiling_(tiling),
          lanes_(micro<T>().lanes),
          width_(kPanelVectors * lanes_),
          blocks_(ceil_div(p.in_channels, lanes_)),
          length_(blocks_ == 1 ? p.in_channels : lanes_),
          panels_(ceil_div(p.out_channels, width_)),
          panel_size_(tiling.positions() * tiling.groups() * blocks_ * length_ * width_) {
        // Rows by tile, columns as they stand in a strip. What lies beyond the last output reads zeros.
        const TileAxis &down = tiling.axis[1], &along = tiling.axis[2];
        for (int64_t v = 0; v < down.inputs(down.tiles); v++)
            for (int64_t j = 0; j < down.size; j++)
                rows_.push_back(source(1, down.position(v) + j * down.cell));
        const int64_t columns = along.columns(along.inputs(along.tiles) / along.cell);
        for (int64_t c = 0; c < columns; c++) cols_.push_back(source(2, c));
        // A strip of a few KB stays in L1.
        const int64_t each = std::max<int64_t>(1, along.cell * along.outputs);
        strip_cells_ = std::max<int64_t>(1, (72 - along.cell * (along.size - along.outputs)) / each);
        strip_row_ = along.columns(strip_cells_) * lanes_;
    }

    // [panel][position][group][channel][lane], then the weights as they are, [tap][channel][K].
    size_t packed_bytes() const override {
        return static_cast<size_t>(panels_ * panel_size_ + plain_size()) * sizeof(T);
    }
    bool keeps_packed() const override { return true; }
    bool places_pixels() const override { return p_.channels_last; }

    void pack(const void* weight, void* packed) const override {
        const T* const from = static_cast<const T*>(weight);
        T* const to = static_cast<T*>(packed);
        const WeightMatrix down(tiling_.axis[1]), along(tiling_.axis[2]);
        const int64_t c_all = p_.in_channels, taps = p_.taps(), row = panels_ * width_;
        const int64_t k_step = p_.channels_last ? 1 : c_all * taps,
                      c_step = p_.channels_last ? p_.out_channels : taps;
        const int64_t tap_step = p_.channels_last ? c_all * p_.out_channels : 1;
        T* const plain = to + panels_ * panel_size_;
        parallel_for(panels_ * blocks_, [&](int64_t task) {
            const int64_t panel = task / blocks_, block = task % blocks_;
            const int vectors = panel_vectors(panel);
            T* const begin = to + panel * panel_size_;
            for (int64_t i = 0; i < length_; i++) {
                const int64_t c = block * lanes_ + i;
                for (int v = 0; v < kPanelVectors; v++) {
                    const int64_t first = panel * width_ + v * lanes_,
                                  count =
                                      c < c_all ? std::clamp<int64_t>(p_.out_channels - first, 0, lanes_) : 0;
                    const T* const at = from + first * k_step + c * c_step;
                    if (c < c_all)
                        for (int64_t tap = 0; tap < taps; tap++)
                            for (int64_t j = 0; j < lanes_; j++)
                                plain[(tap * c_all + c) * row + first + j] =
                                    j < count ? at[j * k_step + tap * tap_step] : T(0);
                    if (v < vectors)
                        pack_channel(at, k_step, tap_step, count, down, along,
                                     begin + c * vectors * lanes_ + v * lanes_, vectors * lanes_);
                }
            }
        });
    }

    size_t scratch_bytes() const override {
        const TileBox box = cut_tiles(p_, tiling_, machine_of<T>(), 1).largest;
        return static_cast<size_t>(input_size(box) + product_size(box) + strip_size()) * sizeof(T) +
               static_cast<size_t>(tiling_.groups() * blocks_) * sizeof(int64_t);
    }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int threads = scratch_share().threads;
        const int64_t wanted = threads == 1 ? 1 : ceil_div(3 * threads, args.batch);
        const TileCut cut = cut_tiles(p_, tiling_, machine_of<T>(), wanted);
        const int64_t boxes = args.batch * cut.boxes();
        if (threads > 1 && boxes < threads) {
            // Too few boxes to go round: the threads share each, first by channels, then by panels.
            for (int64_t i = 0; i < boxes; i++) {
                const Box box = box_at(cut, i);
                ScratchFrame frame;
                T* const inputs = frame.take<T>(input_size(box.size));
                parallel_for(blocks_, [&](int64_t block) { transform(args, box, block, inputs); }, threads);
                const auto run_panel = [&](int64_t panel) {
                    ScratchFrame inner;
                    multiply(args, box, panel, inputs, inner.take<T>(product_size(box.size)));
                };
                note_weight_parts(panels_);
                parallel_for(panels_, run_panel, threads);
            }
        } else {
            const auto run_box = [&](int64_t i) {
                const Box box = box_at(cut, i);
                ScratchFrame frame;
                T* const inputs = frame.take<T>(input_size(box.size));
                T* const products = frame.take<T>(product_size(box.size));
                for (int64_t block = 0; block < blocks_; block++) transform(args, box, block, inputs);
                for (int64_t panel = 0; panel < panels_; panel++)
                    multiply(args, box, panel, inputs, products);
            };
            parallel_for(boxes, run_box, threads);
        }
        if (needs_pass(args.activation)) activate_output<T>(p_, args);
    }

  private:
    // Some tiles of one image: [first, first + size) of each axis.
    struct Box {
        int64_t image, first[3];
        TileBox size;
    };

    static const WinogradLines<T>& lines() { return winograd_lines_of<T>(); }
    static constexpr int64_t kLine =
        64 / static_cast<int64_t>(sizeof(T));  // keeps positions out of step in the cache
    int64_t plain_size() const { return p_.taps() * p_.in_channels * panels_ * width_; }
    int64_t inputs_of(const TileBox& box) const {
        int64_t count = 1;
        for (int a = 0; a < 3; a++) count *= tiling_.axis[a].inputs(box.count[a]);
        return count;
    }
    int64_t position_step(const TileBox& box) const { return inputs_of(box) * blocks_ * lanes_ + kLine; }
    int64_t input_size(const TileBox& box) const { return tiling_.positions() * position_step(box); }
    int64_t product_size(const TileBox& box) const {
        return tiling_.positions() * (box.tiles() * width_ + kLine);
    }
    int64_t strip_size() const { return tiling_.axis[1].size * strip_row_; }
    // The last panel is one vector wide where that is enough.
    int panel_vectors(int64_t panel) const {
        return p_.out_channels - panel * width_ > lanes_ ? kPanelVectors : 1;
    }
    // Of a padded position that some output reads: where it lies in x, -1 for a zero.
    int32_t source(int a, int64_t at) const {
        const int64_t read = (p_.out_size[a] - 1) * p_.stride[a] + (p_.kernel[a] - 1) * p_.dilation[a];
        return at > read ? -1 : static_cast<int32_t>(axis_source(p_.mode, p_.in_size[a], at - p_.pad_lo[a]));
    }

    Box box_at(const TileCut& cut, int64_t index) const {
        Box box;
        for (int a = 2; a >= 0; a--) {
            const int64_t cell = a == 2 ? tiling_.axis[2].cell : 1;
            const Range part = part_of(tiling_.axis[a].tiles / cell, cut.parts[a], index % cut.parts[a]);
            index /= cut.parts[a];
            box.first[a] = part.begin * cell;
            box.size.count[a] = part.size() * cell;
        }
        box.image = index;
        return box;
    }

    void pack_channel(const T* at, int64_t k_step, int64_t tap_step, int64_t count, const WeightMatrix& down,
                      const WeightMatrix& along, T* to, int64_t width) const {
        const TileAxis* const axis = tiling_.axis;
        const int64_t group = blocks_ * length_ * width, position = tiling_.groups() * group;
        alignas(64) double taps[kLongestTile * kLongestTile * 16];
        for (int64_t d = 0; d < axis[0].groups; d++) {
            for (int64_t h = 0; h < axis[1].groups; h++) {
                for (int64_t w = 0; w < axis[2].groups; w++, to += group) {
                    double* tap = taps;
                    for (int64_t i = h * axis[1].taps; i < (h + 1) * axis[1].taps; i++) {
                        for (int64_t j = w * axis[2].taps; j < (w + 1) * axis[2].taps; j++, tap += lanes_) {
                            const bool real = i < p_.kernel[1] && j < p_.kernel[2];
                            const T* const value =
                                at + ((d * p_.kernel[1] + i) * p_.kernel[2] + j) * tap_step;
                            for (int64_t k = 0; k < lanes_; k++)
                                tap[k] = real && k < count ? static_cast<double>(value[k * k_step]) : 0;
                        }
                    }
                    lines().weight(down.at, axis[1].size, axis[1].taps, along.at, axis[2].size, axis[2].taps,
                                   taps, to, position);
                }
            }
        }
    }

    // The transformed inputs of a box for one block of channels: [position][block][tile][lane].
    void transform(const ConvArgs& args, const Box& box, int64_t block, T* inputs) const {
        const TileAxis &depth = tiling_.axis[0], &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t planes = depth.inputs(box.size.count[0]), rows = down.inputs(box.size.count[1]),
                      row = along.inputs(box.size.count[2]), position = position_step(box.size);
        ScratchFrame frame;
        T* const strip = frame.take<T>(strip_size());
        const T* const image = static_cast<const T*>(args.x) + box.image * p_.in_channels * p_.in_pixels();
        const int64_t pixel = p_.channels_last ? p_.in_channels : 1,
                      channel = p_.channels_last ? 1 : p_.in_pixels();
        T* to = inputs + block * inputs_of(box.size) * lanes_;
        for (int64_t z = 0; z < planes; z++) {
            if (!depth.needed(z, box.size.count[0])) {
                to += rows * row * lanes_;
                continue;
            }
            const int64_t plane = source(0, box.first[0] * depth.stride + z);
            WinogradPlane<T> from{image + std::max<int64_t>(plane, 0) * p_.in_size[1] * p_.in_size[2] * pixel,
                                  p_.channels_last,
                                  p_.in_channels,
                                  channel,
                                  p_.in_size[2],
                                  p_.in_size[2] * pixel,
                                  nullptr,
                                  nullptr,
                                  0};
            for (int64_t y = 0; y < rows; y++, to += row * lanes_) {
                if (!down.needed(y, box.size.count[1])) continue;
                from.rows = rows_.data() + (box.first[1] * down.stride + y) * down.size;
                const int32_t none[kLongestTile] = {-1, -1, -1, -1, -1, -1, -1, -1};
                if (plane < 0) from.rows = none;
                for (int64_t cell = 0; cell < row / along.cell; cell += strip_cells_) {
                    const WinogradCells cells{std::min(strip_cells_, row / along.cell - cell), along.cell};
                    from.cols =
                        cols_.data() + along.position(box.first[2] * along.stride + cell * along.cell);
                    from.columns = along.columns(cells.count);
                    lines().gather(from, block * lanes_, down.size, strip, strip_row_);
                    lines().input_down[down.size](strip, strip_row_, from.columns);
                    for (int64_t i = 0; i < down.size; i++)
                        lines().input_along[along.size](
                            strip + i * strip_row_, cells, along.outputs,
                            to + i * along.size * position + cell * along.cell * lanes_, position, lanes_);
                }
            }
        }
    }

    // Products of one panel of weights with the tiles of a box, and the outputs they make.
    void multiply(const ConvArgs& args, const Box& box, int64_t panel, const T* inputs, T* products) const {
        const TileAxis* const axis = tiling_.axis;
        const Micro<T>& kernel = micro<T>();
        const int vectors = panel_vectors(panel);
        const int64_t width = vectors * lanes_, tiles = box.size.tiles(), position = position_step(box.size),
                      step = tiles * width + kLine;
        int64_t in[3], pitch[3];
        for (int a = 0; a < 3; a++) in[a] = axis[a].inputs(box.size.count[a]);
        pitch[2] = axis[2].stride;
        pitch[1] = axis[1].stride * in[2];
        pitch[0] = axis[0].stride * in[1] * in[2];
        // Tiles whose inputs follow one another are one run.
        int64_t run = box.size.count[2];
        if (pitch[1] == run * pitch[2]) {
            run *= box.size.count[1];
            if (pitch[0] == run * pitch[2]) run *= box.size.count[0];
        }
        ScratchFrame frame;
        const int64_t segments = tiling_.groups() * blocks_,
                      chain = std::min(std::max<int64_t>(1, kChain / length_), segments);
        int64_t* const offsets = frame.take<int64_t>(segments);
        int64_t s = 0;
        for (int64_t d = 0; d < axis[0].groups; d++)
            for (int64_t h = 0; h < axis[1].groups; h++)
                for (int64_t w = 0; w < axis[2].groups; w++)
                    for (int64_t b = 0; b < blocks_; b++)
                        offsets[s++] =
                            ((b * in[0] * in[1] + d * axis[0].shift * in[1] + h * axis[1].shift) * in[2] +
                             w * axis[2].shift) *
                            lanes_;
        const int64_t weights = segments * length_ * width;  // of one position
        // The next position's weights come into L2 meanwhile, unless all of them stay there.
        const bool streams = static_cast<size_t>(panels_ * panel_size_) * sizeof(T) > l2_bytes() / 2;
        const int64_t calls = tiles / run * ceil_div(run, kernel.channel_rows);
        ChannelTile<T> call;
        call.x_row = pitch[2] * lanes_;
        call.length = length_;
        call.out_row = call.channels = width;
        for (int64_t p = 0; p < tiling_.positions(); p++) {
            const T* const w = static_cast<const T*>(args.packed) + panel * panel_size_ + p * weights;
            int64_t number = 0;
            for (int64_t first = 0; first < tiles; first += run) {
                const int64_t y = first / box.size.count[2] % box.size.count[1],
                              z = first / box.size.count[2] / box.size.count[1];
                const T* const x = inputs + p * position + (z * pitch[0] + y * pitch[1]) * lanes_;
                const int64_t parts = ceil_div(run, kernel.channel_rows);
                for (int64_t t = 0; t < parts; t++, number++) {
                    const Range rows = part_of(run, parts, t);
                    call.x = x + rows.begin * call.x_row;
                    call.out = products + p * step + (first + rows.begin) * width;
                    for (int64_t b = 0; b < segments; b += chain) {
                        call.offsets = offsets + b;
                        call.segments = std::min(chain, segments - b);
                        call.w = w + b * length_ * width;
                        call.accumulate = b > 0;
                        if (streams) {
                            const Range next =
                                part_of(call.segments * length_ * width / kLine, calls, number);
                            call.ahead = call.w + weights + next.begin * kLine;
                            call.ahead_lines = ceil_div(next.size(), call.segments);
                        }
                        kernel.channels[rows.size()][vectors](call);
                    }
                }
            }
        }
        finish(args, box, panel * width_, vectors, products, step);
    }

    // From products to outputs, strip by strip.
    void finish(const ConvArgs& args, const Box& box, int64_t channel, int vectors, const T* products,
                int64_t step) const {
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t width = vectors * lanes_;
        const Placement place = p_.channels_last
                                    ? args.placement(p_)
                                    : Placement{p_.out_channels * p_.out_pixels(),
                                                p_.out_size[1] * p_.out_size[2], p_.out_size[2], 1};
        ScratchFrame frame;
        T* const strip = frame.take<T>(strip_size());
        WinogradStore<T> to{nullptr,
                            nullptr,
                            static_cast<const T*>(args.bias),
                            clamp_of(args.activation),
                            p_.channels_last,
                            p_.out_channels,
                            p_.channels_last ? 1 : p_.out_pixels(),
                            place.row,
                            down.cell,
                            0,
                            0,
                            place.pixel};
        for (int64_t tile = 0; tile < box.size.tiles();) {
            const int64_t x = tile % box.size.count[2], y = tile / box.size.count[2] % box.size.count[1],
                          z = tile / box.size.count[2] / box.size.count[1];
            const WinogradCells cells{std::min(strip_cells_, (box.size.count[2] - x) / along.cell),
                                      along.cell};
            const int64_t row = down.position(box.first[1] + y), column = along.position(box.first[2] + x);
            to.rows = std::clamp<int64_t>(ceil_div(p_.out_size[1] - row, down.cell), 0, down.outputs);
            to.columns =
                std::clamp<int64_t>(p_.out_size[2] - column, 0, cells.count * along.cell * along.outputs);
            const int64_t start = box.image * place.image + (box.first[0] + z) * place.plane +
                                  row * place.row + column * place.pixel;
            to.y = static_cast<T*>(args.out) + start;
            to.add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + start;
            for (int v = 0; v < vectors && to.rows > 0; v++) {
                const T* const from = products + tile * width + v * lanes_;
                for (int64_t i = 0; i < down.size; i++)
                    lines().output_along[along.size][along.outputs](from + i * along.size * step, step, width,
                                                                    cells, strip + i * strip_row_);
                const int64_t columns = cells.count * along.cell * along.outputs;
                lines().output_down[down.size][down.outputs](strip, strip_row_, columns);
                bool finite = true;
                for (int64_t i = 0; i < to.rows; i++)
                    finite = lines().finite(strip + i * strip_row_, to.columns, 1) && finite;
                if (!finite)
                    mend(args, box.image, box.first[0] + z, row, column, to, cells, channel + v * lanes_,
                         strip);
                lines().store(to, channel + v * lanes_, strip, strip_row_);
            }
            tile += cells.count * along.cell;
        }
    }

    // Tiles of a strip with values that are not finite, summed again as the direct algorithm does.
    void mend(const ConvArgs& args, int64_t image, int64_t z, int64_t row, int64_t column,
              const WinogradStore<T>& to, const WinogradCells& cells, int64_t channel, T* strip) const {
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        for (int64_t tile = 0; tile < cells.count * along.cell; tile++) {
            const int64_t first = along.position(tile);
            const int64_t columns =
                std::clamp<int64_t>(ceil_div(to.columns - first, along.cell), 0, along.outputs);
            bool finite = true;
            for (int64_t i = 0; i < to.rows; i++)
                finite =
                    lines().finite(strip + i * strip_row_ + first * lanes_, columns, along.cell) && finite;
            if (finite) continue;
            for (int64_t i = 0; i < to.rows; i++)
                for (int64_t j = 0; j < columns; j++)
                    sum_directly(args, image, z, row + i * down.cell, column + first + j * along.cell,
                                 channel, strip + i * strip_row_ + (first + j * along.cell) * lanes_);
        }
    }

    void sum_directly(const ConvArgs& args, int64_t image, int64_t z, int64_t y, int64_t x, int64_t channel,
                      T* sum) const {
        const T* const from = static_cast<const T*>(args.x) + image * p_.in_channels * p_.in_pixels();
        const T* const plain = static_cast<const T*>(args.packed) + panels_ * panel_size_ + channel;
        const int64_t pixel = p_.channels_last ? p_.in_channels : 1,
                      step = p_.channels_last ? 1 : p_.in_pixels();
        const int64_t at[3] = {z, y, x};
        std::fill_n(sum, lanes_, T(0));
        for (int64_t tap = 0; tap < p_.taps(); tap++) {
            const int64_t of[3] = {tap / p_.kernel[2] / p_.kernel[1], tap / p_.kernel[2] % p_.kernel[1],
                                   tap % p_.kernel[2]};
            int64_t source_of[3];
            bool inside = true;
            for (int a = 0; a < 3; a++) {
                source_of[a] = source(a, at[a] * p_.stride[a] + of[a] * p_.dilation[a]);
                inside = inside && source_of[a] >= 0;
            }
            if (!inside) continue;
            const int64_t place =
                (source_of[0] * p_.in_size[1] + source_of[1]) * p_.in_size[2] + source_of[2];
            lines().dot(from + place * pixel, step, p_.in_channels,
                        plain + tap * p_.in_channels * panels_ * width_, panels_ * width_, sum);
        }
    }

    ConvProblem p_;
    Tiling tiling_;
    int64_t lanes_, width_, blocks_, length_, panels_, panel_size_, strip_cells_, strip_row_;
    std::vector<int32_t> rows_, cols_;
};

constexpr int kShort = 6, kLong = 8;

TileMachine machine_for(DType dtype) {
    return dtype == DType::f32 ? machine_of<float>() : machine_of<double>();
}

std::string why_not(const ConvProblem& p, DType dtype, int longest) {
    if (p.groups != 1) return "Winograd needs groups=1";
    if (p.in_channels == 0) return "there are no input channels";
    Tiling tiling;
    if (!best_tiling(p, longest, machine_for(dtype), tiling))
        return "Winograd needs an axis of height or width with stride 1 and two taps or more";
    const TileAxis& along = tiling.axis[2];
    if (along.columns(1) * tiling.axis[1].size > 4096) return "the dilation is too wide for a strip of tiles";
    return "";
}

double predict(const ConvProblem& p, DType dtype, int longest) {
    Tiling tiling;
    best_tiling(p, longest, machine_for(dtype), tiling);
    const double seconds = tiling_cycles(p, tiling, machine_for(dtype)) / 3e9;  // as peak_flops counts
    // Lanes that no channel fills: 3 > 32 channels with 7x7 took 1.27 times what the count of vectors says.
    const double own = (p.in_channels < 8 ? 1.25 : 1) * seconds;
    // winograd_4x3 and its sisters read channels last in place, which is some percent faster.
    if (!why_not_winograd_4x3(p, dtype).empty()) return own;
    const bool same = tiling.axis[1].outputs == 4 && tiling.axis[2].outputs == 4;
    return std::max(1.1 * own, same ? 1.02 * predict_winograd_4x3(p, dtype) : 0);
}

std::unique_ptr<ConvKernel> make(const ConvProblem& p, DType dtype, int longest) {
    Tiling tiling;
    best_tiling(p, longest, machine_for(dtype), tiling);
    if (dtype == DType::f32) return std::make_unique<WinogradTiles<float>>(p, tiling);
    return std::make_unique<WinogradTiles<double>>(p, tiling);
}

}  // namespace

std::string why_not_winograd_tile6(const ConvProblem& p, DType dtype) { return why_not(p, dtype, kShort); }
std::string why_not_winograd_tile8(const ConvProblem& p, DType dtype) { return why_not(p, dtype, kLong); }
double predict_winograd_tile6(const ConvProblem& p, DType dtype) { return predict(p, dtype, kShort); }
double predict_winograd_tile8(const ConvProblem& p, DType dtype) { return predict(p, dtype, kLong); }
std::unique_ptr<ConvKernel> make_winograd_tile6(const ConvProblem& p, DType dtype) {
    return make(p, dtype, kShort);
}
std::unique_ptr<ConvKernel> make_winograd_tile8(const ConvProblem& p, DType dtype) {
    return make(p, dtype, kLong);
}

}  // namespace fastconv
