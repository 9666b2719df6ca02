// The context model in integers: where the intervals of symbols end, given the symbols already known. coder.py has the
// equations, dcu/nets/context.py the order of coding.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace dcu {

constexpr int64_t REACH = 2;  // rows and columns of neighbors on each side

// A known symbol around a position: its channel, and row and column of the 5x5 neighborhood.
struct Neighbor {
    int32_t channel, row, column;
};

// One pass: the symbols of channels [first, last), each one of `levels`, are coded given the known neighbors.
struct Pass {
    int64_t first, last, levels;
    std::vector<Neighbor> known;
    std::vector<Layer> layers;
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
};

class ContextModel {
  public:
    // `values` (channels, largest): what each symbol stands for; `exponential`: as in Softmax. Throws invalid_argument
    // where something would lie outside of what it belongs to.
    ContextModel(std::vector<Pass> passes, int64_t channels, int64_t largest, std::vector<int32_t> values,
                 std::vector<int32_t> exponential);

    // Where the intervals of a pass end, (channels of the pass, chunks, levels, CHUNK).
    void intervals(const Pass &pass, const Positions &positions, const Planes &planes, const Kernels &kernels,
                   std::vector<int32_t> &ends) const;

    int32_t value(int64_t channel, int64_t symbol) const { return values_[channel * largest_ + symbol]; }
    int64_t channels() const { return channels_; }
    const std::vector<Pass> &passes() const { return passes_; }

  private:
    std::vector<Pass> passes_;
    int64_t channels_, largest_;
    std::vector<int32_t> values_, exponential_;
    int64_t largest_value_;
    Softmax softmax_;
};

}  // namespace dcu
