// Scratch memory: a stack of aligned bytes per thread that grows, is reused, and can be given back.
//
//     ScratchFrame frame;
//     float* band = frame.take<float>(count);   // 64-byte aligned, not initialised, valid until the frame
//     ends
//
// Frames nest (the caller's packed input, then a task's own buffers). A thread keeps at most kScratchKept
// bytes between calls, so scratch does not grow with the number of shapes seen.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastconv {

constexpr size_t kScratchAlignment = 64;
constexpr size_t kScratchKept = size_t{64} << 20;

// Aligned memory with huge pages asked for from 2 MiB; throws std::bad_alloc.
void* aligned_allocate(size_t bytes);
void aligned_release(void* memory);

class ScratchFrame {
  public:
    ScratchFrame();
    ~ScratchFrame();
    ScratchFrame(const ScratchFrame&) = delete;
    ScratchFrame& operator=(const ScratchFrame&) = delete;

    void* take_bytes(size_t bytes);

    template <class T>
    T* take(int64_t count) {
        return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
    }

  private:
    struct Arena* arena_;
    size_t block_, used_, live_;
};

// Frees the scratch of every thread that holds no frame now; returns the bytes freed.
size_t release_scratch_memory();

// Bytes held by all threads.
size_t scratch_bytes();

// The most bytes that frames took at once, thread by thread, since the last call: what a run really used. Threads that
// hold a frame now are left out.
size_t take_scratch_peak();

}  // namespace fastconv
