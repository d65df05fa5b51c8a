// A whole call in one step: the user's arrays as they come, checked, read where they are or cast into scratch.
//
// What is made for one call serves every later one whose arrays are alike (dtype and shape, with a batch or without);
// for any other it says so, by null or nullopt, and Python goes the long way, where the errors are.
#pragma once

#include <optional>
#include <vector>

#include "bindings/bindings.hpp"
#include "plan/problem.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

py::dtype numpy_dtype(DType dtype);

// The dtype in which arrays come, and the one that kernels compute in.
class Reader {
  public:
    Reader(const py::object& given, const py::object& wanted);
    explicit Reader(DType both);

    // Whether it is a NumPy array (of no subclass) of the dtype given, contiguous, aligned and native, and writeable where
    // it is to be written.
    bool takes(const py::handle& object, bool written = false) const;
    // Its data in the kernels' dtype; null where casting it is worth threads, or there is no cast.
    const void* read(const py::array& array, ScratchFrame& frame) const;
    // Where kernels write what is to become `array`, null as above; finish casts it.
    void* begin(py::array& array, ScratchFrame& frame) const;
    void finish(const void* computed, py::array& array) const;

    bool casts() const { return given_.num() != wanted_.num(); }
    const py::dtype& given() const { return given_; }

  private:
    using Cast = void (*)(int64_t n, const void* from, void* to);
    static Cast cast_of(const py::dtype& from, const py::dtype& to);

    py::dtype given_, wanted_;
    Cast in_ = nullptr,
         out_ = nullptr;  // from one dtype to the other; null where nothing is cast, or there is no cast
};

// An argument of one shape.
class Operand {
  public:
    Operand(Reader reader, std::vector<py::ssize_t> shape)
        : reader_(std::move(reader)), shape_(std::move(shape)) {}
    bool takes(const py::handle& object) const;
    // The data of what it takes; else null.
    const void* read(const py::handle& object, ScratchFrame& frame) const;
    const std::vector<py::ssize_t>& shape() const { return shape_; }

  private:
    Reader reader_;
    std::vector<py::ssize_t> shape_;
};

// The channels and sizes of what a call reads and of its result.
struct DataShapes {
    bool channels_last;
    int64_t in_channels, out_channels, in_size[3], out_size[3];

    static DataShapes of(const ConvProblem& p);
    DataShapes turned() const;
};

// The data of a call: arrays of the user's rank (kernels have three spatial axes), with a batch or without.
class UserArrays {
  public:
    UserArrays(const DataShapes& shapes, int rank, Reader x, Reader result);
    UserArrays(const ConvProblem& problem, DType dtype, int rank)
        : UserArrays(DataShapes::of(problem), rank, Reader(dtype), Reader(dtype)) {}

    int rank() const { return rank_; }
    bool has_batch(const py::array& x) const { return x.ndim() == rank_ + 2; }
    // Whether an array is x or a result, with a batch or without.
    bool is_x(const py::array& array) const { return has_shape(array, s_.in_channels, s_.in_size); }
    bool is_result(const py::array& array) const { return has_shape(array, s_.out_channels, s_.out_size); }

    // The arrays of a call, and its result, which is `out` where that is not None.
    struct Call {
        int64_t batch;
        const void *x, *add;
        void* out;
        py::array result;
        // Whether the result shares no memory with an argument.
        bool apart(const py::handle& argument) const;
    };
    std::optional<Call> bind(const py::handle& x, const py::handle& out, const py::handle& add,
                             ScratchFrame& frame) const;
    // The result, once the kernel has written it.
    py::object finish(Call& call) const {
        if (result_.casts()) result_.finish(call.out, call.result);
        return std::move(call.result);
    }

  private:
    bool has_shape(const py::array& array, int64_t channels, const int64_t (&size)[3]) const;
    py::array new_result(bool has_batch, int64_t batch) const;

    DataShapes s_;
    int rank_;
    Reader x_, result_;
};

// Runs without the interpreter's lock, unless giving it back costs more than it frees.
template <class F>
void run_unlocked(bool small, const F& run) {
    if (small) return run();
    const py::gil_scoped_release nogil;
    run();
}

// A weight's shape in the user's rank.
std::vector<py::ssize_t> user_weight_shape(const ConvProblem& problem, int rank);

}  // namespace fastconv
