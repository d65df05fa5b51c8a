#include "algorithms/fft_cut.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr double kPi = 3.141592653589793238462643383279502884;

// The radices of n, first stage first, a factor of `last` in the last; 0 stages where n has other factors.
int radices(int64_t n, int64_t last, int (&radix)[kFftStages]) {
    if (n % last != 0) return 0;
    n /= last;
    int count = 0, twos = 0;
    for (; n % 2 == 0; n /= 2) twos++;
    while (twos > 0) {
        const int take = twos % 3 == 0 ? 3 : twos == 1 ? 1 : 2;
        radix[count++] = 1 << take;
        twos -= take;
    }
    for (const int odd : {3, 5})
        for (; n % odd == 0; n /= odd) radix[count++] = odd;
    if (last > 1) radix[count++] = static_cast<int>(last);
    return n == 1 ? count : 0;
}

// Vector operations of a transform: butterflies, factors, and what loads and stores hold up.
double transform_operations(int64_t n, int64_t last) {
    int radix[kFftStages];
    const int stages = radices(n, last, radix);
    double total = 0;
    int64_t m = n;
    for (int s = 0; s < stages; s++) {
        const int r = radix[s];
        const double each = r == 2 ? 4 : r == 3 ? 16 : r == 4 ? 16 : r == 5 ? 40 : 64;
        const auto butterflies = static_cast<double>(n / r);
        const double turned = butterflies - static_cast<double>(n / m);
        total += butterflies * (each + 2.0 * r) + turned * 4 * (r - 1) + 12.0 * static_cast<double>(n / m);
        m /= r;
    }
    return total + 30;
}

// Whether the axis may be taken whole, its padding left out.
bool zero_padded(const ConvProblem& p, int a) { return p.mode == PadMode::constant || !p.reads_padding(a); }

int64_t next_length(int64_t least, int64_t last) {
    int radix[kFftStages];
    int64_t n = std::max<int64_t>(least, 2);
    if (n > kFftLongest) return n;  // none is tried; the next may be far, and of too many stages
    while (radices(n, last, radix) == 0) n++;
    return n;
}

// The same way with the shortest transform, and with longer ones that are faster.
void add_lengths(FftTiles tiles, int64_t least, int64_t last, std::vector<FftTiles>& ways) {
    double fewest = 0;
    const int64_t most = std::min<int64_t>(least + least / 4, kFftLongest);
    for (int64_t n = next_length(least, last); n <= most || (fewest == 0 && n <= kFftLongest);
         n = next_length(n + 1, last)) {
        const double operations = transform_operations(n, last);
        if (fewest != 0 && operations >= fewest) continue;
        fewest = operations;
        tiles.n = n;
        ways.push_back(tiles);
    }
}

// Of ways along one of three axes those that take clearly less work than all shorter ones; there are fewer than ten.
std::vector<FftTiles> worth_trying(const std::vector<FftTiles>& ways) {
    const auto work = [](const FftTiles& way) {
        return static_cast<double>(way.count) * transform_operations(way.n, 1);
    };
    std::vector<FftTiles> kept;
    for (int64_t n = 0;;) {
        const FftTiles* next = nullptr;
        for (const FftTiles& way : ways) {
            if (way.n <= n || (next != nullptr && way.n > next->n)) continue;
            if (next == nullptr || way.n < next->n || work(way) < work(*next)) next = &way;
        }
        if (next == nullptr) return kept;
        n = next->n;
        if (kept.empty() || work(*next) <= 0.9 * work(kept.back())) kept.push_back(*next);
    }
}

// Ways to do axis a: whole, or in tiles of every length that is worth it; transforms end with a stage of radix `last`.
std::vector<FftTiles> ways_of(const ConvProblem& p, int a, int64_t last = 1) {
    const int64_t in = p.in_size[a], s = p.stride[a], out = (p.out_size[a] - 1) * s + 1, d = p.dilation[a],
                  pad = p.pad_lo[a], reach = (p.kernel[a] - 1) * d + 1;
    std::vector<FftTiles> ways;
    FftTiles tiles;
    tiles.stride = s;
    if (zero_padded(p, a)) {
        // Taps from first to last meet an input at least once.
        const int64_t first = std::max<int64_t>(0, ceil_div(std::max<int64_t>(0, pad - (out - 1)), d)),
                      final = std::min(p.kernel[a] - 1, (in - 1 + pad) >= 0 ? (in - 1 + pad) / d : -1);
        if (first <= final) {
            tiles.taps = {first, final + 1};
            tiles.outputs = p.out_size[a];
            tiles.inputs = in;
            tiles.shift = pad;
            add_lengths(
                tiles,
                std::max({in + pad - first * d, final * d - pad + out, in, out, (final - first) * d + 1}),
                last, ways);
        }
    }
    tiles.start = -pad;
    tiles.shift = 0;
    tiles.taps = {0, p.kernel[a]};
    int64_t before = 0;
    for (int64_t n = next_length(reach + 1, last); n <= kFftLongest;
         n = next_length(std::max(n + 1, n + n / 16), last)) {
        tiles.count = ceil_div(p.out_size[a], (n - reach) / s + 1);
        if (tiles.count == before) continue;
        before = tiles.count;
        tiles.outputs = ceil_div(p.out_size[a], tiles.count);
        tiles.inputs = (tiles.outputs - 1) * s + reach;
        add_lengths(tiles, tiles.inputs, last, ways);
        if (tiles.count == 1) break;
    }
    return p.has_depth() ? worth_trying(ways) : ways;
}

// An axis without a transform: each of its outputs sees one input.
FftTiles one_by_one(const ConvProblem& p, int a) {
    FftTiles tiles;
    tiles.count = p.out_size[a];
    tiles.stride = p.stride[a];
    tiles.start = -p.pad_lo[a];
    return tiles;
}

// Vector operations of each transform.
struct Operations {
    double deep, down, along;
};

// Cycles of one image.
double cycles_of(const ConvProblem& p, const FftCut& cut, const FftMachine& m, const Operations& each_way) {
    const auto inputs = static_cast<double>(p.group_in()), outputs = static_cast<double>(p.group_out());
    const auto columns = static_cast<double>(cut.columns()), values = static_cast<double>(cut.values());
    // Transposed from rows into lanes; each vector then costs about five operations. Channels last a number at a time.
    const auto turn = [&](int64_t channels, double apart) {
        return cut.channels && p.channels_last ? 16 : !p.channels_last || channels == 1 ? 8 : apart;
    };
    const double turn_in = turn(p.in_channels, 60), turn_out = turn(p.out_channels, 110);
    double in, out;  // vector operations of a plane
    if (cut.lines) {
        in = each_way.along + 2 * turn_in * static_cast<double>(cut.along.inputs);
        const int64_t short_n = cut.along.n / cut.along.stride;
        out = (short_n == cut.along.n ? each_way.along : transform_operations(short_n, 1)) +
              2 * turn_out * static_cast<double>(cut.along.outputs);
    } else {
        const auto rows = [&](int64_t planes, int64_t rows, double turned) {
            return static_cast<double>(planes * ceil_div(rows, 2)) *
                   (each_way.along + 8 * static_cast<double>(cut.along.n) + turned + 150);
        };
        const auto lines = [&](int64_t planes) {
            const double deep = cut.deep.n > 1 ? 1.3 * static_cast<double>(cut.down.n) * each_way.deep : 0;
            return columns * (static_cast<double>(planes) * each_way.down + deep);
        };
        in = rows(cut.deep.inputs, cut.down.inputs, 2 * turn_in * static_cast<double>(cut.along.inputs)) +
             lines(cut.deep.inputs);
        out =
            rows(cut.deep.outputs, cut.down.outputs, 2 * turn_out * static_cast<double>(cut.along.outputs)) +
            lines(cut.deep.outputs);
    }
    const double products = values * (inputs * outputs * 3 + (inputs + outputs) * 3);
    const double operations = inputs * in + outputs * out + products;
    // What does not stay in L2 comes at 4 bytes a cycle: planes of inputs again for each few sums, and weights.
    const auto l2 = static_cast<double>(l2_bytes());
    const double plane = static_cast<double>(cut.plane(m.lanes) * m.item);
    const double sums = static_cast<double>(ceil_div(p.group_out(), int64_t{kFftOutputs}));
    double far = 0;
    if (static_cast<double>(cut.planes(p)) * plane > 0.85 * l2)
        far = plane * (inputs * (2 + sums) + (cut.planes(p) > 1 ? 2 * outputs : 2));
    const double weights =
        values * 2 * static_cast<double>(m.item * (cut.channels ? m.lanes : 1)) * inputs * outputs;
    const double all_weights =
        weights * static_cast<double>(cut.channels ? ceil_div(p.groups, m.lanes) : p.groups);
    far += weights * (0.2 + 0.75 * std::max(0.0, 1 - 0.5 * l2 / all_weights));
    const double each = operations / 1.3 + far / 4 + 500;
    const auto items = static_cast<double>(cut.items()), lanes = static_cast<double>(m.lanes);
    if (cut.channels) return 0.75 * items * static_cast<double>(ceil_div(p.groups, m.lanes)) * each;
    // Lanes filled by the tiles of one image, which counts once, and of sixteen, of which each counts twice.
    const double blocks = (std::ceil(items / lanes) + std::ceil(16 * items / lanes) / 8) / 3;
    // Sums over channels took a little more than is counted here, as 5x5 with 24 > 40 channels at 29x29.
    return (cut.planes(p) > 1 ? 1.12 : 1) * blocks * static_cast<double>(p.groups) * each;
}

}  // namespace

int64_t FftCut::planes(const ConvProblem& p) const {
    if (channels || (p.group_in() == 1 && p.group_out() == 1 && fold() == 1)) return 1;
    return p.group_in() + std::min<int64_t>(p.group_out(), kFftOutputs);
}

bool cut_for_fft(const ConvProblem& p, const FftMachine& m, FftCut& best) {
    const bool lines = p.kernel[0] == 1 && p.kernel[1] == 1;
    const auto ways_across = [&](int a) {
        return p.kernel[a] == 1 && (lines || a == 0) ? std::vector<FftTiles>{one_by_one(p, a)}
                                                     : ways_of(p, a);
    };
    const std::vector<FftTiles> deep = ways_across(0), down = ways_across(1),
                                along = ways_of(p, 2, lines ? p.stride[2] : 1);
    const auto operations = [](const std::vector<FftTiles>& ways, int64_t last) {
        std::vector<double> all;
        for (const FftTiles& way : ways) all.push_back(transform_operations(way.n, last));
        return all;
    };
    const std::vector<double> deep_operations = operations(deep, 1), down_operations = operations(down, 1),
                              along_operations = operations(along, lines ? p.stride[2] : 1);
    const bool depthwise =
        p.group_in() == 1 && p.group_out() == 1 && p.groups > 1 && (!lines || p.stride[2] == 1);
    best.cycles = 0;
    for (int channels = 0; channels <= int{depthwise}; channels++) {
        for (size_t h = 0; h < deep.size(); h++) {
            for (size_t i = 0; i < down.size(); i++) {
                for (size_t j = 0; j < along.size(); j++) {
                    FftCut cut{lines, channels == 1, deep[h], down[i], along[j], 0};
                    // A transform that is longer than L2 by far is none of ours.
                    if (static_cast<size_t>(cut.plane(m.lanes) * m.item) > 4 * l2_bytes()) continue;
                    cut.cycles =
                        cycles_of(p, cut, m, {deep_operations[h], down_operations[i], along_operations[j]});
                    if (best.cycles == 0 || cut.cycles < best.cycles) best = cut;
                }
            }
        }
    }
    return best.cycles > 0;
}

template <class T>
FftTables<T>::FftTables(int64_t n, int64_t last) {
    axis_.n = static_cast<int>(n);
    axis_.stages = radices(n, last, axis_.radix);
    size_t begins[kFftStages];
    int64_t m = n;
    for (int s = 0; s < axis_.stages; s++) {
        begins[s] = twiddles_.size();
        const int r = axis_.radix[s];
        for (int64_t j = 0; j < m / r; j++) {
            for (int k = 1; k < r; k++) {
                const double angle = -2 * kPi * static_cast<double>(j * k % m) / static_cast<double>(m);
                twiddles_.push_back(static_cast<T>(std::cos(angle)));
                twiddles_.push_back(static_cast<T>(std::sin(angle)));
            }
        }
        m /= r;
    }
    for (int s = 0; s < axis_.stages; s++) axis_.twiddles[s] = twiddles_.data() + begins[s];
    for (int64_t f = 0; f < n; f++) {
        int64_t at = 0, rest = f, size = n;
        for (int s = 0; s < axis_.stages; s++) {
            size /= axis_.radix[s];
            at += rest % axis_.radix[s] * size;
            rest /= axis_.radix[s];
        }
        place_.push_back(static_cast<int32_t>(at));
    }
    axis_.place = place_.data();
}

template class FftTables<float>;
template class FftTables<double>;

}  // namespace fastconv
