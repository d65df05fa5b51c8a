// Prepared convolutions and plans, as Python holds them.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/user_arrays.hpp"
#include "plan/conv.hpp"
#include "plan/weight_cache.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

// A prepared algorithm with what a call needs beside the arrays.
struct Prepared {
    ConvProblem problem;
    DType dtype;
    const ConvAlgorithm* algorithm;
    std::unique_ptr<ConvKernel> kernel;
    bool limited;

    // `workspace_limit` bounds the scratch where some algorithm, or the one named, can keep it; who asks looks at
    // workspace_bytes. `batch_hint` above zero has "auto" choose for that batch alone.
    Prepared(const ConvProblem& p, const py::object& type, const std::string& name,
             std::optional<size_t> workspace_limit, int64_t batch_hint)
        : problem(p), dtype(float_dtype(type)), limited(workspace_limit.has_value()) {
        problem.batch_hint = batch_hint;
        if (name == "auto" && limited) {
            LimitedChoice choice = choose_within(problem, dtype, *workspace_limit);
            algorithm = choice.algorithm;
            kernel = std::move(choice.kernel);
            return;
        }
        if (name == "auto") {
            algorithm = &choose_conv_algorithm(problem, dtype);
        } else {
            algorithm = find_conv_algorithm(name);
            if (algorithm == nullptr) throw py::value_error("no algorithm is called '" + name + "'");
            const std::string reason = algorithm->why_not(p, dtype);
            if (!reason.empty()) throw py::value_error(name + ": " + reason);
        }
        kernel = algorithm->make(problem, dtype);
        if (limited) kernel->limit_workspace(*workspace_limit);
    }

    size_t workspace_bytes() const { return kernel->workspace_bytes(); }
    std::string describe() const { return describe_conv(problem, dtype, algorithm->name, workspace_bytes()); }

    // How a run with packed weights would be cut among as many threads as there are now: (tasks, threads, parts of the
    // weights) of every job. Nothing is computed and no array is touched.
    std::vector<std::tuple<int64_t, int64_t, int64_t>> split(int64_t batch) const {
        std::vector<Split> jobs;
        {
            const SplitRecorder recorder(jobs);
            ConvArgs a{batch, nullptr, nullptr};
            alignas(64) static const char somewhere[64] = {};  // only addresses are computed
            a.x = a.weight = a.packed = a.bias = somewhere;
            if (batch > 0 && problem.out_channels > 0) kernel->run(a);
        }
        std::vector<std::tuple<int64_t, int64_t, int64_t>> all;
        for (const Split& job : jobs) all.emplace_back(job.tasks, job.threads, job.weight_parts);
        return all;
    }

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
        if (problem.flops() * static_cast<double>(a.batch) < kSmall) return kernel->run(a);
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
        const bool keeps = kernel->keeps_packed_for(a.batch);
        if (problem.flops() * static_cast<double>(a.batch) < kSmall && !keeps) {
            kernel->run(a);
            return;
        }
        const py::gil_scoped_release nogil;
        std::shared_ptr<const void> packed;
        if (keeps) {
            packed = packed_weights(*kernel, a.weight, static_cast<size_t>(problem.weights() * item_size()));
            a.packed = packed.get();
        }
        kernel->run(a);
    }

    int64_t item_size() const { return dtype == DType::f32 ? 4 : 8; }
    // Below this many operations giving the interpreter's lock back costs more than it frees.
    static constexpr double kSmall = 1e5;
};

// Weights of a plan; replaced as a whole, so that a running call keeps the ones it began with.
struct PlanWeights {
    std::unique_ptr<void, void (*)(void*)> weight{nullptr, aligned_release};
    std::unique_ptr<void, void (*)(void*)> bias{nullptr, aligned_release};
    bool packed = false;
};

inline std::unique_ptr<void, void (*)(void*)> copy_of(const void* from, size_t bytes) {
    std::unique_ptr<void, void (*)(void*)> copy(aligned_allocate(bytes), aligned_release);
    std::memcpy(copy.get(), from, bytes);
    return copy;
}

struct Plan {
    std::shared_ptr<const Prepared> prepared;
    std::optional<std::string> activation_name;
    Activation fused;
    UserArrays arrays;
    std::shared_ptr<const PlanWeights> weights;

    Plan(std::shared_ptr<const Prepared> p, const py::array& weight, const std::optional<py::array>& bias,
         const std::optional<std::string>& act, int rank)
        : prepared(std::move(p)),
          activation_name(act),
          fused(activation(act)),
          arrays(prepared->problem, prepared->dtype, rank) {
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
        run_on(prepared->args(x, add, out, activation_name));
    }

    // A whole call on arrays of the user's rank: the result, which is `out` where that is not None. None where one of
    // them is not what the kernels take as it is; the caller then checks and prepares it.
    py::object call(const py::handle& x, const py::handle& out, const py::handle& add) const {
        ScratchFrame frame;
        std::optional<UserArrays::Call> c = arrays.bind(x, out, add, frame);
        if (!c) return py::none();
        ConvArgs a{c->batch, c->x, nullptr};
        a.add = c->add;
        a.out = c->out;
        a.activation = fused;
        run_on(a);
        return arrays.finish(*c);
    }

  private:
    void run_on(ConvArgs a) const {
        const std::shared_ptr<const PlanWeights> mine = weights;
        a.weight = mine->packed ? nullptr : mine->weight.get();
        a.packed = mine->packed ? mine->weight.get() : nullptr;
        a.bias = mine->bias.get();
        prepared->run(a);
    }
};

}  // namespace fastconv
