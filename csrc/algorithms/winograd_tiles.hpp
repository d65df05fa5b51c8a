// The kernel behind the Winograd family.
#pragma once

#include <memory>

#include "algorithms/winograd_tiling.hpp"
#include "plan/conv.hpp"

namespace fastconv {

// The convolution by the given tiling.
std::unique_ptr<ConvKernel> make_winograd_tiles(const ConvProblem& problem, DType dtype,
                                                const Tiling& tiling);

// The same in groups; every tile of outputs must read one tile of inputs.
std::unique_ptr<ConvKernel> make_winograd_groups(const ConvProblem& problem, DType dtype,
                                                 const Tiling& tiling);

TileMachine winograd_machine(DType dtype);

}  // namespace fastconv
