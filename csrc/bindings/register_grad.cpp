// The gradients of convolution.
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "algorithms/backward_weight.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
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

// The gradient to the input with weights of its own, packed once; replaced as a whole, so that a running call keeps the ones it
// began with. The memory of those that no call uses any more is used again.
class BackwardDataPlan {
  public:
    BackwardDataPlan(std::shared_ptr<const BackwardData> gradient, const py::array& weight)
        : gradient_(std::move(gradient)) {
        update(weight);
    }

    void update(const py::array& weight) {
        const void* w = readable(weight, gradient_->dtype(), weight_shape(gradient_->problem()), "weight");
        std::shared_ptr<void> fresh = std::move(spare_);
        if (fresh == nullptr || fresh.use_count() > 1)
            fresh = {aligned_allocate(gradient_->packed_bytes()), aligned_release};
        {
            const py::gil_scoped_release nogil;
            gradient_->pack(w, fresh.get());
        }
        spare_ = std::move(packed_);
        packed_ = std::move(fresh);
    }

    void run(const py::array& grad_output, py::array& dx) const {
        const ConvProblem& p = gradient_->problem();
        const int64_t batch = batch_of(grad_output);
        const void* dy = readable(grad_output, gradient_->dtype(), out_shape(p, batch), "grad_output");
        void* to = writeable(dx, gradient_->dtype(), x_shape(p, batch), "dx");
        const std::shared_ptr<const void> mine = packed_;
        const py::gil_scoped_release nogil;
        gradient_->run_packed({batch, dy, to}, mine.get());
    }

  private:
    std::shared_ptr<const BackwardData> gradient_;
    std::shared_ptr<void> packed_, spare_;
};

}  // namespace

void register_grad(py::module_& m) {
    py::class_<BackwardData, std::shared_ptr<BackwardData>>(
        m, "ConvBackwardData", "The gradient to the input, made ready for a problem and dtype.")
        .def(py::init([](const ConvProblem& problem, const py::object& dtype) {
                 return BackwardData(problem, float_dtype(dtype));
             }),
             py::arg("problem"), py::arg("dtype"))
        .def("run", &run_data, py::arg("grad_output"), py::arg("weight"), py::arg("dx"));
    py::class_<BackwardDataPlan>(
        m, "ConvBackwardDataPlan",
        "The gradient to the input with weights of its own; any number of threads may run it.")
        .def(py::init<std::shared_ptr<BackwardData>, const py::array&>(), py::arg("gradient"),
             py::arg("weight"))
        .def("update", &BackwardDataPlan::update, py::arg("weight"))
        .def("run", &BackwardDataPlan::run, py::arg("grad_output"), py::arg("dx"));
    m.def("conv_backward_weight", &run_weight, py::arg("problem"), py::arg("grad_output"), py::arg("x"),
          py::arg("dw"), py::arg("db"), "The gradients to the weight and, unless db is None, to the bias.");
}

}  // namespace fastconv
