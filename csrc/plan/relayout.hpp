// A problem whose vectors would be nearly empty, computed along another axis or in the other layout.
//
// Rows of 2 pixels beside columns of 100, one output channel of an image whose channels come last, three channels a group on
// planes of 3 x 13: lanes run along what is short there. Copying x and the outputs costs a nanosecond for three numbers and
// less, a vector with one lane in use ten times the sums. So the longest axis is put last, in the layout that is predicted to
// be quicker, where the prediction is a tenth better with the copies in it.
//
// An axis of one pixel that has several outputs (a transposed convolution of a column) meets one tap for each: its outputs
// become output channels, and zeros are no longer multiplied with the other taps. Such axes stand beside the channels in
// memory: before the others channels first, behind them channels last (there only without groups). Where outputs lie apart,
// between them stands the bias.
//
// Seen, one thread: transposed 3x3, 160 > 128 channels in 32 groups on 132 x 1, 760 us and 90 so; 4x4 depthwise, 24 channels of
// 89 x 6, 134 and 40.
#pragma once

#include <memory>
#include <vector>

#include "plan/conv.hpp"

namespace fastconv {

// Axes in the order of the problem as given.
struct Relayout {
    ConvProblem problem;        // what is computed
    int order[3];               // the axis that stands at each place there
    int64_t ways[3];            // outputs that became channels
    int64_t first[3], step[3];  // where they stand along their axis
    bool gaps;                  // outputs that no tap reaches lie between them
    bool copies_x, copies_out;
    double seconds;  // that the copies of an image take
};

// The ways to compute the problem otherwise that may be worth it. Its taps are trimmed (reduce.hpp).
std::vector<Relayout> relayouts(const ConvProblem& problem, DType dtype);

// A kernel for `problem` by one that was made for relayout.problem.
std::unique_ptr<ConvKernel> make_relaid(const ConvProblem& problem, const Relayout& relayout, DType dtype,
                                        std::unique_ptr<ConvKernel> inner);

}  // namespace fastconv
