// torchac's arithmetic coder, and the decoder of whole tiles: the context model's integers and torchac's intervals, pass by pass.
//
// What is computed is described in entropy.py, which makes the tables for encoding; both must agree to the last bit, so
// everything is an integer: of 32 bits where sums fit, else held in a double, where no sum leaves 2^53.

#include <torch/extension.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
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
constexpr int64_t BLOCK = 2048;  // positions whose neighbourhoods are in memory at once
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

// One layer of the context model twice: in doubles, weights (out, in) and biases (out, 1); and in 16 bits, weights
// (out', in' / 2, 2) and biases (out',), out' a multiple of 4 and in' of 2, zeros where there is none. The 16 bits serve
// inputs of magnitudes up to `limit`, from which no sum can leave 32 bits; it is negative where there are none such.
using Layer = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, int64_t>;

// first and last channel, levels; positions in the plane and in the padded plane (P); offsets of known neighbours (K);
// the three layers.
using Pass = std::tuple<int64_t, int64_t, int64_t, at::Tensor, at::Tensor, at::Tensor, std::vector<Layer>>;

// The logits of a pass, (channels, P, levels), in doubles.
at::Tensor logits_exact(const Pass &pass, const int32_t *padded) {
    const auto &[first, last, levels, positions, places, offsets, layers] = pass;
    const int64_t known = offsets.numel(), count = places.numel();
    const int64_t *place = places.data_ptr<int64_t>(), *offset = offsets.data_ptr<int64_t>();
    std::vector<at::Tensor> parts;
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t stop = std::min(start + BLOCK, count);
        at::Tensor activation = at::empty({known, stop - start}, at::kDouble);
        double *out = activation.data_ptr<double>();
        for (int64_t k = 0; k < known; ++k)
            for (int64_t p = start; p < stop; ++p) *out++ = padded[place[p] + offset[k]];
        for (size_t index = 0; index < layers.size(); ++index) {
            const auto &[weight, bias, weight16, bias32, limit] = layers[index];
            activation = at::addmm(bias, weight, activation).floor_();
            if (index + 1 < layers.size()) activation.clamp_(0, CLIP);
        }
        parts.push_back(activation);
    }
    return at::cat(parts, 1).view({last - first, levels, count}).transpose(1, 2).contiguous();
}

#ifdef DCU_SIXTEEN_BITS
constexpr int64_t CHUNK = 16;  // positions that go through the layers together, so that they stay in the nearest cache

// A layer of x (in' / 2, CHUNK, 2) int16, sums in 32 bits; to y (out' / 2, CHUNK, 2) int16, or from the last layer to
// z (out', CHUNK) double. Returns the largest output of a layer that is not the last.
__attribute__((target("avx2"))) int32_t layer_16(const at::Tensor &weight16, const at::Tensor &bias32, bool last,
                                                 const int16_t *x, int16_t *y, double *z) {
    const int64_t rows = weight16.size(0), pairs = weight16.size(1);
    const int16_t *weights = weight16.data_ptr<int16_t>();
    const int32_t *bias = bias32.data_ptr<int32_t>();
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

bool sixteen_bits_able() {
    static const bool able = __builtin_cpu_supports("avx2");
    return able;
}

// The same as logits_exact() into `answer`; false where some sum might leave 32 bits.
bool logits_16(const Pass &pass, int64_t largest_value, const int32_t *padded, double *answer) {
    if (!sixteen_bits_able()) return false;
    const auto &[first, last, levels, positions, places, offsets, layers] = pass;
    const int64_t known = offsets.numel(), count = places.numel(), rows = (last - first) * levels;
    const int64_t *place = places.data_ptr<int64_t>(), *offset = offsets.data_ptr<int64_t>();
    std::vector<int16_t> in, out;
    std::vector<double> logits;
    for (int64_t start = 0; start < count; start += CHUNK) {
        in.assign((known + 1) / 2 * 2 * CHUNK, 0);
        for (int64_t p = 0; p < CHUNK; ++p) {
            const int32_t *here = padded + place[std::min(start + p, count - 1)];
            for (int64_t k = 0; k < known; ++k)
                in[(k / 2 * CHUNK + p) * 2 + k % 2] = static_cast<int16_t>(here[offset[k]]);
        }
        int64_t largest = largest_value;
        for (size_t index = 0; index < layers.size(); ++index, std::swap(in, out)) {
            const auto &[weight, bias, weight16, bias32, limit] = layers[index];
            if (largest > limit) return false;
            out.resize(weight16.size(0) * CHUNK);
            logits.resize(out.size());
            largest = layer_16(weight16, bias32, index + 1 == layers.size(), in.data(), out.data(), logits.data());
        }
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t p = 0; p < std::min(CHUNK, count - start); ++p)
                answer[(row / levels * count + start + p) * levels + row % levels] = logits[row * CHUNK + p];
    }
    return true;
}
#else
bool sixteen_bits_able() { return false; }
bool logits_16(const Pass &, int64_t, const int32_t *, double *) { return false; }
#endif

// Decode the symbols of one tile: symbols (C, h w) and the padded plane (C, stride) of their values are filled.
void decode_tile(const std::string &payload, const std::vector<Pass> &passes, const at::Tensor &values,
                 const at::Tensor &exponentials, int64_t largest, int64_t largest_value, uint8_t *symbols, int64_t plane,
                 int64_t stride) {
    Decoder decoder(payload);
    std::vector<int32_t> padded(values.size(0) * stride, 0);
    const int32_t *value = values.data_ptr<int32_t>();
    const double *exponential = exponentials.data_ptr<double>();
    const double deepest = exponentials.numel() - 1, room = TOTAL - largest;
    std::vector<double> cumulative(largest);
    for (const Pass &pass : passes) {
        const auto &[first, last, levels, positions, places, offsets, layers] = pass;
        const int64_t count = places.numel();
        if (count == 0) continue;
        const int64_t *position = positions.data_ptr<int64_t>(), *place = places.data_ptr<int64_t>();
        at::Tensor answer = at::empty({last - first, count, levels}, at::kDouble);
        if (!logits_16(pass, largest_value, padded.data(), answer.data_ptr<double>()))
            answer = logits_exact(pass, padded.data());
        for (int64_t channel = first; channel < last; ++channel) {
            const double *row = answer.data_ptr<double>() + (channel - first) * count * levels;
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

// Symbols (B, C, h w) uint8 of tiles of one size; several tiles share the threads, or else the matrix library has them.
at::Tensor decode_tiles(const std::vector<std::string> &payloads, const std::vector<Pass> &passes,
                        const at::Tensor &values, const at::Tensor &exponentials, int64_t largest, int64_t plane,
                        int64_t stride) {
    const int64_t count = payloads.size(), channels = values.size(0);
    const int64_t largest_value = values.abs().max().item<int32_t>();
    at::Tensor symbols = at::empty({count, channels, plane}, at::kByte);
    uint8_t *out = symbols.data_ptr<uint8_t>();
    // at::parallel_for() is not parallel in an extension that is built without OpenMP
    const int64_t threads = sixteen_bits_able() ? std::min<int64_t>(count, at::get_num_threads()) : 1;
    std::vector<std::exception_ptr> failures(threads);
    const auto decode_part = [&](int64_t thread) {
        const at::NoGradGuard without_gradients;
        try {
            for (int64_t tile = thread; tile < count; tile += threads)
                decode_tile(payloads[tile], passes, values, exponentials, largest, largest_value,
                            out + tile * channels * plane, plane, stride);
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(decode_part, thread);
    decode_part(0);
    for (std::thread &other : others) other.join();
    for (const std::exception_ptr &failure : failures)
        if (failure) std::rethrow_exception(failure);
    return symbols;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    add_torchac(module);
    module.def("decode_tiles", &decode_tiles, py::call_guard<py::gil_scoped_release>());
}
