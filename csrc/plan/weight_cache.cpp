#include "plan/weight_cache.hpp"

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <random>
#include <vector>

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

__extension__ using Wide = unsigned __int128;

uint64_t reduced(Wide value) {
    for (int i = 0; i < 2; i++) value = (value & kPrime) + (value >> 61);
    const auto low = static_cast<uint64_t>(value);
    return low >= kPrime ? low - kPrime : low;
}

// Where a polynomial is evaluated: the point and its powers.
struct Point {
    uint64_t power[4];
    explicit Point(uint64_t at) : power{at, reduced(Wide{at} * at), 0, 0} {
        power[2] = reduced(Wide{power[1]} * at);
        power[3] = reduced(Wide{power[2]} * at);
    }
};

struct Keys {
    uint32_t words[kFingerprintWords + kFingerprintShift];
    std::vector<Point> block, piece;  // of the polynomials over blocks and over pieces, two of each

    Keys() {
        std::random_device random;
        for (uint32_t& word : words) word = random();
        for (std::vector<Point>* points : {&block, &piece})
            for (int i = 0; i < 2; i++) points->emplace_back((uint64_t{random()} << 32 | random()) % kPrime);
    }
};

const Keys& keys() {
    static const Keys drawn;
    return drawn;
}

// The polynomial with four coefficients more, the halves of two numbers, modulo 2^61 - 1.
uint64_t appended(uint64_t value, const Point& at, uint64_t a, uint64_t b) {
    constexpr uint64_t low = 0xffffffff;
    return reduced(Wide{value} * at.power[3] + Wide{a >> 32} * at.power[2] + Wide{a & low} * at.power[1] +
                   Wide{b >> 32} * at.power[0] + (b & low));
}

constexpr int64_t kBlockBytes = kFingerprintWords * 4;
constexpr int64_t kPieceBlocks = 128;  // of one task

// The blocks begin .. end of the data; the last one is filled up with zeros.
Fingerprint piece_of(const char* data, int64_t bytes, int64_t begin, int64_t end) {
    const Keys& keys = fastconv::keys();
    uint64_t sums[2 * kPieceBlocks];
    const int64_t whole = std::min(end, bytes / kBlockBytes);
    fingerprint_kernels().blocks(data + begin * kBlockBytes, whole - begin, keys.words, sums);
    if (whole < end) {
        alignas(64) char last[kBlockBytes] = {};
        std::memcpy(last, data + whole * kBlockBytes, static_cast<size_t>(bytes - whole * kBlockBytes));
        fingerprint_kernels().blocks(last, 1, keys.words, sums + 2 * (whole - begin));
    }
    Fingerprint f{1, 1};
    for (int64_t i = 0; i < end - begin; i++) {
        f.first = appended(f.first, keys.block[0], sums[2 * i], sums[2 * i + 1]);
        f.second = appended(f.second, keys.block[1], sums[2 * i], sums[2 * i + 1]);
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
    const Keys& keys = fastconv::keys();
    Fingerprint whole{1, 1};
    for (int64_t i = 0; i < pieces; i++) {
        whole.first = appended(whole.first, keys.piece[0], parts[i].first, parts[i].second);
        whole.second = appended(whole.second, keys.piece[1], parts[i].first, parts[i].second);
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
