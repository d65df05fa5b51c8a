// Memory that will be needed is asked for by the calls of a micro-kernel, some lines each.
// Not for the sources of one instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan/problem.hpp"

namespace fastconv {

// The least divisor of n from 24 to 96; n itself where there is none. The micro-kernel asks for what follows once a
// segment: 16 steps made images that stay in L2 2 to 5% slower, the longest segments made 16 images up to 10% slower.
inline int64_t least_segment(int64_t n) {
    for (int64_t d = 24; d <= 96; d++)
        if (n % d == 0) return d;
    return n;
}

// Lines that the calls of a band ask for, some each, in runs of equal length.
template <class T>
class LinesAhead {
  public:
    // Before `calls` calls that ask for `runs` runs of so many elements. `run_at(i)` is where run i begins.
    void begin(int64_t runs, int64_t elements, int64_t calls) {
        runs_ = runs;
        lines_ = ceil_div(elements * static_cast<int64_t>(sizeof(T)), 64);
        run_ = line_ = 0;
        each_ = ceil_div(runs_ * lines_, std::max<int64_t>(1, calls));
    }
    template <class RunAt>
    void take(RunAt run_at, int64_t segments, const T** first, int64_t* lines) {
        *lines = 0;
        if (run_ == runs_ || segments == 0) return;
        const int64_t n = std::min(each_, lines_ - line_);
        *first = run_at(run_) + line_ * (64 / static_cast<int64_t>(sizeof(T)));
        if (n != last_ || segments != segments_) {
            last_ = n;
            segments_ = segments;
            lines_each_ = ceil_div(n, segments);
        }
        *lines = lines_each_;
        line_ += n;
        if (line_ < lines_) return;
        line_ = 0;
        run_++;
    }

  private:
    int64_t runs_ = 0, lines_ = 0, run_ = 0, line_ = 0, each_ = 0;
    int64_t last_ = 0, segments_ = 0, lines_each_ = 0;  // of the last call
};

}  // namespace fastconv
