#include "runtime/machine.hpp"

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include "runtime/system.hpp"

namespace fastconv {

namespace {

#if defined(_SC_LEVEL1_DCACHE_SIZE)
size_t cache_bytes(int name, size_t usual) {
    const long bytes = sysconf(name);
    return bytes > 0 ? static_cast<size_t>(bytes) : usual;
}
#endif

// CPUs that the cgroup's quota is worth, 0 for no limit. Version 2 first, then version 1.
double cgroup_quota() {
    std::ifstream line("/proc/self/cgroup");
    std::string text, path;
    while (std::getline(line, text))
        if (text.rfind("0::", 0) == 0) path = text.substr(3);
    for (const std::string& folder : {std::string("/sys/fs/cgroup") + path, std::string("/sys/fs/cgroup")}) {
        std::ifstream file(folder + "/cpu.max");
        std::string quota;
        double period = 0;
        if (file >> quota >> period && quota != "max" && period > 0) return std::stod(quota) / period;
    }
    std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    double quota = 0, period = 0;
    if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) return quota / period;
    return 0;
}

}  // namespace

size_t l1_bytes() {
#ifdef _SC_LEVEL1_DCACHE_SIZE
    static const size_t bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10);
    return bytes;
#else
    return 32 << 10;
#endif
}

size_t l2_bytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
    static const size_t bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 1 << 20);
    return bytes;
#else
    return 1 << 20;
#endif
}

size_t l3_bytes() {
#ifdef _SC_LEVEL3_CACHE_SIZE
    static const size_t bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE, 0);
    return bytes;
#else
    return 0;
#endif
}

int usable_cpus() {
    int cpus = system_cpus();
    if (const double quota = cgroup_quota(); quota > 0)
        cpus = std::min(cpus, static_cast<int>(std::ceil(quota)));
    return std::max(cpus, 1);
}

}  // namespace fastconv
