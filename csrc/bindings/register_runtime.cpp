// Version, instruction set, threads and memory.
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "algorithms/half_kernels.hpp"
#include "algorithms/probe_kernels.hpp"
#include "bindings/bindings.hpp"
#include "plan/weight_cache.hpp"
#include "runtime/block_cache.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"
#include "simd/dispatch.hpp"
#include "simd/isa_names.hpp"

namespace fastconv {

py::array empty_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape) {
    size_t bytes = static_cast<size_t>(dtype.itemsize());
    for (const py::ssize_t n : shape) {
        if (n < 0) throw py::value_error("negative dimension");
        if (__builtin_mul_overflow(bytes, static_cast<size_t>(n), &bytes)) throw std::bad_alloc();
    }
    if (bytes > PTRDIFF_MAX) throw std::bad_alloc();
    // Objects need NumPy's own initialisation.
    if (bytes < kBlockLeast || dtype.kind() == 'O') return py::array(dtype, shape);
    struct Owned {
        void* memory;
        size_t capacity;
    };
    auto owned = std::make_unique<Owned>();
    owned->memory = acquire_block(bytes, &owned->capacity);
    void* const memory = owned->memory;
    const py::capsule base(owned.release(), [](void* p) {
        const std::unique_ptr<Owned> dead(static_cast<Owned*>(p));
        give_back_block(dead->memory, dead->capacity);
    });
    return py::array(dtype, shape, memory, base);
}

namespace {

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The best rate seen within so many seconds, in slices of some milliseconds.
double multiply_add_gflops(double seconds) {
    float sink[kProbeSink];
    double best = 0;
    const double end = seconds_now() + seconds;
    do {
        const double start = seconds_now();
        const int64_t done = probe_kernels().multiply_adds(200000, sink);
        best = std::max(best, static_cast<double>(done) / (seconds_now() - start) / 1e9);
    } while (seconds_now() < end);
    return best;
}

// The rate right now, over about a millisecond.
double cached_product_gflops() {
    static const std::vector<float> left(kProbeLeft, 1e-3f), right(kProbeRight, 1e-3f);
    float sink[kProbeSink];
    probe_kernels().cached_product(40, left.data(), right.data(), sink);  // into the caches
    int64_t done = 0;
    const double start = seconds_now();
    double now = start;
    while (now - start < 1e-3) {
        done += probe_kernels().cached_product(100, left.data(), right.data(), sink);
        now = seconds_now();
    }
    return static_cast<double>(done) / (now - start) / 1e9;
}

constexpr int64_t kCastTask = 32768;  // numbers cast by one task

// float16 to float32 or back.
void cast_half(const py::array& from, py::array& to) {
    const py::dtype types[2] = {from.dtype(), to.dtype()};
    const int half = py::dtype("e").num(), single = py::dtype::num_of<float>();
    const bool widens = types[0].num() == half && types[1].num() == single;
    const bool narrows = types[0].num() == single && types[1].num() == half;
    if ((!widens && !narrows) || types[0].byteorder() == '>' || types[1].byteorder() == '>')
        throw py::type_error("cast_half takes float16 and float32");
    constexpr int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if (from.size() != to.size() || (from.flags() & to.flags() & needed) != needed)
        throw py::value_error("cast_half needs contiguous arrays of one size");
    const int64_t n = from.size();
    const void* const x = from.data();
    void* const y = to.mutable_data();
    const py::gil_scoped_release nogil;
    const auto some = [&](int64_t task) {
        const int64_t at = task * kCastTask, count = std::min(kCastTask, n - at);
        if (widens)
            half_kernels().widen(count, static_cast<const uint16_t*>(x) + at, static_cast<float*>(y) + at);
        else
            half_kernels().narrow(count, static_cast<const float*>(x) + at, static_cast<uint16_t*>(y) + at);
    };
    parallel_for((n + kCastTask - 1) / kCastTask, some, 0, static_cast<double>(n) * 0.1e-9);
}

}  // namespace

void register_runtime(py::module_& m) {
    active_isa();  // a wrong FASTCONV_ISA is an error of the import
    m.attr("__version__") = FASTCONV_VERSION;
    m.def("isa", &active_isa_name, "Instruction set of the kernels in use.");
    m.def("isas", &available_isa_names,
          "Instruction sets compiled in that this machine can run, best first.");
    m.def("vector_bytes", [] { return probe_kernels().vector_bytes; }, "Bytes of a vector register in use.");
    m.def(
        "cache_bytes", [] { return py::make_tuple(l1_bytes(), l2_bytes()); },
        "L1 and L2 data cache of one core.");
    m.def("multiply_add_gflops", &multiply_add_gflops, py::arg("seconds"),
          py::call_guard<py::gil_scoped_release>(), "Rate of multiply-adds on registers, one thread.");
    m.def("cached_product_gflops", &cached_product_gflops, py::call_guard<py::gil_scoped_release>(),
          "Rate of a cached matrix product right now, one thread: falls when the machine is disturbed.");
    m.def("get_num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("threads"));
    m.def(
        "release_scratch",
        [] {
            const py::gil_scoped_release nogil;
            return release_scratch_memory() + release_blocks() + release_packed_weights();
        },
        "Free the scratch of idle threads and the cached output blocks; returns the bytes freed.");
    m.def("scratch_bytes", &scratch_bytes, "Bytes of scratch held by all threads.");
    m.def("take_scratch_peak", &take_scratch_peak,
          "Most scratch that was in use, thread by thread, since the last call.");
    m.def("cached_block_bytes", &cached_block_bytes, "Bytes of freed outputs kept for the next one.");
    m.def(
        "empty",
        [](const std::vector<py::ssize_t>& shape, const py::object& dtype) {
            return empty_array(py::dtype::from_args(dtype), shape);
        },
        py::arg("shape"), py::arg("dtype"), "Like np.empty; large blocks come from the cache of freed ones.");
    m.def("cast_half", &cast_half, py::arg("array"), py::arg("into"),
          "float16 to float32 or back, as NumPy casts; contiguous arrays.");
}

}  // namespace fastconv
