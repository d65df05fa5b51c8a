#include <dirent.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "runtime/block_cache.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"
#include "tests/check.hpp"

using namespace fastconv;

namespace {

// Every task runs exactly once.
void cover(int64_t tasks) {
    std::vector<std::atomic<int>> hits(tasks);
    parallel_for(tasks, [&](int64_t i) { hits[i]++; });
    for (auto& hit : hits) CHECK(hit == 1);
}

}  // namespace

TEST(pool_covers_all_tasks) {
    for (const int threads : {1, 2, 3, 7}) {
        set_num_threads(threads);
        for (int round = 0; round < 200; round++)
            for (const int64_t tasks : {0, 1, 2, 5, 64}) cover(tasks);
    }
    set_num_threads(2);
}

TEST(pool_nested_runs_serially) {
    set_num_threads(3);
    std::atomic<int> sum{0};
    parallel_for(6, [&](int64_t) {
        CHECK(in_parallel());
        parallel_for(10, [&](int64_t) { sum++; });
    });
    CHECK(sum == 60);
    CHECK(!in_parallel());
}

TEST(pool_takes_more_tasks_than_it_counts) {
    set_num_threads(3);
    std::vector<uint8_t> hits((int64_t{1} << 24) + 5);
    parallel_for(static_cast<int64_t>(hits.size()), [&](int64_t i) { hits[i]++; });
    bool once = true;
    for (const uint8_t hit : hits) once &= hit == 1;
    CHECK(once);
    set_num_threads(2);
}

// The first job cannot end before the second one, of another thread, has.
TEST(pool_runs_a_second_job_beside_the_first) {
    set_num_threads(2);
    std::atomic<bool> begun{false}, other_done{false};
    std::thread other([&] {
        while (!begun) std::this_thread::yield();
        cover(16);
        other_done = true;
    });
    parallel_for(8, [&](int64_t) {
        begun = true;
        while (!other_done) std::this_thread::yield();
    });
    other.join();
    cover(16);
}

// A worker that sleeps where the caller runs is woken elsewhere, but may go everywhere again once it is awake.
TEST(pool_leaves_affinity_alone) {
    const auto narrowed = [] {
        cpu_set_t mine, other;
        int count = sched_getaffinity(0, sizeof mine, &mine) != 0;
        if (DIR* tasks = opendir("/proc/self/task")) {
            while (const dirent* task = readdir(tasks)) {
                const int id = std::atoi(task->d_name);
                if (id == 0 || sched_getaffinity(id, sizeof other, &other) != 0) continue;
                count += !CPU_EQUAL(&mine, &other);
            }
            closedir(tasks);
        }
        return count;
    };
    for (const int threads : {2, 8}) {  // the last round wakes all workers of the tests before
        set_num_threads(threads);
        for (int round = 0; round < 100 && (round < 30 || narrowed() > 0); round++) {
            cover(64);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));  // who was woken late is awake by now
        }
    }
    CHECK(narrowed() == 0);
    set_num_threads(2);
}

TEST(pool_uses_no_cpu_when_idle) {
    set_num_threads(4);
    cover(64);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const auto used = [] {
        timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    };
    const double before = used();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(used() - before < 0.02);
    set_num_threads(2);
}

TEST(pool_second_thread_is_not_blocked) {
    set_num_threads(2);
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; i++)
        callers.emplace_back([] {
            for (int round = 0; round < 100; round++) cover(16);
        });
    for (auto& caller : callers) caller.join();
}

TEST(pool_rethrows) {
    set_num_threads(2);
    bool caught = false;
    try {
        parallel_for(50, [](int64_t i) {
            if (i == 17) throw std::runtime_error("task 17");
        });
    } catch (const std::runtime_error&) {
        caught = true;
    }
    CHECK(caught);
    cover(16);
}

TEST(pool_hands_over_the_float_mode) {
    set_num_threads(3);
    const FloatMode before = float_mode();
    {
        const FlushToZero guard;
        std::atomic<int> flushed{0};
        parallel_for(64, [&](int64_t) {
            volatile float tiny = 1e-30f;
            tiny = tiny * 1e-12f;
            if (tiny == 0.0f) flushed++;
        });
        CHECK(flushed == 64);
    }
    CHECK(float_mode() == before);
}

#if !defined(__SANITIZE_THREAD__)
// Forks, runs `child` in the child and checks that it came to its end.
template <class F>
void in_child(F child) {
    const pid_t id = fork();
    if (id == 0) {
        alarm(20);
        child();
        _exit(testing::failures != 0);
    }
    int status = -1;
    waitpid(id, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(pool_works_in_a_forked_child) {
    set_num_threads(2);
    cover(16);
    in_child([] {
        cover(16);
        ScratchFrame frame;
        std::memset(frame.take_bytes(1 << 20), 1, 1 << 20);
    });
    cover(16);
}

// Every wait ends although all threads share a core; in a child, since workers inherit the affinity.
TEST(pool_works_on_one_core_of_a_forked_child) {
    in_child([] {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof one, &one);
        set_num_threads(12);
        for (int round = 0; round < 300; round++) cover(64);
    });
}
#endif

TEST(scratch_nests_and_is_given_back) {
    release_scratch_memory();
    {
        ScratchFrame outer;
        char* a = outer.take<char>(1000);
        std::memset(a, 1, 1000);
        char* first;
        {
            ScratchFrame inner;
            first = inner.take<char>(200000);
            std::memset(first, 2, 200000);
            CHECK(reinterpret_cast<uintptr_t>(first) % kScratchAlignment == 0);
        }
        ScratchFrame inner;
        CHECK(inner.take<char>(200000) == first);
        for (int i = 0; i < 1000; i++) CHECK(a[i] == 1);
        release_scratch_memory();  // this thread's frames are open: nothing of theirs may go
        std::memset(a, 3, 1000);
    }
    CHECK(scratch_bytes() > 200000);
    {
        ScratchFrame large;
        large.take_bytes(kScratchKept + 1);
    }
    CHECK(scratch_bytes() <= kScratchKept);
    CHECK(release_scratch_memory() == 0 || scratch_bytes() == 0);
}

TEST(blocks_are_reused_and_bounded) {
    release_blocks();
    size_t capacity = 0;
    void* block = acquire_block(3000000, &capacity);
    CHECK(capacity >= 3000000);
    give_back_block(block, capacity);
    size_t again = 0;
    CHECK(acquire_block(2999000, &again) == block);
    give_back_block(block, again);
    for (int i = 1; i < 8; i++) {
        void* large = acquire_block(kBlocksKept / 4 * i / 2, &capacity);
        give_back_block(large, capacity);
        CHECK(cached_block_bytes() <= kBlocksKept);
    }
    CHECK(release_blocks() > 0);
    CHECK(cached_block_bytes() == 0);
}
