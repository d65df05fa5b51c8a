// fastconv_core_test [NAME...] [-NAME...]: runs the tests whose names contain one of the words, or all, but none
// that contains a word behind a minus.
#include <cstring>

#include "simd/dispatch.hpp"
#include "tests/check.hpp"

int main(int argc, char** argv) {
    using namespace fastconv::testing;
    std::printf("instruction set: %s\n", fastconv::isa_name(fastconv::active_isa()));
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
