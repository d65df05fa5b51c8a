// Padding, and windows as columns.
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/pad.hpp"
#include "algorithms/unfold.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/user_arrays.hpp"
#include "bindings/windows.hpp"

namespace fastconv {

namespace {

using Pairs = std::vector<std::array<int64_t, 2>>;

using Sizes = std::vector<py::ssize_t>;

Sizes shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

// A padding from the shapes of its unpadded and its padded array.
PadShape pad_shape(const Sizes& plain, const Sizes& padded, const Pairs& pads, const std::string& mode) {
    PadShape s{pad_mode(mode), {1, 1, 1, 1, 1}, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}};
    const size_t axes = pads.size();
    bool good = axes <= kPadAxes && plain.size() == axes && padded.size() == axes;
    for (size_t i = 0; good && i < axes; i++) {
        const size_t a = kPadAxes - axes + i;
        s.in[a] = plain[i];
        s.before[a] = pads[i][0];
        s.after[a] = pads[i][1];
        good = s.in[a] >= 0 && s.before[a] >= 0 && s.after[a] >= 0 && s.before[a] <= padded[i] &&
               s.after[a] <= padded[i] && s.before[a] + s.in[a] + s.after[a] == padded[i] &&
               (s.in[a] > 0 || s.mode == PadMode::constant || s.before[a] + s.after[a] == 0);
    }
    if (!good) throw py::value_error("pad: arrays must be of at most five axes and fit the widths");
    return s;
}

PadShape pad_shape(const py::array& plain, const py::array& padded, const Pairs& pads,
                   const std::string& mode) {
    if ((plain.flags() & padded.flags() & py::array::c_style) == 0)
        throw py::value_error("pad: arrays must be C-contiguous");
    return pad_shape(shape_of(plain), shape_of(padded), pads, mode);
}

bool is_float(const py::array& a) {
    return a.dtype().kind() == 'f' && (a.itemsize() == 4 || a.itemsize() == 8);
}

int element_bytes(const py::array& a, const py::array& b) {
    const auto bytes = static_cast<int>(a.itemsize());
    if (b.itemsize() != bytes || (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8))
        throw py::type_error("elements must have 1, 2, 4 or 8 bytes");
    return bytes;
}

void pad_array(const py::array& x, const Pairs& pads, const std::string& mode, const py::array& value,
               py::array& out) {
    const PadShape shape = pad_shape(x, out, pads, mode);
    const int bytes = element_bytes(x, out);
    if (value.size() != 1 || value.itemsize() != bytes)
        throw py::type_error("pad: value must be one element of x's dtype");
    const void *from = x.data(), *fill = value.data();
    void* to = out.mutable_data();
    const py::gil_scoped_release nogil;
    pad(shape, bytes, from, fill, to);
}

int64_t product(const Sizes& sizes) {
    int64_t n = 1;
    for (const py::ssize_t size : sizes) n *= size;
    return n;
}

// A whole eager padding in one step, result included: arrays of x's dtype and shape in, of `out_shape` out. The kernels see
// them with the axes of `merged` before and `padded` after.
class PadCall {
  public:
    PadCall(const py::object& dtype, const Sizes& shape, Sizes out_shape, const Sizes& merged,
            const Sizes& padded, const Pairs& pads, const std::string& mode, const py::array& value)
        : x_({dtype, dtype}, shape),
          type_(py::dtype::from_args(dtype)),
          out_shape_(std::move(out_shape)),
          shape_(pad_shape(merged, padded, pads, mode)) {
        if (product(shape) != product(merged) || product(out_shape_) != product(padded))
            throw py::value_error("pad: merged axes must hold what the array holds");
        if (value.size() != 1 || value.itemsize() != type_.itemsize() || type_.itemsize() > 8)
            throw py::type_error("pad: value must be one element of x's dtype");
        std::memcpy(fill_, value.data(), static_cast<size_t>(value.itemsize()));
    }

    // None where x is not what was bound.
    py::object operator()(const py::handle& x) const {
        if (!x_.takes(x)) return py::none();
        const void* const from = py::reinterpret_borrow<py::array>(x).data();
        py::array result = empty_array(type_, out_shape_);
        void* const to = result.mutable_data();
        const auto bytes = static_cast<int>(type_.itemsize());
        if (result.nbytes() < 16384) {  // giving the interpreter's lock back would cost more than it frees
            fastconv::pad(shape_, bytes, from, fill_, to);
        } else {
            const py::gil_scoped_release nogil;
            fastconv::pad(shape_, bytes, from, fill_, to);
        }
        return std::move(result);
    }

  private:
    Operand x_;
    py::dtype type_;
    Sizes out_shape_;
    PadShape shape_;
    alignas(8) char fill_[8] = {};
};

void pad_array_backward(const py::array& dy, const Pairs& pads, const std::string& mode, py::array& dx) {
    const PadShape shape = pad_shape(dx, dy, pads, mode);
    check_same_type(dy, dx);
    if (!is_float(dy)) throw py::type_error("pad_backward: float32 or float64 is needed");
    const bool single = dy.itemsize() == 4;
    const void* from = dy.data();
    void* to = dx.mutable_data();
    const py::gil_scoped_release nogil;
    if (single) {
        pad_backward(shape, static_cast<const float*>(from), static_cast<float*>(to));
    } else {
        pad_backward(shape, static_cast<const double*>(from), static_cast<double*>(to));
    }
}

// Windows made ready: the geometry as the kernels want it.
class Unfold {
  public:
    explicit Unfold(const PoolShape& shape) : shape_(shape) {}

    void columns(const py::array& x, py::array& out) const {
        const int64_t batch = check_data(x, shape_, shape_.in, "x");
        check_columns(out, batch);
        const int bytes = element_bytes(x, out);
        const void* from = x.data();
        void* to = out.mutable_data();
        const py::gil_scoped_release nogil;
        im2col(shape_, bytes, batch, from, to);
    }

    void image(const py::array& columns, py::array& out) const {
        const int64_t batch = check_data(out, shape_, shape_.in, "out");
        check_columns(columns, batch);
        check_same_type(columns, out);
        if (!is_float(out)) throw py::type_error("col2im: float32 or float64 is needed");
        const bool single = out.itemsize() == 4;
        const void* from = columns.data();
        void* to = out.mutable_data();
        const py::gil_scoped_release nogil;
        if (single) {
            col2im(shape_, batch, static_cast<const float*>(from), static_cast<float*>(to));
        } else {
            col2im(shape_, batch, static_cast<const double*>(from), static_cast<double*>(to));
        }
    }

  private:
    void check_columns(const py::array& a, int64_t batch) const {
        bool same = a.ndim() == 8 && (a.flags() & py::array::c_style) != 0 && a.shape(0) == batch &&
                    a.shape(1) == shape_.channels;
        for (int i = 0; same && i < 3; i++)
            same = a.shape(2 + i) == shape_.kernel[i] && a.shape(5 + i) == shape_.out[i];
        if (!same) throw py::value_error("columns must be C-contiguous (N, C, kd, kh, kw, D', H', W')");
    }

    PoolShape shape_;
};

}  // namespace

void register_pad(py::module_& m) {
    using Three = std::array<int64_t, 3>;
    m.def("pad", &pad_array, py::arg("x"), py::arg("pads"), py::arg("mode"), py::arg("value"),
          py::arg("out"));
    m.def("pad_backward", &pad_array_backward, py::arg("grad_output"), py::arg("pads"), py::arg("mode"),
          py::arg("dx"));
    py::class_<PadCall>(m, "PadCall", "An eager padding; it returns None for arrays to be prepared first.")
        .def(py::init<const py::object&, const Sizes&, Sizes, const Sizes&, const Sizes&, const Pairs&,
                      const std::string&, const py::array&>(),
             py::arg("dtype"), py::arg("shape"), py::arg("out_shape"), py::arg("merged"), py::arg("padded"),
             py::arg("pads"), py::arg("mode"), py::arg("value"))
        .def("__call__", &PadCall::operator(), py::arg("x"));
    py::class_<Unfold>(m, "Unfold", "One geometry of windows as columns, for arrays (N, C, D, H, W).")
        .def(py::init([](int64_t channels, const Three& in_size, const Three& kernel, const Three& stride,
                         const Three& dilation, const Three& before, const Three& out_size) {
                 return Unfold(
                     window_shape(false, channels, in_size, kernel, stride, dilation, before, out_size));
             }),
             py::arg("channels"), py::arg("in_size"), py::arg("kernel"), py::arg("stride"),
             py::arg("dilation"), py::arg("before"), py::arg("out_size"))
        .def("im2col", &Unfold::columns, py::arg("x"), py::arg("out"))
        .def("col2im", &Unfold::image, py::arg("columns"), py::arg("out"));
}

}  // namespace fastconv
