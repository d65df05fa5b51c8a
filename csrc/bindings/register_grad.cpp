// The gradients of convolution.
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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

template <class T>
void run_weight_as(const ConvProblem& p, int64_t batch, const void* dy, const void* x, void* dw, void* db) {
    backward_weight(p, batch, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw),
                    static_cast<T*>(db));
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
    (dtype == DType::f32 ? run_weight_as<float> : run_weight_as<double>)(p, batch, dy, from, to, bias);
}

bool is_small(const ConvProblem& p, int64_t batch) {
    return p.flops() * static_cast<double>(batch) < Prepared::kSmall;
}

// A whole eager transposed convolution in one step, result included. What it takes and gives is what the convolution gives and
// takes; the dtypes are those of x, of the weight and of the result.
class TransposedCall {
  public:
    TransposedCall(std::shared_ptr<const BackwardData> gradient, const std::optional<std::string>& act,
                   int rank, const std::array<py::object, 3>& types)
        : gradient_(std::move(gradient)),
          activation_(activation(act)),
          arrays_(DataShapes::of(gradient_->problem()).turned(), rank, {types[0], kernel()},
                  {types[2], kernel()}),
          weight_({types[1], kernel()}, user_weight_shape(gradient_->problem(), rank)),
          bias_(Reader(gradient_->dtype()), {gradient_->problem().in_channels}) {}

    // None where an array is not what was bound; the caller then prepares it, or says what is wrong with it.
    py::object operator()(const py::handle& x, const py::handle& weight, const py::handle& bias,
                          const py::handle& out) const {
        ScratchFrame frame;
        std::optional<UserArrays::Call> c = arrays_.bind(x, out, py::none(), frame);
        if (!c) return py::none();
        const void* const w = weight_.read(weight, frame);
        const void* const b = bias.is_none() ? nullptr : bias_.read(bias, frame);
        if (w == nullptr || (b == nullptr && !bias.is_none())) return py::none();
        if (!out.is_none() && !(c->apart(weight) && (bias.is_none() || c->apart(bias)))) return py::none();
        const BackwardDataArgs a{c->batch, c->x, c->out, b, activation_};
        run_unlocked(is_small(gradient_->problem(), c->batch), [&] { gradient_->run(a, w); });
        return arrays_.finish(*c);
    }

  private:
    py::dtype kernel() const { return numpy_dtype(gradient_->dtype()); }

    std::shared_ptr<const BackwardData> gradient_;
    Activation activation_;
    UserArrays arrays_;
    Operand weight_, bias_;
};

// A whole eager call for gradients in one step: (dx, dw, db), None where one is not needed. The dtypes are those of
// grad_output, x, the weight and the results.
class BackwardCall {
  public:
    BackwardCall(std::shared_ptr<const BackwardData> gradient, int rank,
                 const std::array<py::object, 4>& types, const std::array<bool, 3>& needs)
        : gradient_(std::move(gradient)),
          arrays_(gradient_->problem(), gradient_->dtype(), rank),
          dy_(types[0], kernel()),
          x_(types[1], kernel()),
          result_(types[3], kernel()),
          weight_({types[2], kernel()}, user_weight_shape(gradient_->problem(), rank)),
          needs_(needs) {
        if (needs[2] && !needs[1]) throw py::value_error("db comes with dw");
    }

    // None where an array is not what was bound; the caller then prepares it, or says what is wrong with it.
    py::object operator()(const py::handle& grad_output, const py::handle& x,
                          const py::handle& weight) const {
        if (!dy_.takes(grad_output) || !x_.takes(x) || !weight_.takes(weight)) return py::none();
        const auto dy = py::reinterpret_borrow<py::array>(grad_output);
        const auto in = py::reinterpret_borrow<py::array>(x);
        const bool batched = arrays_.has_batch(in);
        if (!arrays_.is_x(in) || !arrays_.is_result(dy) || dy.ndim() != in.ndim() ||
            (batched && dy.shape(0) != in.shape(0)))
            return py::none();
        const ConvProblem& p = gradient_->problem();
        const int64_t batch = batched ? static_cast<int64_t>(in.shape(0)) : 1;
        ScratchFrame frame;
        const void* const g = dy_.read(dy, frame);
        if (g == nullptr) return py::none();
        py::object found[3] = {py::none(), py::none(), py::none()};
        py::array results[3];
        void* to[3] = {};
        const std::vector<py::ssize_t> shapes[3] = {
            {in.shape(), in.shape() + in.ndim()}, weight_.shape(), {p.out_channels}};
        for (size_t i = 0; i < 3; i++) {
            if (!needs_[i]) continue;
            results[i] = empty_array(result_.given(), shapes[i]);
            if ((to[i] = result_.begin(results[i], frame)) == nullptr) return py::none();
        }
        const void* const w = needs_[0] ? weight_.read(weight, frame) : nullptr;
        const void* const from = needs_[1] ? x_.read(in, frame) : nullptr;
        if ((needs_[0] && w == nullptr) || (needs_[1] && from == nullptr)) return py::none();
        run_unlocked(is_small(p, batch), [&] {
            if (needs_[0]) gradient_->run({batch, g, to[0]}, w);
            if (!needs_[1]) return;
            const auto run = gradient_->dtype() == DType::f32 ? run_weight_as<float> : run_weight_as<double>;
            run(p, batch, g, from, to[1], to[2]);
        });
        for (size_t i = 0; i < 3; i++) {
            if (!needs_[i]) continue;
            result_.finish(to[i], results[i]);
            found[i] = std::move(results[i]);
        }
        return py::make_tuple(found[0], found[1], found[2]);
    }

  private:
    py::dtype kernel() const { return numpy_dtype(gradient_->dtype()); }

    std::shared_ptr<const BackwardData> gradient_;
    UserArrays arrays_;
    Reader dy_, x_, result_;
    Operand weight_;
    std::array<bool, 3> needs_;
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
        : gradient_(std::move(gradient)),
          activation_(activation(act)),
          arrays_(DataShapes::of(gradient_->problem()).turned(), rank, Reader(gradient_->dtype()),
                  Reader(gradient_->dtype())) {
        update(weight, bias);
    }

    void update(const py::array& weight, const std::optional<py::array>& bias) {
        const BackwardData& g = *gradient_;
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
        const BackwardData& g = *gradient_;
        const int64_t batch = batch_of(grad_output);
        const void* dy = readable(grad_output, g.dtype(), out_shape(g.problem(), batch), "grad_output");
        run_on(batch, dy, writeable(dx, g.dtype(), x_shape(g.problem(), batch), "dx"));
    }

    // A whole call on arrays of the user's rank: the result, which is `out` where that is not None. None where one of
    // them is not what the kernels take as it is; the caller then checks and prepares it.
    py::object call(const py::handle& grad_output, const py::handle& out) const {
        ScratchFrame frame;
        std::optional<UserArrays::Call> c = arrays_.bind(grad_output, out, py::none(), frame);
        if (!c) return py::none();
        run_on(c->batch, c->x, c->out);
        return arrays_.finish(*c);
    }

    std::string describe() const { return gradient_->describe(); }

  private:
    void run_on(int64_t batch, const void* dy, void* dx) const {
        const std::shared_ptr<const void> mine = packed_;
        const BackwardData& g = *gradient_;
        const void* const bias = biased_ ? static_cast<const char*>(mine.get()) + g.packed_bytes() : nullptr;
        const BackwardDataArgs a{batch, dy, dx, bias, activation_};
        run_unlocked(is_small(g.problem(), batch), [&] { g.run_packed(a, mine.get()); });
    }

    std::shared_ptr<const BackwardData> gradient_;
    Activation activation_;
    UserArrays arrays_;
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
        .def(py::init<std::shared_ptr<BackwardData>, const std::optional<std::string>&, int,
                      const std::array<py::object, 3>&>(),
             py::arg("gradient"), py::arg("activation"), py::arg("rank"), py::arg("dtypes"))
        .def("__call__", &TransposedCall::operator(), py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("out"));
    py::class_<BackwardCall>(m, "ConvBackwardCall",
                             "Eager gradients (dx, dw, db) on arrays of the user's rank; it returns None for "
                             "arrays to be prepared first.")
        .def(py::init<std::shared_ptr<BackwardData>, int, const std::array<py::object, 4>&,
                      const std::array<bool, 3>&>(),
             py::arg("gradient"), py::arg("rank"), py::arg("dtypes"), py::arg("needs"))
        .def("__call__", &BackwardCall::operator(), py::arg("grad_output"), py::arg("x"), py::arg("weight"));
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
