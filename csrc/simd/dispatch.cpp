#include "simd/dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "simd/isa_names.hpp"

#if FASTCONV_HAVE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastconv {

namespace {

bool isa_is_amx_or_unset() {
    const char* value = std::getenv("FASTCONV_ISA");
    return value == nullptr || *value == '\0' || std::string(value) == "amx";
}

// The registers of tiles are large, so Linux gives them to a process that asks for them.
bool may_use_tiles() {
#if FASTCONV_HAVE_AMX
    unsigned a, b, c, d;
    const unsigned bfloat16_and_tiles = 1u << 22 | 1u << 24;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & bfloat16_and_tiles) != bfloat16_and_tiles)
        return false;
    const long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
#else
    return false;
#endif
}

Isa choose() {
    Isa cap = Isa::avx512;
    if (const char* value = std::getenv("FASTCONV_ISA"); value != nullptr && *value != '\0') {
        const std::string text = value;
        if (text == "baseline" || text == "neon") {
            cap = Isa::baseline;
        } else if (text == "avx2") {
            cap = Isa::avx2;
        } else if (text != "avx512" && text != "amx") {
            throw std::runtime_error("FASTCONV_ISA must be one of amx, avx512, avx2, baseline, received '" +
                                     text + "'");
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

bool has_matrix_tiles() {
    static const bool has = active_isa() == Isa::avx512 && isa_is_amx_or_unset() && may_use_tiles();
    return has;
}

std::string active_isa_name() { return has_matrix_tiles() ? "amx" : isa_name(active_isa()); }

std::vector<std::string> available_isa_names() {
    std::vector<std::string> names;
    if (isa_available(Isa::avx512) && may_use_tiles()) names.emplace_back("amx");
    for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::baseline})
        if (isa_available(isa)) names.emplace_back(isa_name(isa));
    return names;
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
