#include "algorithms/backward_weight_chunks.hpp"

#include <algorithm>
#include <numeric>

namespace fastconv {

Chunks::Chunks(const ConvProblem& problem, int64_t batch, int64_t limit)
    : total_{batch, problem.out_size[0], problem.out_size[1], problem.out_size[2]} {
    int64_t room = limit;
    for (int a = 3; a >= 0; a--) {
        parts_[a] = ceil_div(total_[a], std::min(room, std::max<int64_t>(total_[a], 1)));
        largest_[a] = parts_[a] == 0 ? 0 : ceil_div(total_[a], parts_[a]);
        room = parts_[a] > 1 ? 1 : std::max<int64_t>(room / std::max<int64_t>(total_[a], 1), 1);
    }
}

Chunk Chunks::operator[](int64_t index) const {
    Range part[4];
    for (int a = 3; a >= 0; a--) {
        part[a] = part_of(total_[a], parts_[a], index % parts_[a]);
        index /= parts_[a];
    }
    return {part[0], {part[1], part[2], part[3]}};
}

PackedAxis::PackedAxis(const ConvProblem& p, int a)
    : skip(p.kernel[a] == 1 ? p.stride[a] : std::gcd(p.stride[a], p.dilation[a])),
      step(p.stride[a] / skip),
      tap(p.kernel[a] == 1 ? 0 : p.dilation[a] / skip) {}

Range inside(int64_t first, int64_t skip, int64_t n, int64_t size) {
    const int64_t low = first < 0 ? std::min(n, ceil_div(-first, skip)) : 0;
    const int64_t high = first < size ? std::min(n, ceil_div(size - first, skip)) : 0;
    return {low, std::max(low, high)};
}

}  // namespace fastconv
