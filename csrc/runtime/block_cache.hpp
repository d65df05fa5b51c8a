// A bounded cache of freed output blocks. A fresh output of some megabytes costs page faults worth as much as
// the layer that fills it; the block of an array that died a moment ago does not.
#pragma once

#include <cstddef>

namespace fastconv {

// Outputs from this size on come from the cache; smaller ones are NumPy's business.
constexpr size_t kBlockLeast = size_t{256} << 10;
// What the cache keeps at most, in all.
constexpr size_t kBlocksKept = size_t{256} << 20;

// A block of at least `bytes`, aligned to 64 bytes, content unknown; `capacity` is what give_back_block wants
// to know.
void* acquire_block(size_t bytes, size_t* capacity);
void give_back_block(void* memory, size_t capacity) noexcept;

// Frees what the cache holds; returns the bytes freed.
size_t release_blocks();

// Bytes the cache holds now.
size_t cached_block_bytes();

}  // namespace fastconv
