// The loops of batch normalisation over one piece of an array.
//
// A piece is either a run of one channel (channels first: rows = 1, `columns` elements, parameters broadcast)
// or rows of all channels (channels last: parameters one for each column). Sums are float64.
#pragma once

#include <cstdint>

#include "plan/problem.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

struct NormPiece {
    int64_t rows, columns;
    bool per_column;  // channels are columns; else the piece is one run of one channel
};

// For each channel of a piece: what `apply` and `gradient` read.
template <class T>
struct NormParameters {
    const T *mean, *scale, *shift;  // y = (x - mean) * scale + shift, where scale = weight * inverse
    const T* inverse = nullptr;     // of the standard deviation
    const T *slope = nullptr, *constant = nullptr;  // dx = (dy - hat * slope - constant) * scale
};

template <class T>
struct NormLoops {
    // Mean of each channel of the piece, and the sum of squared differences to it.
    void (*moments)(NormPiece piece, const T* x, double* mean, double* squares);
    // out = activation((x - mean) * scale + shift + add); out may be x, add may be null.
    void (*apply)(NormPiece piece, const T* x, const T* add, const NormParameters<T>& p,
                  Activation activation, T* out);
    // Sums of dy and of dy * hat, where hat = (x - mean) * inverse and dy is before the activation.
    void (*gradient_sums)(NormPiece piece, const T* dy, const T* x, const NormParameters<T>& p,
                          Activation activation, double* sum, double* dot);
    void (*gradient)(NormPiece piece, const T* dy, const T* x, const NormParameters<T>& p,
                     Activation activation, T* dx);
};

struct NormKernels {
    NormLoops<float> f32;
    NormLoops<double> f64;
};

FASTCONV_DECLARE_KERNELS(NormKernels, norm_kernels)

template <class T>
const NormLoops<T>& norm_loops();

template <>
inline const NormLoops<float>& norm_loops<float>() {
    return FASTCONV_DISPATCH(norm_kernels).f32;
}

template <>
inline const NormLoops<double>& norm_loops<double>() {
    return FASTCONV_DISPATCH(norm_kernels).f64;
}

}  // namespace fastconv
