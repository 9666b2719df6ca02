// torchac's arithmetic coder, and the decoder of whole tiles: the context model's integers and torchac's intervals, pass by pass.
//
// What is computed is described in entropy.py, which makes the tables for encoding; both must agree to the last bit, so
// everything is an integer: of 32 bits where sums fit, else held in a double, where no sum leaves 2^53.

#include <torch/extension.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define DCU_SIXTEEN_BITS 1
#endif

#pragma push_macro("PYBIND11_MODULE")
#undef PYBIND11_MODULE
#define PYBIND11_MODULE(name, module) static void add_torchac(py::module_ &module)
#include "torchac_backend.cpp"
#pragma pop_macro("PYBIND11_MODULE")

namespace {

constexpr double CLIP = 1 << 20;
constexpr int WEIGHT_BITS = 12;
constexpr double TOTAL = 1 << 16;

// What torchac's decode() does, one symbol at a time, so that its tables may depend on what came before.
class Decoder {
  public:
    explicit Decoder(const std::string &payload) : in(payload) { in.initialize(value); }

    // Where in [0, 2^16) the next symbol's interval lies.
    uint32_t count() const {
        return static_cast<uint16_t>(((static_cast<uint64_t>(value) - low + 1) * 0x10000U - 1) / span());
    }

    // Go on behind a symbol of the interval [lower, upper).
    void consume(uint32_t lower, uint32_t upper) {
        const uint64_t width = span();
        high = (low - 1) + static_cast<uint32_t>((width * upper) >> 16);
        low = low + static_cast<uint32_t>((width * lower) >> 16);
        while (true) {
            if (low >= 0x80000000U || high < 0x80000000U) {
                low <<= 1;
                high = (high << 1) | 1;
                in.get(value);
            } else if (low >= 0x40000000U && high < 0xC0000000U) {
                low = (low << 1) & 0x7FFFFFFFU;
                high = (high << 1) | 0x80000001U;
                value -= 0x40000000U;
                in.get(value);
            } else {
                break;
            }
        }
    }

  private:
    uint64_t span() const { return static_cast<uint64_t>(high) - low + 1; }

    InCacheString in;
    uint32_t low = 0, high = 0xFFFFFFFFU, value = 0;
};

// One layer of the context model twice: in doubles, weights (out, in) and biases (out,); and in 16 bits, weights
// (out', in' / 2, 2) and biases (out',), out' a multiple of 4 and in' of 2, zeros where there is none. The 16 bits serve
// inputs of magnitudes up to `limit`, from which no sum can leave 32 bits; it is negative where there are none such.
struct Layer {
    at::Tensor weight, bias, weight16, bias32;
    int64_t limit;
};

using LayerTuple = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, int64_t>;

// first and last channel, levels; positions in the plane and in the padded plane (P); offsets of known neighbours (K);
// the three layers.
using Pass = std::tuple<int64_t, int64_t, int64_t, at::Tensor, at::Tensor, at::Tensor, std::vector<LayerTuple>>;

constexpr int64_t CHUNK = 16;  // positions that go through the layers together, so that they stay in the nearest cache

int64_t even(int64_t count) { return (count + 1) / 2 * 2; }

// floor(W x + b), clipped but in the last layer, of x (in, CHUNK): integers held in doubles, exact below 2^53.
void layer_exact(const Layer &layer, bool last, const std::vector<double> &in, std::vector<double> &out) {
    const int64_t rows = layer.weight.size(0), columns = layer.weight.size(1);
    const double *weight = layer.weight.data_ptr<double>(), *bias = layer.bias.data_ptr<double>();
    out.resize(rows * CHUNK);
    for (int64_t row = 0; row < rows; ++row, weight += columns) {
        double sums[CHUNK];
        for (int64_t p = 0; p < CHUNK; ++p) sums[p] = bias[row];
        for (int64_t k = 0; k < columns; ++k)
            for (int64_t p = 0; p < CHUNK; ++p) sums[p] += weight[k] * in[k * CHUNK + p];
        for (int64_t p = 0; p < CHUNK; ++p) {
            const double floored = std::floor(sums[p]);
            out[row * CHUNK + p] = last ? floored : std::min(std::max(floored, 0.0), CLIP);
        }
    }
}

#ifdef DCU_SIXTEEN_BITS
// The same of x (in' / 2, CHUNK, 2) int16, sums in 32 bits; to y (out' / 2, CHUNK, 2) int16, or from the last layer to
// z (out', CHUNK) double. Returns the largest output of a layer that is not the last.
__attribute__((target("avx2"))) int32_t layer_16(const Layer &layer, bool last, const int16_t *x, int16_t *y, double *z) {
    const int64_t rows = layer.weight16.size(0), pairs = layer.weight16.size(1);
    const int16_t *weights = layer.weight16.data_ptr<int16_t>();
    const int32_t *bias = layer.bias32.data_ptr<int32_t>();
    const __m256i zero = _mm256_setzero_si256(), clip = _mm256_set1_epi32(static_cast<int32_t>(CLIP));
    __m256i largest = zero;
    for (int64_t row = 0; row < rows; row += 4) {
        const int16_t *weight = weights + row * pairs * 2;
        __m256i sums[4][2];
        for (int r = 0; r < 4; ++r) sums[r][0] = sums[r][1] = _mm256_set1_epi32(bias[row + r]);
        for (int64_t pair = 0; pair < pairs; ++pair) {
            const __m256i *in = reinterpret_cast<const __m256i *>(x + pair * CHUNK * 2);
            const __m256i left = _mm256_loadu_si256(in), right = _mm256_loadu_si256(in + 1);
            for (int r = 0; r < 4; ++r) {
                int32_t two;
                std::memcpy(&two, weight + (r * pairs + pair) * 2, sizeof two);
                const __m256i both = _mm256_set1_epi32(two);
                sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(left, both));
                sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(right, both));
            }
        }
        for (int half = 0; half < 2; ++half) {
            for (int r = 0; r < 4; ++r) {
                sums[r][half] = _mm256_srai_epi32(sums[r][half], WEIGHT_BITS);
                if (last) {
                    double *to = z + (row + r) * CHUNK + half * 8;
                    _mm256_storeu_pd(to, _mm256_cvtepi32_pd(_mm256_castsi256_si128(sums[r][half])));
                    _mm256_storeu_pd(to + 4, _mm256_cvtepi32_pd(_mm256_extracti128_si256(sums[r][half], 1)));
                } else {
                    sums[r][half] = _mm256_min_epi32(_mm256_max_epi32(sums[r][half], zero), clip);
                    largest = _mm256_max_epi32(largest, sums[r][half]);
                }
            }
            for (int r = 0; r < 4 && !last; r += 2) {
                const __m256i odd = _mm256_slli_epi32(sums[r + 1][half], 16);
                __m256i *to = reinterpret_cast<__m256i *>(y + (row + r) * CHUNK) + half;
                _mm256_storeu_si256(to, _mm256_blend_epi16(sums[r][half], odd, 0xAA));
            }
        }
    }
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i *>(lanes), largest);
    return *std::max_element(lanes, lanes + 8);
}
#endif

// The context model of one pass on the symbols known so far.
class Network {
  public:
    Network(const Pass &pass, int64_t largest_value) : largest_value(largest_value) {
        for (const auto &[weight, bias, weight16, bias32, limit] : std::get<6>(pass))
            layers.push_back({weight, bias, weight16, bias32, limit});
    }

    // Logits (channels * levels, CHUNK) at the places of a chunk, from the padded plane of values.
    const double *operator()(const std::vector<int64_t> &offsets, const int64_t (&places)[CHUNK],
                             const int32_t *padded) {
#ifdef DCU_SIXTEEN_BITS
        static const bool able = __builtin_cpu_supports("avx2");
        if (able && sixteen_bits(offsets, places, padded)) return out.data();
#endif
        in.resize(offsets.size() * CHUNK);
        for (size_t k = 0; k < offsets.size(); ++k)
            for (int64_t p = 0; p < CHUNK; ++p) in[k * CHUNK + p] = padded[places[p] + offsets[k]];
        for (size_t index = 0; index < layers.size(); ++index, std::swap(in, out))
            layer_exact(layers[index], index + 1 == layers.size(), in, out);
        std::swap(in, out);
        return out.data();
    }

  private:
#ifdef DCU_SIXTEEN_BITS
    // False where some sum might leave 32 bits.
    bool sixteen_bits(const std::vector<int64_t> &offsets, const int64_t (&places)[CHUNK], const int32_t *padded) {
        int64_t largest = largest_value;
        before.assign(even(offsets.size()) * CHUNK, 0);
        for (size_t k = 0; k < offsets.size(); ++k)
            for (int64_t p = 0; p < CHUNK; ++p)
                before[(k / 2 * CHUNK + p) * 2 + k % 2] = static_cast<int16_t>(padded[places[p] + offsets[k]]);
        for (size_t index = 0; index < layers.size(); ++index, std::swap(before, behind)) {
            const bool last = index + 1 == layers.size();
            if (largest > layers[index].limit) return false;
            behind.resize(layers[index].weight16.size(0) * CHUNK);
            if (last) out.resize(behind.size());
            largest = layer_16(layers[index], last, before.data(), behind.data(), out.data());
        }
        return true;
    }

    std::vector<int16_t> before, behind;
#endif
    std::vector<Layer> layers;
    std::vector<double> in, out;
    int64_t largest_value;
};

// Decode the symbols of one tile: symbols (C, h w) and the padded plane (C, stride) of their values are filled.
void decode_tile(const std::string &payload, const std::vector<Pass> &passes, const at::Tensor &values,
                 const at::Tensor &exponentials, int64_t largest, int64_t largest_value, uint8_t *symbols, int64_t plane,
                 int64_t stride) {
    Decoder decoder(payload);
    std::vector<int32_t> padded(values.size(0) * stride, 0);
    const int32_t *value = values.data_ptr<int32_t>();
    const double *exponential = exponentials.data_ptr<double>();
    const double deepest = exponentials.numel() - 1, room = TOTAL - largest;
    std::vector<double> cumulative(largest), answer;
    for (const Pass &pass : passes) {
        const auto &[first, last, levels, positions, places, offsets, layers] = pass;
        const int64_t count = places.numel(), rows = (last - first) * levels;
        const int64_t *position = positions.data_ptr<int64_t>(), *place = places.data_ptr<int64_t>();
        const std::vector<int64_t> offset(offsets.data_ptr<int64_t>(), offsets.data_ptr<int64_t>() + offsets.numel());
        Network network(pass, largest_value);
        answer.resize(rows * count);
        for (int64_t start = 0; start < count; start += CHUNK) {
            int64_t chunk[CHUNK];
            for (int64_t p = 0; p < CHUNK; ++p) chunk[p] = place[std::min(start + p, count - 1)];
            const double *logits = network(offset, chunk, padded.data());
            const int64_t width = std::min(CHUNK, count - start);
            for (int64_t row = 0; row < rows; ++row)
                for (int64_t p = 0; p < width; ++p)
                    answer[(row / levels * count + start + p) * levels + row % levels] = logits[row * CHUNK + p];
        }
        for (int64_t channel = first; channel < last; ++channel) {
            const double *row = answer.data() + (channel - first) * count * levels;
            for (int64_t p = 0; p < count; ++p, row += levels) {
                const double highest = *std::max_element(row, row + levels);
                double total = 0;
                for (int64_t j = 0; j < levels; ++j) {
                    total += exponential[static_cast<int64_t>(std::min(highest - row[j], deepest))];
                    cumulative[j] = total;
                }
                const uint32_t target = decoder.count();
                uint32_t lower = 0, upper = 0;
                int64_t symbol = 0;
                for (; symbol < levels; ++symbol, lower = upper) {
                    upper = static_cast<uint32_t>(cumulative[symbol] * room / total) + symbol + 1;
                    if (target < upper) break;
                }
                if (symbol == levels) throw std::invalid_argument("a symbol that its codec does not have");
                decoder.consume(lower, upper);
                symbols[channel * plane + position[p]] = static_cast<uint8_t>(symbol);
                padded[channel * stride + place[p]] = value[channel * values.size(1) + symbol];
            }
        }
    }
}

// Symbols (B, C, h w) uint8 of tiles of one size; several tiles share the threads.
at::Tensor decode_tiles(const std::vector<std::string> &payloads, const std::vector<Pass> &passes,
                        const at::Tensor &values, const at::Tensor &exponentials, int64_t largest, int64_t plane,
                        int64_t stride) {
    const int64_t count = payloads.size(), channels = values.size(0);
    const int64_t largest_value = values.abs().max().item<int32_t>();
    at::Tensor symbols = at::empty({count, channels, plane}, at::kByte);
    uint8_t *out = symbols.data_ptr<uint8_t>();
    const auto decode_part = [&](int64_t begin, int64_t end) {
        const at::NoGradGuard without_gradients;
        for (int64_t tile = begin; tile < end; ++tile)
            decode_tile(payloads[tile], passes, values, exponentials, largest, largest_value,
                        out + tile * channels * plane, plane, stride);
    };
    at::parallel_for(0, count, 1, decode_part);
    return symbols;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    add_torchac(module);
    module.def("decode_tiles", &decode_tiles, py::call_guard<py::gil_scoped_release>());
}
