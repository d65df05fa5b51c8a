// Large outputs go past the caches: a plain store into a line that is in no cache reads it from memory first, a streamed
// one does not. Measured with one thread: 64 MB written by plain stores 8 GB/s, streamed 24; 20 MB 25 and 26, because the
// shared cache holds them.
//
// A streamed line must be written whole, and arrays begin anywhere in a line. Therefore outputs are computed into a stage
// that stays in L2 and streamed from there at once. 1x1 convolutions of 16 images, channels last: 16 > 96 at 112 x 112
// 15.3 to 9.3 ms (17.4 to 9.3 where the output is not aligned), 64 > 256 at 56 x 56 18.5 to 13.6, 256 > 1024 at 14 x 14
// 11.7 to 9.8. Dropped: streaming a few lines of the last stage after every tile of the next: 12.6, 14.8 and 11.1 ms
// (plain stores wait behind streamed ones).
// Not for the sources of one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "algorithms/rows_kernels.hpp"

namespace fastconv {

constexpr int64_t kStageBytes = 256 << 10;  // 64 KB was 5% slower, 512 KB no faster

// Whether a call that reads and writes so many bytes streams. 13 MB took up to 30% longer than by plain stores. Sums of few
// terms leave little time to write: 34 MB of 24 > 144 took 3.5 ms streamed and 2.7 by plain stores while the shared cache
// was otherwise idle, and 3.8 and 5.8 while it was not; 26 MB of 128 > 512 took 9.3 and 12.
inline bool past_caches(size_t bytes, int64_t terms) {
    return bytes >= static_cast<size_t>(terms < 64 ? 48 : 16) << 20;
}

// After it other threads may read what was streamed.
inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

template <class T>
void stream(const T* from, T* to, int64_t count) {
    rows_of<T>().stream(from, to, count);
    stream_fence();
}

}  // namespace fastconv
