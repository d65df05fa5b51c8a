// Subnormal numbers slow arithmetic a hundredfold on x86. Arithmetic kernels flush them to zero while they
// run; pad and max pooling do not, since they must keep every bit.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace fastconv {

using FloatMode = uint64_t;

inline FloatMode float_mode() {
#if defined(__SSE2__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
#else
    return 0;
#endif
}

inline void set_float_mode(FloatMode mode) {
#if defined(__SSE2__)
    _mm_setcsr(static_cast<unsigned>(mode));
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

// Held by the caller around an arithmetic kernel: parallel_for hands the caller's mode to every thread of the
// job.
class FlushToZero {
  public:
    FlushToZero() : before_(float_mode()) {
#if defined(__SSE2__)
        set_float_mode(before_ | 0x8040);  // FTZ and DAZ
#elif defined(__aarch64__)
        set_float_mode(before_ | (uint64_t{1} << 24));
#endif
    }
    ~FlushToZero() { set_float_mode(before_); }
    FlushToZero(const FlushToZero&) = delete;
    FlushToZero& operator=(const FlushToZero&) = delete;

  private:
    FloatMode before_;
};

}  // namespace fastconv
