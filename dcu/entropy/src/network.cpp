#include "network.h"

#include <algorithm>
#include <stdexcept>

namespace dcu {

Positions::Positions(const int64_t *plain, int64_t count, int64_t width) : plain(plain), padded(count) {
    for (int64_t i = 0; i < count; ++i)
        padded[i] = (plain[i] / width + REACH) * (width + 2 * REACH) + plain[i] % width + REACH;
}

Planes::Planes(int64_t channels, int64_t height, int64_t width)
    : columns(width + 2 * REACH), stride((height + 2 * REACH) * columns), whole(channels * stride),
      half(channels * stride), used(channels) {}

namespace {

// Places of a chunk's positions in the padded plane; the last stands for those behind the end.
struct Places {
    int64_t place[CHUNK];

    Places(const Positions &positions, int64_t chunk) {
        for (int64_t p = 0; p < CHUNK; ++p)
            place[p] = positions.padded[std::min(chunk * CHUNK + p, positions.count() - 1)];
    }
};

void evaluate_in_doubles(const Network &network, const std::vector<int64_t> &offsets, const Places &places,
                         const Planes &planes, const Kernels &kernels, Outputs &outputs) {
    outputs.inputs.resize(offsets.size() * CHUNK);
    double *in = outputs.inputs.data();
    for (const int64_t offset : offsets)
        for (const int64_t place : places.place) *in++ = planes.whole[place + offset];
    for (const Layer &layer : network.layers) {
        outputs.numbers.resize(layer.even_rows * CHUNK);
        kernels.multiply(layer, outputs.inputs.data(), &layer != &network.layers.back(), outputs.numbers.data());
        if (&layer != &network.layers.back()) outputs.inputs.swap(outputs.numbers);
    }
}

// False where some sum might leave 32 bits.
bool evaluate_in_16_bits(const Network &network, const Inputs &inputs, const Places &places, const Planes &planes,
                         int64_t largest, const Kernels &kernels, Outputs &outputs) {
    const int64_t known = static_cast<int64_t>(inputs.offsets.size());
    outputs.inputs16.resize((known + 1) / 2 * CHUNK);
    outputs.pairs.clear();
    int32_t *in = outputs.inputs16.data();
    for (const int32_t pair : inputs.pairs) {
        const int64_t first = inputs.offsets[2 * pair];
        const bool both = 2 * pair + 1 < known;
        const int64_t second = both ? inputs.offsets[2 * pair + 1] : first;
        uint32_t any = 0;
        for (int64_t p = 0; p < CHUNK; ++p) {
            const int16_t *here = planes.half.data() + places.place[p];
            const uint32_t value = static_cast<uint16_t>(here[first]) | uint32_t{static_cast<uint16_t>(here[second])} << 16;
            in[p] = static_cast<int32_t>(both ? value : value & 0xFFFF);
            any |= value;
        }
        if (any == 0) continue;  // the next pair takes its place
        outputs.pairs.push_back(pair);
        in += CHUNK;
    }
    const std::vector<int32_t> *pairs = &outputs.pairs;
    for (const Layer &layer : network.layers) {
        if (largest > layer.limit) return false;
        outputs.sums16.resize(layer.padded_rows * CHUNK);
        kernels.multiply16(layer, *pairs, outputs.inputs16.data(), outputs.sums16.data());
        if (&layer == &network.layers.back()) break;
        outputs.inputs16.resize(layer.padded_rows / 2 * CHUNK);
        largest = kernels.activate16(outputs.sums16.data(), layer.padded_rows, outputs.inputs16.data());
        pairs = &(&layer + 1)->all_pairs;
    }
    return true;
}

void require(bool right) {
    if (!right) throw std::invalid_argument("a context model of other shapes than its groups say");
}

}  // namespace

void check_network(const Network &network, int64_t channels, int64_t rows) {
    for (const auto &[channel, row, column] : network.known)
        require(0 <= channel && channel < channels && 0 <= row && row <= 2 * REACH && 0 <= column &&
                column <= 2 * REACH);
    int64_t columns = static_cast<int64_t>(network.known.size());
    for (const Layer &layer : network.layers) {
        require(layer.columns == columns);
        columns = layer.rows;
    }
    require(!network.layers.empty() && columns == rows);
}

Inputs::Inputs(const Network &network, const Planes &planes) {
    for (const Neighbor &neighbor : network.known) offsets.push_back(planes.offset(neighbor));
    for (size_t k = 0; k < network.known.size(); k += 2)
        if (planes.used[network.known[k].channel] ||
            (k + 1 < network.known.size() && planes.used[network.known[k + 1].channel]))
            pairs.push_back(static_cast<int32_t>(k / 2));
}

void evaluate(const Network &network, const Inputs &inputs, const Positions &positions, int64_t chunk,
              const Planes &planes, int64_t largest, const Kernels &kernels, Outputs &outputs) {
    const Places places(positions, chunk);
    outputs.in_16_bits =
        kernels.multiply16 && evaluate_in_16_bits(network, inputs, places, planes, largest, kernels, outputs);
    if (!outputs.in_16_bits) evaluate_in_doubles(network, inputs.offsets, places, planes, kernels, outputs);
}

}  // namespace dcu
