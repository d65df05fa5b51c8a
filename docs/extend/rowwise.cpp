// A convolution by rows: every tap adds a whole row of the input, times its weight, to a row of the output.
#include <algorithm>
#include <memory>

#include "algorithms/probe_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

class Rowwise final : public ConvKernel {
  public:
    explicit Rowwise(const ConvProblem& problem) : p_(problem) {}

    size_t scratch_bytes() const override { return 0; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;  // for the caller and for every thread of the job
        // One task is one output channel of one image. It writes its own outputs and no other, in one fixed
        // order, so that the bits depend neither on the threads nor on the batch.
        parallel_for(args.batch * p_.out_channels, [&](int64_t task) {
            const int64_t image = task / p_.out_channels, k = task % p_.out_channels;
            const int64_t pixels = p_.out_pixels(), width = p_.out_size[2];
            const float* const x =
                static_cast<const float*>(args.x) + image * p_.in_channels * p_.in_pixels();
            const float* w = static_cast<const float*>(args.weight) + k * p_.in_channels * p_.taps();
            float* const out = static_cast<float*>(args.out) + task * pixels;
            const float bias = args.bias != nullptr ? static_cast<const float*>(args.bias)[k] : 0;
            std::fill_n(out, pixels, bias);
            if (args.add != nullptr)
                probe_kernels().axpy(pixels, 1, static_cast<const float*>(args.add) + task * pixels, out);
            for (int64_t c = 0; c < p_.in_channels; c++)
                for (int64_t u = 0; u < p_.kernel[1]; u++)
                    for (int64_t v = 0; v < p_.kernel[2]; v++, w++)
                        for (int64_t row = 0; row < p_.out_size[1]; row++)
                            probe_kernels().axpy(width, *w,
                                                 x + (c * p_.in_size[1] + row + u) * p_.in_size[2] + v,
                                                 out + row * width);
            if (args.activation != Activation::none)
                rows_of<float>().activate(args.activation, out, 1, pixels, pixels);
        });
    }

  private:
    ConvProblem p_;
};

}  // namespace

std::string why_not_rowwise(const ConvProblem& p, DType dtype) {
    if (dtype != DType::f32) return "it computes float32 only";
    if (p.channels_last) return "it needs channels first";
    if (p.groups != 1) return "it needs one group";
    if (p.in_size[0] != 1 || p.kernel[0] != 1) return "it needs two spatial axes";
    for (int axis = 1; axis < 3; axis++) {
        if (p.stride[axis] != 1 || p.dilation[axis] != 1) return "it needs stride 1 and dilation 1";
        if (p.pad_lo[axis] != 0 || p.reads_padding(axis)) return "it does not pad";
    }
    return "";
}

// Each multiply-add loads a number and stores one: a twentieth of the peak.
double predict_rowwise(const ConvProblem& p, DType dtype) { return p.flops() / (0.05 * peak_flops(dtype)); }

std::unique_ptr<ConvKernel> make_rowwise(const ConvProblem& problem, DType) {
    return std::make_unique<Rowwise>(problem);
}

}  // namespace fastconv
