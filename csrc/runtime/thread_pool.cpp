#include "runtime/thread_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr auto kSpin = std::chrono::microseconds(40);
constexpr int kMaxThreads = 1024;

inline void pause() {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Spins until `done()` or until the time is over; tells which.
template <class Done>
bool spin(Done done) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < 32; i++) {
            if (done()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return done();
}

thread_local bool inside_task = false;

struct Job {
    void (*run)(void*, int64_t) = nullptr;
    void* context = nullptr;
    int64_t tasks = 0;
    FloatMode mode = 0;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;

    void work() {
        inside_task = true;
        try {
            for (int64_t i; !failed.load(std::memory_order_relaxed) &&
                            (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
                run(context, i);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
        inside_task = false;
    }
};

// A worker joins a job through the gate: generation (upper 32 bits), places left (next 16), threads inside
// (lower 16). The caller shuts the gate by taking all places away, so it never waits for a worker that has
// not woken up yet.
class Pool {
  public:
    void run(Job& fields, int helpers) {
        while (workers_ < helpers) {
            std::thread([this] { live(); }).detach();
            workers_++;
        }
        job_ = &fields;
        const uint64_t generation = (gate_.load() >> 32) + 1;
        gate_.store(generation << 32 | static_cast<uint64_t>(helpers) << 16);
        if (sleepers_.load() > 0) {
            {
                const std::lock_guard<std::mutex> lock(mutex_);
            }
            wake_.notify_all();
        }
        fields.work();
        gate_.fetch_and(~(uint64_t{0xffff} << 16));
        const auto empty = [this] { return (gate_.load(std::memory_order_acquire) & 0xffff) == 0; };
        while (!spin(empty)) std::this_thread::yield();
        job_ = nullptr;
    }

    std::atomic<bool> busy{false};

  private:
    void live() {
        uint64_t seen = 0;
        for (;;) {
            const auto called = [&] { return gate_.load(std::memory_order_acquire) >> 32 != seen; };
            if (!spin(called)) {
                std::unique_lock<std::mutex> lock(mutex_);
                sleepers_.fetch_add(1);
                wake_.wait(lock, [&] { return gate_.load() >> 32 != seen; });
                sleepers_.fetch_sub(1);
            }
            uint64_t state = gate_.load();
            seen = state >> 32;
            while (state >> 32 == seen && (state >> 16 & 0xffff) > 0) {
                if (!gate_.compare_exchange_weak(state, state - (1 << 16) + 1)) continue;
                set_float_mode(job_->mode);
                job_->work();
                gate_.fetch_sub(1, std::memory_order_release);
                break;
            }
        }
    }

    std::atomic<uint64_t> gate_{0};
    std::atomic<int> sleepers_{0};
    Job* job_ = nullptr;
    int workers_ = 0;  // only the thread that holds `busy` looks at it
    std::mutex mutex_;
    std::condition_variable wake_;
};

// Never destroyed: workers may outlive the static objects of the process. A forked child has none of the
// workers, so it leaves the parent's pool where it is and makes its own.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
    Pool* current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return *current;
    static const int registered = pthread_atfork(nullptr, nullptr, [] {
        the_pool.store(nullptr);
        inside_task = false;
    });
    (void)registered;
    auto* fresh = new Pool;
    if (the_pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
    return *current;
}

int positive_prefix(const char* text) {
    if (text == nullptr) return 0;
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    return end != text && value > 0 ? static_cast<int>(std::min<long>(value, kMaxThreads)) : 0;
}

int default_threads() {
    if (const int n = positive_prefix(std::getenv("FASTCONV_NUM_THREADS"))) return n;
    if (const int n = positive_prefix(std::getenv("OMP_NUM_THREADS"))) return n;
    return std::min(usable_cpus(), kMaxThreads);
}

std::atomic<int>& thread_setting() {
    static std::atomic<int> threads{default_threads()};
    return threads;
}

}  // namespace

int num_threads() { return inside_task ? 1 : thread_setting().load(std::memory_order_relaxed); }

void set_num_threads(int threads) { thread_setting().store(std::clamp(threads, 1, kMaxThreads)); }

bool in_parallel() { return inside_task; }

void parallel_for(int64_t tasks, void (*run)(void*, int64_t), void* context, int limit) {
    const int64_t threads =
        std::min<int64_t>(limit > 0 ? std::min(limit, num_threads()) : num_threads(), tasks);
    Pool* helpers = nullptr;
    if (threads > 1 && !inside_task) {
        helpers = &pool();
        if (helpers->busy.exchange(true, std::memory_order_acquire)) helpers = nullptr;
    }
    if (helpers == nullptr) {
        for (int64_t i = 0; i < tasks; i++) run(context, i);
        return;
    }
    Job job;
    job.run = run;
    job.context = context;
    job.tasks = tasks;
    job.mode = float_mode();
    helpers->run(job, static_cast<int>(threads) - 1);
    helpers->busy.store(false, std::memory_order_release);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fastconv
