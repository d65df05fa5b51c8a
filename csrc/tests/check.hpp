// A test program in thirty lines: TEST(name) { CHECK(condition); }
#pragma once

#include <cstdio>
#include <vector>

namespace fastconv::testing {

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

inline int failures = 0;

struct Registrar {
    Registrar(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

}  // namespace fastconv::testing

#define TEST(name)                                                                    \
    static void test_##name();                                                        \
    static const ::fastconv::testing::Registrar registrar_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            ::fastconv::testing::failures++;                                    \
        }                                                                       \
    } while (false)
