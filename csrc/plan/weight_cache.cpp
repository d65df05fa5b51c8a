#include "plan/weight_cache.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <list>
#include <mutex>
#include <vector>

#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

struct Entry {
    uint64_t kernel;
    size_t weight_bytes, packed_bytes;
    std::unique_ptr<void, void (*)(void*)> weight{nullptr, aligned_release};
    std::unique_ptr<void, void (*)(void*)> packed{nullptr, aligned_release};
    size_t bytes() const { return weight_bytes + packed_bytes; }
};

std::mutex mutex;
std::list<std::shared_ptr<const Entry>> entries;  // the one used last comes first
size_t kept = 0;

// memcmp, large arrays in pieces on all threads.
bool same(const void* a, const void* b, size_t bytes) {
    constexpr size_t piece = size_t{256} << 10;
    if (bytes <= 2 * piece) return std::memcmp(a, b, bytes) == 0;
    if (std::memcmp(a, b, 4096) != 0) return false;
    std::atomic<bool> equal{true};
    parallel_for(static_cast<int64_t>((bytes + piece - 1) / piece), [&](int64_t i) {
        const size_t begin = static_cast<size_t>(i) * piece,
                     length = bytes - begin < piece ? bytes - begin : piece;
        if (equal.load(std::memory_order_relaxed) &&
            std::memcmp(static_cast<const char*>(a) + begin, static_cast<const char*>(b) + begin, length) !=
                0)
            equal.store(false, std::memory_order_relaxed);
    });
    return equal;
}

std::shared_ptr<const void> share(const std::shared_ptr<const Entry>& entry) {
    return {entry, entry->packed.get()};
}

}  // namespace

std::shared_ptr<const void> packed_weights(const ConvKernel& kernel, const void* weight, size_t bytes) {
    return packed_weights(
        kernel.serial(), kernel.packed_bytes(), [&](void* to) { kernel.pack(weight, to); }, weight, bytes);
}

std::shared_ptr<const void> packed_weights(uint64_t owner, size_t packed_bytes,
                                           const std::function<void(void*)>& pack, const void* weight,
                                           size_t bytes) {
    std::vector<std::shared_ptr<const Entry>> candidates;
    {
        const std::lock_guard<std::mutex> lock(mutex);
        for (const auto& entry : entries)
            if (entry->kernel == owner) candidates.push_back(entry);
    }
    for (const auto& entry : candidates) {
        if (entry->weight_bytes != bytes || !same(entry->weight.get(), weight, bytes)) continue;
        const std::lock_guard<std::mutex> lock(mutex);
        for (auto it = entries.begin(); it != entries.end(); ++it) {
            if (*it != entry) continue;
            entries.splice(entries.begin(), entries, it);
            break;
        }
        return share(entry);
    }
    // In training the weights change at every step: of one owner only a few are worth keeping, and the memory of the one
    // used longest ago takes the next.
    constexpr size_t kPerOwner = 8;
    std::shared_ptr<Entry> fresh;
    if (candidates.size() >= kPerOwner) {
        const std::lock_guard<std::mutex> lock(mutex);
        const auto at = std::find(entries.begin(), entries.end(), candidates.back());
        if (at != entries.end()) {
            kept -= (*at)->bytes();
            candidates.clear();
            if (at->use_count() == 1) fresh = std::const_pointer_cast<Entry>(*at);
            entries.erase(at);
        }
    }
    candidates.clear();
    if (fresh == nullptr || fresh->weight_bytes != bytes || fresh->packed_bytes != packed_bytes) {
        fresh = std::make_shared<Entry>();
        fresh->kernel = owner;
        fresh->weight_bytes = bytes;
        fresh->packed_bytes = packed_bytes;
        fresh->packed.reset(aligned_allocate(packed_bytes));
    }
    pack(fresh->packed.get());
    if (fresh->bytes() > kPackedKept / 2) return share(fresh);  // too large to keep
    if (fresh->weight == nullptr) fresh->weight.reset(aligned_allocate(bytes));
    std::memcpy(fresh->weight.get(), weight, bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    entries.push_front(fresh);
    kept += fresh->bytes();
    while (kept > kPackedKept) {
        kept -= entries.back()->bytes();
        entries.pop_back();
    }
    return share(fresh);
}

size_t release_packed_weights() {
    const std::lock_guard<std::mutex> lock(mutex);
    const size_t freed = kept;
    entries.clear();
    kept = 0;
    return freed;
}

}  // namespace fastconv
