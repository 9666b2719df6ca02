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
#include <system_error>
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
constexpr int64_t CHUNK = 16;    // positions that go through the layers together, so that they stay in the nearest cache
constexpr int64_t TOTAL = 1 << 16;

// What torchac's decode() does, one symbol at a time, so that its tables may depend on what came before; and without
// its divisions, several bits at once, and of its interval [low, high] and its value in it low, width and value - low.
class Decoder {
  public:
    explicit Decoder(const std::string &payload) : in(payload) { ahead = take(32); }

    // The next symbol; upper[j * CHUNK] is where in [0, 2^16] the interval of symbol j < levels ends.
    int64_t next(const int32_t *upper, int64_t levels) {
        const uint64_t target = (ahead + 1) << 16;
        int64_t symbol = 0;
        for (; symbol < levels && target > width * upper[symbol * CHUNK]; ++symbol) {}
        if (symbol == levels) throw std::invalid_argument("a symbol that its codec does not have");
        const uint64_t skipped = symbol == 0 ? 0 : width * upper[(symbol - 1) * CHUNK] >> 16;
        width = (width * upper[symbol * CHUNK] >> 16) - skipped;
        low += static_cast<uint32_t>(skipped);
        ahead -= skipped;
        const uint32_t high = low + static_cast<uint32_t>(width - 1);
        if ((low ^ high) >> 31 && !((low & ~high) >> 30)) return symbol;  // as mostly: no bit is settled
        // Those in which both ends agree; then, with both close to the middle, one on each side, those behind the first
        // that say so. What follows has no zeros to count in: an interval is at least 2^14 - 1 wide, and n at most 18.
        const int same = __builtin_clz(low ^ high);
        const int n = same + __builtin_clz(~((low << same) & (~high << same)) << 1);
        low = low << n & 0x7FFFFFFFU;
        width <<= n;
        ahead = ahead << n | take(n);
        return symbol;
    }

  private:
    // The next n <= 32 bits; zeros behind the end.
    uint32_t take(int n) {
        for (; ready < n; ready += 8) {
            const uint8_t byte = place < in.size() ? in[place] : 0;
            cache = cache << 8 | byte;
            ++place;
        }
        ready -= n;
        return static_cast<uint32_t>(cache >> ready & ((uint64_t{1} << n) - 1));
    }

    const std::string &in;
    size_t place = 0;
    uint64_t cache = 0;
    int ready = 0;  // bits of `cache` that were not taken
    uint32_t low = 0;
    uint64_t width = uint64_t{1} << 32, ahead = 0;
};

// One layer of the context model twice: in doubles, weights (out, in) and biases (out, 1); and in 16 bits, weights
// (out', pairs, 2) and biases (out',), out' a multiple of 8, zeros where there is nothing. The 16 bits serve inputs of
// magnitudes up to `limit`, from which no sum can leave 32 bits; it is negative where there are none such.
using Layer = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, int64_t>;

// first and last channel, levels; positions in the plane and in the padded plane (P); offsets of known neighbours (K);
// the three layers.
using Pass = std::tuple<int64_t, int64_t, int64_t, at::Tensor, at::Tensor, at::Tensor, std::vector<Layer>>;

// Of the symbols of one tile: the values of a padded plane (C, stride), in 32 and in 16 bits.
struct Plane {
    std::vector<int32_t> whole;
    std::vector<int16_t> half;
};

// sums (rows, CHUNK) = weights (rows, pairs, 2) x (pairs, CHUNK, 2) + biases (rows,), rows a multiple of 8; an element of
// x is a pair of 16 bits.
using Multiply = void (*)(const int16_t *, const int32_t *, int64_t, int64_t, const int32_t *, int32_t *);

// What a codec's arithmetic needs beside its layers.
struct Arithmetic {
    Multiply multiply;           // null: all is done in doubles
    int64_t largest_value;       // magnitude of the centres
    const int32_t *exponential;  // exp_table of entropy.py
    int32_t deepest;             // its last index
    int64_t room;                // 2^16 less one for each symbol
};

// What the functions below fill, of one pass: where the intervals of all symbols end, (channels, chunks, levels, CHUNK).
int64_t chunks(int64_t count) { return (count + CHUNK - 1) / CHUNK; }

// In doubles.
void uppers_exact(const Pass &pass, const Plane &plane, const Arithmetic &arithmetic, int32_t *uppers) {
    const auto &[first, last, levels, positions, places, offsets, layers] = pass;
    const int64_t known = offsets.numel(), count = places.numel();
    const int64_t *place = places.data_ptr<int64_t>(), *offset = offsets.data_ptr<int64_t>();
    std::vector<int64_t> frequency(levels);
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t size = std::min(BLOCK, count - start);
        at::Tensor activation = at::empty({known, size}, at::kDouble);
        double *in = activation.data_ptr<double>();
        for (int64_t k = 0; k < known; ++k)
            for (int64_t p = 0; p < size; ++p) *in++ = plane.whole[place[start + p] + offset[k]];
        for (size_t index = 0; index < layers.size(); ++index) {
            activation = at::addmm(std::get<1>(layers[index]), std::get<0>(layers[index]), activation).floor_();
            if (index + 1 < layers.size()) activation.clamp_(0, CLIP);
        }
        for (int64_t channel = 0; channel < last - first; ++channel) {
            const double *logits = activation.data_ptr<double>() + channel * levels * size;
            for (int64_t p = 0; p < size; ++p) {
                const int64_t chunk = channel * chunks(count) + (start + p) / CHUNK;
                int32_t *upper = uppers + chunk * levels * CHUNK + p % CHUNK;
                double highest = logits[p];
                for (int64_t j = 1; j < levels; ++j) highest = std::max(highest, logits[j * size + p]);
                int64_t total = 0;
                for (int64_t j = 0; j < levels; ++j) {
                    const double distance = std::min<double>(highest - logits[j * size + p], arithmetic.deepest);
                    total += arithmetic.exponential[static_cast<int32_t>(distance)];
                    frequency[j] = total;
                }
                for (int64_t j = 0; j < levels; ++j)
                    upper[j * CHUNK] = static_cast<int32_t>(frequency[j] * arithmetic.room / total + j + 1);
            }
        }
    }
}

#ifdef DCU_SIXTEEN_BITS
// Two numbers of 16 bits as one of 32.
int32_t two(const int16_t *numbers) {
    int32_t both;
    std::memcpy(&both, numbers, sizeof both);
    return both;
}

__attribute__((target("avx2"))) void multiply_avx2(const int16_t *weights, const int32_t *bias, int64_t rows,
                                                   int64_t pairs, const int32_t *x, int32_t *sums) {
    for (int64_t row = 0; row < rows; row += 4) {
        const int16_t *weight = weights + row * pairs * 2;
        __m256i sum[4][2];
        for (int r = 0; r < 4; ++r) sum[r][0] = sum[r][1] = _mm256_set1_epi32(bias[row + r]);
        for (int64_t pair = 0; pair < pairs; ++pair) {
            const __m256i *in = reinterpret_cast<const __m256i *>(x + pair * CHUNK);
            const __m256i left = _mm256_loadu_si256(in), right = _mm256_loadu_si256(in + 1);
            for (int r = 0; r < 4; ++r) {
                const __m256i both = _mm256_set1_epi32(two(weight + (r * pairs + pair) * 2));
                sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(left, both));
                sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(right, both));
            }
        }
        for (int r = 0; r < 4; ++r)
            for (int side = 0; side < 2; ++side)
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums + (row + r) * CHUNK) + side, sum[r][side]);
    }
}

__attribute__((target("avx512f,avx512vnni"))) void multiply_vnni(const int16_t *weights, const int32_t *bias,
                                                                 int64_t rows, int64_t pairs, const int32_t *x,
                                                                 int32_t *sums) {
    for (int64_t row = 0; row < rows; row += 8) {
        const int16_t *weight = weights + row * pairs * 2;
        __m512i sum[8];
        for (int r = 0; r < 8; ++r) sum[r] = _mm512_set1_epi32(bias[row + r]);
        for (int64_t pair = 0; pair < pairs; ++pair) {
            const __m512i in = _mm512_loadu_si512(x + pair * CHUNK);
            for (int r = 0; r < 8; ++r)
                sum[r] = _mm512_dpwssd_epi32(sum[r], in, _mm512_set1_epi32(two(weight + (r * pairs + pair) * 2)));
        }
        for (int r = 0; r < 8; ++r) _mm512_storeu_si512(sums + (row + r) * CHUNK, sum[r]);
    }
}

// Sums (rows, CHUNK), rows even, to what the next layer reads, (rows / 2, CHUNK, 2) in 16 bits; returns the largest.
__attribute__((target("avx2"))) int32_t activate(const int32_t *__restrict sums, int64_t rows, int32_t *__restrict both) {
    int32_t largest[CHUNK] = {};
    for (int64_t row = 0; row < rows; row += 2, sums += 2 * CHUNK, both += CHUNK)
        for (int64_t p = 0; p < CHUNK; ++p) {
            const int32_t even = std::min<int32_t>(std::max(sums[p] >> WEIGHT_BITS, 0), CLIP);
            const int32_t odd = std::min<int32_t>(std::max(sums[p + CHUNK] >> WEIGHT_BITS, 0), CLIP);
            largest[p] = std::max(largest[p], std::max(even, odd));
            both[p] = even | odd << 16;
        }
    return *std::max_element(largest, largest + CHUNK);
}

// Sums (levels, CHUNK) of one channel to where the intervals end.
__attribute__((target("avx2"))) void intervals(const int32_t *sums, int64_t levels, const Arithmetic &arithmetic,
                                               int32_t *upper) {
    const __m256i deepest = _mm256_set1_epi32(arithmetic.deepest);
    const __m256d room = _mm256_set1_pd(static_cast<double>(arithmetic.room)), little = _mm256_set1_pd(0x1p-25);
    for (int side = 0; side < 2; ++side) {
        const __m256i *in = reinterpret_cast<const __m256i *>(sums) + side;
        __m256i *out = reinterpret_cast<__m256i *>(upper) + side;
        __m256i highest = _mm256_loadu_si256(in), total = _mm256_setzero_si256();
        for (int64_t j = 1; j < levels; ++j) highest = _mm256_max_epi32(highest, _mm256_loadu_si256(in + 2 * j));
        highest = _mm256_srai_epi32(highest, WEIGHT_BITS);
        for (int64_t j = 0; j < levels; ++j) {
            const __m256i logit = _mm256_srai_epi32(_mm256_loadu_si256(in + 2 * j), WEIGHT_BITS);
            const __m256i distance = _mm256_min_epi32(_mm256_sub_epi32(highest, logit), deepest);
            total = _mm256_add_epi32(total, _mm256_i32gather_epi32(arithmetic.exponential, distance, 4));
            _mm256_storeu_si256(out + 2 * j, total);
        }
        // A quotient is an integer or 2^-21 away from one and under 2^16, its double within 2^-34: a little more decides.
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

// The same as uppers_exact(); false where some sum might leave 32 bits.
bool uppers_16(const Pass &pass, const Plane &plane, const Arithmetic &arithmetic, int32_t *uppers) {
    const auto &[first, last, levels, positions, places, offsets, layers] = pass;
    const int64_t known = offsets.numel(), count = places.numel();
    const int64_t *place = places.data_ptr<int64_t>(), *offset = offsets.data_ptr<int64_t>();
    std::vector<int32_t> in, sums;  // in: pairs of 16 bits
    for (int64_t chunk = 0; chunk < chunks(count); ++chunk) {
        const int16_t *here[CHUNK];
        for (int64_t p = 0; p < CHUNK; ++p) here[p] = plane.half.data() + place[std::min(chunk * CHUNK + p, count - 1)];
        in.assign((known + 1) / 2 * CHUNK, 0);
        for (int64_t k = 0; k + 1 < known; k += 2)
            for (int64_t p = 0; p < CHUNK; ++p)
                in[k / 2 * CHUNK + p] = static_cast<uint16_t>(here[p][offset[k]]) | here[p][offset[k + 1]] << 16;
        for (int64_t p = 0; p < CHUNK && known % 2; ++p)
            in[known / 2 * CHUNK + p] = static_cast<uint16_t>(here[p][offset[known - 1]]);
        int64_t largest = arithmetic.largest_value;
        for (size_t index = 0; index < layers.size(); ++index) {
            const auto &[weight, bias, weight16, bias32, limit] = layers[index];
            if (largest > limit) return false;
            const int64_t rows = weight16.size(0);
            sums.resize(rows * CHUNK);
            arithmetic.multiply(weight16.data_ptr<int16_t>(), bias32.data_ptr<int32_t>(), rows, weight16.size(1),
                                in.data(), sums.data());
            in.resize(rows / 2 * CHUNK);
            if (index + 1 < layers.size()) largest = activate(sums.data(), rows, in.data());
        }
        for (int64_t channel = 0; channel < last - first; ++channel)
            intervals(sums.data() + channel * levels * CHUNK, levels, arithmetic,
                      uppers + (channel * chunks(count) + chunk) * levels * CHUNK);
    }
    return true;
}
#else
bool uppers_16(const Pass &, const Plane &, const Arithmetic &, int32_t *) { return false; }
#endif

// What this processor can multiply with, the quickest first.
std::vector<std::pair<std::string, Multiply>> instruction_sets() {
    std::vector<std::pair<std::string, Multiply>> sets;
#ifdef DCU_SIXTEEN_BITS
    if (__builtin_cpu_supports("avx512vnni")) sets.emplace_back("avx512vnni", multiply_vnni);
    if (__builtin_cpu_supports("avx2")) sets.emplace_back("avx2", multiply_avx2);
#endif
    sets.emplace_back("doubles", nullptr);
    return sets;
}

// Decode the symbols (C, h w) of one tile, whose padded plane is of `stride` positions.
void decode_tile(const std::string &payload, const std::vector<Pass> &passes, const at::Tensor &values,
                 const Arithmetic &arithmetic, uint8_t *symbols, int64_t plane, int64_t stride) {
    Decoder decoder(payload);
    const int64_t size = values.size(0) * stride;
    Plane padded{std::vector<int32_t>(size, 0), std::vector<int16_t>(size, 0)};
    const int32_t *value = values.data_ptr<int32_t>();
    std::vector<int32_t> uppers;
    for (const Pass &pass : passes) {
        const auto &[first, last, levels, positions, places, offsets, layers] = pass;
        const int64_t count = places.numel();
        if (count == 0) continue;
        const int64_t *position = positions.data_ptr<int64_t>(), *place = places.data_ptr<int64_t>();
        uppers.resize((last - first) * chunks(count) * levels * CHUNK);
        if (!arithmetic.multiply || !uppers_16(pass, padded, arithmetic, uppers.data()))
            uppers_exact(pass, padded, arithmetic, uppers.data());
        for (int64_t channel = first; channel < last; ++channel) {
            const int32_t *upper = uppers.data() + (channel - first) * chunks(count) * levels * CHUNK;
            for (int64_t p = 0; p < count; ++p) {
                const int64_t symbol = decoder.next(upper + p / CHUNK * levels * CHUNK + p % CHUNK, levels);
                const int32_t meant = value[channel * values.size(1) + symbol];
                symbols[channel * plane + position[p]] = static_cast<uint8_t>(symbol);
                padded.whole[channel * stride + place[p]] = meant;
                padded.half[channel * stride + place[p]] = static_cast<int16_t>(meant);
            }
        }
    }
}

// Symbols (B, C, h w) uint8 of tiles of one size, with one of instruction_sets(), the quickest where none is named. Several
// tiles share the threads; in doubles the matrix library has them.
at::Tensor decode_tiles(const std::vector<std::string> &payloads, const std::vector<Pass> &passes,
                        const at::Tensor &values, const at::Tensor &exponentials, int64_t largest, int64_t plane,
                        int64_t stride, const std::string &instructions) {
    const int64_t count = payloads.size(), channels = values.size(0);
    const auto sets = instruction_sets();
    const auto named = [&](const auto &set) { return instructions.empty() || set.first == instructions; };
    const auto set = std::find_if(sets.begin(), sets.end(), named);
    if (set == sets.end()) throw std::invalid_argument("instructions that this processor does not have");
    const Arithmetic arithmetic{set->second, values.abs().max().item<int32_t>(), exponentials.data_ptr<int32_t>(),
                                static_cast<int32_t>(exponentials.numel() - 1), TOTAL - largest};
    at::Tensor symbols = at::empty({count, channels, plane}, at::kByte);
    uint8_t *out = symbols.data_ptr<uint8_t>();
    // at::parallel_for() is not parallel in an extension that is built without OpenMP
    const int64_t threads = arithmetic.multiply ? std::min<int64_t>(count, at::get_num_threads()) : 1;
    std::vector<std::exception_ptr> failures(threads);
    const auto decode_part = [&](int64_t thread) {
        const at::NoGradGuard without_gradients;
        try {
            for (int64_t tile = thread; tile < count; tile += threads)
                decode_tile(payloads[tile], passes, values, arithmetic, out + tile * channels * plane, plane, stride);
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < threads; ++thread) {
        try {
            others.emplace_back(decode_part, thread);
        } catch (const std::system_error &) {  // no thread can be had: its part is done here
            decode_part(thread);
        }
    }
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
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const auto &set : instruction_sets()) names.push_back(set.first);
        return names;
    });
}
