// What is known of this machine.
#pragma once

#include <cstddef>

namespace fastconv {

// Data cache sizes in bytes of one core; usual values where the system does not tell.
size_t l1_bytes();
size_t l2_bytes();
// Of the cache that all cores share; 0 where the system does not tell.
size_t l3_bytes();

// CPUs this process may use: the affinity mask, cut by the cgroup's quota rounded up.
int usable_cpus();

}  // namespace fastconv
