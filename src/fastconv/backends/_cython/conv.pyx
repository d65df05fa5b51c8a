# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Convolution and its gradients: typed loops over rows, five axes, channels first, single-threaded.

Every element of a result is a chain of additions in one fixed order, taps outside and channels inside, four rows of
input for each pass over a row of the result.
"""

from fastconv.backends._cython.types cimport Three, bits, first_inside, floating, last_inside


cdef inline void add_row(floating* y, Py_ssize_t y_step, const floating* a, Py_ssize_t a_step, Py_ssize_t n,
                         floating u) noexcept nogil:
    """y += u * a"""
    cdef Py_ssize_t i
    if y_step == 1 and a_step == 1:
        for i in range(n):
            y[i] += u * a[i]
    else:
        for i in range(n):
            y[i * y_step] += u * a[i * a_step]


cdef inline void add_rows(floating* y, Py_ssize_t y_step, const floating* a, Py_ssize_t apart, Py_ssize_t a_step,
                          Py_ssize_t n, const floating* weight, Py_ssize_t weight_apart) noexcept nogil:
    """y += weight[0] * a + weight[1] * (the row after a) + ..., four rows in all; `apart` is from one to the next"""
    cdef Py_ssize_t i, j, k
    cdef const floating* b = a + apart
    cdef const floating* c = b + apart
    cdef const floating* d = c + apart
    cdef floating u = weight[0], v = weight[weight_apart], w = weight[2 * weight_apart], z = weight[3 * weight_apart]
    if y_step == 1 and a_step == 1:
        for i in range(n):
            y[i] = y[i] + u * a[i] + v * b[i] + w * c[i] + z * d[i]
    else:
        for i in range(n):
            j = i * y_step
            k = i * a_step
            y[j] = y[j] + u * a[k] + v * b[k] + w * c[k] + z * d[k]


cdef inline void add_all_rows(floating* y, Py_ssize_t y_step, const floating* a, Py_ssize_t apart, Py_ssize_t a_step,
                              Py_ssize_t n, const floating* weight, Py_ssize_t weight_apart,
                              Py_ssize_t count) noexcept nogil:
    """y += weight[i] * (row i from a), for `count` rows"""
    cdef Py_ssize_t i = 0
    while i + 4 <= count:
        add_rows(y, y_step, a + i * apart, apart, a_step, n, weight + i * weight_apart, weight_apart)
        i += 4
    while i < count:
        add_row(y, y_step, a + i * apart, a_step, n, weight[i * weight_apart])
        i += 1


cdef inline double dot(const floating* a, const floating* b, Py_ssize_t b_step, Py_ssize_t n) noexcept nogil:
    """Sum of a * b, in eight lanes"""
    cdef floating lanes[8]
    cdef Py_ssize_t i, j
    cdef double total = 0
    for j in range(8):
        lanes[j] = 0
    i = 0
    if b_step == 1:
        while i + 8 <= n:
            for j in range(8):
                lanes[j] += a[i + j] * b[i + j]
            i += 8
    else:
        while i + 8 <= n:
            for j in range(8):
                lanes[j] += a[i + j] * b[(i + j) * b_step]
            i += 8
    for j in range(8):
        total += lanes[j]
    while i < n:
        total += <double>a[i] * b[i * b_step]
        i += 1
    return total


def conv_forward(const floating[:, :, :, :, ::1] x, const floating[:, :, :, :, ::1] weight, const floating[::1] bias,
                 floating[:, :, :, :, ::1] out, Py_ssize_t per_group, Three stride, Three dilation, Three before):
    """out[n, k] = bias[k] + sum of weight[k, c] * x[n, c] over channels and taps; `per_group` outputs share c"""
    cdef Py_ssize_t channels = weight.shape[1], taps = weight.shape[2] * weight.shape[3] * weight.shape[4]
    cdef Py_ssize_t plane = x.shape[2] * x.shape[3] * x.shape[4]
    cdef Py_ssize_t n, k, oz, oy, kz, ky, kx, iz, iy, offset, start, stop, i
    with nogil:
        for n in range(out.shape[0]):
            for oz in range(out.shape[2]):
                for oy in range(out.shape[3]):
                    # outputs inside: the rows of x that this row reads stay in the cache for all of them
                    for k in range(out.shape[1]):
                        for i in range(out.shape[4]):
                            out[n, k, oz, oy, i] = bias[k]
                        if channels == 0:
                            continue
                        for kz in range(weight.shape[2]):
                            iz = oz * stride[0] + kz * dilation[0] - before[0]
                            if iz < 0 or iz >= x.shape[2]:
                                continue
                            for ky in range(weight.shape[3]):
                                iy = oy * stride[1] + ky * dilation[1] - before[1]
                                if iy < 0 or iy >= x.shape[3]:
                                    continue
                                for kx in range(weight.shape[4]):
                                    offset = kx * dilation[2] - before[2]
                                    start = first_inside(offset, stride[2])
                                    stop = last_inside(offset, stride[2], x.shape[4], out.shape[4])
                                    if start >= stop:
                                        continue
                                    add_all_rows(
                                        &out[n, k, oz, oy, start], 1,
                                        &x[n, k // per_group * channels, iz, iy, start * stride[2] + offset], plane,
                                        stride[2], stop - start, &weight[k, 0, kz, ky, kx], taps, channels)


def conv_backward_data(const floating[:, :, :, :, ::1] dy, const floating[:, :, :, :, ::1] weight,
                       floating[:, :, :, :, ::1] dx, Py_ssize_t per_group, Three stride, Three dilation, Three before):
    """dx[n, c] = sum of weight[k, c] * dy[n, k] over outputs k and the taps that read each position"""
    cdef Py_ssize_t channels = weight.shape[1], taps = weight.shape[2] * weight.shape[3] * weight.shape[4]
    cdef Py_ssize_t plane = dy.shape[2] * dy.shape[3] * dy.shape[4]
    cdef Py_ssize_t n, c, k0, iz, iy, kz, ky, kx, oz, oy, offset, start, stop, i
    with nogil:
        for n in range(dx.shape[0]):
            for iz in range(dx.shape[2]):
                for iy in range(dx.shape[3]):
                    for c in range(dx.shape[1]):
                        for i in range(dx.shape[4]):
                            dx[n, c, iz, iy, i] = 0
                        if per_group == 0:
                            continue
                        k0 = c // channels * per_group
                        for kz in range(weight.shape[2]):
                            oz = iz + before[0] - kz * dilation[0]
                            if oz < 0 or oz % stride[0] != 0 or oz // stride[0] >= dy.shape[2]:
                                continue
                            oz = oz // stride[0]
                            for ky in range(weight.shape[3]):
                                oy = iy + before[1] - ky * dilation[1]
                                if oy < 0 or oy % stride[1] != 0 or oy // stride[1] >= dy.shape[3]:
                                    continue
                                oy = oy // stride[1]
                                for kx in range(weight.shape[4]):
                                    offset = kx * dilation[2] - before[2]
                                    start = first_inside(offset, stride[2])
                                    stop = last_inside(offset, stride[2], dx.shape[4], dy.shape[4])
                                    if start >= stop:
                                        continue
                                    add_all_rows(
                                        &dx[n, c, iz, iy, start * stride[2] + offset], stride[2],
                                        &dy[n, k0, oz, oy, start], plane, 1, stop - start,
                                        &weight[k0, c % channels, kz, ky, kx], channels * taps, per_group)


def conv_backward_weight(const floating[:, :, :, :, ::1] dy, const floating[:, :, :, :, ::1] x,
                         floating[:, :, :, :, ::1] dw, double[:, :, ::1] totals, Py_ssize_t per_group,
                         Three stride, Three dilation, Three before):
    """dw[k, c] at each tap = sum of dy[n, k] * x[n, c] there; `totals`, of the kernel's shape, is scratch"""
    cdef Py_ssize_t n, k, c, ci, kz, ky, kx, oz, oy, z, y, z0, z1, y0, y1, offset, start, stop
    cdef double total
    with nogil:
        for k in range(dw.shape[0]):
            for c in range(dw.shape[1]):
                ci = k // per_group * dw.shape[1] + c
                totals[:, :, :] = 0
                # images outside: both planes stay in the cache for all taps
                for n in range(x.shape[0]):
                    for kz in range(dw.shape[2]):
                        z = kz * dilation[0] - before[0]
                        z0 = first_inside(z, stride[0])
                        z1 = last_inside(z, stride[0], x.shape[2], dy.shape[2])
                        for ky in range(dw.shape[3]):
                            y = ky * dilation[1] - before[1]
                            y0 = first_inside(y, stride[1])
                            y1 = last_inside(y, stride[1], x.shape[3], dy.shape[3])
                            for kx in range(dw.shape[4]):
                                offset = kx * dilation[2] - before[2]
                                start = first_inside(offset, stride[2])
                                stop = last_inside(offset, stride[2], x.shape[4], dy.shape[4])
                                if start >= stop:
                                    continue
                                total = 0
                                for oz in range(z0, z1):
                                    for oy in range(y0, y1):
                                        total += dot(
                                            &dy[n, k, oz, oy, start],
                                            &x[n, ci, oz * stride[0] + z, oy * stride[1] + y,
                                               start * stride[2] + offset],
                                            stride[2], stop - start)
                                totals[kz, ky, kx] += total
                for kz in range(dw.shape[2]):
                    for ky in range(dw.shape[3]):
                        for kx in range(dw.shape[4]):
                            dw[k, c, kz, ky, kx] = <floating>totals[kz, ky, kx]


def im2col(const bits[:, :, :, ::1] x, bits[:, :, :, :, :, :, ::1] out, Three stride, Three dilation, Three before):
    """out[p, kz, ky, kx] = plane p of x (P, D, H, W) as each tap sees it, zero outside"""
    cdef Py_ssize_t p, kz, ky, kx, oz, oy, iz, iy, offset, start, stop, i
    cdef const bits* source
    cdef bits* row
    with nogil:
        for p in range(out.shape[0]):
            for kz in range(out.shape[1]):
                for ky in range(out.shape[2]):
                    for kx in range(out.shape[3]):
                        offset = kx * dilation[2] - before[2]
                        start = first_inside(offset, stride[2])
                        stop = last_inside(offset, stride[2], x.shape[3], out.shape[6])
                        for oz in range(out.shape[4]):
                            iz = oz * stride[0] + kz * dilation[0] - before[0]
                            for oy in range(out.shape[5]):
                                iy = oy * stride[1] + ky * dilation[1] - before[1]
                                row = &out[p, kz, ky, kx, oz, oy, 0]
                                if iz < 0 or iz >= x.shape[1] or iy < 0 or iy >= x.shape[2] or start >= stop:
                                    for i in range(out.shape[6]):
                                        row[i] = 0
                                    continue
                                for i in range(start):
                                    row[i] = 0
                                source = &x[p, iz, iy, start * stride[2] + offset]
                                if stride[2] == 1:
                                    for i in range(stop - start):
                                        row[start + i] = source[i]
                                else:
                                    for i in range(stop - start):
                                        row[start + i] = source[i * stride[2]]
                                for i in range(stop, out.shape[6]):
                                    row[i] = 0


def col2im(const floating[:, :, :, :, :, :, ::1] columns, floating[:, :, :, ::1] out,
           Three stride, Three dilation, Three before):
    """Add every column back to where it came from; shapes as in im2col, out is zero before"""
    cdef Py_ssize_t p, kz, ky, kx, oz, oy, z, y, offset, start, stop
    with nogil:
        for p in range(columns.shape[0]):
            for kz in range(columns.shape[1]):
                z = kz * dilation[0] - before[0]
                for ky in range(columns.shape[2]):
                    y = ky * dilation[1] - before[1]
                    for kx in range(columns.shape[3]):
                        offset = kx * dilation[2] - before[2]
                        start = first_inside(offset, stride[2])
                        stop = last_inside(offset, stride[2], out.shape[3], columns.shape[6])
                        if start >= stop:
                            continue
                        for oz in range(first_inside(z, stride[0]),
                                        last_inside(z, stride[0], out.shape[1], columns.shape[4])):
                            for oy in range(first_inside(y, stride[1]),
                                            last_inside(y, stride[1], out.shape[2], columns.shape[5])):
                                add_row(&out[p, oz * stride[0] + z, oy * stride[1] + y, start * stride[2] + offset],
                                        stride[2], &columns[p, kz, ky, kx, oz, oy, start], 1, stop - start,
                                        <floating>1)
