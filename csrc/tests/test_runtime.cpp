#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
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
TEST(pool_works_in_a_forked_child) {
    set_num_threads(2);
    cover(16);
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        cover(16);
        ScratchFrame frame;
        std::memset(frame.take_bytes(1 << 20), 1, 1 << 20);
        _exit(testing::failures != 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cover(16);
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
