// fastconv.backends._cpp._core: the only C++ that knows Python, split by topic into register_*.cpp.
#include "bindings/bindings.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() =
        "Compiled kernels of fastconv. Inputs are checked for memory safety only: use fastconv's public "
        "functions.";
    fastconv::register_runtime(m);
    fastconv::register_conv(m);
    fastconv::register_chain(m);
    fastconv::register_pool(m);
    fastconv::register_pad(m);
    fastconv::register_grad(m);
    fastconv::register_training(m);
}
