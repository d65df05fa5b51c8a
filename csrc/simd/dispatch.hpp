// Which instruction set runs: chosen once, when the library is loaded, and reported.
#pragma once

namespace fastconv {

enum class Isa { baseline, avx2, avx512 };

// Best instruction set that was compiled, that CPU and operating system support, and that FASTCONV_ISA
// allows. Throws std::runtime_error when FASTCONV_ISA names none.
Isa active_isa();

// "avx512", "avx2", "baseline"; on AArch64 the baseline is called "neon".
const char* isa_name(Isa isa);

// True when this library holds kernels for `isa` and this machine can run them, whatever FASTCONV_ISA says.
bool isa_available(Isa isa);

// True where products of matrix tiles (AMX, bfloat16) were compiled, this process may use them, and FASTCONV_ISA is unset or
// "amx". They come on top of AVX-512, for one algorithm; every other kernel is AVX-512's.
bool has_matrix_tiles();

// Expands to the object `name` of the active instruction set's namespace. Needs `extern const T name;`
// declared in namespaces fastconv::avx512, fastconv::avx2 and fastconv::baseline (see
// FASTCONV_DECLARE_KERNELS).
#if FASTCONV_HAVE_AVX512
#define FASTCONV_DISPATCH(name)                                         \
    (::fastconv::active_isa() == ::fastconv::Isa::avx512 ? avx512::name \
     : ::fastconv::active_isa() == ::fastconv::Isa::avx2 ? avx2::name   \
                                                         : baseline::name)
#define FASTCONV_DECLARE_KERNELS(type, name) \
    namespace avx512 {                       \
    extern const type name;                  \
    }                                        \
    namespace avx2 {                         \
    extern const type name;                  \
    }                                        \
    namespace baseline {                     \
    extern const type name;                  \
    }
#else
#define FASTCONV_DISPATCH(name) (baseline::name)
#define FASTCONV_DECLARE_KERNELS(type, name) \
    namespace baseline {                     \
    extern const type name;                  \
    }
#endif

}  // namespace fastconv
