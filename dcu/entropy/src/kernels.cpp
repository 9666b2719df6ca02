#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dcu {

Layer::Layer(const int32_t *weight, const int32_t *bias, int64_t rows, int64_t columns)
    : rows(rows), columns(columns), even_rows((rows + 1) / 2 * 2), weights(even_rows * columns), biases(even_rows),
      padded_rows((rows + 7) / 8 * 8), pairs((columns + 1) / 2), limit(INT16_MAX), weights16(padded_rows * pairs * 2),
      biases32(padded_rows), all_pairs(pairs) {
    std::iota(all_pairs.begin(), all_pairs.end(), 0);
    constexpr double UNIT = 1 << WEIGHT_BITS;
    constexpr int64_t HALF = 1 << (WEIGHT_BITS - 1);
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t rounded = bias[row] + HALF;
        biases[row] = static_cast<double>(rounded) / UNIT;
        biases32[row] = static_cast<int32_t>(std::clamp<int64_t>(rounded, -INT32_MAX, INT32_MAX));
        int64_t sum = 0;
        for (int64_t column = 0; column < columns; ++column) {
            const int64_t value = weight[row * columns + column];
            sum += std::abs(value);
            weights[row * columns + column] = static_cast<double>(value) / UNIT;
            weights16[row * pairs * 2 + column] = static_cast<int16_t>(value);
            if (std::abs(value) > INT16_MAX) limit = -1;
        }
        const int64_t left = INT32_MAX - std::abs(rounded);
        limit = left < 0 ? -1 : std::min(limit, left / std::max<int64_t>(sum, 1));
    }
}

namespace {

// ---- doubles: written once with the compiler's vectors, compiled for two instruction sets ----

using Vector = double __attribute__((vector_size(32), aligned(8), may_alias));
constexpr int64_t LANES = 4, VECTORS = CHUNK / LANES;

inline __attribute__((always_inline)) void multiply_anywhere(const Layer &layer, const double *inputs, bool clip,
                                                             double *outputs) {
    for (int64_t row = 0; row < layer.even_rows; row += 2) {
        const double *weight = layer.weights.data() + row * layer.columns;
        Vector sums[2][VECTORS];
        for (int r = 0; r < 2; ++r)
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = Vector{} + layer.biases[row + r];
        for (int64_t column = 0; column < layer.columns; ++column) {
            const Vector *in = reinterpret_cast<const Vector *>(inputs + column * CHUNK);
            for (int v = 0; v < VECTORS; ++v) {
                const Vector value = in[v];
                sums[0][v] += weight[column] * value;
                sums[1][v] += weight[column + layer.columns] * value;
            }
        }
        double *out = outputs + row * CHUNK;
        std::memcpy(out, sums, sizeof sums);
        for (int64_t i = 0; i < 2 * CHUNK; ++i) out[i] = std::floor(out[i]);
        if (clip)
            for (int64_t i = 0; i < 2 * CHUNK; ++i) out[i] = std::min<double>(std::max(out[i], 0.0), CLIP);
    }
}

inline __attribute__((always_inline)) void intervals_anywhere(const double *logits, int64_t levels,
                                                              const Softmax &softmax, int32_t *ends) {
    double highest[CHUNK];
    int32_t total[CHUNK] = {};
    std::copy(logits, logits + CHUNK, highest);
    for (int64_t i = CHUNK; i < levels * CHUNK; ++i) highest[i % CHUNK] = std::max(highest[i % CHUNK], logits[i]);
    for (int64_t j = 0; j < levels; ++j)
        for (int64_t p = 0; p < CHUNK; ++p) {
            const double distance = std::min<double>(highest[p] - logits[j * CHUNK + p], softmax.last);
            ends[j * CHUNK + p] = total[p] += softmax.exponential[static_cast<int32_t>(distance)];
        }
    // A quotient is an integer or at least 2^-21 under the next one, and below 2^16: rounding cannot reach that integer.
    for (int64_t j = 0; j < levels; ++j)
        for (int64_t p = 0; p < CHUNK; ++p) {
            const double scaled = static_cast<double>(ends[j * CHUNK + p]) * softmax.room;
            ends[j * CHUNK + p] = static_cast<int32_t>(scaled / total[p]) + static_cast<int32_t>(j) + 1;
        }
}

void multiply_portable(const Layer &layer, const double *inputs, bool clip, double *outputs) {
    multiply_anywhere(layer, inputs, clip, outputs);
}

void intervals_portable(const double *logits, int64_t levels, const Softmax &softmax, int32_t *ends) {
    intervals_anywhere(logits, levels, softmax, ends);
}

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) void multiply_fma(const Layer &layer, const double *inputs, bool clip,
                                                      double *outputs) {
    multiply_anywhere(layer, inputs, clip, outputs);
}

__attribute__((target("avx2,fma"))) void intervals_fma(const double *logits, int64_t levels, const Softmax &softmax,
                                                       int32_t *ends) {
    intervals_anywhere(logits, levels, softmax, ends);
}

// ---- 16 bits ----

// Two numbers of 16 bits as one of 32.
int32_t pair(const int16_t *numbers) {
    int32_t both;
    std::memcpy(&both, numbers, sizeof both);
    return both;
}

__attribute__((target("avx2"))) void multiply_avx2(const Layer &layer, const std::vector<int32_t> &pairs,
                                                   const int32_t *inputs, int32_t *sums) {
    for (int64_t row = 0; row < layer.padded_rows; row += 4) {
        const int16_t *weight = layer.weights16.data() + row * layer.pairs * 2;
        __m256i sum[4][2];
        for (int r = 0; r < 4; ++r) sum[r][0] = sum[r][1] = _mm256_set1_epi32(layer.biases32[row + r]);
        for (size_t i = 0; i < pairs.size(); ++i) {
            const __m256i *in = reinterpret_cast<const __m256i *>(inputs + i * CHUNK);
            const __m256i left = _mm256_loadu_si256(in), right = _mm256_loadu_si256(in + 1);
            for (int r = 0; r < 4; ++r) {
                const __m256i both = _mm256_set1_epi32(pair(weight + (r * layer.pairs + pairs[i]) * 2));
                sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(left, both));
                sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(right, both));
            }
        }
        for (int r = 0; r < 4; ++r)
            for (int side = 0; side < 2; ++side)
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums + (row + r) * CHUNK) + side, sum[r][side]);
    }
}

__attribute__((target("avx512f,avx512vnni"))) void multiply_vnni(const Layer &layer,
                                                                 const std::vector<int32_t> &pairs,
                                                                 const int32_t *inputs, int32_t *sums) {
    for (int64_t row = 0; row < layer.padded_rows; row += 8) {
        const int16_t *weight = layer.weights16.data() + row * layer.pairs * 2;
        __m512i sum[8];
        for (int r = 0; r < 8; ++r) sum[r] = _mm512_set1_epi32(layer.biases32[row + r]);
        for (size_t i = 0; i < pairs.size(); ++i) {
            const __m512i in = _mm512_loadu_si512(inputs + i * CHUNK);
            for (int r = 0; r < 8; ++r)
                sum[r] =
                    _mm512_dpwssd_epi32(sum[r], in, _mm512_set1_epi32(pair(weight + (r * layer.pairs + pairs[i]) * 2)));
        }
        for (int r = 0; r < 8; ++r) _mm512_storeu_si512(sums + (row + r) * CHUNK, sum[r]);
    }
}

__attribute__((target("avx2"))) int32_t activate_avx2(const int32_t *__restrict sums, int64_t rows,
                                                      int32_t *__restrict inputs) {
    int32_t largest[CHUNK] = {};
    for (int64_t row = 0; row < rows; row += 2, sums += 2 * CHUNK, inputs += CHUNK)
        for (int64_t p = 0; p < CHUNK; ++p) {
            const int32_t even = std::min(std::max(sums[p] >> WEIGHT_BITS, 0), CLIP);
            const int32_t odd = std::min(std::max(sums[p + CHUNK] >> WEIGHT_BITS, 0), CLIP);
            largest[p] = std::max(largest[p], std::max(even, odd));
            inputs[p] = static_cast<int32_t>(static_cast<uint32_t>(even) | static_cast<uint32_t>(odd) << 16);
        }
    return *std::max_element(largest, largest + CHUNK);
}

__attribute__((target("avx2"))) void intervals_avx2(const int32_t *sums, int64_t levels, const Softmax &softmax,
                                                    int32_t *ends) {
    const __m256i last = _mm256_set1_epi32(softmax.last);
    const __m256d room = _mm256_set1_pd(softmax.room), little = _mm256_set1_pd(0x1p-25);
    for (int side = 0; side < 2; ++side) {
        const __m256i *in = reinterpret_cast<const __m256i *>(sums) + side;
        __m256i *out = reinterpret_cast<__m256i *>(ends) + side;
        __m256i highest = _mm256_loadu_si256(in), total = _mm256_setzero_si256();
        for (int64_t j = 1; j < levels; ++j) highest = _mm256_max_epi32(highest, _mm256_loadu_si256(in + 2 * j));
        highest = _mm256_srai_epi32(highest, WEIGHT_BITS);
        for (int64_t j = 0; j < levels; ++j) {
            const __m256i logit = _mm256_srai_epi32(_mm256_loadu_si256(in + 2 * j), WEIGHT_BITS);
            const __m256i distance = _mm256_min_epi32(_mm256_sub_epi32(highest, logit), last);
            total = _mm256_add_epi32(total, _mm256_i32gather_epi32(softmax.exponential, distance, 4));
            _mm256_storeu_si256(out + 2 * j, total);
        }
        // A quotient is an integer or 2^-21 away from one and below 2^16, its double within 2^-34: a little more decides.
        const __m256d left = _mm256_div_pd(room, _mm256_cvtepi32_pd(_mm256_castsi256_si128(total)));
        const __m256d right = _mm256_div_pd(room, _mm256_cvtepi32_pd(_mm256_extracti128_si256(total, 1)));
        for (int64_t j = 0; j < levels; ++j) {
            const __m256i sum = _mm256_loadu_si256(out + 2 * j);
            const __m256d one = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(sum)), left);
            const __m256d two = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(sum, 1)), right);
            const __m256i quotient = _mm256_set_m128i(_mm256_cvttpd_epi32(_mm256_add_pd(two, little)),
                                                      _mm256_cvttpd_epi32(_mm256_add_pd(one, little)));
            _mm256_storeu_si256(out + 2 * j, _mm256_add_epi32(quotient, _mm256_set1_epi32(static_cast<int>(j) + 1)));
        }
    }
}

#endif

std::vector<Kernels> find_kernels() {
    std::vector<Kernels> found;
    Kernels doubles{"doubles", nullptr, nullptr, nullptr, multiply_portable, intervals_portable};
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2) {
        doubles.multiply = multiply_fma;
        doubles.intervals = intervals_fma;
        if (__builtin_cpu_supports("avx512vnni"))
            found.push_back({"avx512vnni", multiply_vnni, activate_avx2, intervals_avx2, multiply_fma, intervals_fma});
        found.push_back({"avx2", multiply_avx2, activate_avx2, intervals_avx2, multiply_fma, intervals_fma});
    }
#endif
    found.push_back(doubles);
    return found;
}

}  // namespace

const std::vector<Kernels> &kernels() {
    static const std::vector<Kernels> found = find_kernels();
    return found;
}

}  // namespace dcu
