// Tiles of unbounded symbols to payloads and back: the logistic model and the arithmetic coder together, pass by pass.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "logistic_model.h"

namespace dcu {

// Tiles of one size, for which each pass of a model has its positions.
class LogisticCoder {
  public:
    // `positions`: of each pass, indices into a plane. Throws invalid_argument where one lies outside.
    LogisticCoder(const LogisticModel &model, const std::vector<std::pair<const int64_t *, int64_t>> &positions,
                  int64_t height, int64_t width, const Kernels &kernels);

    // The payload of symbols (channels, height, width); those of channels that are not coded are taken for zeros.
    std::string encode(const int16_t *symbols) const;

    // Bytes of a payload up to the end of each pass. Throws BrokenPayload.
    std::vector<int64_t> lengths(std::string_view payload) const;

    // Fill `symbols` (tiles, channels, height, width), zeros at first, on so many threads. Throws BrokenPayload.
    void decode(const std::vector<std::string_view> &payloads, int16_t *symbols, int64_t threads) const;

  private:
    template <typename Next, typename Done>
    void run(const Next &next, const Done &done) const;
    template <typename Set, typename Done>
    void read(std::string_view payload, const Set &set, const Done &done) const;

    const LogisticModel &model_;
    std::vector<Positions> positions_;
    int64_t height_, width_;
    const Kernels &kernels_;
};

}  // namespace dcu
