#include "simd/dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastconv {

namespace {

Isa choose() {
    Isa cap = Isa::avx512;
    if (const char* value = std::getenv("FASTCONV_ISA"); value != nullptr && *value != '\0') {
        const std::string text = value;
        if (text == "baseline" || text == "neon") {
            cap = Isa::baseline;
        } else if (text == "avx2") {
            cap = Isa::avx2;
        } else if (text != "avx512") {
            throw std::runtime_error("FASTCONV_ISA must be one of avx512, avx2, baseline, received '" + text +
                                     "'");
        }
    }
    for (const Isa isa : {Isa::avx512, Isa::avx2}) {
        if (isa <= cap && isa_available(isa)) return isa;
    }
    return Isa::baseline;
}

}  // namespace

// The compiler's own check covers both cpuid and the state that the operating system saves.
bool isa_available(Isa isa) {
    if (isa == Isa::baseline) return true;
#if FASTCONV_HAVE_AVX512
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

Isa active_isa() {
    static const Isa chosen = choose();
    return chosen;
}

const char* isa_name(Isa isa) {
    if (isa == Isa::avx512) return "avx512";
    if (isa == Isa::avx2) return "avx2";
#if defined(__aarch64__)
    return "neon";
#else
    return "baseline";
#endif
}

}  // namespace fastconv
