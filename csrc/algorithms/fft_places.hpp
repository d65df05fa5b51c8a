// Where the rows of tiles stand in the arrays of a convolution by Fourier transforms.
#pragma once

#include <algorithm>

#include "algorithms/fft_cut.hpp"
#include "plan/conv.hpp"

namespace fastconv {

constexpr int kFftMostLanes = 16;

// What one lane works on: an item, which is a tile but in lines.
struct FftLane {
    bool there;
    int64_t image, group, item;
    int64_t deep, down, along;  // tile
};

// A tile, or pair of rows, in each lane, and where its spectra, one pair of rows and rows in lanes are kept.
template <class T>
struct FftUnit {
    FftLane lane[kFftMostLanes];
    Range outputs;  // of each group
    T *spectra, *z, *lines;
};

// A row of a tile, of inputs or of outputs; row < 0 where there is none.
struct FftPlace {
    int64_t plane, row, tile;
};

// Some outputs that follow each other in a row: the first one's place, and how many.
struct FftRun {
    int64_t at, count;
};

class FftPlaces {
  public:
    FftPlaces(const ConvProblem& problem, const FftCut& cut) : p_(problem), cut_(cut) {}

    FftLane lane(bool there, int64_t image, int64_t group, int64_t item) const {
        const int64_t across = item / cut_.along.count;
        return {there,
                image,
                group,
                item,
                across / cut_.down.count,
                across % cut_.down.count,
                item % cut_.along.count};
    }

    // Row r of plane z of an item's outputs, and of its inputs.
    FftPlace output(const FftLane& l, int64_t z, int64_t r) const {
        if (cut_.lines) {
            const int64_t at = 2 * l.item + r, line = at / cut_.along.count;
            if (line >= p_.out_size[0] * p_.out_size[1]) return {0, -1, 0};
            return {line / p_.out_size[1], line % p_.out_size[1], at % cut_.along.count};
        }
        const bool there = r < outputs_at(cut_.down, l.down, p_.out_size[1]) &&
                           z < outputs_at(cut_.deep, l.deep, p_.out_size[0]);
        return {l.deep * cut_.deep.outputs + z, there ? l.down * cut_.down.outputs + r : -1, l.along};
    }
    FftPlace input(const FftLane& l, int64_t z, int64_t r) const {
        const auto source = [&](int a, int64_t at) { return axis_source(p_.mode, p_.in_size[a], at); };
        int64_t plane, row, tile = l.along;
        if (cut_.lines) {
            const FftPlace to = output(l, z, r);
            if (to.row < 0) return to;
            plane = source(0, to.plane * p_.stride[0] - p_.pad_lo[0]);
            row = source(1, to.row * p_.stride[1] - p_.pad_lo[1]);
            tile = to.tile;
        } else {
            plane = source(0, first(cut_.deep, l.deep) + z);
            row = source(1, first(cut_.down, l.down) + r);
        }
        return {plane, plane < 0 ? -1 : row, tile};
    }
    // Where a tile begins to read along an axis.
    static int64_t first(const FftTiles& axis, int64_t tile) {
        return tile * axis.outputs * axis.stride + axis.start;
    }

    // Output channel k of the lane's group, in row r of plane z.
    FftRun run(const FftLane& l, int64_t k, int64_t z, int64_t r) const {
        const FftPlace place = l.there ? output(l, z, r) : FftPlace{0, -1, 0};
        if (place.row < 0) return {0, 0};
        const int64_t channel = l.group * p_.group_out() + k,
                      at = (place.plane * p_.out_size[1] + place.row) * p_.out_size[2] +
                           place.tile * cut_.along.outputs;
        const int64_t count = outputs_at(cut_.along, place.tile, p_.out_size[2]);
        if (p_.channels_last) return {(l.image * p_.out_pixels() + at) * p_.out_channels + channel, count};
        return {(l.image * p_.out_channels + channel) * p_.out_pixels() + at, count};
    }
    // Rows of a plane of outputs that an item has at most, with another one's where it is a pair.
    int64_t rows() const { return cut_.lines ? 2 : cut_.down.outputs; }

  private:
    static int64_t outputs_at(const FftTiles& axis, int64_t tile, int64_t all) {
        return std::clamp<int64_t>(all - tile * axis.outputs, 0, axis.outputs);
    }

    ConvProblem p_;
    FftCut cut_;
};

}  // namespace fastconv
