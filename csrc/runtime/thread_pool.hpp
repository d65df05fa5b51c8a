// parallel_for: the one parallel loop of the library.
//
// Tasks are taken one by one from a counter, by the caller and by the pool's workers, so that a slow core
// takes fewer. Results must therefore not depend on who computes a task: give each task its own outputs. Make
// tasks of about 20 us or more, two to four per thread. A job that finds the pool busy (a second Python
// thread) and a job started inside a task run on their own thread alone. Workers spin shortly after a job and
// then sleep. Waking one up takes the caller some 20 us in a virtual machine, so only jobs that are worth it do.
// After fork() the child makes a new pool.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

namespace fastconv {

// Threads of a job, the caller among them. The default is FASTCONV_NUM_THREADS, else the first entry of
// OMP_NUM_THREADS, else the CPUs this process may use. Inside a task it is one.
int num_threads();
void set_num_threads(int threads);

// Calls run(context, i) for i = 0 .. tasks-1 on at most `limit` threads (0: num_threads()). The caller's
// floating-point mode holds on every thread. The first exception of a task is rethrown here; the other tasks
// may then be left out. `seconds` is what the job takes on one thread at the least, at the peak of this machine: below
// kSmallJob nobody is woken up unless such jobs come one after another, below kTinyJob the caller is alone.
constexpr double kSmallJob = 20e-6, kTinyJob = 4e-6;
void parallel_for(int64_t tasks, void (*run)(void* context, int64_t task), void* context, int limit = 0,
                  double seconds = 1);

template <class F>
void parallel_for(int64_t tasks, F&& body, int limit = 0, double seconds = 1) {
    using Body = std::remove_reference_t<F>;
    parallel_for(
        tasks, [](void* context, int64_t task) { (*static_cast<Body*>(context))(task); },
        const_cast<void*>(static_cast<const void*>(&body)), limit, seconds);
}

// Multiply-adds worth a task of their own; and how many tasks to make of `units` equal pieces that are `work` together.
constexpr double kTaskWork = 100e3;
int64_t tasks_for(int64_t units, double work);

// How a kernel cuts its work, for reports: while a recorder lives, parallel_for on its thread notes what it is asked for
// and runs nothing. `weight_parts` is what the kernel said just before by note_weight_parts: tasks in a row that read
// the same input with other weights.
struct Split {
    int64_t tasks;
    int64_t threads;
    int64_t weight_parts;
};

class SplitRecorder {
  public:
    explicit SplitRecorder(std::vector<Split>& into);
    ~SplitRecorder();
    SplitRecorder(const SplitRecorder&) = delete;
    SplitRecorder& operator=(const SplitRecorder&) = delete;
};

void note_weight_parts(int64_t parts);

// True inside a task of a job.
bool in_parallel();

}  // namespace fastconv
