// fastconv_core_test [NAME...] [-NAME...]: runs the tests whose names contain one of the words, or all, but none
// that contains a word behind a minus. Where FASTCONV_ISA names an instruction set that this machine lacks, it runs none
// and ends with 77, which ctest reports as skipped: what would run is another's test.
#include <cstdlib>
#include <cstring>
#include <string>

#include "simd/isa_names.hpp"
#include "tests/check.hpp"

int main(int argc, char** argv) {
    using namespace fastconv::testing;
    const std::string isa = fastconv::active_isa_name();
    const char* const asked = std::getenv("FASTCONV_ISA");
    std::printf("instruction set: %s\n", isa.c_str());
    if (asked != nullptr && *asked != '\0' && isa != asked && isa != "neon") return 77;
    int run = 0;
    for (const Test& test : tests()) {
        bool named = false, wanted = false, unwanted = false;
        for (int i = 1; i < argc; i++) {
            const bool minus = argv[i][0] == '-';
            named |= !minus;
            if (std::strstr(test.name, argv[i] + minus) != nullptr) (minus ? unwanted : wanted) = true;
        }
        if (unwanted || (named && !wanted)) continue;
        const int before = failures;
        test.run();
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name);
        std::fflush(stdout);
        run++;
    }
    std::printf("%d tests, %d failed checks\n", run, failures);
    return failures != 0 || run == 0;
}
