#include "runtime/block_cache.hpp"

#include <deque>
#include <mutex>

#include "runtime/scratch.hpp"
#include "runtime/system.hpp"

namespace fastconv {

namespace {

struct FreeBlock {
    void* memory;
    size_t capacity;
};

struct Cache {
    std::mutex mutex;
    std::deque<FreeBlock> blocks;  // the longest unused first
    size_t bytes = 0;
};

// Never destroyed, since arrays may die after it would; held across fork, so that the child finds it
// unlocked.
Cache& cache() {
    static Cache* const only = [] {
        auto* made = new Cache;
        at_fork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });
        return made;
    }();
    return *only;
}

// Sizes within an eighth of a power of two share blocks.
size_t size_class(size_t bytes) {
    size_t step = 4096;
    while (step * 16 <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

}  // namespace

void* acquire_block(size_t bytes, size_t* capacity) {
    const size_t wanted = size_class(bytes);
    *capacity = wanted;
    {
        Cache& all = cache();
        const std::lock_guard<std::mutex> lock(all.mutex);
        for (auto block = all.blocks.rbegin(); block != all.blocks.rend(); ++block) {
            if (block->capacity != wanted) continue;
            void* memory = block->memory;
            all.bytes -= wanted;
            all.blocks.erase(std::next(block).base());
            return memory;
        }
    }
    return aligned_allocate(wanted);
}

void give_back_block(void* memory, size_t capacity) noexcept {
    try {
        Cache& all = cache();
        const std::lock_guard<std::mutex> lock(all.mutex);
        if (capacity <= kBlocksKept) {
            all.blocks.push_back({memory, capacity});
            all.bytes += capacity;
            memory = nullptr;
        }
        while (all.bytes > kBlocksKept) {
            all.bytes -= all.blocks.front().capacity;
            aligned_release(all.blocks.front().memory);
            all.blocks.pop_front();
        }
    } catch (...) {  // no memory for the list's own node: free the block
    }
    if (memory != nullptr) aligned_release(memory);
}

size_t release_blocks() {
    Cache& all = cache();
    const std::lock_guard<std::mutex> lock(all.mutex);
    const size_t freed = all.bytes;
    for (const FreeBlock& block : all.blocks) aligned_release(block.memory);
    all.blocks.clear();
    all.bytes = 0;
    return freed;
}

size_t cached_block_bytes() {
    Cache& all = cache();
    const std::lock_guard<std::mutex> lock(all.mutex);
    return all.bytes;
}

}  // namespace fastconv
