// Several steps, convolutions and poolings, one after the other; where it pays, in one pass over the rows.
//
// What lies between two layers is often the widest tensor of all: MobileNetV2 expands 24 channels to 144, filters
// each of them and goes back to 24. A pass makes a few rows of the first step, of them a few rows of the second, and so on,
// so that what lies between stays in L2; rows that the next window needs again are kept, none is computed twice but
// where two bands of a pass meet. A pass is cut into (image, band of rows); every band runs the steps' own
// algorithms on its rows, so that the bits are those of the steps run one by one.
// [Zhang, arXiv 2206.12124: depthwise fused with pointwise; Alwani, MICRO 2016: fused layers]
//
// Two neighbours are joined where one of them is depthwise or the second is a pooling; between two dense
// convolutions arithmetic hides the traffic. Steps that are not joined pass whole images through scratch, some at a time.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/pool_shape.hpp"
#include "plan/conv.hpp"

namespace fastconv {

// A convolution, made ready, or a pooling where there is no kernel.
struct ChainStep {
    ConvProblem problem{};
    const ConvAlgorithm* algorithm = nullptr;
    std::shared_ptr<const ConvKernel> kernel;
    Activation activation = Activation::none;
    bool limited = false;  // its scratch is bounded: it keeps to its own run
    PoolShape pool{};
    bool average = false;
    std::array<std::vector<int64_t>, 3> counts;  // of an average: see avg_pool
};

// Weights of a step, as in ConvArgs.
struct ChainWeights {
    const void* weight = nullptr;
    const void* packed = nullptr;
    const void* bias = nullptr;
};

struct ChainArgs {
    int64_t batch;
    const void* x;
    const ChainWeights* weights;  // one for each step
    const void* add;              // of the result's shape, for a last step that is a convolution; or null
    void* out;
};

// Operations of a 1x1 convolution in the time that a byte takes from memory: more bytes than that are not asked for.
constexpr double kFlopsOfByte = 9;
// More neighbours than this are not joined.
constexpr size_t kMostJoined = 8;

class Chain {
  public:
    // Steps that fit together, of one layout. Any number of threads may run it.
    Chain(std::vector<ChainStep> steps, DType dtype);
    ~Chain();
    void run(const ChainArgs& args) const;
    // Scratch of a run on as many threads as there are now, at most.
    size_t workspace_bytes(int64_t batch) const;
    // One line for each pass: what runs together, and why the next step does not. Steps are counted from `first`.
    std::string describe(size_t first) const;

  private:
    // How a step moves along the rows.
    struct Walk {
        int64_t in, out, span, stride, pad;
        Range rows_for(Range out_rows) const;
    };
    // One step of a schedule: rows of one stage from rows of what stands before it.
    struct Move {
        size_t stage;  // counted from the first of the pass
        int64_t dropped,
            kept;  // rows of this stage's buffer that make room, and that then move to its beginning
        int64_t in_row, in_rows, out_row,
            out_rows;   // from the beginning of the buffers (of the image at both ends)
        int64_t first;  // of the rows, in the image
        const ConvKernel* kernel;
        PoolShape shape;
    };
    struct Band {
        std::vector<Move> moves;
        std::vector<int64_t> rows;  // that each buffer holds at most
    };
    using Bands = std::vector<Band>;
    // A band of one image, or some whole images; x, add and out are those of the first.
    struct Piece {
        const Band* band = nullptr;
        int64_t images = 0;
        const char *x = nullptr, *add = nullptr;
        char* out = nullptr;
    };
    struct Pass {
        size_t first, last;          // steps first .. last-1
        int64_t piece = 0;           // rows of the last step made at a time
        int64_t together = 1;        // images that run at a time, at most
        std::vector<size_t> room;    // elements of each buffer
        std::vector<int64_t> plane;  // channels first: elements of a buffer from one channel to the next
        size_t scratch = 0;          // of one thread's kernels, at most
        bool all_asked = false;  // the last step computes long enough to ask for all that the first one reads
        double twice = 0;        // share of a step's rows that two neighbouring bands both make
        std::vector<Pass> alone;  // its steps one by one, of several
        std::string apart;        // why the next step does not belong to it
        size_t size() const { return last - first; }
    };
    using Run = std::vector<const Pass*>;

    size_t pool_scratch(const ChainStep& step, const PoolShape& shape) const;
    Walk walk(size_t step) const;
    int64_t step_of(size_t step) const;
    bool channels_last(size_t step) const;
    int64_t channels_out(size_t step) const;
    int64_t width_out(size_t step) const;
    int64_t image_in(size_t step) const;
    int64_t image_out(size_t step) const;

    std::string why_alone(size_t step) const;
    std::string why_apart(size_t step) const;
    bool settle(Pass& pass) const;
    Band walk_band(const Pass& pass, Range rows, int64_t piece) const;
    bool whole_image(const Pass& pass, const Move& move) const;
    bool make_kernels(const Pass& pass, Band& band) const;
    const ConvKernel* band_kernel(size_t at, int64_t in_rows, int64_t top, int64_t out_rows) const;
    const Bands& bands_of(const Pass& pass, int64_t count) const;
    double work_of(const Pass& pass) const;
    int64_t band_count(const Pass& pass, int64_t batch) const;
    Run passes_for(int64_t batch) const;
    int64_t images_at_once(const Run& passes, int64_t batch) const;
    size_t between(const Run& passes, size_t odd) const;

    static ConvArgs conv_args(const ChainStep& step, const ChainWeights& weights);
    void run_alone(size_t index, const ChainArgs& args, int64_t batch, const char* x, const char* add,
                   char* out) const;
    void run_pool(const ChainStep& step, const PoolShape& shape, int64_t first, int64_t batch, const char* x,
                  char* out) const;
    void run_pass(const Pass& pass, const ChainArgs& args, int64_t batch, const char* x, const char* add,
                  char* out) const;
    Coming coming_after(const Pass& pass, const Piece& piece, const Piece& next, size_t index) const;
    void run_band(const Pass& pass, const ChainArgs& args, bool past_caches, const Piece& piece,
                  const Piece& next) const;

    std::vector<ChainStep> steps_;
    DType dtype_;
    size_t item_;
    std::vector<Pass> passes_;
    // Made when first needed and kept: few, since they follow from the geometry and the number of bands.
    mutable std::mutex mutex_;
    mutable std::map<std::array<int64_t, 4>, std::unique_ptr<ConvKernel>> kernels_;
    mutable std::map<std::pair<size_t, int64_t>, std::unique_ptr<Bands>>
        bands_;  // by pass and number of bands
};

}  // namespace fastconv
