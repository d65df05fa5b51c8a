// The gradients of convolution.
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "algorithms/backward_weight.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/prepared.hpp"
#include "plan/backward_data.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

namespace {

int64_t batch_of(const py::array& array) {
    if (array.ndim() != 5) throw py::value_error("grad_output must have five axes");
    return array.shape(0);
}

void run_data(const BackwardData& gradient, const py::array& grad_output, const py::array& weight,
              py::array& dx) {
    const ConvProblem& p = gradient.problem();
    const int64_t batch = batch_of(grad_output);
    const void* dy = readable(grad_output, gradient.dtype(), out_shape(p, batch), "grad_output");
    const void* w = readable(weight, gradient.dtype(), weight_shape(p), "weight");
    void* to = writeable(dx, gradient.dtype(), x_shape(p, batch), "dx");
    const py::gil_scoped_release nogil;
    gradient.run({batch, dy, to}, w);
}

void run_weight(const ConvProblem& p, const py::array& grad_output, const py::array& x, py::array& dw,
                std::optional<py::array>& db) {
    const DType dtype = float_dtype(grad_output.dtype());
    const int64_t batch = batch_of(grad_output);
    const void* dy = readable(grad_output, dtype, out_shape(p, batch), "grad_output");
    const void* from = readable(x, dtype, x_shape(p, batch), "x");
    void* to = writeable(dw, dtype, weight_shape(p), "dw");
    void* bias = db ? writeable(*db, dtype, {p.out_channels}, "db") : nullptr;
    const py::gil_scoped_release nogil;
    if (dtype == DType::f32)
        backward_weight(p, batch, static_cast<const float*>(dy), static_cast<const float*>(from),
                        static_cast<float*>(to), static_cast<float*>(bias));
    else
        backward_weight(p, batch, static_cast<const double*>(dy), static_cast<const double*>(from),
                        static_cast<double*>(to), static_cast<double*>(bias));
}

// What a transposed convolution takes and gives is what the convolution gives and takes.
ConvProblem turned(ConvProblem p) {
    std::swap(p.in_channels, p.out_channels);
    for (int axis = 0; axis < 3; axis++) std::swap(p.in_size[axis], p.out_size[axis]);
    return p;
}

// A result of three axes before the channels and any bias: what a transposed convolution is beside its weights.
struct Transposed {
    std::shared_ptr<const BackwardData> gradient;
    Activation activation;
    UserArrays arrays;

    Transposed(std::shared_ptr<const BackwardData> g, const std::optional<std::string>& act, int rank)
        : gradient(std::move(g)),
          activation(fastconv::activation(act)),
          arrays(turned(gradient->problem()), gradient->dtype(), rank) {}

    // Below this many operations giving the interpreter's lock back costs more than it frees.
    bool small(int64_t batch) const {
        return gradient->problem().flops() * static_cast<double>(batch) < Prepared::kSmall;
    }
};

// A whole eager transposed convolution in one step, result included, for arrays of the user's rank that need no preparing.
class TransposedCall {
  public:
    TransposedCall(std::shared_ptr<const BackwardData> gradient, const std::optional<std::string>& act,
                   int rank)
        : call_(std::move(gradient), act, rank) {}

    // None where an array is not what the kernels read as it is; the caller then prepares it.
    py::object operator()(const py::handle& x, const py::handle& weight, const py::handle& bias) const {
        const ConvProblem& p = call_.gradient->problem();
        const void* const w = call_.arrays.data_of(weight, p.weights());
        const void* const b = bias.is_none() ? nullptr : call_.arrays.data_of(bias, p.in_channels);
        if (w == nullptr || (b == nullptr && !bias.is_none())) return py::none();
        const std::optional<UserArrays::Call> c = call_.arrays.bind(x, py::none(), py::none());
        if (!c) return py::none();
        const BackwardDataArgs a{c->batch, c->x, c->out, b, call_.activation};
        if (call_.small(c->batch)) {
            call_.gradient->run(a, w);
        } else {
            const py::gil_scoped_release nogil;
            call_.gradient->run(a, w);
        }
        return c->result;
    }

  private:
    Transposed call_;
};

void run_transposed(const BackwardData& gradient, const py::array& x, const py::array& weight,
                    const std::optional<py::array>& bias, const std::optional<std::string>& act,
                    py::array& out) {
    const ConvProblem& p = gradient.problem();
    const int64_t batch = batch_of(x);
    const BackwardDataArgs a{batch, readable(x, gradient.dtype(), out_shape(p, batch), "x"),
                             writeable(out, gradient.dtype(), x_shape(p, batch), "out"),
                             bias ? readable(*bias, gradient.dtype(), {p.in_channels}, "bias") : nullptr,
                             activation(act)};
    const void* w = readable(weight, gradient.dtype(), weight_shape(p), "weight");
    const py::gil_scoped_release nogil;
    gradient.run(a, w);
}

// The gradient to the input, or a transposed convolution, with weights of its own, packed once; replaced as a whole, so that a
// running call keeps the ones it began with. The memory of those that no call uses any more is used again.
class BackwardDataPlan {
  public:
    BackwardDataPlan(std::shared_ptr<const BackwardData> gradient, const py::array& weight,
                     const std::optional<py::array>& bias, const std::optional<std::string>& act, int rank)
        : call_(std::move(gradient), act, rank) {
        update(weight, bias);
    }

    void update(const py::array& weight, const std::optional<py::array>& bias) {
        const BackwardData& g = *call_.gradient;
        const ConvProblem& p = g.problem();
        const void* w = readable(weight, g.dtype(), weight_shape(p), "weight");
        const void* b = bias ? readable(*bias, g.dtype(), {p.in_channels}, "bias") : nullptr;
        const size_t bias_bytes = static_cast<size_t>(p.in_channels) * (g.dtype() == DType::f32 ? 4 : 8);
        std::shared_ptr<void> fresh = std::move(spare_);
        if (fresh == nullptr || fresh.use_count() > 1)
            fresh = {aligned_allocate(g.packed_bytes() + bias_bytes), aligned_release};
        if (b != nullptr) std::memcpy(static_cast<char*>(fresh.get()) + g.packed_bytes(), b, bias_bytes);
        {
            const py::gil_scoped_release nogil;
            g.pack(w, fresh.get());
        }
        spare_ = std::move(packed_);
        packed_ = std::move(fresh);
        biased_ = b != nullptr;
    }

    void run(const py::array& grad_output, py::array& dx) const {
        const BackwardData& g = *call_.gradient;
        const int64_t batch = batch_of(grad_output);
        const void* dy = readable(grad_output, g.dtype(), out_shape(g.problem(), batch), "grad_output");
        run_on(batch, dy, writeable(dx, g.dtype(), x_shape(g.problem(), batch), "dx"));
    }

    // A whole call on arrays of the user's rank: the result, which is `out` where that is not None. None where one of
    // them is not what the kernels take as it is; the caller then checks and prepares it.
    py::object call(const py::handle& grad_output, const py::handle& out) const {
        const std::optional<UserArrays::Call> c = call_.arrays.bind(grad_output, out, py::none());
        if (!c) return py::none();
        run_on(c->batch, c->x, c->out);
        return c->result;
    }

    std::string describe() const { return call_.gradient->describe(); }

  private:
    void run_on(int64_t batch, const void* dy, void* dx) const {
        const std::shared_ptr<const void> mine = packed_;
        const BackwardData& g = *call_.gradient;
        const void* const bias = biased_ ? static_cast<const char*>(mine.get()) + g.packed_bytes() : nullptr;
        const BackwardDataArgs a{batch, dy, dx, bias, call_.activation};
        if (call_.small(batch)) return g.run_packed(a, mine.get());
        const py::gil_scoped_release nogil;
        g.run_packed(a, mine.get());
    }

    Transposed call_;
    std::shared_ptr<void> packed_, spare_;
    bool biased_ = false;
};

}  // namespace

void register_grad(py::module_& m) {
    py::class_<BackwardData, std::shared_ptr<BackwardData>>(
        m, "ConvBackwardData", "The gradient to the input, made ready for a problem and dtype.")
        .def(py::init([](const ConvProblem& problem, const py::object& dtype) {
                 return BackwardData(problem, float_dtype(dtype));
             }),
             py::arg("problem"), py::arg("dtype"))
        .def("run", &run_data, py::arg("grad_output"), py::arg("weight"), py::arg("dx"))
        .def("run_transposed", &run_transposed, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("activation"), py::arg("out"));
    py::class_<TransposedCall>(m, "ConvTransposedCall",
                               "An eager transposed convolution on arrays of the user's rank; it returns "
                               "None for arrays to be prepared first.")
        .def(py::init<std::shared_ptr<BackwardData>, const std::optional<std::string>&, int>(),
             py::arg("gradient"), py::arg("activation"), py::arg("rank"))
        .def("__call__", &TransposedCall::operator(), py::arg("x"), py::arg("weight"), py::arg("bias"));
    py::class_<BackwardDataPlan>(m, "ConvBackwardDataPlan",
                                 "The gradient to the input, or a transposed convolution, with weights of "
                                 "its own; any number of threads may run it.")
        .def(py::init<std::shared_ptr<BackwardData>, const py::array&, const std::optional<py::array>&,
                      const std::optional<std::string>&, int>(),
             py::arg("gradient"), py::arg("weight"), py::arg("bias"), py::arg("activation"), py::arg("rank"))
        .def("update", &BackwardDataPlan::update, py::arg("weight"), py::arg("bias") = py::none())
        .def("run", &BackwardDataPlan::run, py::arg("grad_output"), py::arg("dx"))
        .def("call", &BackwardDataPlan::call, py::arg("grad_output"), py::arg("out"))
        .def("describe", &BackwardDataPlan::describe);
    m.def("conv_backward_weight", &run_weight, py::arg("problem"), py::arg("grad_output"), py::arg("x"),
          py::arg("dw"), py::arg("db"), "The gradients to the weight and, unless db is None, to the bias.");
}

}  // namespace fastconv
