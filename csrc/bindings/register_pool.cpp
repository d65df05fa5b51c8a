// Max and average pooling.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "algorithms/pool.hpp"
#include "bindings/bindings.hpp"
#include "bindings/user_arrays.hpp"
#include "bindings/windows.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

namespace {

PoolType type_of(const py::dtype& type) {
    const char kind = type.kind();
    const int64_t bytes = type.itemsize();
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

PoolType floating_type_of(const py::dtype& dtype) {
    const PoolType type = type_of(dtype);
    if (type != PoolType::f32 && type != PoolType::f64) throw py::type_error("float32 or float64 is needed");
    return type;
}

Ties ties_of(const std::string& name) {
    return name == "first" ? Ties::first : name == "all" ? Ties::all : Ties::split;
}

// A pooling made ready: the geometry as the kernels want it.
class Pool {
  public:
    Pool(const PoolShape& shape, const WindowCountArrays& counts)
        : shape_(shape), counts_(window_counts(counts, shape)) {
        for (int a = 0; a < 3; a++) pointers_[a] = counts_[a].data();
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
        const PoolType type = type_of(x.dtype());
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
        const PoolType type = floating_type_of(x.dtype());
        const Ties rule = ties_of(ties);
        const void *g = dy.data(), *from = x.data();
        void* to = dx.mutable_data();
        const py::gil_scoped_release nogil;
        max_pool_backward(shape_, type, rule, batch, g, from, to);
    }

    void average(const py::array& x, py::array& out) const {
        check_average();
        const int64_t batch = check_data(x, shape_, shape_.in, "x");
        check_result(out, x, shape_, shape_.out, "out");
        const PoolType type = floating_type_of(x.dtype());
        const void* from = x.data();
        void* to = out.mutable_data();
        const py::gil_scoped_release nogil;
        avg_pool(shape_, pointers_, type, batch, from, to);
    }

    void average_backward(const py::array& dy, py::array& dx) const {
        check_average();
        const int64_t batch = check_data(dy, shape_, shape_.out, "grad_output");
        check_result(dx, dy, shape_, shape_.in, "dx");
        const PoolType type = floating_type_of(dy.dtype());
        const void* from = dy.data();
        void* to = dx.mutable_data();
        const py::gil_scoped_release nogil;
        avg_pool_backward(shape_, pointers_, type, batch, from, to);
    }

    const PoolShape& shape() const { return shape_; }
    const int64_t* const* counts() const { return pointers_; }
    void check_average() const {
        for (int a = 0; a < 3; a++)
            if (counts_[a].empty() || shape_.dilation[a] != 1)
                throw py::value_error("an average needs counts and no dilation");
    }

  private:
    PoolShape shape_;
    WindowCounts counts_;
    const int64_t* pointers_[3];
};

DataShapes data_shapes(const PoolShape& p) {
    DataShapes s{p.channels_last, p.channels, p.channels, {}, {}};
    for (int a = 0; a < 3; a++) {
        s.in_size[a] = p.in[a];
        s.out_size[a] = p.out[a];
    }
    return s;
}

bool is_small(const PoolShape& s, int64_t batch) { return batch * s.channels * s.in_volume() < 4096; }

// A whole eager call in one step, result included. The dtypes are those of x, of the kernels and of the result.
class PoolCall {
  public:
    PoolCall(std::shared_ptr<const Pool> pool, bool average, int rank, const std::array<py::object, 3>& types)
        : pool_(std::move(pool)),
          average_(average),
          type_(type_of(py::dtype::from_args(types[1]))),
          arrays_(data_shapes(pool_->shape()), rank, {types[0], types[1]}, {types[2], types[1]}) {
        if (!average) return;
        pool_->check_average();
        floating_type_of(py::dtype::from_args(types[1]));
    }

    // None where an array is not what was bound; the caller then prepares it, or says what is wrong with it.
    py::object operator()(const py::handle& x, const py::handle& out) const {
        ScratchFrame frame;
        std::optional<UserArrays::Call> c = arrays_.bind(x, out, py::none(), frame);
        if (!c) return py::none();
        const PoolShape& s = pool_->shape();
        run_unlocked(is_small(s, c->batch), [&] {
            if (average_)
                avg_pool(s, pool_->counts(), type_, c->batch, c->x, c->out);
            else
                max_pool(s, type_, c->batch, c->x, c->out, nullptr);
        });
        return arrays_.finish(*c);
    }

  private:
    std::shared_ptr<const Pool> pool_;
    bool average_;
    PoolType type_;
    UserArrays arrays_;
};

// The same for the gradient of a maximum under a rule for ties, or of an average (none). The dtypes are those of grad_output,
// of x, of the kernels and of the result.
class PoolBackwardCall {
  public:
    PoolBackwardCall(std::shared_ptr<const Pool> pool, const std::optional<std::string>& ties, int rank,
                     const std::array<py::object, 4>& types)
        : pool_(std::move(pool)),
          type_(floating_type_of(py::dtype::from_args(types[2]))),
          arrays_(data_shapes(pool_->shape()).turned(), rank, {types[0], types[2]}, {types[3], types[2]}),
          x_(types[1], types[2]) {
        if (ties) {
            ties_ = ties_of(*ties);
        } else {
            pool_->check_average();
        }
    }

    py::object operator()(const py::handle& grad_output, const py::handle& x, const py::handle& out) const {
        ScratchFrame frame;
        if (!x_.takes(x)) return py::none();
        std::optional<UserArrays::Call> c = arrays_.bind(grad_output, out, py::none(), frame);
        if (!c) return py::none();
        const auto in = py::reinterpret_borrow<py::array>(x);
        if (in.ndim() != c->result.ndim() ||
            !std::equal(in.shape(), in.shape() + in.ndim(), c->result.shape()))
            return py::none();
        if (ties_ && !out.is_none() && !c->apart(x)) return py::none();
        const void* const from = ties_ ? x_.read(in, frame) : nullptr;
        if (ties_ && from == nullptr) return py::none();
        const PoolShape& s = pool_->shape();
        run_unlocked(is_small(s, c->batch), [&] {
            if (ties_)
                max_pool_backward(s, type_, *ties_, c->batch, c->x, from, c->out);
            else
                avg_pool_backward(s, pool_->counts(), type_, c->batch, c->x, c->out);
        });
        return arrays_.finish(*c);
    }

  private:
    std::shared_ptr<const Pool> pool_;
    std::optional<Ties> ties_;
    PoolType type_;
    UserArrays arrays_;
    Reader x_;
};

}  // namespace

void register_pool(py::module_& m) {
    using Three = std::array<int64_t, 3>;
    py::class_<Pool, std::shared_ptr<Pool>>(
        m, "Pool", "One pooling geometry, for arrays (N, C, D, H, W) or (N, D, H, W, C).")
        .def(py::init([](bool channels_last, int64_t channels, const Three& in_size, const Three& kernel,
                         const Three& stride, const Three& dilation, const Three& before,
                         const Three& out_size, const WindowCountArrays& counts, bool adaptive) {
                 PoolShape shape = window_shape(channels_last, channels, in_size, kernel, stride, dilation,
                                                before, out_size);
                 shape.adaptive = adaptive;
                 return Pool(shape, counts);
             }),
             py::arg("channels_last"), py::arg("channels"), py::arg("in_size"), py::arg("kernel"),
             py::arg("stride"), py::arg("dilation"), py::arg("before"), py::arg("out_size"),
             py::arg("counts"), py::arg("adaptive"))
        .def("max", &Pool::max, py::arg("x"), py::arg("out"), py::arg("indices") = py::none())
        .def("max_backward", &Pool::max_backward, py::arg("grad_output"), py::arg("x"), py::arg("ties"),
             py::arg("dx"))
        .def("average", &Pool::average, py::arg("x"), py::arg("out"))
        .def("average_backward", &Pool::average_backward, py::arg("grad_output"), py::arg("dx"));
    py::class_<PoolCall>(m, "PoolCall",
                         "An eager pooling on arrays of the user's rank; it returns None for arrays to be "
                         "prepared first.")
        .def(py::init<std::shared_ptr<Pool>, bool, int, const std::array<py::object, 3>&>(), py::arg("pool"),
             py::arg("average"), py::arg("rank"), py::arg("dtypes"))
        .def("__call__", &PoolCall::operator(), py::arg("x"), py::arg("out"));
    py::class_<PoolBackwardCall>(m, "PoolBackwardCall",
                                 "The same for a gradient; ties are those of a maximum.")
        .def(py::init<std::shared_ptr<Pool>, const std::optional<std::string>&, int,
                      const std::array<py::object, 4>&>(),
             py::arg("pool"), py::arg("ties"), py::arg("rank"), py::arg("dtypes"))
        .def("__call__", &PoolBackwardCall::operator(), py::arg("grad_output"), py::arg("x"), py::arg("out"));
}

}  // namespace fastconv
