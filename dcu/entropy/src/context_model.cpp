#include "context_model.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "arithmetic_coder.h"

namespace dcu {

Positions::Positions(const int64_t *plain, int64_t count, int64_t width) : plain(plain), padded(count) {
    for (int64_t i = 0; i < count; ++i)
        padded[i] = (plain[i] / width + REACH) * (width + 2 * REACH) + plain[i] % width + REACH;
}

Planes::Planes(int64_t channels, int64_t height, int64_t width)
    : columns(width + 2 * REACH), stride((height + 2 * REACH) * columns), whole(channels * stride),
      half(channels * stride) {}

namespace {

constexpr int32_t ONE = TOTAL;  // of the tables: 2^16

void require(bool right) {
    if (!right) throw std::invalid_argument("a context model of other shapes than its groups say");
}

// Buffers of one chunk of positions.
struct Buffers {
    std::vector<int32_t> inputs16, sums16;
    std::vector<double> inputs, outputs;
};

// Places of a chunk's positions in the padded plane; the last stands for those behind the end.
struct Places {
    int64_t place[CHUNK];

    Places(const Positions &positions, int64_t chunk) {
        for (int64_t p = 0; p < CHUNK; ++p)
            place[p] = positions.padded[std::min(chunk * CHUNK + p, positions.count() - 1)];
    }
};

// Logits (even rows, CHUNK) in doubles, in `buffers.inputs`.
void logits_in_doubles(const Pass &pass, const std::vector<int64_t> &offsets, const Places &places,
                       const Planes &planes, const Kernels &kernels, Buffers &buffers) {
    buffers.inputs.resize(offsets.size() * CHUNK);
    double *in = buffers.inputs.data();
    for (const int64_t offset : offsets)
        for (const int64_t place : places.place) *in++ = planes.whole[place + offset];
    for (const Layer &layer : pass.layers) {
        buffers.outputs.resize(layer.even_rows * CHUNK);
        kernels.multiply(layer, buffers.inputs.data(), &layer != &pass.layers.back(), buffers.outputs.data());
        buffers.inputs.swap(buffers.outputs);
    }
}

// Logits as sums (padded rows, CHUNK) in `buffers.sums16`; false where some sum might leave 32 bits.
bool logits_in_16_bits(const Pass &pass, const std::vector<int64_t> &offsets, const Places &places,
                       const Planes &planes, int64_t largest, const Kernels &kernels, Buffers &buffers) {
    const int64_t known = static_cast<int64_t>(offsets.size());
    buffers.inputs16.assign((known + 1) / 2 * CHUNK, 0);
    for (int64_t p = 0; p < CHUNK; ++p) {
        const int16_t *here = planes.half.data() + places.place[p];
        const auto value = [&](int64_t k) { return static_cast<uint32_t>(static_cast<uint16_t>(here[offsets[k]])); };
        int32_t *in = buffers.inputs16.data() + p;
        for (int64_t k = 0; k + 1 < known; k += 2, in += CHUNK)
            *in = static_cast<int32_t>(value(k) | value(k + 1) << 16);
        if (known % 2) *in = static_cast<int32_t>(value(known - 1));
    }
    for (const Layer &layer : pass.layers) {
        if (largest > layer.limit) return false;
        buffers.sums16.resize(layer.padded_rows * CHUNK);
        kernels.multiply16(layer, buffers.inputs16.data(), buffers.sums16.data());
        if (&layer == &pass.layers.back()) break;
        buffers.inputs16.resize(layer.padded_rows / 2 * CHUNK);
        largest = kernels.activate16(buffers.sums16.data(), layer.padded_rows, buffers.inputs16.data());
    }
    return true;
}

}  // namespace

ContextModel::ContextModel(std::vector<Pass> passes, int64_t channels, int64_t largest, std::vector<int32_t> values,
                           std::vector<int32_t> exponential)
    : passes_(std::move(passes)), channels_(channels), largest_(largest), values_(std::move(values)),
      exponential_(std::move(exponential)), largest_value_(0), softmax_{} {
    require(channels > 0 && largest > 0 && largest < 256);
    require(static_cast<int64_t>(values_.size()) == channels * largest);
    require(!exponential_.empty() && exponential_[0] == ONE);
    for (const int32_t entry : exponential_) require(0 <= entry && entry <= ONE);
    for (const int32_t value : values_) largest_value_ = std::max(largest_value_, std::abs(int64_t{value}));
    softmax_ = {exponential_.data(), static_cast<int32_t>(exponential_.size() - 1),
                ONE - static_cast<int32_t>(largest)};
    for (const Pass &pass : passes_) {
        require(0 <= pass.first && pass.first < pass.last && pass.last <= channels);
        require(0 < pass.levels && pass.levels <= largest);
        for (const auto &[channel, row, column] : pass.known)
            require(0 <= channel && channel < channels && 0 <= row && row <= 2 * REACH && 0 <= column &&
                    column <= 2 * REACH);
        int64_t columns = static_cast<int64_t>(pass.known.size());
        for (const Layer &layer : pass.layers) {
            require(layer.columns == columns);
            columns = layer.rows;
        }
        require(!pass.layers.empty() && columns == (pass.last - pass.first) * pass.levels);
    }
}

void ContextModel::intervals(const Pass &pass, const Positions &positions, const Planes &planes,
                             const Kernels &kernels, std::vector<int32_t> &ends) const {
    const int64_t channels = pass.last - pass.first, chunks = positions.chunks(), size = pass.levels * CHUNK;
    std::vector<int64_t> offsets;
    for (const Neighbor &neighbor : pass.known) offsets.push_back(planes.offset(neighbor));
    ends.resize(channels * chunks * size);
    Buffers buffers;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const Places places(positions, chunk);
        const bool fits = kernels.multiply16 && logits_in_16_bits(pass, offsets, places, planes, largest_value_,
                                                                  kernels, buffers);
        if (!fits) logits_in_doubles(pass, offsets, places, planes, kernels, buffers);
        for (int64_t channel = 0; channel < channels; ++channel) {
            int32_t *out = ends.data() + (channel * chunks + chunk) * size;
            if (fits)
                kernels.intervals16(buffers.sums16.data() + channel * size, pass.levels, softmax_, out);
            else
                kernels.intervals(buffers.inputs.data() + channel * size, pass.levels, softmax_, out);
        }
    }
}

}  // namespace dcu
