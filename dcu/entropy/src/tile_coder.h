// Tiles of symbols to payloads and back: the context model and the arithmetic coder together, pass by pass.

#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "context_model.h"

namespace dcu {

// A payload that no encoder wrote.
struct BrokenPayload : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Tiles of one size, for which each pass of a model has its positions.
class TileCoder {
  public:
    // `positions`: of each pass, indices into a plane. Throws invalid_argument where one lies outside.
    TileCoder(const ContextModel &model, const std::vector<std::pair<const int64_t *, int64_t>> &positions,
              int64_t height, int64_t width, const Kernels &kernels);

    // The payload of symbols (channels, height, width). Throws invalid_argument where a channel has no such symbol.
    std::string encode(const uint8_t *symbols) const;

    // Fill `symbols` (tiles, channels, height, width), on so many threads. Throws BrokenPayload.
    void decode(const std::vector<std::string_view> &payloads, uint8_t *symbols, int64_t threads) const;

  private:
    void decode_tile(std::string_view payload, uint8_t *symbols) const;

    template <typename Next>
    void run(const Next &next) const;

    const ContextModel &model_;
    std::vector<Positions> positions_;
    int64_t height_, width_;
    const Kernels &kernels_;
};

}  // namespace dcu
