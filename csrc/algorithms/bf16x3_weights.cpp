// Weights in thirds, as the tiles of bf16x3.hpp read them, and out of thirds again.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "algorithms/bf16x3.hpp"

namespace fastconv {

namespace {

class Thirds {
  public:
    explicit Thirds(const Bf16x3Shape& shape) : s_(shape), p_(shape.problem) {}

    void pack_step(const float* w, int64_t k, int64_t c, int64_t tap, char* to) const {
        const int64_t outputs = std::min(kTilePixels, p_.out_channels - k),
                      inputs = std::min(kTileDepth, p_.in_channels - c);
        float values[kTileDepth * kTilePixels] = {};
        if (s_.form == Bf16x3Form::planes) {  // an output channel a row
            for (int64_t j = 0; j < outputs; j++)
                for (int64_t i = 0; i < inputs; i++)
                    values[j * kTileDepth + i] = w[weight_at(k + j, c + i, tap)];
            bf16x3_kernels()->split_pixels(values, kTileDepth, kTilePixels, kTileDepth, to, kTileBytes);
            pack_extremes(values, kTileDepth, 1, to);
            return;
        }
        for (int64_t i = 0; i < inputs; i++)  // an output channel a column, input channels in pairs
            for (int64_t j = 0; j < outputs; j++)
                values[i * kTilePixels + j] = w[weight_at(k + j, c + i, tap)];
        for (int64_t i = 0; i < 16; i++)
            bf16x3_kernels()->split_pair(values + i * kTilePixels, values + (i + 16) * kTilePixels,
                                         kTilePixels, to + i * 64, kTileBytes);
        pack_extremes(values, 1, kTilePixels, to);
    }

    // Weight (k, c, tap).
    float sum_of(const char* packed, int64_t k, int64_t c, int64_t tap) const {
        const int64_t step = c / kTileDepth * p_.taps() + tap, in = c % kTileDepth, out = k % kTilePixels;
        const char* const tile =
            packed + (k / kTilePixels * s_.steps + step) * kTileStep + packed_place(in, out);
        float sum = 0;
        for (int64_t third = 0; third < 3; third++) {
            uint16_t half;
            std::memcpy(&half, tile + third * kTileBytes, 2);
            const uint32_t bits = static_cast<uint32_t>(half) << 16;
            float value;
            std::memcpy(&value, &bits, 4);
            if (third > 0 && std::isinf(sum)) break;  // its other thirds are NaN
            sum += value;
        }
        return sum;
    }

  private:
    int64_t weight_at(int64_t k, int64_t c, int64_t tap) const {
        return p_.channels_last ? (tap * p_.in_channels + c) * p_.out_channels + k
                                : (k * p_.in_channels + c) * p_.taps() + tap;
    }

    static constexpr float kExtreme = 0x1.ffp127f;

    // What would round to infinity is cut instead, and no NaN may look like infinity: sum_of reads these.
    void pack_extremes(const float* values, int64_t out_step, int64_t in_step, char* to) const {
        int ordinary = 0;
        for (int64_t i = 0; i < kTilePixels * kTileDepth; i++) ordinary += std::fabs(values[i]) < kExtreme;
        if (ordinary == kTilePixels * kTileDepth) return;
        for (int64_t out = 0; out < kTilePixels; out++)
            for (int64_t in = 0; in < kTileDepth; in++) {
                float value = values[out * out_step + in * in_step];
                if (std::fabs(value) < kExtreme) continue;
                for (int64_t third = 0; third < 3; third++) {
                    uint32_t bits;
                    std::memcpy(&bits, &value, 4);
                    bits = std::isnan(value) ? 0x7fc00000u : bits & 0xffff0000u;
                    float cut;
                    std::memcpy(&cut, &bits, 4);
                    const auto half = static_cast<uint16_t>(bits >> 16);
                    std::memcpy(to + third * kTileBytes + packed_place(in, out), &half, 2);
                    value -= cut;
                }
            }
    }

    // Of a number in a tile of weights, in bytes.
    int64_t packed_place(int64_t in, int64_t out) const {
        return ((s_.form != Bf16x3Form::planes ? in % 16 * 16 + out : out * 16 + in % 16) * 2 + in / 16) * 2;
    }

    const Bf16x3Shape& s_;
    const ConvProblem& p_;
};

}  // namespace

void pack_thirds(const Bf16x3Shape& s, const float* weight, char* packed) {
    const Thirds thirds(s);
    for (int64_t tile = 0; tile < s.tiles; tile++)
        for (int64_t block = 0; block < s.blocks; block++)
            for (int64_t tap = 0; tap < s.problem.taps(); tap++, packed += kTileStep)
                thirds.pack_step(weight, tile * kTilePixels, block * kTileDepth, tap, packed);
}

bool unpack_thirds(const Bf16x3Shape& s, const char* packed, int64_t k, float* weights) {
    const Thirds thirds(s);
    bool numbers = true;
    for (int64_t tap = 0; tap < s.problem.taps(); tap++)
        for (int64_t c = 0; c < s.problem.in_channels; c++) {
            *weights = thirds.sum_of(packed, k, c, tap);
            numbers = numbers && !std::isnan(*weights++);
        }
    return numbers;
}

}  // namespace fastconv
