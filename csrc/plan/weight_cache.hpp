// Packed weights of eager calls, for algorithms whose packing is dear (transforms).
//
// A caller's array may change between calls, so an entry holds a copy of the weights it was made of and serves only a call
// whose weights are the same, byte for byte: comparing costs one read of the weights, packing several times that.
#pragma once

#include <cstddef>
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

}  // namespace fastconv
