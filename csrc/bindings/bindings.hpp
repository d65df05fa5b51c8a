// One function per topic; each adds its names to the module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

namespace fastconv {

namespace py = pybind11;

void register_chain(py::module_& m);
void register_conv(py::module_& m);
void register_grad(py::module_& m);
void register_runtime(py::module_& m);
void register_training(py::module_& m);
void register_pool(py::module_& m);
void register_pad(py::module_& m);

// A new C-contiguous array; large ones take their memory from the cache of freed blocks.
py::array empty_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape);

}  // namespace fastconv
