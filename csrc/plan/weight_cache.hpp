// Packed weights of eager calls, for algorithms whose packing is dear (transforms).
//
// A caller's array may change between calls, so every call reads its weights once and makes a fingerprint of 128 bits:
// an entry serves the calls whose weights have its own. The fingerprint is a universal hash under keys that each process
// draws for itself: weights that differ, in whichever way, have the same one with a probability below 2^-60. Comparing
// with a copy byte for byte, which this replaced, read twice as much: 3x3 with 512 channels at 7x7 2.7 ms a call, now 1.6.
//
// What is left is reading: weights that L2 does not keep arrive at 29 GB/s, all that one core gets from the third level (4 MB
// in 145 us of the 170 that a call of 512 > 2048 takes longer than a plan). Nothing cheaper is sound: a read-only array may be
// made writeable again, or written through another view, and the address says nothing of the content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

// The cache as a whole keeps at most this many bytes; the entries used longest ago go first.
constexpr size_t kPackedKept = size_t{256} << 20;

// What `pack` makes of `weight`, which is `bytes` long, for an owner that goes by a number of its own (next_serial).
std::shared_ptr<const void> packed_weights(uint64_t owner, size_t packed_bytes,
                                           const std::function<void(void*)>& pack, const void* weight,
                                           size_t bytes);
// What kernel.pack makes of it.
std::shared_ptr<const void> packed_weights(const ConvKernel& kernel, const void* weight, size_t bytes);

// Frees the entries that no call uses now; returns the bytes freed.
size_t release_packed_weights();

struct Fingerprint {
    uint64_t first, second;
    bool operator==(const Fingerprint& other) const { return first == other.first && second == other.second; }
};
Fingerprint fingerprint_of(const void* data, size_t bytes);

}  // namespace fastconv
