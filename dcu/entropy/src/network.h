// The layers of one pass, for 16 positions at a time: from the known symbols around them to one number for each row of the
// last layer. What the numbers mean is the business of the models.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace dcu {

constexpr int64_t REACH = 2;  // rows and columns of neighbors on each side

// A known symbol around a position: its channel, and row and column of the 5x5 neighborhood.
struct Neighbor {
    int32_t channel, row, column;
};

// Positions of one pass in a plane of (height, width), and in a padded plane of (height + 4, width + 4).
struct Positions {
    const int64_t *plain;
    std::vector<int64_t> padded;

    Positions(const int64_t *plain, int64_t count, int64_t width);
    int64_t count() const { return static_cast<int64_t>(padded.size()); }
    int64_t chunks() const { return (count() + CHUNK - 1) / CHUNK; }
};

// The values of known symbols, zero elsewhere, in padded planes of all channels, in 32 and in 16 bits.
class Planes {
  public:
    Planes(int64_t channels, int64_t height, int64_t width);

    void set(int64_t channel, int64_t padded, int32_t value) {
        used[channel] |= value != 0;
        whole[channel * stride + padded] = value;
        half[channel * stride + padded] = static_cast<int16_t>(value);
    }

    // How far a neighbor lies behind a position.
    int64_t offset(const Neighbor &neighbor) const {
        return neighbor.channel * stride + (neighbor.row - REACH) * columns + neighbor.column - REACH;
    }

    int64_t columns, stride;
    std::vector<int32_t> whole;
    std::vector<int16_t> half;
    std::vector<uint8_t> used;  // whether a channel has any value but zero
};

// The known neighbors of a position, and the layers that their values go through.
struct Network {
    std::vector<Neighbor> known;
    std::vector<Layer> layers;
};

// The last layer's outputs of one chunk of positions, and the buffers on the way to them.
struct Outputs {
    bool in_16_bits = false;
    std::vector<int32_t> sums16;  // if so: sums (padded rows, CHUNK), before the division by 2^12
    std::vector<double> numbers;  // else: (even rows, CHUNK)

    // floor(W a + b) of a row, as both have it.
    int64_t at(int64_t row, int64_t position) const {
        const int64_t i = row * CHUNK + position;
        return in_16_bits ? sums16[i] >> WEIGHT_BITS : static_cast<int64_t>(numbers[i]);
    }

    std::vector<int32_t> inputs16, pairs;
    std::vector<double> inputs;
};

// What a pass reads: how far each known neighbor lies behind a position, and of the pairs of neighbors those that may hold
// anything but zero.
struct Inputs {
    std::vector<int64_t> offsets;
    std::vector<int32_t> pairs;

    Inputs(const Network &network, const Planes &planes);
};

// Throws invalid_argument where layers do not fit together, or a neighbor lies outside of so many channels.
void check_network(const Network &network, int64_t channels, int64_t rows);

// Outputs of a chunk of positions. `largest`: bound of the values' magnitudes.
void evaluate(const Network &network, const Inputs &inputs, const Positions &positions, int64_t chunk,
              const Planes &planes, int64_t largest, const Kernels &kernels, Outputs &outputs);

}  // namespace dcu
