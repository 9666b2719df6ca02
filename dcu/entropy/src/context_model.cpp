#include "context_model.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "arithmetic_coder.h"

namespace dcu {

namespace {

constexpr int32_t ONE = TOTAL;  // of the tables: 2^16

void require(bool right) {
    if (!right) throw std::invalid_argument("a context model of other shapes than its groups say");
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
        check_network(pass.network, channels, (pass.last - pass.first) * pass.levels);
    }
}

void ContextModel::intervals(const Pass &pass, const Positions &positions, const Planes &planes,
                             const Kernels &kernels, std::vector<int32_t> &ends) const {
    const int64_t channels = pass.last - pass.first, chunks = positions.chunks(), size = pass.levels * CHUNK;
    const Inputs inputs(pass.network, planes);
    ends.resize(channels * chunks * size);
    Outputs outputs;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        evaluate(pass.network, inputs, positions, chunk, planes, largest_value_, kernels, outputs);
        for (int64_t channel = 0; channel < channels; ++channel) {
            int32_t *out = ends.data() + (channel * chunks + chunk) * size;
            if (outputs.in_16_bits)
                kernels.intervals16(outputs.sums16.data() + channel * size, pass.levels, softmax_, out);
            else
                kernels.intervals(outputs.numbers.data() + channel * size, pass.levels, softmax_, out);
        }
    }
}

}  // namespace dcu
