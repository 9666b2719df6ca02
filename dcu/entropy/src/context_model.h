// The context model in integers: where the intervals of symbols end, given the symbols already known. coder.py has the
// equations, dcu/nets/context.py the order of coding.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "network.h"

namespace dcu {

// One pass: the symbols of channels [first, last), each one of `levels`, are coded given the known neighbors.
struct Pass {
    int64_t first, last, levels;
    Network network;
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
