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
      half(channels * stride) {}

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
bool evaluate_in_16_bits(const Network &network, const std::vector<int64_t> &offsets, const Places &places,
                         const Planes &planes, int64_t largest, const Kernels &kernels, Outputs &outputs) {
    const int64_t known = static_cast<int64_t>(offsets.size());
    outputs.inputs16.assign((known + 1) / 2 * CHUNK, 0);
    for (int64_t p = 0; p < CHUNK; ++p) {
        const int16_t *here = planes.half.data() + places.place[p];
        const auto value = [&](int64_t k) { return static_cast<uint32_t>(static_cast<uint16_t>(here[offsets[k]])); };
        int32_t *in = outputs.inputs16.data() + p;
        for (int64_t k = 0; k + 1 < known; k += 2, in += CHUNK)
            *in = static_cast<int32_t>(value(k) | value(k + 1) << 16);
        if (known % 2) *in = static_cast<int32_t>(value(known - 1));
    }
    for (const Layer &layer : network.layers) {
        if (largest > layer.limit) return false;
        outputs.sums16.resize(layer.padded_rows * CHUNK);
        kernels.multiply16(layer, outputs.inputs16.data(), outputs.sums16.data());
        if (&layer == &network.layers.back()) break;
        outputs.inputs16.resize(layer.padded_rows / 2 * CHUNK);
        largest = kernels.activate16(outputs.sums16.data(), layer.padded_rows, outputs.inputs16.data());
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

std::vector<int64_t> offsets_of(const Network &network, const Planes &planes) {
    std::vector<int64_t> offsets;
    for (const Neighbor &neighbor : network.known) offsets.push_back(planes.offset(neighbor));
    return offsets;
}

void evaluate(const Network &network, const std::vector<int64_t> &offsets, const Positions &positions, int64_t chunk,
              const Planes &planes, int64_t largest, const Kernels &kernels, Outputs &outputs) {
    const Places places(positions, chunk);
    outputs.in_16_bits =
        kernels.multiply16 && evaluate_in_16_bits(network, offsets, places, planes, largest, kernels, outputs);
    if (!outputs.in_16_bits) evaluate_in_doubles(network, offsets, places, planes, kernels, outputs);
}

}  // namespace dcu
