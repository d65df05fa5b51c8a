#include "runtime/system.hpp"

#include <algorithm>
#include <cstdlib>
#include <thread>

#if defined(_WIN32)
#include <malloc.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif

namespace fastconv {

void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
#if defined(_WIN32)
    (void)before, (void)in_parent, (void)in_child;
#else
    pthread_atfork(before, in_parent, in_child);
#endif
}

#if defined(__linux__)
// A mutex would be held by threads that have lost their core.
void sleep_on(std::atomic<uint32_t>& word, uint32_t value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake(std::atomic<uint32_t>& word, int sleepers) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, sleepers, nullptr, nullptr, 0);
}
#else
namespace {

// One bed for all words: never destroyed, since workers may outlive the static objects of the process.
struct Bed {
    std::mutex mutex;
    std::condition_variable changed;
};

Bed& bed() {
    static Bed* const only = new Bed;
    return *only;
}

}  // namespace

void sleep_on(std::atomic<uint32_t>& word, uint32_t value) {
    std::unique_lock<std::mutex> lock(bed().mutex);
    if (word.load() == value) bed().changed.wait(lock);
}

void wake(std::atomic<uint32_t>&, int) {
    {
        const std::lock_guard<std::mutex> lock(bed().mutex);
    }
    bed().changed.notify_all();
}
#endif

void* system_allocate(size_t alignment, size_t bytes) {
#if defined(_WIN32)
    return _aligned_malloc(bytes, alignment);
#else
    return std::aligned_alloc(alignment, bytes);
#endif
}

void system_release(void* memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

void prefer_huge_pages(void* memory, size_t bytes) {
#if defined(MADV_HUGEPAGE)
    madvise(memory, bytes, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

int system_cpus() {
#if defined(__linux__)
    // Masks larger than cpu_set_t exist; then the number of online CPUs stands.
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int current_core() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

}  // namespace fastconv
