// Rows of channels-first planes as pixels of one vector of channels: what Winograd's strips are made of.
#pragma once

#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// One row of up to L planes, `plane` elements apart: pixel c of `line` is column cols[c], zero where that is -1. Inner
// columns are neighbours in memory.
template <class T>
void gather_planes(const T* source, int64_t planes, int64_t plane, const int32_t* cols, int64_t columns,
                   T* line) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    int64_t first = 0, last = columns;  // the stretch where cols[c] = cols[first] + (c - first)
    while (first < columns &&
           (cols[first] < 0 || (first + 1 < columns && cols[first + 1] != cols[first] + 1)))
        first++;
    while (last > first && cols[last - 1] != cols[first] + (last - 1 - first)) last--;
    const auto single = [&](int64_t c) {
        for (int64_t k = 0; k < L; k++)
            line[c * L + k] = k < planes && cols[c] >= 0 ? source[k * plane + cols[c]] : T(0);
    };
    for (int64_t c = 0; c < first; c++) single(c);
    for (int64_t c = last; c < columns; c++) single(c);
    for (int64_t c = first; c < last; c += L) {
        const auto run = mask<V>(last - c);
        V rows[L];
        const T* const p = source + cols[first] + (c - first);
        if (planes == L && last - c >= L) {
#pragma GCC unroll 16
            for (int k = 0; k < L; k++) rows[k] = load<V>(p + k * plane);
        } else {
            for (int64_t k = 0; k < L; k++) rows[k] = k < planes ? load<V>(p + k * plane, run) : V{};
        }
        transpose(rows);
        const int64_t n = last - c < L ? last - c : L;
        if (n == L) {
#pragma GCC unroll 16
            for (int k = 0; k < L; k++) store(line + (c + k) * L, rows[k]);
        } else {
            for (int64_t k = 0; k < n; k++) store(line + (c + k) * L, rows[k]);
        }
    }
}

}  // namespace
FASTCONV_END_ISA
