// Fast Fourier transforms of as many sequences as a vector has lanes; fft.cpp puts a convolution together from them.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int kFftStages = 16;        // of one transform, at most
constexpr int kFftOutputs = 4;        // channels summed at once
constexpr int kFftLongest = 1 << 15;  // sequence

// How sequences of n values are transformed: in place, so that frequency f ends at place[f].
template <class T>
struct FftAxis {
    int n;
    int stages;
    int radix[kFftStages];
    // Of a stage whose blocks have m values: exp(-2 pi i j k / m) for j < m / radix, 0 < k < radix; real, imaginary.
    const T* twiddles[kFftStages];
    const int32_t* place;
};

// A value is two vectors, of real and of imaginary parts; `z` counts numbers.
template <class T>
struct Fft {
    int lanes;
    // n values in place, `step` numbers apart, not scaled.
    void (*forward)(const FftAxis<T>& axis, T* z, int64_t step);
    void (*inverse)(const FftAxis<T>& axis, T* z, int64_t step);
    // Spectra of two real sequences, from that of the first plus i times the second: twice frequency f of both, side by
    // side, to to[f * pitch], f <= n / 2; and back, the second `apart` numbers behind the first, not scaled.
    void (*split)(const FftAxis<T>& axis, const T* z, T* to, int64_t pitch);
    void (*merge)(const FftAxis<T>& axis, const T* from, int64_t pitch, int64_t apart, T* z);
    // z[i] *= w[i] for n values, w with a number for each lane or one for all.
    void (*times_lanes)(const T* w, T* z, int64_t n);
    void (*times_all)(const T* w, T* z, int64_t n);
    // out[k * out_step + i] = sum over r < fold, c of x[c * x_step + i * fold + r] * w[((i * fold + r) * channels + c) *
    // outputs + k], for n values of `outputs` <= kFftOutputs sums; w with one number for all lanes.
    void (*sums)(const T* w, const T* x, int64_t x_step, int64_t channels, int64_t fold, T* out,
                 int64_t out_step, int outputs, int64_t n);
    // Pieces of rows into lanes, real or imaginary parts: z[(first + j) * 2 * lanes + r] = rows[r][j], j < count.
    void (*gather)(const T* const* rows, int64_t first, int64_t count, T* z);
    // Likewise from pixels of `channels` channels that lie `pixel` apart.
    void (*gather_pixels)(const T* x, int64_t pixel, int64_t channels, int64_t first, int64_t count, T* z);
    // The way back, with bias: rows[r][j] = z[j * step + r] + bias[r], j < counts[r]. False where a lane with a row is not
    // finite.
    bool (*scatter)(const T* z, int64_t step, T* const* rows, const int64_t* counts, const T* bias);
    bool (*scatter_pixels)(const T* z, int64_t step, T* y, int64_t pixel, int64_t channels, int64_t count,
                           const T* bias);
};

struct FftKernels {
    Fft<float> f32;
    Fft<double> f64;
};

FASTCONV_DECLARE_KERNELS(FftKernels, fft_kernels)

template <class T>
const Fft<T>& fft_of();

template <>
inline const Fft<float>& fft_of<float>() {
    return FASTCONV_DISPATCH(fft_kernels).f32;
}

template <>
inline const Fft<double>& fft_of<double>() {
    return FASTCONV_DISPATCH(fft_kernels).f64;
}

}  // namespace fastconv
