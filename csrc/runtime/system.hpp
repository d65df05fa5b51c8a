// What operating systems do each in their own way. Linux is what the library is tuned for; elsewhere the plain way serves.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace fastconv {

// Runs these before fork(), and after it in the parent and in the child (null: nothing); never where there is no fork().
void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());

// Sleep while `word` is `value`, or for a shorter time; wake so many sleepers, or more.
void sleep_on(std::atomic<uint32_t>& word, uint32_t value);
void wake(std::atomic<uint32_t>& word, int sleepers);

// Null if there is no memory. `bytes` is a multiple of `alignment`, a power of two.
void* system_allocate(size_t alignment, size_t bytes);
void system_release(void* memory);
// Asks for huge pages.
void prefer_huge_pages(void* memory, size_t bytes);

// The processors that this process may run on.
int system_cpus();
// The core that this thread runs on, -1 where that cannot be known.
int current_core();

}  // namespace fastconv
