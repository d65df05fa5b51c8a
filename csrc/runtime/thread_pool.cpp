#include "runtime/thread_pool.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/system.hpp"

namespace fastconv {

namespace {

// A worker waits so long for the next job before it sleeps. To wake it takes some 45 us in a virtual machine, and between two
// calls of a training step Python takes 20 to 60: with 40 us a step of the 20-layer CIFAR net took 65 ms on two threads, so 59.
constexpr auto kSpin = std::chrono::microseconds(150);
// A caller waits so long for tasks that others still run before it sleeps: where it wakes up is up to the system.
constexpr auto kPatience = std::chrono::milliseconds(20);
// Small jobs that follow each other so closely are worth waking workers for.
constexpr auto kClose = std::chrono::microseconds(100);
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
    void (*run)(void*, int64_t);
    void* context;
    int64_t tasks;
    FloatMode mode;
    int64_t step = 1;  // tasks of one piece
    int64_t pieces = 0;
    std::atomic<bool> failed{false};
    std::exception_ptr error = nullptr;

    void work(int64_t piece) {
        if (failed.load(std::memory_order_relaxed)) return;
        inside_task = true;
        try {
            const int64_t end = std::min(tasks, (piece + 1) * step);
            for (int64_t i = piece * step; i < end; i++) run(context, i);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
        inside_task = false;
    }
};

// Where a worker was last. One that is on the core on which the caller runs now would not run before the caller is done,
// and a virtual machine's kernel leaves it there: it takes sleeping cores for occupied ones. So it is sent off by
// narrowing its affinity until it runs: two threads took the time of one in every second series of calls.
#if defined(__linux__)
struct Seat {
    std::atomic<pid_t> thread{0};
    std::atomic<int> core{-1};
    std::atomic<bool> moved{false};
    cpu_set_t allowed;  // what `settle` restores

    // By the caller.
    void clear(int here) {
        if (here < 0 || core.load(std::memory_order_relaxed) != here || moved.load()) return;
        if (sched_getaffinity(thread.load(), sizeof allowed, &allowed) != 0) return;
        cpu_set_t others = allowed;
        CPU_CLR(here, &others);
        if (CPU_COUNT(&others) == 0 || sched_setaffinity(thread.load(), sizeof others, &others) != 0) return;
        moved.store(true);
    }

    // By the worker.
    void take() { thread.store(static_cast<pid_t>(syscall(SYS_gettid))); }
    void settle() {
        if (const int here = sched_getcpu(); here != core.load(std::memory_order_relaxed))
            core.store(here, std::memory_order_relaxed);
        if (!moved.load()) return;
        sched_setaffinity(0, sizeof allowed, &allowed);
        moved.store(false);
    }
};
#else
struct Seat {  // other systems move threads by themselves
    void clear(int) {}
    void take() {}
    void settle() {}
};
#endif

// What is left of the job stands in one word: its number (22 bits), places for more threads (10), and the pieces not begun,
// from `first` (16) to `end` (16). Whoever takes a piece does so by changing that word, so the caller waits for pieces that
// were begun and for nothing else: not for a worker that has yet to wake up, nor for one that lost its core between two
// pieces. The caller takes pieces from the front and workers from the end, so that calls that
// follow each other and are cut alike find their parts of an array in the caches of the cores that touched them last.
struct Left {
    uint64_t word;
    uint64_t number() const { return word >> 42; }
    bool has_place() const { return (word >> 32 & 0x3ff) != 0; }
    int64_t first() const { return static_cast<int64_t>(word >> 16 & 0xffff); }
    int64_t end() const { return static_cast<int64_t>(word & 0xffff); }
    bool any() const { return first() < end(); }
};
constexpr uint64_t kOnePlace = uint64_t{1} << 32, kFromFront = uint64_t{1} << 16, kFromEnd = 1;

class Pool {
  public:
    void run(Job& job, int helpers) {
        hire(helpers);
        job.step = (job.tasks + kMostPieces - 1) / kMostPieces;
        job.pieces = (job.tasks + job.step - 1) / job.step;
        job_ = &job;
        unfinished_.store(static_cast<uint32_t>(job.pieces), std::memory_order_relaxed);
        const uint64_t number = (Left{left_.load(std::memory_order_relaxed)}.number() + 1) & 0x3fffff;
        Left left{number << 42 | static_cast<uint64_t>(helpers) * kOnePlace |
                  static_cast<uint64_t>(job.pieces)};
        left_.store(left.word);
        bell_.fetch_add(1);
        const int here = current_core();
        for (int i = 0; i < std::min(helpers, workers_); i++) seats_[i].clear(here);
        if (const int sleepers = sleepers_.load(); sleepers > 0) wake(bell_, std::min(helpers, sleepers));
        while (left.any()) {
            const int64_t piece = left.first();
            if (left_.compare_exchange_weak(left.word, left.word + kFromFront, std::memory_order_acq_rel))
                run_piece(job, piece, left);
        }
        const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
        const auto patience = std::chrono::steady_clock::now() + kPatience;
        while (!spin(finished)) {
            if (std::chrono::steady_clock::now() > patience) return sleep_until_finished();
            std::this_thread::yield();
        }
    }

    // Whether a small job has somebody to share it with: a worker that still spins, or soon one that was woken.
    bool worth_sharing(int helpers) {
        const auto now = std::chrono::steady_clock::now(), before = last_small_;
        last_small_ = now;
        return workers_ < helpers || sleepers_.load(std::memory_order_relaxed) < workers_ ||
               now - before < kClose;
    }

    std::atomic<bool> busy{false};

  private:
    static constexpr int64_t kMostPieces = 0xffff;

    void sleep_until_finished() {
        caller_sleeps_.store(true);
        for (uint32_t n; (n = unfinished_.load()) != 0;) sleep_on(unfinished_, n);
        caller_sleeps_.store(false);
    }

    // A machine that refuses more threads has to do with fewer.
    void hire(int helpers) {
        try {
            for (; workers_ < helpers; workers_++)
                std::thread([this](Seat* seat) { live(*seat); }, &seats_[workers_]).detach();
        } catch (const std::exception&) {
        }
    }

    // Takes the last piece of job `number`, with a place if `joins`; `left` is what it was taken from.
    bool take(Left& left, uint64_t number, bool joins) {
        while (left.number() == number && left.any() && (!joins || left.has_place())) {
            const uint64_t less = left.word - kFromEnd - (joins ? kOnePlace : 0);
            if (left_.compare_exchange_weak(left.word, less, std::memory_order_acq_rel)) return true;
        }
        return false;
    }

    // `left` becomes what is left now.
    void run_piece(Job& job, int64_t piece, Left& left) {
        job.work(piece);
        // `job` may be gone from here on.
        if (unfinished_.fetch_sub(1) == 1 && caller_sleeps_.load()) wake(unfinished_, 1);
        left.word = left_.load(std::memory_order_acquire);
    }

    void live(Seat& seat) {
        seat.take();
        for (;;) {
            const uint32_t rung = bell_.load();
            if (!spin([this] {
                    const Left left{left_.load(std::memory_order_relaxed)};
                    return left.any() && left.has_place();
                })) {
                sleepers_.fetch_add(1);
                sleep_on(bell_, rung);
                sleepers_.fetch_sub(1);
            }
            seat.settle();
            Left left{left_.load(std::memory_order_acquire)};
            const uint64_t number = left.number();
            if (!take(left, number, true)) continue;
            set_float_mode(job_->mode);
            do run_piece(*job_, left.end() - 1, left);
            while (take(left, number, false));
        }
    }

    alignas(64) std::atomic<uint64_t> left_{0};
    alignas(64) std::atomic<uint32_t> unfinished_{0};
    std::atomic<bool> caller_sleeps_{false};
    alignas(64) std::atomic<uint32_t> bell_{0};  // counts jobs
    std::atomic<int> sleepers_{0};
    Job* job_ = nullptr;
    // Only the thread that holds `busy` looks at these.
    int workers_ = 0;
    std::chrono::steady_clock::time_point last_small_;
    Seat seats_[kMaxThreads];
};

// Never destroyed: workers may outlive the static objects of the process. A forked child has none of the
// workers, so it leaves the parent's pool where it is and makes its own.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
    Pool* current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return *current;
    static const bool registered = [] {
        at_fork(nullptr, nullptr, [] {
            the_pool.store(nullptr);
            inside_task = false;
        });
        return true;
    }();
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

int64_t tasks_for(int64_t units, double work) {
    const auto worth = static_cast<int64_t>(std::max(1.0, work / kTaskWork));
    // Three tasks on two threads would take as long as four.
    const int64_t threads = num_threads(),
                  even = worth <= threads ? worth : (worth + threads - 1) / threads * threads;
    return std::min<int64_t>({units, 4 * threads, even});
}

int num_threads() { return inside_task ? 1 : thread_setting().load(std::memory_order_relaxed); }

void set_num_threads(int threads) { thread_setting().store(std::clamp(threads, 1, kMaxThreads)); }

bool in_parallel() { return inside_task; }

namespace {

thread_local std::vector<Split>* recorded = nullptr;
thread_local int64_t weight_parts = 1;

}  // namespace

SplitRecorder::SplitRecorder(std::vector<Split>& into) {
    recorded = &into;
    weight_parts = 1;
}

SplitRecorder::~SplitRecorder() { recorded = nullptr; }

void note_weight_parts(int64_t parts) { weight_parts = parts; }

void parallel_for(int64_t tasks, void (*run)(void*, int64_t), void* context, int limit, double seconds) {
    const int64_t threads =
        std::min<int64_t>(limit > 0 ? std::min(limit, num_threads()) : num_threads(), tasks);
    if (recorded != nullptr) {
        recorded->push_back({tasks, threads, weight_parts});
        weight_parts = 1;
        return;
    }
    Pool* helpers = nullptr;
    if (threads > 1 && !inside_task && seconds >= kTinyJob) {
        helpers = &pool();
        if (helpers->busy.exchange(true, std::memory_order_acquire)) {
            helpers = nullptr;
        } else if (seconds < kSmallJob && !helpers->worth_sharing(static_cast<int>(threads) - 1)) {
            helpers->busy.store(false, std::memory_order_release);
            helpers = nullptr;
        }
    }
    if (helpers == nullptr) {
        for (int64_t i = 0; i < tasks; i++) run(context, i);
        return;
    }
    Job job{run, context, tasks, float_mode()};
    helpers->run(job, static_cast<int>(threads) - 1);
    helpers->busy.store(false, std::memory_order_release);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fastconv
