// How a convolution is cut for Fourier transforms: tiles that overlap by the kernel's reach (overlap-save), or a whole axis at
// once; how long the transforms are; what lies in the lanes. fft.cpp runs it.
//
// A transform of n values convolves circularly. A tile reads `inputs` <= n values, and of its n results those are used whose
// windows did not wrap round; of strided outputs every one is computed and some are kept. An axis that is padded with zeros and
// taken whole need not hold its padding: the window may wrap round into the zeros, so n >= inputs + half the kernel is enough.
#pragma once

#include <cstdint>
#include <vector>

#include "algorithms/fft_kernels.hpp"
#include "plan/problem.hpp"

namespace fastconv {

struct FftTiles {
    int64_t n = 1;        // values of a transform
    int64_t count = 1;    // tiles
    int64_t outputs = 1;  // of a tile; the last may have fewer
    int64_t inputs = 1;   // values that it reads
    int64_t stride = 1;   // of outputs
    int64_t start = 0;    // tile t reads from t * outputs * stride + start on, padding counted negative
    int64_t shift = 0;    // tap j stands at (shift - j * dilation) modulo n
    Range taps{0, 1};     // those that meet an input at all
};

struct FftCut {
    // No transform down the columns: each row is a sequence of its own, and two are one complex one. Spectra of strided ones
    // are folded to n / stride values.
    bool lines;
    bool channels;  // a channel in every lane, else a tile (of lines: a pair)
    FftTiles deep, down, along;
    double cycles;  // for one image

    // The spectrum of a tile: `columns`, each of `deep.n` lines of `length` values.
    int64_t columns() const { return lines ? 1 : along.n / 2 + 1; }
    int64_t length() const { return lines ? along.n : down.n; }
    int64_t values() const { return columns() * deep.n * length(); }
    // Numbers from a line, a column or a tile's spectrum to the next, for each lane a value: an odd number of cache lines, so
    // that what is read together does not meet itself in the cache.
    int64_t pitch(int64_t lanes) const { return (2 * round_up(length(), 2) + 1) * lanes; }
    int64_t column(int64_t lanes) const { return deep.n * pitch(lanes) + (deep.n % 2 == 0 ? lanes : 0); }
    int64_t plane(int64_t lanes) const { return columns() * column(lanes); }
    int64_t fold() const { return lines ? along.stride : 1; }
    // Tiles of one image, of one channel; in lines, pairs.
    int64_t items() const {
        const int64_t tiles = deep.count * down.count * along.count;
        return lines ? ceil_div(tiles, 2) : tiles;
    }
    // Spectra that a unit keeps: inputs and sums, or one for both.
    int64_t planes(const ConvProblem& p) const;
};

// The sizes of the machine that count.
struct FftMachine {
    int64_t lanes, item;  // of a vector; bytes of a number
};

// The fastest cut; false where there is none.
bool cut_for_fft(const ConvProblem& problem, const FftMachine& machine, FftCut& best);

// An axis with its tables.
template <class T>
class FftTables {
  public:
    // `last` is a factor of n, of 2, 3, 4, 5 or 8, for the last stage: a factor of 1 asks for nothing.
    FftTables(int64_t n, int64_t last);
    FftTables(const FftTables&) = delete;
    FftTables& operator=(const FftTables&) = delete;
    const FftAxis<T>& axis() const { return axis_; }

  private:
    FftAxis<T> axis_;
    std::vector<T> twiddles_;
    std::vector<int32_t> place_;
};

}  // namespace fastconv
