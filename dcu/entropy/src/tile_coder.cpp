#include "tile_coder.h"

#include <algorithm>
#include <stdexcept>

#include "arithmetic_coder.h"
#include "threads.h"

namespace dcu {

TileCoder::TileCoder(const ContextModel &model, const std::vector<std::pair<const int64_t *, int64_t>> &positions,
                     int64_t height, int64_t width, const Kernels &kernels)
    : model_(model), height_(height), width_(width), kernels_(kernels) {
    if (height < 1 || width < 1 || positions.size() != model.passes().size())
        throw std::invalid_argument("positions of every pass are needed, in a plane of 1x1 or more");
    for (const auto &[first, count] : positions) {
        if (std::any_of(first, first + count, [&](int64_t i) { return i < 0 || i >= height * width; }))
            throw std::invalid_argument("a position outside of the plane");
        positions_.emplace_back(first, count, width);
    }
}

// The order of coding: next(channel, position, ends, levels) says each symbol, whose interval ends at
// ends[symbol * CHUNK].
template <typename Next>
void TileCoder::run(const Next &next) const {
    Planes planes(model_.channels(), height_, width_);
    std::vector<int32_t> ends;
    for (size_t index = 0; index < positions_.size(); ++index) {
        const Pass &pass = model_.passes()[index];
        const Positions &positions = positions_[index];
        if (positions.count() == 0) continue;
        model_.intervals(pass, positions, planes, kernels_, ends);
        for (int64_t channel = pass.first; channel < pass.last; ++channel) {
            const int32_t *chunk = ends.data() + (channel - pass.first) * positions.chunks() * pass.levels * CHUNK;
            for (int64_t i = 0; i < positions.count(); ++i) {
                const int32_t *here = chunk + i / CHUNK * pass.levels * CHUNK + i % CHUNK;
                const int64_t symbol = next(channel, positions.plain[i], here, pass.levels);
                planes.set(channel, positions.padded[i], model_.value(channel, symbol));
            }
        }
    }
}

std::string TileCoder::encode(const uint8_t *symbols) const {
    ArithmeticEncoder encoder;
    run([&](int64_t channel, int64_t position, const int32_t *ends, int64_t levels) -> int64_t {
        const int64_t symbol = symbols[channel * height_ * width_ + position];
        if (symbol >= levels) throw std::invalid_argument("a symbol that its channel does not have");
        encoder.put(symbol == 0 ? 0 : ends[(symbol - 1) * CHUNK], ends[symbol * CHUNK]);
        return symbol;
    });
    return encoder.finish();
}

void TileCoder::decode_tile(std::string_view payload, uint8_t *symbols) const {
    ArithmeticDecoder decoder(payload);
    run([&](int64_t channel, int64_t position, const int32_t *ends, int64_t levels) -> int64_t {
        int64_t symbol = 0;
        while (symbol < levels && !decoder.before(ends[symbol * CHUNK])) ++symbol;
        if (symbol == levels) throw BrokenPayload("a symbol that its codec does not have");
        decoder.skip(symbol == 0 ? 0 : ends[(symbol - 1) * CHUNK], ends[symbol * CHUNK]);
        symbols[channel * height_ * width_ + position] = static_cast<uint8_t>(symbol);
        return symbol;
    });
    if (payload.size() > decoder.length()) throw BrokenPayload("bytes after the last symbol of a tile");
}

void TileCoder::decode(const std::vector<std::string_view> &payloads, uint8_t *symbols, int64_t threads) const {
    const int64_t size = model_.channels() * height_ * width_;
    share(static_cast<int64_t>(payloads.size()), threads,
          [&](int64_t i) { decode_tile(payloads[i], symbols + i * size); });
}

}  // namespace dcu
