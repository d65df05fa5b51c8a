# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Pooling and its gradients: typed loops over planes (P, D, H, W), single-threaded.

A window is taken apart: its rows are first combined column by column, along contiguous memory, and then the columns of
each window are. Arrays called `columns`, `rows`, `sums`, `y` and `found` are scratch, one row long.
"""

from libc.stdint cimport int64_t

from fastconv.backends._cython.types cimport Three, first_inside, floating, last_inside, number


cdef inline void keep_larger(number* y, const number* x, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """y = max(y, x), NaN winning; steps of one and two are worth a loop that the compiler can see"""
    cdef Py_ssize_t i
    if step == 1:
        for i in range(n):
            y[i] = x[i] if x[i] > y[i] or x[i] != x[i] else y[i]
    elif step == 2:
        for i in range(n):
            y[i] = x[2 * i] if x[2 * i] > y[i] or x[2 * i] != x[2 * i] else y[i]
    else:
        for i in range(n):
            y[i] = x[i * step] if x[i * step] > y[i] or x[i * step] != x[i * step] else y[i]


cdef inline void row_of_maxima(
    const number[:, :, :, ::1] x, Py_ssize_t p, Py_ssize_t oz, Py_ssize_t oy, number least, Three kernel, Three stride,
    Three dilation, Three before, number* columns, int64_t* rows, number* y, int64_t* found, Py_ssize_t count
) noexcept nogil:
    """One row of maxima and their flat positions, -1 where a window lies in the padding"""
    cdef Py_ssize_t width = x.shape[3], kz, ky, kx, iz, iy, offset, begin, i, o
    cdef const number* row
    cdef number v, m
    cdef int64_t at, best
    cdef bint better
    for i in range(width):
        columns[i] = least
        rows[i] = -1
    for kz in range(kernel[0]):
        iz = oz * stride[0] + kz * dilation[0] - before[0]
        if iz < 0 or iz >= x.shape[1]:
            continue
        for ky in range(kernel[1]):
            iy = oy * stride[1] + ky * dilation[1] - before[1]
            if iy < 0 or iy >= x.shape[2]:
                continue
            row = &x[p, iz, iy, 0]
            begin = (iz * x.shape[2] + iy) * width
            for i in range(width):
                v = row[i]
                m = columns[i]
                better = (rows[i] < 0) | (v > m) | ((v != v) & (m == m))
                columns[i] = v if better else m
                rows[i] = begin + i if better else rows[i]
    for o in range(count):
        y[o] = least
        found[o] = -1
    for kx in range(kernel[2]):
        offset = kx * dilation[2] - before[2]
        for o in range(first_inside(offset, stride[2]), last_inside(offset, stride[2], width, count)):
            v = columns[o * stride[2] + offset]
            m = y[o]
            at = rows[o * stride[2] + offset]
            best = found[o]
            # of tied columns the one with the smaller position comes first in row-major order
            better = (best < 0) | (v > m) | ((v != v) & (m == m)) | (
                ((v == m) | ((v != v) & (m != m))) & (at < best))
            better &= at >= 0
            y[o] = v if better else m
            found[o] = at if better else best


def max_pool(const number[:, :, :, ::1] x, number[:, :, :, ::1] out, const number[::1] least, number[::1] columns,
             Three kernel, Three stride, Three dilation, Three before):
    """Maximum of every window, NaN if it holds one, `least` (one number) if it lies in the padding"""
    cdef Py_ssize_t p, oz, oy, kz, ky, kx, iz, iy, offset, start, stop, i
    with nogil:
        for p in range(out.shape[0]):
            for oz in range(out.shape[1]):
                for oy in range(out.shape[2]):
                    for i in range(x.shape[3]):
                        columns[i] = least[0]
                    for kz in range(kernel[0]):
                        iz = oz * stride[0] + kz * dilation[0] - before[0]
                        if iz < 0 or iz >= x.shape[1]:
                            continue
                        for ky in range(kernel[1]):
                            iy = oy * stride[1] + ky * dilation[1] - before[1]
                            if 0 <= iy < x.shape[2]:
                                keep_larger(&columns[0], &x[p, iz, iy, 0], 1, x.shape[3])
                    for i in range(out.shape[3]):
                        out[p, oz, oy, i] = least[0]
                    for kx in range(kernel[2]):
                        offset = kx * dilation[2] - before[2]
                        start = first_inside(offset, stride[2])
                        stop = last_inside(offset, stride[2], x.shape[3], out.shape[3])
                        if start < stop:
                            keep_larger(&out[p, oz, oy, start], &columns[start * stride[2] + offset], stride[2],
                                        stop - start)


def max_pool_with_indices(const number[:, :, :, ::1] x, number[:, :, :, ::1] out, int64_t[:, :, :, ::1] indices,
                          const number[::1] least, number[::1] columns, int64_t[::1] rows,
                          Three kernel, Three stride, Three dilation, Three before):
    """Maximum of every window, and where it stands in its plane"""
    cdef Py_ssize_t p, oz, oy
    with nogil:
        for p in range(out.shape[0]):
            for oz in range(out.shape[1]):
                for oy in range(out.shape[2]):
                    row_of_maxima(x, p, oz, oy, least[0], kernel, stride, dilation, before, &columns[0], &rows[0],
                                  &out[p, oz, oy, 0], &indices[p, oz, oy, 0], out.shape[3])


cdef inline void share_out(const floating* x, const floating* y, const floating* dy, floating* dx, Three size,
                           Py_ssize_t oz, Py_ssize_t oy, Py_ssize_t count, bint split, Three kernel, Three stride,
                           Three dilation, Three before) noexcept nogil:
    """Give the gradients of one row of windows to everything in them that equals its maximum"""
    cdef Py_ssize_t z = oz * stride[0] - before[0], v = oy * stride[1] - before[1], left, o, kz, ky, kx, at, tied
    cdef floating m, g
    cdef int turn
    for o in range(count):
        left = o * stride[2] - before[2]
        m = y[o]
        g = dy[o]
        tied = 0
        # first count the ties where the gradient is split, then give
        for turn in range(0 if split else 1, 2):
            if turn == 1 and split:
                g = dy[o] / max(tied, 1)
            for kz in range(first_inside(z, dilation[0]), last_inside(z, dilation[0], size[0], kernel[0])):
                for ky in range(first_inside(v, dilation[1]), last_inside(v, dilation[1], size[1], kernel[1])):
                    at = ((z + kz * dilation[0]) * size[1] + v + ky * dilation[1]) * size[2] + left
                    at += first_inside(left, dilation[2]) * dilation[2]
                    for kx in range(first_inside(left, dilation[2]),
                                    last_inside(left, dilation[2], size[2], kernel[2])):
                        if x[at] == m or (x[at] != x[at] and m != m):
                            if turn == 0:
                                tied += 1
                            else:
                                dx[at] += g
                        at += dilation[2]


def max_pool_backward(const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] x, floating[:, :, :, ::1] dx,
                      bint first_only, bint split, const floating[::1] least, floating[::1] columns, int64_t[::1] rows,
                      floating[::1] y, int64_t[::1] found, Three kernel, Three stride, Three dilation, Three before):
    """Give each window's gradient to its first maximum, or to all tied ones, or split; dx is zero before"""
    cdef Py_ssize_t p, oz, oy, o
    cdef floating* plane
    cdef Three size = (x.shape[1], x.shape[2], x.shape[3])
    with nogil:
        for p in range(dy.shape[0]):
            plane = &dx[p, 0, 0, 0]
            for oz in range(dy.shape[1]):
                for oy in range(dy.shape[2]):
                    row_of_maxima(x, p, oz, oy, least[0], kernel, stride, dilation, before, &columns[0], &rows[0],
                                  &y[0], &found[0], dy.shape[3])
                    if first_only:
                        for o in range(dy.shape[3]):
                            if found[o] >= 0:
                                plane[found[o]] += dy[p, oz, oy, o]
                    else:
                        share_out(&x[p, 0, 0, 0], &y[0], &dy[p, oz, oy, 0], plane, size, oz, oy, dy.shape[3], split,
                                  kernel, stride, dilation, before)


def avg_pool(const floating[:, :, :, ::1] x, floating[:, :, :, ::1] out, const int64_t[::1] depths,
             const int64_t[::1] heights, const int64_t[::1] widths, double[::1] columns, double[::1] sums,
             Three kernel, Three stride, Three dilation, Three before):
    """Sum of every window over the product of its counts along the three axes; sums are double"""
    cdef Py_ssize_t p, oz, oy, kz, ky, kx, iz, iy, offset, start, stop, i, o
    cdef int64_t count
    with nogil:
        for p in range(out.shape[0]):
            for oz in range(out.shape[1]):
                for oy in range(out.shape[2]):
                    for i in range(x.shape[3]):
                        columns[i] = 0
                    for kz in range(kernel[0]):
                        iz = oz * stride[0] + kz * dilation[0] - before[0]
                        if iz < 0 or iz >= x.shape[1]:
                            continue
                        for ky in range(kernel[1]):
                            iy = oy * stride[1] + ky * dilation[1] - before[1]
                            if 0 <= iy < x.shape[2]:
                                for i in range(x.shape[3]):
                                    columns[i] += x[p, iz, iy, i]
                    for o in range(out.shape[3]):
                        sums[o] = 0
                    for kx in range(kernel[2]):
                        offset = kx * dilation[2] - before[2]
                        start = first_inside(offset, stride[2])
                        stop = last_inside(offset, stride[2], x.shape[3], out.shape[3])
                        for o in range(start, stop):
                            sums[o] += columns[o * stride[2] + offset]
                    for o in range(out.shape[3]):
                        count = depths[oz] * heights[oy] * widths[o]
                        out[p, oz, oy, o] = <floating>(sums[o] / count) if count > 0 else 0


def avg_pool_backward(const floating[:, :, :, ::1] dy, floating[:, :, :, ::1] dx, const int64_t[::1] depths,
                      const int64_t[::1] heights, const int64_t[::1] widths, floating[::1] columns,
                      Three kernel, Three stride, Three dilation, Three before):
    """Give each output's gradient, over its count, to every input of its window; dx is zero before"""
    cdef Py_ssize_t p, oz, oy, kz, ky, kx, iz, iy, offset, i, o
    cdef int64_t count
    with nogil:
        for p in range(dy.shape[0]):
            for oz in range(dy.shape[1]):
                for oy in range(dy.shape[2]):
                    for i in range(dx.shape[3]):
                        columns[i] = 0
                    for kx in range(kernel[2]):
                        offset = kx * dilation[2] - before[2]
                        for o in range(first_inside(offset, stride[2]),
                                       last_inside(offset, stride[2], dx.shape[3], dy.shape[3])):
                            count = depths[oz] * heights[oy] * widths[o]
                            if count > 0:
                                columns[o * stride[2] + offset] += dy[p, oz, oy, o] / count
                    for kz in range(kernel[0]):
                        iz = oz * stride[0] + kz * dilation[0] - before[0]
                        if iz < 0 or iz >= dx.shape[1]:
                            continue
                        for ky in range(kernel[1]):
                            iy = oy * stride[1] + ky * dilation[1] - before[1]
                            if 0 <= iy < dx.shape[2]:
                                for i in range(dx.shape[3]):
                                    dx[p, iz, iy, i] += columns[i]
