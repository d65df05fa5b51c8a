#include "bindings/arrays.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace fastconv {

namespace {

template <class E, size_t N>
E named(const std::array<std::pair<const char*, E>, N>& table, const std::string& name, const char* what) {
    for (const auto& [text, value] : table)
        if (name == text) return value;
    throw py::value_error(std::string("unknown ") + what + " '" + name + "'");
}

std::vector<int64_t> data_shape(bool channels_last, int64_t batch, int64_t channels,
                                const int64_t (&size)[3]) {
    if (channels_last) return {batch, size[0], size[1], size[2], channels};
    return {batch, channels, size[0], size[1], size[2]};
}

}  // namespace

DType float_dtype(const py::object& dtype) {
    const py::dtype type = py::dtype::from_args(dtype);
    if (type.normalized_num() == py::dtype::num_of<float>() && type.byteorder() != '>') return DType::f32;
    if (type.normalized_num() == py::dtype::num_of<double>() && type.byteorder() != '>') return DType::f64;
    throw py::type_error("the cpp kernels take float32 and float64");
}

PadMode pad_mode(const std::string& name) {
    static constexpr std::array<std::pair<const char*, PadMode>, 5> table = {
        {{"constant", PadMode::constant},
         {"edge", PadMode::edge},
         {"reflect", PadMode::reflect},
         {"symmetric", PadMode::symmetric},
         {"wrap", PadMode::wrap}}};
    return named(table, name, "padding mode");
}

Activation activation(const std::optional<std::string>& name) {
    static constexpr std::array<std::pair<const char*, Activation>, 8> table = {{
        {"relu", Activation::relu},
        {"relu6", Activation::relu6},
        {"leaky_relu", Activation::leaky_relu},
        {"sigmoid", Activation::sigmoid},
        {"tanh", Activation::tanh},
        {"silu", Activation::silu},
        {"gelu", Activation::gelu},
        {"hard_swish", Activation::hard_swish},
    }};
    return name ? named(table, *name, "activation") : Activation::none;
}

std::vector<int64_t> x_shape(const ConvProblem& p, int64_t batch) {
    return data_shape(p.channels_last, batch, p.in_channels, p.in_size);
}

std::vector<int64_t> out_shape(const ConvProblem& p, int64_t batch) {
    return data_shape(p.channels_last, batch, p.out_channels, p.out_size);
}

std::vector<int64_t> weight_shape(const ConvProblem& p) {
    const int64_t k = p.out_channels, c = p.group_in(), *s = p.kernel;
    if (p.channels_last) return {s[0], s[1], s[2], c, k};
    return {k, c, s[0], s[1], s[2]};
}

const void* readable(const py::array& array, DType dtype, const std::vector<int64_t>& shape,
                     const char* name) {
    const auto fail = [&](const char* what) { throw py::value_error(std::string(name) + ": " + what); };
    const py::dtype type = array.dtype();
    const int wanted = dtype == DType::f32 ? py::dtype::num_of<float>() : py::dtype::num_of<double>();
    if (type.num() != wanted || type.byteorder() == '>') fail("wrong dtype");
    if (array.ndim() != static_cast<py::ssize_t>(shape.size()) ||
        !std::equal(shape.begin(), shape.end(), array.shape()))
        fail("wrong shape");
    constexpr int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & needed) != needed) fail("not contiguous and aligned");
    return array.data();
}

void* writeable(py::array& array, DType dtype, const std::vector<int64_t>& shape, const char* name) {
    readable(array, dtype, shape, name);
    return array.mutable_data();
}

}  // namespace fastconv
