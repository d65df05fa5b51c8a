// What training needs beside convolution and pooling: batch normalisation, activations and optimizer updates.
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "algorithms/batch_norm.hpp"
#include "algorithms/elementwise_loops_kernels.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kTask = 32768;  // elements of a flat array in one task

using Array = py::array;
using Optional = std::optional<py::array>;

// Calls f(T{}) with the dtype's type.
template <class F>
void with_type(DType dtype, F f) {
    if (dtype == DType::f32)
        f(float{});
    else
        f(double{});
}

template <class T>
const T* in(const void* p) {
    return static_cast<const T*>(p);
}
template <class T>
T* out(void* p) {
    return static_cast<T*>(p);
}

// The arrays of one call: the first one names the dtype that all share.
struct Checked {
    DType dtype;
    explicit Checked(const Array& first) : dtype(float_dtype(first.dtype())) {}
    const void* read(const Array& a, const std::vector<int64_t>& shape, const char* name) const {
        return readable(a, dtype, shape, name);
    }
    void* write(Array& a, const std::vector<int64_t>& shape, const char* name) const {
        return writeable(a, dtype, shape, name);
    }
    void* write(Optional& a, const std::vector<int64_t>& shape, const char* name) const {
        return a ? writeable(*a, dtype, shape, name) : nullptr;
    }
};

NormShape norm_shape(const Array& x) {
    if (x.ndim() != 3) throw py::value_error("x must have three axes: outer, channels, inner");
    return {x.shape(0), x.shape(1), x.shape(2)};
}

std::vector<int64_t> shape_of(const NormShape& s) { return {s.outer, s.channels, s.inner}; }

void run_norm(const Array& x, const Array& mean, const Array& scale, const Array& bias,
              const std::optional<std::string>& act, Array& result) {
    const Checked check(x);
    const NormShape s = norm_shape(x);
    const Activation a = activation(act);
    const void *px = check.read(x, shape_of(s), "x"), *pm = check.read(mean, {s.channels}, "mean");
    const void *ps = check.read(scale, {s.channels}, "scale"), *pb = check.read(bias, {s.channels}, "bias");
    void* py_ = check.write(result, shape_of(s), "out");
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        batch_norm(s, in<T>(px), in<T>(pm), in<T>(ps), in<T>(pb), a, out<T>(py_));
    });
}

void run_norm_train(const Array& x, const Array& weight, const Array& bias, double eps,
                    const std::optional<std::string>& act, Array& result, Array& mean, Array& var,
                    const Optional& add) {
    const Checked check(x);
    const NormShape s = norm_shape(x);
    const Activation a = activation(act);
    if (s.count() < 1) throw py::value_error("x has no elements to take a mean of");
    const void *px = check.read(x, shape_of(s), "x"), *pw = check.read(weight, {s.channels}, "weight");
    const void* pb = check.read(bias, {s.channels}, "bias");
    void *po = check.write(result, shape_of(s), "out"), *pm = check.write(mean, {s.channels}, "mean");
    void* pv = check.write(var, {s.channels}, "var");
    const void* pa = add ? check.read(*add, shape_of(s), "add") : nullptr;
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        batch_norm_train(s, in<T>(px), in<T>(pw), in<T>(pb), eps, a, out<T>(po), out<T>(pm), out<T>(pv),
                         in<T>(pa));
    });
}

void run_norm_backward(const Array& grad_output, const Array& x, const Array& weight, const Array& bias,
                       const Array& mean, const Array& var, double eps, const std::optional<std::string>& act,
                       Array& dx, Array& dweight, Array& dbias) {
    const Checked check(x);
    const NormShape s = norm_shape(x);
    const Activation a = activation(act);
    if (s.count() < 1) throw py::value_error("x has no elements");
    const void *pg = check.read(grad_output, shape_of(s), "grad_output"),
               *px = check.read(x, shape_of(s), "x");
    const void *pw = check.read(weight, {s.channels}, "weight"), *pb = check.read(bias, {s.channels}, "bias");
    const void *pm = check.read(mean, {s.channels}, "mean"), *pv = check.read(var, {s.channels}, "var");
    void *pdx = check.write(dx, shape_of(s), "dx"), *pdw = check.write(dweight, {s.channels}, "dweight");
    void* pdb = check.write(dbias, {s.channels}, "dbias");
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        batch_norm_backward(s, in<T>(pg), in<T>(px), in<T>(pw), in<T>(pb), in<T>(pm), in<T>(pv), eps, a,
                            out<T>(pdx), out<T>(pdw), out<T>(pdb));
    });
}

// Calls f(first, count) on the pool for pieces of a flat array of n.
template <class F>
void in_pieces(int64_t n, F f) {
    const FlushToZero guard;
    parallel_for((n + kTask - 1) / kTask, [&](int64_t i) { f(i * kTask, std::min(kTask, n - i * kTask)); });
}

void run_activate(const Array& x, const std::string& act, Array& result) {
    const Checked check(x);
    const int64_t n = x.size();
    const Activation a = activation(act);
    const void* px = check.read(x, {n}, "x");
    void* po = check.write(result, {n}, "out");
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        in_pieces(n, [&](int64_t at, int64_t count) {
            element_loops<T>().activate(count, in<T>(px) + at, a, out<T>(po) + at);
        });
    });
}

void run_add(const Array& x, const Array& y, const std::optional<std::string>& act, Array& result) {
    const Checked check(x);
    const int64_t n = x.size();
    const Activation a = activation(act);
    const void *px = check.read(x, {n}, "a"), *py_ = check.read(y, {n}, "b");
    void* po = check.write(result, {n}, "out");
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        in_pieces(n, [&](int64_t at, int64_t count) {
            element_loops<T>().add(count, in<T>(px) + at, in<T>(py_) + at, a, out<T>(po) + at);
        });
    });
}

void run_activation_backward(const Array& grad_output, const Array& x, const std::string& act, Array& dx) {
    const Checked check(x);
    const int64_t n = x.size();
    const Activation a = activation(act);
    const void *pg = check.read(grad_output, {n}, "grad_output"), *px = check.read(x, {n}, "x");
    void* pd = check.write(dx, {n}, "dx");
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        in_pieces(n, [&](int64_t at, int64_t count) {
            element_loops<T>().activation_gradient(count, in<T>(pg) + at, in<T>(px) + at, a, out<T>(pd) + at);
        });
    });
}

// A null pointer stays null.
template <class T>
T* shifted(void* p, int64_t at) {
    return p == nullptr ? nullptr : static_cast<T*>(p) + at;
}

void run_sgd(Array& param, const Array& grad, Optional& velocity, double lr, double momentum, bool nesterov,
             double decay) {
    const Checked check(param);
    const int64_t n = param.size();
    void *pp = check.write(param, {n}, "param"), *pv = check.write(velocity, {n}, "velocity");
    const void* pg = check.read(grad, {n}, "grad");
    const SgdStep step{lr, momentum, decay, nesterov};
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        in_pieces(n, [&](int64_t at, int64_t count) {
            element_loops<T>().sgd(count, step, out<T>(pp) + at, in<T>(pg) + at, shifted<T>(pv, at));
        });
    });
}

void run_rmsprop(Array& param, const Array& grad, Array& square, Optional& mean, Optional& velocity,
                 double lr, double rho, double momentum, double eps, double decay) {
    const Checked check(param);
    const int64_t n = param.size();
    void *pp = check.write(param, {n}, "param"), *ps = check.write(square, {n}, "square");
    void *pm = check.write(mean, {n}, "mean"), *pv = check.write(velocity, {n}, "velocity");
    const void* pg = check.read(grad, {n}, "grad");
    const RmspropStep step{lr, rho, momentum, eps, decay};
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        in_pieces(n, [&](int64_t at, int64_t count) {
            element_loops<T>().rmsprop(count, step, out<T>(pp) + at, in<T>(pg) + at, out<T>(ps) + at,
                                       shifted<T>(pm, at), shifted<T>(pv, at));
        });
    });
}

void run_adam(Array& param, const Array& grad, Array& m, Array& v, double alpha, double beta1, double beta2,
              double eps, double decay, double l2) {
    const Checked check(param);
    const int64_t n = param.size();
    void *pp = check.write(param, {n}, "param"), *pm = check.write(m, {n}, "m"),
         *pv = check.write(v, {n}, "v");
    const void* pg = check.read(grad, {n}, "grad");
    const AdamStep step{alpha, beta1, beta2, eps, decay, l2};
    const py::gil_scoped_release nogil;
    with_type(check.dtype, [&](auto t) {
        using T = decltype(t);
        in_pieces(n, [&](int64_t at, int64_t count) {
            element_loops<T>().adam(count, step, out<T>(pp) + at, in<T>(pg) + at, out<T>(pm) + at,
                                    out<T>(pv) + at);
        });
    });
}

}  // namespace

void register_training(py::module_& m) {
    m.def("batch_norm", &run_norm, py::arg("x"), py::arg("mean"), py::arg("scale"), py::arg("bias"),
          py::arg("activation"), py::arg("out"));
    m.def("batch_norm_train", &run_norm_train, py::arg("x"), py::arg("weight"), py::arg("bias"),
          py::arg("eps"), py::arg("activation"), py::arg("out"), py::arg("mean"), py::arg("var"),
          py::arg("add"));
    m.def("batch_norm_backward", &run_norm_backward, py::arg("grad_output"), py::arg("x"), py::arg("weight"),
          py::arg("bias"), py::arg("mean"), py::arg("var"), py::arg("eps"), py::arg("activation"),
          py::arg("dx"), py::arg("dweight"), py::arg("dbias"));
    m.def("activate", &run_activate, py::arg("x"), py::arg("activation"), py::arg("out"));
    m.def("add", &run_add, py::arg("a"), py::arg("b"), py::arg("activation"), py::arg("out"));
    m.def("activation_backward", &run_activation_backward, py::arg("grad_output"), py::arg("x"),
          py::arg("activation"), py::arg("dx"));
    m.def("sgd_update", &run_sgd, py::arg("param"), py::arg("grad"), py::arg("velocity"), py::arg("lr"),
          py::arg("momentum"), py::arg("nesterov"), py::arg("decay"));
    m.def("rmsprop_update", &run_rmsprop, py::arg("param"), py::arg("grad"), py::arg("square"),
          py::arg("mean"), py::arg("velocity"), py::arg("lr"), py::arg("rho"), py::arg("momentum"),
          py::arg("eps"), py::arg("decay"));
    m.def("adam_update", &run_adam, py::arg("param"), py::arg("grad"), py::arg("m"), py::arg("v"),
          py::arg("alpha"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("decay"),
          py::arg("l2"));
}

}  // namespace fastconv
