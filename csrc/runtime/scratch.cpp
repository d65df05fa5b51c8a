#include "runtime/scratch.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "runtime/system.hpp"

namespace fastconv {

namespace {

constexpr size_t kHuge = size_t{2} << 20;

size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

struct Block {
    char* memory;
    size_t size;
};

std::atomic<size_t> held{0};

}  // namespace

void* aligned_allocate(size_t bytes) {
    const size_t alignment = bytes >= kHuge ? kHuge : kScratchAlignment;
    if (bytes > SIZE_MAX - alignment) throw std::bad_alloc();
    void* memory = system_allocate(alignment, round_up(std::max<size_t>(bytes, 1), alignment));
    if (memory == nullptr) throw std::bad_alloc();
    if (bytes >= kHuge) prefer_huge_pages(memory, round_up(bytes, kHuge));
    return memory;
}

void aligned_release(void* memory) { system_release(memory); }

// One thread's stack of blocks. `owned` is held by the thread while it has a frame, or by whoever frees the
// blocks.
struct Arena {
    std::atomic<bool> owned{false};
    int depth = 0;
    std::vector<Block> blocks;
    size_t block = 0, used = 0;
    size_t live = 0, peak = 0;  // bytes of the frames, now and at most

    size_t size() const {
        size_t sum = 0;
        for (const Block& b : blocks) sum += b.size;
        return sum;
    }

    void clear() {
        held -= size();
        for (const Block& b : blocks) aligned_release(b.memory);
        blocks.clear();
    }

    void add(size_t bytes) {
        blocks.reserve(blocks.size() + 1);
        blocks.push_back({static_cast<char*>(aligned_allocate(bytes)), bytes});
        held += bytes;
    }

    void take_ownership() {
        while (owned.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    }
};

namespace {

// All arenas alive. Held across fork, so that the child never inherits a locked list.
struct Registry {
    std::mutex mutex;
    std::vector<Arena*> arenas;
};

Registry& registry() {
    static Registry* const only = [] {
        auto* made = new Registry;
        at_fork([] { registry().mutex.lock(); }, [] { registry().mutex.unlock(); },
                [] { registry().mutex.unlock(); });
        return made;
    }();
    return *only;
}

// Registers this thread's arena for as long as the thread lives.
struct ThreadArena {
    Arena arena;
    ThreadArena() {
        Registry& all = registry();
        const std::lock_guard<std::mutex> lock(all.mutex);
        all.arenas.push_back(&arena);
    }
    ~ThreadArena() {
        Registry& all = registry();
        const std::lock_guard<std::mutex> lock(all.mutex);
        all.arenas.erase(std::find(all.arenas.begin(), all.arenas.end(), &arena));
        arena.clear();
    }
};

}  // namespace

ScratchFrame::ScratchFrame() {
    thread_local ThreadArena mine;
    arena_ = &mine.arena;
    if (arena_->depth == 0) arena_->take_ownership();
    arena_->depth++;
    block_ = arena_->block;
    used_ = arena_->used;
    live_ = arena_->live;
}

ScratchFrame::~ScratchFrame() {
    arena_->block = block_;
    arena_->used = used_;
    arena_->live = live_;
    if (--arena_->depth > 0) return;
    // Several blocks were needed: next time one block of their size serves, unless that is too much to keep.
    const size_t size = arena_->size();
    if (arena_->blocks.size() > 1 || size > kScratchKept) {
        arena_->clear();
        arena_->block = arena_->used = 0;
        try {
            if (size <= kScratchKept) arena_->add(size);
        } catch (const std::bad_alloc&) {  // the next frame asks again
        }
    }
    arena_->owned.store(false, std::memory_order_release);
}

void* ScratchFrame::take_bytes(size_t bytes) {
    bytes = round_up(std::max<size_t>(bytes, 1), kScratchAlignment);
    Arena& a = *arena_;
    while (a.block < a.blocks.size() && a.blocks[a.block].size - a.used < bytes) {
        a.block++;
        a.used = 0;
    }
    if (a.block == a.blocks.size()) a.add(std::max(bytes, size_t{64} << 10));
    char* memory = a.blocks[a.block].memory + a.used;
    a.used += bytes;
    a.live += bytes;
    a.peak = std::max(a.peak, a.live);
    return memory;
}

size_t release_scratch_memory() {
    Registry& all = registry();
    const std::lock_guard<std::mutex> lock(all.mutex);
    size_t freed = 0;
    for (Arena* arena : all.arenas) {
        if (arena->owned.exchange(true, std::memory_order_acquire)) continue;
        freed += arena->size();
        arena->clear();
        arena->owned.store(false, std::memory_order_release);
    }
    return freed;
}

size_t scratch_bytes() { return held.load(); }

size_t take_scratch_peak() {
    Registry& all = registry();
    const std::lock_guard<std::mutex> lock(all.mutex);
    size_t sum = 0;
    for (Arena* arena : all.arenas) {
        if (arena->owned.exchange(true, std::memory_order_acquire)) continue;
        sum += arena->peak;
        arena->peak = 0;
        arena->owned.store(false, std::memory_order_release);
    }
    return sum;
}

}  // namespace fastconv
