// Forward convolution: problems, prepared kernels and plans.
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
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

// A prepared algorithm with what a call needs beside the arrays.
struct Prepared {
    ConvProblem problem;
    DType dtype;
    const ConvAlgorithm* algorithm;
    std::unique_ptr<ConvKernel> kernel;

    Prepared(const ConvProblem& p, const py::object& type, const std::string& name)
        : problem(p), dtype(float_dtype(type)) {
        if (name == "auto") {
            algorithm = &choose_conv_algorithm(p, dtype);
        } else {
            algorithm = find_conv_algorithm(name);
            if (algorithm == nullptr) throw py::value_error("no algorithm is called '" + name + "'");
            const std::string reason = algorithm->why_not(p, dtype);
            if (!reason.empty()) throw py::value_error(name + ": " + reason);
        }
        kernel = algorithm->make(p, dtype);
    }

    size_t workspace_bytes() const { return kernel->workspace_bytes(); }

    // Checks x, add and out, and fills in what they say.
    ConvArgs args(const py::array& x, const std::optional<py::array>& add, py::array& out,
                  const std::optional<std::string>& act) const {
        if (x.ndim() != 5) throw py::value_error("x must have five axes");
        ConvArgs a{x.shape(0), nullptr, nullptr};
        a.x = readable(x, dtype, x_shape(problem, a.batch), "x");
        const auto y_shape = out_shape(problem, a.batch);
        a.out = writeable(out, dtype, y_shape, "out");
        if (add) a.add = readable(*add, dtype, y_shape, "add");
        a.activation = activation(act);
        return a;
    }

    void run(const ConvArgs& a) const {
        if (a.batch == 0 || problem.out_channels == 0) return;
        const py::gil_scoped_release nogil;
        kernel->run(a);
    }

    void run_eager(const py::array& x, const py::array& weight, const std::optional<py::array>& bias,
                   const std::optional<std::string>& act, py::array& out,
                   const std::optional<py::array>& add) const {
        ConvArgs a = args(x, add, out, act);
        a.weight = readable(weight, dtype, weight_shape(problem), "weight");
        if (bias) a.bias = readable(*bias, dtype, {problem.out_channels}, "bias");
        run_unpacked(a);
    }

    // Runs with the weights as the caller has them.
    void run_unpacked(ConvArgs& a) const {
        if (a.batch == 0 || problem.out_channels == 0) return;
        if (problem.flops() * static_cast<double>(a.batch) < kSmall && !kernel->keeps_packed()) {
            kernel->run(a);
            return;
        }
        const py::gil_scoped_release nogil;
        std::shared_ptr<const void> packed;
        if (kernel->keeps_packed()) {
            packed = packed_weights(*kernel, a.weight, static_cast<size_t>(problem.weights() * item_size()));
            a.packed = packed.get();
        }
        kernel->run(a);
    }

    int64_t item_size() const { return dtype == DType::f32 ? 4 : 8; }
    // Below this many operations giving the interpreter's lock back costs more than it frees.
    static constexpr double kSmall = 1e5;
};

// A whole eager call in one step, result included, for arrays of the user's rank that need no preparing.
class EagerCall {
  public:
    EagerCall(std::shared_ptr<const Prepared> prepared, const std::optional<std::string>& act, int rank)
        : prepared_(std::move(prepared)),
          activation_(activation(act)),
          rank_(rank),
          type_(prepared_->dtype == DType::f32 ? py::dtype::of<float>() : py::dtype::of<double>()) {
        if (rank < 1 || rank > 3) throw py::value_error("rank must be 1, 2 or 3");
    }

    // None where an array is not what the kernels read as it is; the caller then prepares it.
    py::object operator()(const py::handle& x, const py::handle& weight, const py::handle& bias) const {
        const ConvProblem& p = prepared_->problem;
        if (!py::isinstance<py::array>(x)) return py::none();
        const auto data = py::reinterpret_borrow<py::array>(x);
        const bool batched = data.ndim() == rank_ + 2;
        if (!batched && data.ndim() != rank_ + 1) return py::none();
        ConvArgs a{batched ? static_cast<int64_t>(data.shape(0)) : 1, nullptr, nullptr};
        a.x = plain(x, a.batch * p.in_channels * p.in_pixels());
        a.weight = plain(weight, p.weights());
        a.bias = bias.is_none() ? nullptr : plain(bias, p.out_channels);
        if (a.x == nullptr || a.weight == nullptr || (a.bias == nullptr && !bias.is_none()))
            return py::none();
        std::vector<py::ssize_t> shape;
        shape.reserve(5);
        if (batched) shape.push_back(a.batch);
        if (!p.channels_last) shape.push_back(p.out_channels);
        for (int axis = 3 - rank_; axis < 3; axis++) shape.push_back(p.out_size[axis]);
        if (p.channels_last) shape.push_back(p.out_channels);
        py::array out = empty_array(type_, shape);
        a.out = out.mutable_data();
        a.activation = activation_;
        prepared_->run_unpacked(a);
        return out;
    }

  private:
    // The data of an array of the kernel's dtype with this many elements, contiguous and aligned; else null.
    const void* plain(const py::handle& object, int64_t size) const {
        if (!py::isinstance<py::array>(object)) return nullptr;
        const auto array = py::reinterpret_borrow<py::array>(object);
        const py::dtype type = array.dtype();
        constexpr int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
        const bool fits =
            type.num() == type_.num() && type.byteorder() != '>' && (array.flags() & needed) == needed;
        return fits && array.size() == size ? array.data() : nullptr;
    }

    std::shared_ptr<const Prepared> prepared_;
    Activation activation_;
    int rank_;
    py::dtype type_;
};

// Weights of a plan; replaced as a whole, so that a running call keeps the ones it began with.
struct PlanWeights {
    std::unique_ptr<void, void (*)(void*)> weight{nullptr, aligned_release};
    std::unique_ptr<void, void (*)(void*)> bias{nullptr, aligned_release};
    bool packed = false;
};

std::unique_ptr<void, void (*)(void*)> copy_of(const void* from, size_t bytes) {
    std::unique_ptr<void, void (*)(void*)> copy(aligned_allocate(bytes), aligned_release);
    std::memcpy(copy.get(), from, bytes);
    return copy;
}

struct Plan {
    std::shared_ptr<const Prepared> prepared;
    std::optional<std::string> activation_name;
    std::shared_ptr<const PlanWeights> weights;

    Plan(std::shared_ptr<const Prepared> p, const py::array& weight, const std::optional<py::array>& bias,
         const std::optional<std::string>& act)
        : prepared(std::move(p)), activation_name(act) {
        activation(act);
        update(weight, bias);
    }

    void update(const py::array& weight, const std::optional<py::array>& bias) {
        const Prepared& p = *prepared;
        const size_t item = p.dtype == DType::f32 ? 4 : 8;
        const void* from = readable(weight, p.dtype, weight_shape(p.problem), "weight");
        auto fresh = std::make_shared<PlanWeights>();
        if (const size_t bytes = p.kernel->packed_bytes(); bytes > 0) {
            fresh->weight.reset(aligned_allocate(bytes));
            p.kernel->pack(from, fresh->weight.get());
            fresh->packed = true;
        } else {
            fresh->weight = copy_of(from, static_cast<size_t>(p.problem.weights()) * item);
        }
        if (bias) {
            const void* values = readable(*bias, p.dtype, {p.problem.out_channels}, "bias");
            fresh->bias = copy_of(values, static_cast<size_t>(p.problem.out_channels) * item);
        }
        weights = std::move(fresh);
    }

    void run(const py::array& x, py::array& out, const std::optional<py::array>& add) const {
        ConvArgs a = prepared->args(x, add, out, activation_name);
        const std::shared_ptr<const PlanWeights> mine = weights;
        a.weight = mine->packed ? nullptr : mine->weight.get();
        a.packed = mine->packed ? mine->weight.get() : nullptr;
        a.bias = mine->bias.get();
        prepared->run(a);
    }
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
        .def(py::init<const ConvProblem&, const py::object&, const std::string&>(), py::arg("problem"),
             py::arg("dtype"), py::arg("algorithm"))
        .def("run", &Prepared::run_eager, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("activation"), py::arg("out"), py::arg("add") = py::none())
        .def_property_readonly("algorithm", [](const Prepared& p) { return p.algorithm->name; })
        .def_property_readonly("workspace_bytes", &Prepared::workspace_bytes)
        .def("describe",
             [](const Prepared& p) { return describe_conv(p.problem, p.dtype, p.algorithm->name); });

    py::class_<EagerCall>(
        m, "ConvCall",
        "An eager call on arrays of the user's rank; it returns None for arrays to be prepared first.")
        .def(py::init<std::shared_ptr<Prepared>, const std::optional<std::string>&, int>(), py::arg("kernel"),
             py::arg("activation"), py::arg("rank"))
        .def("__call__", &EagerCall::operator(), py::arg("x"), py::arg("weight"), py::arg("bias"));

    py::class_<Plan>(m, "ConvPlan",
                     "A prepared algorithm with weights of its own; any number of threads may run it.")
        .def(py::init<std::shared_ptr<Prepared>, const py::array&, const std::optional<py::array>&,
                      const std::optional<std::string>&>(),
             py::arg("kernel"), py::arg("weight"), py::arg("bias"), py::arg("activation"))
        .def("run", &Plan::run, py::arg("x"), py::arg("out"), py::arg("add") = py::none())
        .def("update", &Plan::update, py::arg("weight"), py::arg("bias"))
        .def_property_readonly("algorithm", [](const Plan& p) { return p.prepared->algorithm->name; })
        .def_property_readonly("workspace_bytes", [](const Plan& p) { return p.prepared->workspace_bytes(); })
        .def("describe", [](const Plan& p) {
            return describe_conv(p.prepared->problem, p.prepared->dtype, p.prepared->algorithm->name);
        });

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
