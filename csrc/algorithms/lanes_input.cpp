#include "algorithms/lanes_input.hpp"

#include <algorithm>
#include <cstring>

#include "algorithms/gradient_loops_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

namespace {

template <class T>
constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));

}  // namespace

template <class T>
LanesInput<T>::LanesInput(const ConvProblem& problem, bool padded, int64_t blocks)
    : p_(problem), view_(problem), way_(Way::padded), blocks_(blocks) {
    if (padded) return;
    const bool pads = p_.reads_padding() || p_.pad_lo[0] < 0 || p_.pad_lo[1] < 0 || p_.pad_lo[2] < 0;
    if (p_.channels_last && !p_.reads_padding()) way_ = Way::in_place;
    if (p_.taps() != 1 || pads || p_.placed) return;
    if (!p_.channels_last || p_.in_pixels() != p_.out_pixels()) way_ = Way::gathered;
    const int64_t pixels = p_.out_pixels();
    for (int axis = 0; axis < 3; axis++) {
        view_.in_size[axis] = view_.out_size[axis] = axis == 2 ? pixels : 1;
        view_.stride[axis] = view_.dilation[axis] = 1;
        view_.pad_lo[axis] = view_.pad_hi[axis] = 0;
    }
}

// Of channels first, from tile to tile and from channel to channel: an odd number of lines, so that they do not
// fall onto the same cache sets.
template <class T>
int64_t LanesInput<T>::gathered_tile(int64_t columns) const {
    return (ceil_div(RowTiles<T>(columns).size * p_.in_channels, kLine<T>) | 1) * kLine<T>;
}

// Of channels first, behind the tiles: the places of the pixels that a stride keeps.
template <class T>
int64_t LanesInput<T>::sources_size(int64_t columns) const {
    return p_.in_pixels() == p_.out_pixels() ? 0
                                             : columns * static_cast<int64_t>(sizeof(int64_t) / sizeof(T));
}

template <class T>
int64_t LanesInput<T>::size(int64_t rows, int64_t columns) const {
    if (way_ == Way::in_place) return 0;
    if (way_ == Way::gathered) {
        if (p_.channels_last) return columns * gathered_pixel<T>(p_.in_channels);
        // Bands of one column less may have more tiles' lines: 42 columns are three tiles of 14, 43 four of 11.
        const auto tiles = [&](int64_t n) { return RowTiles<T>(n).count * gathered_tile(n); };
        return std::max(tiles(columns), columns > 1 ? tiles(columns - 1) : 0) + sources_size(columns);
    }
    return view_.kernel[0] * band_rows(rows) * band_columns(columns) * p_.in_channels;
}

template <class T>
int64_t LanesInput<T>::footprint(int64_t rows, int64_t columns) const {
    if (way_ != Way::in_place) return size(rows, columns);
    return view_.kernel[0] * band_rows(rows) * band_columns(columns) * p_.in_channels;
}

template <class T>
BandInput<T> LanesInput<T>::stage(const T* x, int64_t index, int64_t x_plane, int64_t depth, Range rows,
                                  Range columns, T* scratch) const {
    BandInput<T> in;
    in.base = scratch;
    const int64_t channels = p_.in_channels;
    const int64_t plane = x_plane != 0 ? x_plane : p_.in_pixels();
    const T* const image = x + index * channels * plane;
    if (way_ == Way::gathered) {
        in.row = in.depth = 0;
        in.channel = in.pixel = 1;
        if (p_.channels_last) {
            in.pixel = gathered_pixel<T>(channels);
        } else {
            in.channel = RowTiles<T>(columns.size()).size;
            in.tile = gathered_tile(columns.size());
        }
        in.group = p_.group_in() * in.channel;
        gather(image, plane, columns, in, scratch);
        return in;
    }
    if (way_ == Way::in_place) {
        in.channel = 1;
        in.group = p_.group_in();
        in.pixel = channels;
        in.row = view_.in_size[2] * channels;
        in.depth = view_.dilation[0] * view_.in_size[1] * in.row;
        const int64_t z = depth * view_.stride[0] - view_.pad_lo[0],
                      y = rows.begin * view_.stride[1] - view_.pad_lo[1];
        in.base = image + (z * view_.in_size[1] + y) * in.row +
                  (columns.begin * view_.stride[2] - view_.pad_lo[2]) * channels;
        return in;
    }
    const int64_t width = band_columns(columns.size()), height = band_rows(rows.size());
    in.channel = 1;
    in.pixel = p_.group_in() / blocks_;
    in.row = width * in.pixel;
    in.depth = height * in.row;
    in.group = p_.kernel[0] * in.depth;
    copy_rows(image, plane, depth, rows, columns, in, scratch);
    return in;
}

template <class T>
void LanesInput<T>::gather(const T* image, int64_t plane, Range pixels, const BandInput<T>& in, T* to) const {
    const int64_t channels = p_.in_channels, width = p_.out_size[2], height = p_.out_size[1];
    // The input pixel of an output pixel.
    const auto source = [&](int64_t at) {
        return (at / width / height * p_.stride[0] * p_.in_size[1] + at / width % height * p_.stride[1]) *
                   p_.in_size[2] +
               at % width * p_.stride[2];
    };
    if (p_.channels_last) {
        for (int64_t at = pixels.begin; at < pixels.end; at++, to += in.pixel)
            std::memcpy(to, image + source(at) * channels, static_cast<size_t>(channels) * sizeof(T));
        return;
    }
    if (p_.in_pixels() == p_.out_pixels()) {
        rows_of<T>().tiles(image + pixels.begin, plane, channels, nullptr, pixels.size(), to, in.channel,
                           in.tile);
        return;
    }
    auto* const at = reinterpret_cast<int64_t*>(to + RowTiles<T>(pixels.size()).count * in.tile);
    for (int64_t i = 0; i < pixels.size(); i++) at[i] = source(pixels.begin + i);
    rows_of<T>().tiles(image, plane, channels, at, pixels.size(), to, in.channel, in.tile);
}

// Rows of the band with their borders, one plane for every tap of the first axis.
template <class T>
void LanesInput<T>::copy_rows(const T* image, int64_t plane_size, int64_t depth, Range rows, Range columns,
                              const BandInput<T>& in, T* to) const {
    const int64_t width = band_columns(columns.size()), height = band_rows(rows.size());
    const int64_t first = columns.begin * p_.stride[2] - p_.pad_lo[2], channels = p_.in_channels;
    // Columns that lie in the input are one copy; those of the padding are looked up one by one.
    const int64_t inner = std::clamp<int64_t>(-first, 0, width);
    const int64_t outer = std::clamp<int64_t>(p_.in_size[2] - first, inner, width);
    const int64_t groups = p_.groups * blocks_, each = in.pixel;
    const auto pixels = [&](T* row, const T* line, int64_t w, int64_t n, int64_t source) {
        if (n <= 0 || channels == 0) return;
        const size_t bytes = static_cast<size_t>(n * each) * sizeof(T);
        for (int64_t g = 0; g < groups; g++) {
            T* const at = row + g * in.group + w * each;
            const T* const first_channel = line + g * each * (p_.channels_last ? 1 : plane_size);
            if (source < 0)
                std::memset(at, 0, bytes);
            else if (p_.channels_last && groups == 1)
                std::memcpy(at, line + source * channels, bytes);
            else if (p_.channels_last)
                gradient_loops<T>().copy(first_channel + source * channels, channels, n, each, at, each,
                                         each);
            else if (n == 1)
                for (int64_t c = 0; c < each; c++) at[c] = first_channel[c * plane_size + source];
            else
                gradient_loops<T>().transpose(first_channel + source, plane_size, each, n, at, each);
        }
    };
    for (int64_t d = 0; d < p_.kernel[0]; d++) {
        const int64_t z =
            axis_source(p_.mode, p_.in_size[0], depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
        for (int64_t r = 0; r < height; r++) {
            T* const row = to + d * in.depth + r * in.row;
            const int64_t y =
                axis_source(p_.mode, p_.in_size[1], rows.begin * p_.stride[1] + r - p_.pad_lo[1]);
            if (z < 0 || y < 0) {
                pixels(row, image, 0, width, -1);
                continue;
            }
            const T* const line =
                image + (z * p_.in_size[1] + y) * p_.in_size[2] * (p_.channels_last ? channels : 1);
            const auto border = [&](int64_t begin, int64_t end) {
                for (int64_t w = begin; w < end; w++)
                    pixels(row, line, w, 1, axis_source(p_.mode, p_.in_size[2], first + w));
            };
            border(0, inner);
            pixels(row, line, inner, outer - inner, first + inner);
            border(outer, width);
        }
    }
}

template class LanesInput<float>;
template class LanesInput<double>;

}  // namespace fastconv
