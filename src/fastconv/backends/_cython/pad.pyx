# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Padding and its gradient: typed loops over rows of arrays with five axes, single-threaded.

`s0` to `s4` hold, for each position along an axis of the padded array, the position it is copied from, or -1.
"""

from libc.stdint cimport int64_t

from fastconv.backends._cython.types cimport bits, floating


def pad(const bits[:, :, :, :, ::1] x, bits value, bits[:, :, :, :, ::1] out, const int64_t[::1] s0,
        const int64_t[::1] s1, const int64_t[::1] s2, const int64_t[::1] s3, const int64_t[::1] s4, Py_ssize_t before):
    """out[i] = x[source of i], `value` where a source is -1; the data of a row begins at `before`"""
    cdef Py_ssize_t a, b, c, d, i, after = before + x.shape[4]
    cdef const bits* source
    cdef bits* row
    with nogil:
        for a in range(out.shape[0]):
            for b in range(out.shape[1]):
                for c in range(out.shape[2]):
                    for d in range(out.shape[3]):
                        row = &out[a, b, c, d, 0]
                        if s0[a] < 0 or s1[b] < 0 or s2[c] < 0 or s3[d] < 0:
                            for i in range(out.shape[4]):
                                row[i] = value
                            continue
                        source = &x[s0[a], s1[b], s2[c], s3[d], 0]
                        for i in range(before):
                            row[i] = source[s4[i]] if s4[i] >= 0 else value
                        for i in range(x.shape[4]):
                            row[before + i] = source[i]
                        for i in range(after, out.shape[4]):
                            row[i] = source[s4[i]] if s4[i] >= 0 else value


def pad_backward(const floating[:, :, :, :, ::1] dy, floating[:, :, :, :, ::1] dx, const int64_t[::1] s0,
                 const int64_t[::1] s1, const int64_t[::1] s2, const int64_t[::1] s3, const int64_t[::1] s4,
                 Py_ssize_t before):
    """dx[source of i] += dy[i]; dx is zero before"""
    cdef Py_ssize_t a, b, c, d, i, after = before + dx.shape[4]
    cdef const floating* row
    cdef floating* target
    with nogil:
        for a in range(dy.shape[0]):
            for b in range(dy.shape[1]):
                for c in range(dy.shape[2]):
                    for d in range(dy.shape[3]):
                        if s0[a] < 0 or s1[b] < 0 or s2[c] < 0 or s3[d] < 0:
                            continue
                        row = &dy[a, b, c, d, 0]
                        target = &dx[s0[a], s1[b], s2[c], s3[d], 0]
                        for i in range(dx.shape[4]):
                            target[i] += row[before + i]
                        for i in range(before):
                            if s4[i] >= 0:
                                target[s4[i]] += row[i]
                        for i in range(after, dy.shape[4]):
                            if s4[i] >= 0:
                                target[s4[i]] += row[i]
