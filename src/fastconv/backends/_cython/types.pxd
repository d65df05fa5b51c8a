# Types and the one formula that all kernels share; declared here and nowhere else.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef (Py_ssize_t, Py_ssize_t, Py_ssize_t) Three

ctypedef fused floating:
    float
    double

# whatever can be compared: maximum pooling
ctypedef fused number:
    float
    double
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t

# whatever is only copied, seen as its bits
ctypedef fused bits:
    uint8_t
    uint16_t
    uint32_t
    uint64_t


# Outputs [first, last) below `count` see their tap, at output * step + offset, on an axis of `size`.
cdef inline Py_ssize_t first_inside(Py_ssize_t offset, Py_ssize_t step) noexcept nogil:
    return 0 if offset >= 0 else (step - 1 - offset) // step


cdef inline Py_ssize_t last_inside(Py_ssize_t offset, Py_ssize_t step, Py_ssize_t size,
                                   Py_ssize_t count) noexcept nogil:
    return 0 if offset >= size else min(count, (size - offset + step - 1) // step)
