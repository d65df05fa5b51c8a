// Chains of plans and poolings.
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/prepared.hpp"
#include "bindings/windows.hpp"
#include "plan/chain.hpp"

namespace fastconv {

namespace {

// A pooling between or after convolutions; averages have counts.
struct ChainPool {
    PoolShape shape;
    WindowCounts counts;

    ChainPool(const PoolShape& s, const WindowCountArrays& c) : shape(s), counts(window_counts(c, s)) {
        if (!counts[0].empty() &&
            (shape.dilation[0] != 1 || shape.dilation[1] != 1 || shape.dilation[2] != 1))
            throw py::value_error("an average has no dilation");
    }
};

std::vector<int64_t> data_shape(const PoolShape& s, const int64_t (&size)[3], int64_t batch) {
    if (s.channels_last) return {batch, size[0], size[1], size[2], s.channels};
    return {batch, s.channels, size[0], size[1], size[2]};
}

// The steps hold what they were made of: a plan's new weights are seen, its tuning is not.
class ChainRun {
  public:
    explicit ChainRun(const py::list& steps) {
        std::vector<ChainStep> made;
        bool typed = false;
        for (const py::handle& item : steps) {
            ChainStep step;
            std::vector<int64_t> in, out;
            if (py::isinstance<ChainPool>(item)) {
                const auto& pool = item.cast<const ChainPool&>();
                step.pool = pool.shape;
                step.average = !pool.counts[0].empty();
                step.counts = pool.counts;
                in = data_shape(pool.shape, pool.shape.in, 1);
                out = data_shape(pool.shape, pool.shape.out, 1);
                plans_.push_back(nullptr);
            } else {
                const auto plan = item.cast<std::shared_ptr<Plan>>();
                const Prepared& p = *plan->prepared;
                step.problem = p.problem;
                step.algorithm = p.algorithm;
                step.kernel = std::shared_ptr<const ConvKernel>(plan->prepared, p.kernel.get());
                step.activation = activation(plan->activation_name);
                step.limited = p.limited;
                in = x_shape(p.problem, 1);
                out = out_shape(p.problem, 1);
                if (typed && dtype_ != p.dtype) throw py::value_error("the plans differ in dtype");
                dtype_ = p.dtype;
                typed = true;
                plans_.push_back(plan);
            }
            if (made.empty()) {
                in_ = in;
            } else if (in != out_) {
                throw py::value_error("the steps do not fit together");
            }
            out_ = out;
            made.push_back(std::move(step));
        }
        if (plans_.empty() || plans_.front() == nullptr) throw py::value_error("a chain begins with a plan");
        ConvProblem ends = plans_.front()->prepared->problem;
        const ChainStep& last = made.back();
        ends.out_channels = last.kernel == nullptr ? last.pool.channels : last.problem.out_channels;
        for (int a = 0; a < 3; a++)
            ends.out_size[a] = last.kernel == nullptr ? last.pool.out[a] : last.problem.out_size[a];
        arrays_.emplace(ends, dtype_, plans_.front()->arrays.rank());
        chain_ = std::make_unique<Chain>(std::move(made), dtype_);
    }

    // A whole call on arrays of the user's rank, as a plan's; None where one of them has to be prepared first.
    py::object call(const py::handle& x, const py::handle& out, const py::handle& add) const {
        if (!add.is_none() && plans_.back() == nullptr) return py::none();
        ScratchFrame frame;
        std::optional<UserArrays::Call> c = arrays_->bind(x, out, add, frame);
        if (!c) return py::none();
        run_on({c->batch, c->x, nullptr, c->add, c->out});
        return arrays_->finish(*c);
    }

    void run(const py::array& x, py::array& out, const std::optional<py::array>& add) const {
        if (x.ndim() != 5) throw py::value_error("x must have five axes");
        ChainArgs args{x.shape(0), nullptr, nullptr, nullptr, nullptr};
        const auto batched = [&](std::vector<int64_t> shape) {
            shape[0] = args.batch;
            return shape;
        };
        args.x = readable(x, dtype_, batched(in_), "x");
        args.out = writeable(out, dtype_, batched(out_), "out");
        if (add) {
            if (plans_.back() == nullptr)
                throw py::value_error("a chain that ends in a pooling adds nothing");
            args.add = readable(*add, dtype_, batched(out_), "add");
        }
        run_on(args);
    }

    size_t workspace_bytes(int64_t batch) const { return chain_->workspace_bytes(batch); }
    std::string describe(size_t first) const { return chain_->describe(first); }

  private:
    void run_on(ChainArgs args) const {
        std::vector<std::shared_ptr<const PlanWeights>>
            held;  // a running call keeps the weights it began with
        std::vector<ChainWeights> weights(plans_.size());
        for (size_t i = 0; i < plans_.size(); i++) {
            if (plans_[i] == nullptr) continue;
            held.push_back(plans_[i]->weights);
            const PlanWeights& w = *held.back();
            weights[i] = {w.packed ? nullptr : w.weight.get(), w.packed ? w.weight.get() : nullptr,
                          w.bias.get()};
        }
        args.weights = weights.data();
        const py::gil_scoped_release nogil;
        chain_->run(args);
    }

    DType dtype_ = DType::f32;
    std::vector<std::shared_ptr<Plan>> plans_;  // null for a pooling
    std::vector<int64_t> in_, out_;             // of one image
    std::optional<UserArrays> arrays_;
    std::unique_ptr<Chain> chain_;
};

}  // namespace

void register_chain(py::module_& m) {
    using Three = std::array<int64_t, 3>;
    py::class_<ChainPool>(m, "ChainPool",
                          "A pooling as a step of a chain; an average where there are counts.")
        .def(py::init([](bool channels_last, int64_t channels, const Three& in_size, const Three& kernel,
                         const Three& stride, const Three& dilation, const Three& before,
                         const Three& out_size, const WindowCountArrays& counts) {
                 return ChainPool(window_shape(channels_last, channels, in_size, kernel, stride, dilation,
                                               before, out_size),
                                  counts);
             }),
             py::arg("channels_last"), py::arg("channels"), py::arg("in_size"), py::arg("kernel"),
             py::arg("stride"), py::arg("dilation"), py::arg("before"), py::arg("out_size"),
             py::arg("counts"));

    py::class_<ChainRun>(m, "ChainRun", "Plans and poolings run one after the other, or several in one pass.")
        .def(py::init<const py::list&>(), py::arg("steps"))
        .def("run", &ChainRun::run, py::arg("x"), py::arg("out"), py::arg("add") = py::none())
        .def("call", &ChainRun::call, py::arg("x"), py::arg("out"), py::arg("add"))
        .def("workspace_bytes", &ChainRun::workspace_bytes, py::arg("batch"))
        .def("describe", &ChainRun::describe, py::arg("first"));
}

}  // namespace fastconv
