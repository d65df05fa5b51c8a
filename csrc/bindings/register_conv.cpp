// Forward convolution: problems, prepared kernels and plans.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/prepared.hpp"
#include "plan/conv.hpp"
#include "plan/weight_cache.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

using Size = std::array<int64_t, 3>;
using Pairs = std::array<std::array<int64_t, 2>, 3>;

ConvProblem make_problem(bool channels_last, int64_t in_channels, int64_t out_channels, int64_t groups,
                         const Size& in_size, const Size& kernel, const Size& stride, const Size& dilation,
                         const Pairs& padding, const std::string& mode, const Size& out_size) {
    ConvProblem p;
    p.channels_last = channels_last;
    p.in_channels = in_channels;
    p.out_channels = out_channels;
    p.groups = groups;
    p.mode = pad_mode(mode);
    if (groups < 1 || in_channels < 0 || out_channels < 0 || in_channels % groups != 0 ||
        out_channels % groups != 0)
        throw py::value_error("ConvProblem: groups must divide the channels");
    for (int a = 0; a < 3; a++) {
        p.in_size[a] = in_size[a];
        p.kernel[a] = kernel[a];
        p.stride[a] = stride[a];
        p.dilation[a] = dilation[a];
        p.pad_lo[a] = padding[a][0];
        p.pad_hi[a] = padding[a][1];
        p.out_size[a] = out_size[a];
        if (in_size[a] < 1 || kernel[a] < 1 || stride[a] < 1 || dilation[a] < 1 || padding[a][0] < 0 ||
            out_size[a] < 1)
            throw py::value_error(
                "ConvProblem: sizes, strides and dilations must be positive, padding not negative");
    }
    return p;
}

// A whole eager call in one step, result included.
class EagerCall {
  public:
    // The dtypes of x, of the weight and of the result, as the user has them.
    using Types = std::array<py::object, 3>;
    EagerCall(std::shared_ptr<const Prepared> prepared, const std::optional<std::string>& act, int rank,
              const Types& types)
        : prepared_(std::move(prepared)),
          activation_(activation(act)),
          arrays_(DataShapes::of(prepared_->problem), rank, {types[0], kernel()}, {types[2], kernel()}),
          weight_({types[1], kernel()}, user_weight_shape(prepared_->problem, rank)),
          bias_(Reader(prepared_->dtype), {prepared_->problem.out_channels}) {}

    // None where an array is not what was bound; the caller then prepares it, or says what is wrong with it.
    py::object operator()(const py::handle& x, const py::handle& weight, const py::handle& bias,
                          const py::handle& out) const {
        ScratchFrame frame;
        std::optional<UserArrays::Call> c = arrays_.bind(x, out, py::none(), frame);
        if (!c) return py::none();
        ConvArgs a{c->batch, c->x, weight_.read(weight, frame)};
        a.bias = bias.is_none() ? nullptr : bias_.read(bias, frame);
        if (a.weight == nullptr || (a.bias == nullptr && !bias.is_none())) return py::none();
        if (!out.is_none() && !(c->apart(weight) && (bias.is_none() || c->apart(bias)))) return py::none();
        a.out = c->out;
        a.activation = activation_;
        prepared_->run_unpacked(a);
        return arrays_.finish(*c);
    }

  private:
    py::dtype kernel() const { return numpy_dtype(prepared_->dtype); }

    std::shared_ptr<const Prepared> prepared_;
    Activation activation_;
    UserArrays arrays_;
    Operand weight_, bias_;
};

}  // namespace

void register_conv(py::module_& m) {
    py::class_<ConvProblem>(m, "ConvProblem", "A convolution without its batch; fields as in ConvGeometry.")
        .def(py::init(&make_problem), py::arg("channels_last"), py::arg("in_channels"),
             py::arg("out_channels"), py::arg("groups"), py::arg("in_size"), py::arg("kernel"),
             py::arg("stride"), py::arg("dilation"), py::arg("padding"), py::arg("padding_mode"),
             py::arg("out_size"));

    py::class_<Prepared, std::shared_ptr<Prepared>>(m, "ConvKernel",
                                                    "An algorithm made ready for a problem and dtype.")
        .def(py::init<const ConvProblem&, const py::object&, const std::string&, std::optional<size_t>,
                      int64_t>(),
             py::arg("problem"), py::arg("dtype"), py::arg("algorithm"),
             py::arg("workspace_limit") = py::none(), py::arg("batch_hint") = 0)
        .def("run", &Prepared::run_eager, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("activation"), py::arg("out"), py::arg("add") = py::none())
        .def_property_readonly("algorithm", [](const Prepared& p) { return p.algorithm->name; })
        .def_property_readonly("workspace_bytes", &Prepared::workspace_bytes)
        .def("describe", [](const Prepared& p) { return p.describe(); });

    py::class_<EagerCall>(
        m, "ConvCall",
        "An eager call on arrays of the user's rank; it returns None for arrays to be prepared first.")
        .def(py::init<std::shared_ptr<Prepared>, const std::optional<std::string>&, int,
                      const EagerCall::Types&>(),
             py::arg("kernel"), py::arg("activation"), py::arg("rank"), py::arg("dtypes"))
        .def("__call__", &EagerCall::operator(), py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("out"));

    py::class_<Plan, std::shared_ptr<Plan>>(
        m, "ConvPlan", "A prepared algorithm with weights of its own; any number of threads may run it.")
        .def(py::init<std::shared_ptr<Prepared>, const py::array&, const std::optional<py::array>&,
                      const std::optional<std::string>&, int>(),
             py::arg("kernel"), py::arg("weight"), py::arg("bias"), py::arg("activation"), py::arg("rank"))
        .def("run", &Plan::run, py::arg("x"), py::arg("out"), py::arg("add") = py::none())
        .def("call", &Plan::call, py::arg("x"), py::arg("out"), py::arg("add"))
        .def("update", &Plan::update, py::arg("weight"), py::arg("bias"))
        .def(
            "split", [](const Plan& p, int64_t batch) { return p.prepared->split(batch); }, py::arg("batch"))
        .def_property_readonly("algorithm", [](const Plan& p) { return p.prepared->algorithm->name; })
        .def_property_readonly("workspace_bytes", [](const Plan& p) { return p.prepared->workspace_bytes(); })
        .def("describe", [](const Plan& p) { return p.prepared->describe(); });

    m.def(
        "conv_algorithms",
        [] {
            std::vector<std::tuple<std::string, bool, int64_t>> all;
            for (const ConvAlgorithm& a : conv_algorithms())
                all.emplace_back(a.name, a.exact_on_integers, a.chain);
            return all;
        },
        "(name, exact on integers, longest chain of additions) of every algorithm, best first.");
    m.def(
        "conv_candidates",
        [](const ConvProblem& problem, const py::object& dtype) {
            const DType type = float_dtype(dtype);
            std::vector<std::tuple<std::string, double, size_t, bool, std::optional<std::string>>> all;
            for (const ConvAlgorithm& a : conv_algorithms()) {
                const std::string reason = a.why_not(problem, type);
                if (reason.empty())
                    all.emplace_back(a.name, a.predict(problem, type),
                                     a.make(problem, type)->workspace_bytes(), a.automatic, std::nullopt);
                else
                    all.emplace_back(a.name, 0.0, 0, a.automatic, reason);
            }
            return all;
        },
        py::arg("problem"), py::arg("dtype"),
        "(name, predicted seconds of an image on one thread, workspace in bytes, whether auto may take it, "
        "why not) of "
        "every algorithm.");
    m.def(
        "conv_why_not",
        [](const ConvProblem& problem, const py::object& dtype,
           const std::string& name) -> std::optional<std::string> {
            const ConvAlgorithm* algorithm = find_conv_algorithm(name);
            if (algorithm == nullptr) return "the cpp backend has no algorithm called " + name;
            const std::string reason = algorithm->why_not(problem, float_dtype(dtype));
            if (reason.empty()) return std::nullopt;
            return reason;
        },
        py::arg("problem"), py::arg("dtype"), py::arg("algorithm"));
}

}  // namespace fastconv
