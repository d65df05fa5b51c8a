// Memory safety at the door: dtype, layout and size of every array, and the names that Python uses.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "plan/problem.hpp"

namespace fastconv {

// float32 or float64 in native byte order; anything else raises TypeError.
DType float_dtype(const py::object& dtype);

PadMode pad_mode(const std::string& name);
Activation activation(const std::optional<std::string>& name);

// Shapes of a convolution's arrays in the problem's layout, five axes.
std::vector<int64_t> x_shape(const ConvProblem& problem, int64_t batch);
std::vector<int64_t> out_shape(const ConvProblem& problem, int64_t batch);
std::vector<int64_t> weight_shape(const ConvProblem& problem);

// The data of an array that has exactly this dtype and shape and is C-contiguous and aligned; else raises.
const void* readable(const py::array& array, DType dtype, const std::vector<int64_t>& shape,
                     const char* name);
void* writeable(py::array& array, DType dtype, const std::vector<int64_t>& shape, const char* name);

}  // namespace fastconv
