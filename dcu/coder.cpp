// torchac's arithmetic coder, and the decoder of whole tiles: the context model's integers and torchac's intervals, pass by pass.
//
// What is computed is described in entropy.py, which makes the tables for encoding; both must agree to the last bit, so
// everything is an integer held in a double, and no sum leaves 2^53.

#include <torch/extension.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#pragma push_macro("PYBIND11_MODULE")
#undef PYBIND11_MODULE
#define PYBIND11_MODULE(name, module) static void add_torchac(py::module_ &module)
#include "torchac_backend.cpp"
#pragma pop_macro("PYBIND11_MODULE")

namespace {

constexpr double CLIP = 1 << 20;
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

// first and last channel, levels; positions in the plane and in the padded plane (P); offsets of known neighbours (K);
// weights (out, in) and biases (out, 1) of the three layers.
using Pass = std::tuple<int64_t, int64_t, int64_t, at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>>;

// The logits of a pass, (channels * levels, P).
at::Tensor logits(const Pass &pass, const double *padded) {
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
        for (size_t layer = 0; layer < layers.size(); layer += 2) {
            activation = at::addmm(layers[layer + 1], layers[layer], activation).floor_();
            if (layer + 2 < layers.size()) activation.clamp_(0, CLIP);
        }
        parts.push_back(activation);
    }
    return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

// Decode the symbols of one tile: symbols (C, h w) and the padded plane (C, stride) of their values are filled.
void decode_tile(const std::string &payload, const std::vector<Pass> &passes, const at::Tensor &values,
                 const at::Tensor &exponentials, int64_t largest, uint8_t *symbols, int64_t plane, int64_t stride) {
    Decoder decoder(payload);
    std::vector<double> padded(values.size(0) * stride, 0.0);
    const double *value = values.data_ptr<double>(), *exponential = exponentials.data_ptr<double>();
    const double deepest = exponentials.numel() - 1, room = TOTAL - largest;
    std::vector<double> cumulative(largest);
    for (const Pass &pass : passes) {
        const auto &[first, last, levels, positions, places, offsets, layers] = pass;
        const int64_t count = places.numel();
        if (count == 0) continue;
        const int64_t *position = positions.data_ptr<int64_t>(), *place = places.data_ptr<int64_t>();
        const at::Tensor answer = logits(pass, padded.data());
        for (int64_t channel = first; channel < last; ++channel) {
            const double *rows = answer.data_ptr<double>() + (channel - first) * levels * count;
            for (int64_t p = 0; p < count; ++p) {
                double highest = rows[p], total = 0;
                for (int64_t j = 1; j < levels; ++j) highest = std::max(highest, rows[j * count + p]);
                for (int64_t j = 0; j < levels; ++j) {
                    total += exponential[static_cast<int64_t>(std::min(highest - rows[j * count + p], deepest))];
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
    at::Tensor symbols = at::empty({count, channels, plane}, at::kByte);
    uint8_t *out = symbols.data_ptr<uint8_t>();
    const auto decode_part = [&](int64_t begin, int64_t end) {
        const at::NoGradGuard without_gradients;
        for (int64_t tile = begin; tile < end; ++tile)
            decode_tile(payloads[tile], passes, values, exponentials, largest, out + tile * channels * plane, plane,
                        stride);
    };
    if (count == 1)
        decode_part(0, 1);  // the threads are the matrix products'
    else
        at::parallel_for(0, count, 1, decode_part);
    return symbols;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    add_torchac(module);
    module.def("decode_tiles", &decode_tiles, py::call_guard<py::gil_scoped_release>());
}
