#include "bindings/user_arrays.hpp"

#include <algorithm>

#include "algorithms/half_kernels.hpp"
#include "bindings/arrays.hpp"

namespace fastconv {

namespace {

// So many numbers are cast at once, by the caller alone; more are left to those who cut the work.
constexpr int64_t kCastMost = 1 << 18;

template <class From, class To>
void cast(int64_t n, const void* from, void* to) {
    const auto* const source = static_cast<const From*>(from);
    auto* const target = static_cast<To*>(to);
    for (int64_t i = 0; i < n; i++) target[i] = static_cast<To>(source[i]);
}

// Any byte but zero is true.
template <class To>
void cast_bool(int64_t n, const void* from, void* to) {
    const auto* const source = static_cast<const uint8_t*>(from);
    auto* const target = static_cast<To*>(to);
    for (int64_t i = 0; i < n; i++) target[i] = source[i] != 0 ? To(1) : To(0);
}

void widen(int64_t n, const void* from, void* to) {
    half_kernels().widen(n, static_cast<const uint16_t*>(from), static_cast<float*>(to));
}

void narrow(int64_t n, const void* from, void* to) {
    half_kernels().narrow(n, static_cast<const float*>(from), static_cast<uint16_t*>(to));
}

template <class To>
void (*cast_to(char kind, int64_t bytes))(int64_t, const void*, void*) {
    if (kind == 'b') return cast_bool<To>;
    if (kind == 'u')
        return bytes == 1   ? cast<uint8_t, To>
               : bytes == 2 ? cast<uint16_t, To>
               : bytes == 4 ? cast<uint32_t, To>
                            : cast<uint64_t, To>;
    if (kind == 'i')
        return bytes == 1   ? cast<int8_t, To>
               : bytes == 2 ? cast<int16_t, To>
               : bytes == 4 ? cast<int32_t, To>
                            : cast<int64_t, To>;
    return nullptr;
}

bool is_float(const py::dtype& type, int bytes) { return type.kind() == 'f' && type.itemsize() == bytes; }

}  // namespace

py::dtype numpy_dtype(DType dtype) {
    return dtype == DType::f32 ? py::dtype::of<float>() : py::dtype::of<double>();
}

Reader::Cast Reader::cast_of(const py::dtype& from, const py::dtype& to) {
    if (is_float(to, 8))
        return is_float(from, 4) ? cast<float, double> : cast_to<double>(from.kind(), from.itemsize());
    if (is_float(to, 4)) return is_float(from, 2) ? widen : cast_to<float>(from.kind(), from.itemsize());
    return is_float(to, 2) && is_float(from, 4) ? narrow : nullptr;
}

Reader::Reader(const py::object& given, const py::object& wanted)
    : given_(py::dtype::from_args(given)), wanted_(py::dtype::from_args(wanted)) {
    if (!casts()) return;
    in_ = cast_of(given_, wanted_);
    out_ = cast_of(wanted_, given_);
}

Reader::Reader(DType both) : Reader(numpy_dtype(both), numpy_dtype(both)) {}

bool Reader::takes(const py::handle& object, bool written) const {
    if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) !=
        reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_))
        return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    const py::dtype type = array.dtype();
    const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
                       (written ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0);
    return type.num() == given_.num() && type.byteorder() != '>' && (array.flags() & needed) == needed;
}

const void* Reader::read(const py::array& array, ScratchFrame& frame) const {
    if (!casts()) return array.data();
    const int64_t n = array.size();
    if (in_ == nullptr || n > kCastMost) return nullptr;
    void* const copy = frame.take_bytes(static_cast<size_t>(n * wanted_.itemsize()));
    in_(n, array.data(), copy);
    return copy;
}

void* Reader::begin(py::array& array, ScratchFrame& frame) const {
    if (!casts()) return array.mutable_data();
    if (out_ == nullptr || array.size() > kCastMost) return nullptr;
    return frame.take_bytes(static_cast<size_t>(array.size() * wanted_.itemsize()));
}

void Reader::finish(const void* computed, py::array& array) const {
    if (casts()) out_(array.size(), computed, array.mutable_data());
}

bool Operand::takes(const py::handle& object) const {
    if (!reader_.takes(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    return array.ndim() == static_cast<py::ssize_t>(shape_.size()) &&
           std::equal(shape_.begin(), shape_.end(), array.shape());
}

const void* Operand::read(const py::handle& object, ScratchFrame& frame) const {
    return takes(object) ? reader_.read(py::reinterpret_borrow<py::array>(object), frame) : nullptr;
}

DataShapes DataShapes::of(const ConvProblem& p) {
    DataShapes s{p.channels_last, p.in_channels, p.out_channels, {}, {}};
    std::copy(std::begin(p.in_size), std::end(p.in_size), s.in_size);
    std::copy(std::begin(p.out_size), std::end(p.out_size), s.out_size);
    return s;
}

DataShapes DataShapes::turned() const {
    DataShapes s = *this;
    std::swap(s.in_channels, s.out_channels);
    std::swap(s.in_size, s.out_size);
    return s;
}

UserArrays::UserArrays(const DataShapes& shapes, int rank, Reader x, Reader result)
    : s_(shapes), rank_(rank), x_(std::move(x)), result_(std::move(result)) {
    if (rank < 1 || rank > 3) throw py::value_error("rank must be 1, 2 or 3");
}

bool UserArrays::has_shape(const py::array& array, int64_t channels, const int64_t (&size)[3]) const {
    const py::ssize_t before = array.ndim() - rank_ - 1;  // axes before the channels and the spatial ones
    if (before != 0 && before != 1) return false;
    const py::ssize_t* const shape = array.shape() + before;
    for (int axis = 0; axis < rank_; axis++)
        if (shape[axis + (s_.channels_last ? 0 : 1)] != size[3 - rank_ + axis]) return false;
    return shape[s_.channels_last ? rank_ : 0] == channels;
}

py::array UserArrays::new_result(bool has_batch, int64_t batch) const {
    std::vector<py::ssize_t> shape;
    shape.reserve(5);
    if (has_batch) shape.push_back(batch);
    if (!s_.channels_last) shape.push_back(s_.out_channels);
    for (int axis = 3 - rank_; axis < 3; axis++) shape.push_back(s_.out_size[axis]);
    if (s_.channels_last) shape.push_back(s_.out_channels);
    return empty_array(result_.given(), shape);
}

bool UserArrays::Call::apart(const py::handle& argument) const {
    const auto array = py::reinterpret_borrow<py::array>(argument);
    const auto* const from = static_cast<const char*>(array.data());
    const auto* const to = static_cast<const char*>(result.data());
    return from + array.nbytes() <= to || to + result.nbytes() <= from;
}

std::optional<UserArrays::Call> UserArrays::bind(const py::handle& x, const py::handle& out,
                                                 const py::handle& add, ScratchFrame& frame) const {
    if (!x_.takes(x)) return std::nullopt;
    const auto input = py::reinterpret_borrow<py::array>(x);
    if (!is_x(input)) return std::nullopt;
    const bool batched = has_batch(input);
    Call call{batched ? static_cast<int64_t>(input.shape(0)) : 1, nullptr, nullptr, nullptr, {}};
    const auto fits = [&](const py::handle& object, bool written) {
        if (!result_.takes(object, written)) return false;
        const auto array = py::reinterpret_borrow<py::array>(object);
        return array.ndim() == input.ndim() && is_result(array) && (!batched || array.shape(0) == call.batch);
    };
    if (!add.is_none()) {
        if (result_.casts() || !fits(add, false)) return std::nullopt;
        call.add = py::reinterpret_borrow<py::array>(add).data();
    }
    if (out.is_none()) {
        call.result = new_result(batched, call.batch);
    } else {
        if (!fits(out, true)) return std::nullopt;
        call.result = py::reinterpret_borrow<py::array>(out);
        if (!call.apart(x) || (call.add != nullptr && !call.apart(add))) return std::nullopt;
    }
    call.x = x_.read(input, frame);
    call.out = result_.begin(call.result, frame);
    if (call.x == nullptr || call.out == nullptr) return std::nullopt;
    return call;
}

std::vector<py::ssize_t> user_weight_shape(const ConvProblem& problem, int rank) {
    std::vector<py::ssize_t> shape;
    for (const int64_t n : weight_shape(problem)) shape.push_back(n);
    // Axes of length one that the user's rank does not have.
    const auto at = shape.begin() + (problem.channels_last ? 0 : 2);
    shape.erase(at, at + (3 - rank));
    return shape;
}

}  // namespace fastconv
