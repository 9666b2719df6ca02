// The context model of unbounded symbols, in integers: a mean and a scale for each symbol, given the symbols already
// known, and the interval table of each pair of both. logistic.py has the equations.

#pragma once

#include <cstdint>
#include <vector>

#include "network.h"

namespace dcu {

constexpr int64_t SCALES = 64, FRACTIONS = 16;
constexpr int32_t LARGEST_SYMBOL = 32767;

// One pass: the symbols of some channels are coded given the known neighbors.
struct LogisticPass {
    std::vector<int32_t> channels;
    Network network;                // to (2 * channels) numbers: means in 2^-8, then log2 of scales in 2^-8
    std::vector<Neighbor> own;      // known neighbors in a symbol's own channel (their channel is not used)
    std::vector<int32_t> linear;    // (channels, own), in 2^-12: what each adds to the mean
};

// Mean in 1/16 and index of the scale.
struct Prediction {
    int32_t mean, scale;
};

// The intervals of offsets -radius..radius from the nearest integer to the mean, then of the escape.
struct IntervalTable {
    const int32_t *ends;  // 2 * radius + 2
    int32_t radius;
};

class LogisticModel {
  public:
    // `compressed`: what magnitudes 0, 1, ... stand for, larger ones as the last; `radii` (64,); `ends`: the tables of all
    // scales and fractions, one after the other. Throws invalid_argument where something does not fit.
    LogisticModel(std::vector<LogisticPass> passes, int64_t channels, std::vector<int32_t> compressed,
                  std::vector<int32_t> radii, std::vector<int32_t> ends);

    // Predictions of a pass, (channels of the pass, positions). `symbols`: in padded planes, as `planes` has their values.
    void predict(const LogisticPass &pass, const Positions &positions, const Planes &planes,
                 const std::vector<int32_t> &symbols, const Kernels &kernels, std::vector<Prediction> &out) const;

    IntervalTable table(int32_t scale, int32_t fraction) const {
        return {ends_.data() + starts_[scale * FRACTIONS + fraction], radii_[scale]};
    }

    int32_t value(int32_t symbol) const {
        const auto size = static_cast<int32_t>(compressed_.size());
        const int32_t magnitude = symbol < 0 ? -symbol : symbol;
        const int32_t value = compressed_[magnitude < size ? magnitude : size - 1];
        return symbol < 0 ? -value : value;
    }

    int64_t channels() const { return channels_; }
    const std::vector<LogisticPass> &passes() const { return passes_; }

  private:
    std::vector<LogisticPass> passes_;
    int64_t channels_;
    std::vector<int32_t> compressed_, radii_, ends_;
    std::vector<int64_t> starts_;
    int64_t largest_value_;
};

}  // namespace dcu
