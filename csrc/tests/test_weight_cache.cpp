// Fingerprints: equal for equal bytes wherever they lie and however many threads read them, different for any change.
#include <cstring>
#include <utility>
#include <vector>

#include "plan/weight_cache.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"

using namespace fastconv;

namespace {

std::vector<char> bytes_of(size_t n) {
    std::vector<char> data(n);
    uint32_t state = 7;
    for (char& byte : data) byte = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
    return data;
}

}  // namespace

TEST(fingerprint_of_equal_bytes) {
    for (const size_t n :
         {size_t{4}, size_t{36}, size_t{2044}, size_t{2048}, size_t{262144}, size_t{1000004}}) {
        const std::vector<char> data = bytes_of(n);
        std::vector<char> moved(n + 12);
        std::memcpy(moved.data() + 12, data.data(), n);
        set_num_threads(1);
        const Fingerprint want = fingerprint_of(data.data(), n);
        CHECK(fingerprint_of(moved.data() + 12, n) == want);
        set_num_threads(3);
        CHECK(fingerprint_of(moved.data() + 12, n) == want);
    }
    set_num_threads(2);
}

TEST(fingerprint_of_changed_bytes) {
    for (const size_t n : {size_t{36}, size_t{9000}, size_t{600004}}) {
        std::vector<char> data = bytes_of(n);
        const Fingerprint before = fingerprint_of(data.data(), n);
        for (size_t i = 0; i < n; i += 1 + n / 97) {
            data[i] = static_cast<char>(data[i] ^ (1 << i % 8));  // one bit, the sign of a zero among them
            CHECK(!(fingerprint_of(data.data(), n) == before));
            data[i] = static_cast<char>(data[i] ^ (1 << i % 8));
        }
        CHECK(fingerprint_of(data.data(), n) == before);
        // Words, pairs of words, blocks and pieces exchanged.
        for (const size_t step : {size_t{4}, size_t{8}, size_t{64}, size_t{2048}, size_t{262144}}) {
            if (2 * step > n) continue;
            std::vector<char> other = data;
            for (size_t i = 0; i < step; i++) std::swap(other[i], other[step + i]);
            CHECK(!(fingerprint_of(other.data(), n) == before));
        }
    }
    const std::vector<char> zeros(8192);
    CHECK(!(fingerprint_of(zeros.data(), 4096) == fingerprint_of(zeros.data(), 8192)));
}
