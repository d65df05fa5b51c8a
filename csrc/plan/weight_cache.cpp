#include "plan/weight_cache.hpp"

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <random>

#include "algorithms/fingerprint_kernels.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

struct Entry {
    uint64_t kernel;
    size_t weight_bytes, packed_bytes;
    Fingerprint weight;
    std::unique_ptr<void, void (*)(void*)> packed{nullptr, aligned_release};
};

std::mutex mutex;
std::list<std::shared_ptr<const Entry>> entries;  // the one used last comes first
size_t kept = 0;

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

struct Keys {
    uint32_t words[kFingerprintWords + kFingerprintShift];
    uint64_t block[2], piece[2];  // where the polynomials over blocks and over pieces are evaluated

    Keys() {
        std::random_device random;
        for (uint32_t& word : words) word = random();
        for (uint64_t* points : {block, piece})
            for (int i = 0; i < 2; i++) points[i] = (uint64_t{random()} << 32 | random()) % kPrime;
    }
};

const Keys& keys() {
    static const Keys drawn;
    return drawn;
}

// value * point + next modulo 2^61 - 1, in two halves of `next` since it has more bits.
uint64_t appended(uint64_t value, uint64_t point, uint64_t next) {
    __extension__ using Wide = unsigned __int128;
    const auto step = [point](uint64_t v, uint64_t low) {
        const Wide product = Wide{v} * point + low;
        const uint64_t sum = static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61);
        return sum >= kPrime ? sum - kPrime : sum;
    };
    return step(step(value, next >> 32), next & 0xffffffff);
}

constexpr int64_t kBlockBytes = kFingerprintWords * 4;
constexpr int64_t kPieceBlocks = 128;  // of one task

// The blocks begin .. end of the data; the last one is filled up with zeros.
Fingerprint piece_of(const char* data, int64_t bytes, int64_t begin, int64_t end) {
    uint64_t sums[2 * kPieceBlocks];
    const int64_t whole = std::min(end, bytes / kBlockBytes);
    fingerprint_kernels().blocks(data + begin * kBlockBytes, whole - begin, keys().words, sums);
    if (whole < end) {
        alignas(64) char last[kBlockBytes] = {};
        std::memcpy(last, data + whole * kBlockBytes, static_cast<size_t>(bytes - whole * kBlockBytes));
        fingerprint_kernels().blocks(last, 1, keys().words, sums + 2 * (whole - begin));
    }
    Fingerprint f{1, 1};
    for (int64_t i = 0; i < end - begin; i++) {
        f.first = appended(f.first, keys().block[0], sums[2 * i]);
        f.second = appended(f.second, keys().block[1], sums[2 * i + 1]);
    }
    return f;
}

std::shared_ptr<const void> share(const std::shared_ptr<const Entry>& entry) {
    return {entry, entry->packed.get()};
}

}  // namespace

Fingerprint fingerprint_of(const void* data, size_t size) {
    const auto bytes = static_cast<int64_t>(size);
    const int64_t blocks = ceil_div(bytes, kBlockBytes), pieces = ceil_div(blocks, kPieceBlocks);
    ScratchFrame frame;
    Fingerprint* const parts = frame.take<Fingerprint>(pieces);
    const auto piece = [&](int64_t i) {
        parts[i] = piece_of(static_cast<const char*>(data), bytes, i * kPieceBlocks,
                            std::min(blocks, (i + 1) * kPieceBlocks));
    };
    parallel_for(pieces, piece, 0, static_cast<double>(bytes) / 20e9);
    Fingerprint whole{1, 1};
    for (int64_t i = 0; i < pieces; i++) {
        whole.first = appended(whole.first, keys().piece[0], parts[i].first);
        whole.second = appended(whole.second, keys().piece[1], parts[i].second);
    }
    return whole;
}

std::shared_ptr<const void> packed_weights(const ConvKernel& kernel, const void* weight, size_t bytes) {
    return packed_weights(
        kernel.serial(), kernel.packed_bytes(), [&](void* to) { kernel.pack(weight, to); }, weight, bytes);
}

std::shared_ptr<const void> packed_weights(uint64_t owner, size_t packed_bytes,
                                           const std::function<void(void*)>& pack, const void* weight,
                                           size_t bytes) {
    const Fingerprint fingerprint = fingerprint_of(weight, bytes);
    // In training the weights change at every step: of one owner only a few are worth keeping, and the memory of the one
    // used longest ago takes the next.
    constexpr int kPerOwner = 8;
    std::shared_ptr<Entry> fresh;
    {
        const std::lock_guard<std::mutex> lock(mutex);
        int owned = 0;
        auto oldest = entries.end();
        for (auto it = entries.begin(); it != entries.end(); ++it) {
            const Entry& entry = **it;
            if (entry.kernel != owner) continue;
            if (entry.weight_bytes == bytes && entry.weight == fingerprint) {
                entries.splice(entries.begin(), entries, it);
                return share(entries.front());
            }
            owned++;
            oldest = it;
        }
        if (owned >= kPerOwner) {
            kept -= (*oldest)->packed_bytes;
            if (oldest->use_count() == 1 && (*oldest)->packed_bytes == packed_bytes)
                fresh = std::const_pointer_cast<Entry>(*oldest);
            entries.erase(oldest);
        }
    }
    if (fresh == nullptr) {
        fresh = std::make_shared<Entry>();
        fresh->packed_bytes = packed_bytes;
        fresh->packed.reset(aligned_allocate(packed_bytes));
    }
    fresh->kernel = owner;
    fresh->weight_bytes = bytes;
    fresh->weight = fingerprint;
    pack(fresh->packed.get());
    if (fresh->packed_bytes > kPackedKept / 2) return share(fresh);  // too large to keep
    const std::lock_guard<std::mutex> lock(mutex);
    entries.push_front(fresh);
    kept += fresh->packed_bytes;
    while (kept > kPackedKept) {
        kept -= entries.back()->packed_bytes;
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
