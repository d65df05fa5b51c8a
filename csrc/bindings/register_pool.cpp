// Max and average pooling.
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "algorithms/pool.hpp"
#include "bindings/bindings.hpp"
#include "bindings/windows.hpp"

namespace fastconv {

namespace {

PoolType type_of(const py::array& a) {
    const char kind = a.dtype().kind();
    const int64_t bytes = a.itemsize();
    if (kind == 'f' && bytes == 4) return PoolType::f32;
    if (kind == 'f' && bytes == 8) return PoolType::f64;
    if (kind == 'i' || kind == 'u' || kind == 'b') {
        const bool sign = kind == 'i';
        if (bytes == 1) return sign ? PoolType::i8 : PoolType::u8;
        if (bytes == 2) return sign ? PoolType::i16 : PoolType::u16;
        if (bytes == 4) return sign ? PoolType::i32 : PoolType::u32;
        if (bytes == 8) return sign ? PoolType::i64 : PoolType::u64;
    }
    throw py::type_error("pooling has no kernel for this dtype");
}

PoolType floating_type_of(const py::array& a) {
    const PoolType type = type_of(a);
    if (type != PoolType::f32 && type != PoolType::f64) throw py::type_error("float32 or float64 is needed");
    return type;
}

// A pooling made ready: the geometry as the kernels want it.
class Pool {
  public:
    Pool(const PoolShape& shape, std::array<std::vector<int64_t>, 3> counts)
        : shape_(shape), counts_(std::move(counts)) {
        for (int a = 0; a < 3; a++) {
            pointers_[a] = counts_[a].data();
            if (!counts_[a].empty() && static_cast<int64_t>(counts_[a].size()) != shape_.out[a])
                throw py::value_error("one count is needed for each output position");
        }
    }

    void max(const py::array& x, py::array& out, const py::object& indices) const {
        const int64_t batch = check_data(x, shape_, shape_.in, "x");
        check_result(out, x, shape_, shape_.out, "out");
        int64_t* numbers = nullptr;
        if (!indices.is_none()) {
            auto array = py::cast<py::array>(indices);
            if (array.dtype().kind() != 'i' || array.itemsize() != 8)
                throw py::type_error("indices must be int64");
            check_shape(array, shape_, shape_.out, batch, "indices");
            numbers = static_cast<int64_t*>(array.mutable_data());
        }
        const PoolType type = type_of(x);
        const void* from = x.data();
        void* to = out.mutable_data();
        const py::gil_scoped_release nogil;
        max_pool(shape_, type, batch, from, to, numbers);
    }

    void max_backward(const py::array& dy, const py::array& x, const std::string& ties, py::array& dx) const {
        const int64_t batch = check_data(x, shape_, shape_.in, "x");
        check_shape(dy, shape_, shape_.out, batch, "grad_output");
        check_result(dx, x, shape_, shape_.in, "dx");
        check_same_type(dy, x);
        const PoolType type = floating_type_of(x);
        const Ties rule = ties == "first" ? Ties::first : ties == "all" ? Ties::all : Ties::split;
        const void *g = dy.data(), *from = x.data();
        void* to = dx.mutable_data();
        const py::gil_scoped_release nogil;
        max_pool_backward(shape_, type, rule, batch, g, from, to);
    }

    void average(const py::array& x, py::array& out) const {
        check_average();
        const int64_t batch = check_data(x, shape_, shape_.in, "x");
        check_result(out, x, shape_, shape_.out, "out");
        const PoolType type = floating_type_of(x);
        const void* from = x.data();
        void* to = out.mutable_data();
        const py::gil_scoped_release nogil;
        avg_pool(shape_, pointers_, type, batch, from, to);
    }

    void average_backward(const py::array& dy, py::array& dx) const {
        check_average();
        const int64_t batch = check_data(dy, shape_, shape_.out, "grad_output");
        check_result(dx, dy, shape_, shape_.in, "dx");
        const PoolType type = floating_type_of(dy);
        const void* from = dy.data();
        void* to = dx.mutable_data();
        const py::gil_scoped_release nogil;
        avg_pool_backward(shape_, pointers_, type, batch, from, to);
    }

  private:
    void check_average() const {
        for (int a = 0; a < 3; a++)
            if (counts_[a].empty() || shape_.dilation[a] != 1)
                throw py::value_error("an average needs counts and no dilation");
    }

    PoolShape shape_;
    std::array<std::vector<int64_t>, 3> counts_;
    const int64_t* pointers_[3];
};

}  // namespace

void register_pool(py::module_& m) {
    using Three = std::array<int64_t, 3>;
    py::class_<Pool>(m, "Pool", "One pooling geometry, for arrays (N, C, D, H, W) or (N, D, H, W, C).")
        .def(py::init([](bool channels_last, int64_t channels, const Three& in_size, const Three& kernel,
                         const Three& stride, const Three& dilation, const Three& before,
                         const Three& out_size, std::array<std::vector<int64_t>, 3> counts) {
                 return Pool(window_shape(channels_last, channels, in_size, kernel, stride, dilation, before,
                                          out_size),
                             std::move(counts));
             }),
             py::arg("channels_last"), py::arg("channels"), py::arg("in_size"), py::arg("kernel"),
             py::arg("stride"), py::arg("dilation"), py::arg("before"), py::arg("out_size"),
             py::arg("counts"))
        .def("max", &Pool::max, py::arg("x"), py::arg("out"), py::arg("indices") = py::none())
        .def("max_backward", &Pool::max_backward, py::arg("grad_output"), py::arg("x"), py::arg("ties"),
             py::arg("dx"))
        .def("average", &Pool::average, py::arg("x"), py::arg("out"))
        .def("average_backward", &Pool::average_backward, py::arg("grad_output"), py::arg("dx"));
}

}  // namespace fastconv
