// How drivers apply an activation: kernels clamp the sums they hold in registers; whatever is more than a clamp is a pass over
// what they wrote. Not for the sources of one instruction set.
#pragma once

#include <algorithm>

#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/conv.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

inline Clamp clamp_of(Activation activation) {
    return activation == Activation::relu    ? Clamp::relu
           : activation == Activation::relu6 ? Clamp::relu6
                                             : Clamp::none;
}

inline bool needs_pass(Activation activation) {
    return activation != Activation::none && clamp_of(activation) == Clamp::none;
}

// The pass, over all that a call has written.
template <class T>
void activate_output(const ConvProblem& p, const ConvArgs& args) {
    T* const out = static_cast<T*>(args.out);
    if (args.out_plane != 0) {
        rows_of<T>().activate(args.activation, out, p.out_channels, args.out_plane, p.out_pixels());
        return;
    }
    const int64_t total = args.batch * p.out_channels * p.out_pixels(), piece = 16384;
    parallel_for(ceil_div(total, piece), [&](int64_t i) {
        const int64_t begin = i * piece;
        rows_of<T>().activate(args.activation, out + begin, 1, 0, std::min(piece, total - begin));
    });
}

}  // namespace fastconv
