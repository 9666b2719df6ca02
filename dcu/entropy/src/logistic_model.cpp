#include "logistic_model.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "arithmetic_coder.h"

namespace dcu {

namespace {

constexpr int32_t LARGEST_MEAN = 16 * LARGEST_SYMBOL;
// log2 of a scale in 2^-8 to its index: six to an octave, the first at log2 = -4.5
constexpr int64_t PER_OCTAVE = 6, FIRST = PER_OCTAVE * 9 * 256 / 2;

void require(bool right) {
    if (!right) throw std::invalid_argument("a context model of other shapes than its groups say");
}

}  // namespace

LogisticModel::LogisticModel(std::vector<LogisticPass> passes, int64_t channels, std::vector<int32_t> compressed,
                             std::vector<int32_t> radii, std::vector<int32_t> ends)
    : passes_(std::move(passes)), channels_(channels), compressed_(std::move(compressed)), radii_(std::move(radii)),
      ends_(std::move(ends)), largest_value_(0) {
    require(channels > 0 && !compressed_.empty() && compressed_[0] == 0);
    for (const int32_t value : compressed_) {
        require(0 <= value && value <= INT16_MAX);
        largest_value_ = std::max<int64_t>(largest_value_, value);
    }
    require(static_cast<int64_t>(radii_.size()) == SCALES);
    int64_t start = 0;
    for (const int32_t radius : radii_) {
        require(0 <= radius && radius < INT16_MAX);
        for (int64_t fraction = 0; fraction < FRACTIONS; ++fraction) {
            starts_.push_back(start);
            const int64_t size = 2 * int64_t{radius} + 2;
            require(start + size <= static_cast<int64_t>(ends_.size()));
            int32_t before = 0;
            for (int64_t i = start; i < start + size; before = ends_[i++]) require(before < ends_[i]);
            require(before == static_cast<int32_t>(TOTAL));
            start += size;
        }
    }
    require(start == static_cast<int64_t>(ends_.size()));
    for (const LogisticPass &pass : passes_) {
        const auto count = static_cast<int64_t>(pass.channels.size());
        for (const int32_t channel : pass.channels) require(0 <= channel && channel < channels);
        check_network(pass.network, channels, 2 * count);
        for (const auto &[channel, row, column] : pass.own)
            require(channel == 0 && 0 <= row && row <= 2 * REACH && 0 <= column && column <= 2 * REACH);
        require(pass.linear.size() == pass.own.size() * pass.channels.size());
    }
}

void LogisticModel::predict(const LogisticPass &pass, const Positions &positions, const Planes &planes,
                            const std::vector<int32_t> &symbols, const Kernels &kernels,
                            std::vector<Prediction> &out) const {
    const auto count = static_cast<int64_t>(pass.channels.size()), places = positions.count();
    const Inputs inputs(pass.network, planes);
    std::vector<int64_t> own;
    for (const Neighbor &neighbor : pass.own) own.push_back(planes.offset(neighbor));
    out.resize(count * places);
    Outputs outputs;
    for (int64_t chunk = 0; chunk < positions.chunks(); ++chunk) {
        evaluate(pass.network, inputs, positions, chunk, planes, largest_value_, kernels, outputs);
        const int64_t last = std::min(CHUNK, places - chunk * CHUNK);
        for (int64_t channel = 0; channel < count; ++channel) {
            const int32_t *linear = pass.linear.data() + channel * static_cast<int64_t>(own.size());
            const int32_t *plane = symbols.data() + pass.channels[channel] * planes.stride;
            const size_t neighbors = planes.used[pass.channels[channel]] ? own.size() : 0;
            for (int64_t p = 0; p < last; ++p) {
                const int64_t i = chunk * CHUNK + p;
                int64_t mean = outputs.at(channel, p) * 16;  // 2^-8 to 2^-12
                const int32_t *here = plane + positions.padded[i];
                for (size_t k = 0; k < neighbors; ++k) mean += int64_t{linear[k]} * here[own[k]];
                const int64_t sixteenths = (mean + 128) >> 8;
                const int64_t scale = (PER_OCTAVE * outputs.at(count + channel, p) + FIRST + 128) >> 8;
                out[channel * places + i] = {
                    static_cast<int32_t>(std::clamp<int64_t>(sixteenths, -LARGEST_MEAN, LARGEST_MEAN)),
                    static_cast<int32_t>(std::clamp<int64_t>(scale, 0, SCALES - 1))};
            }
        }
    }
}

}  // namespace dcu
