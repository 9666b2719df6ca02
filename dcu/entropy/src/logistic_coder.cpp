#include "logistic_coder.h"

#include <algorithm>
#include <stdexcept>

#include "arithmetic_coder.h"
#include "threads.h"
#include "tile_coder.h"

namespace dcu {

namespace {

constexpr uint32_t HALF = TOTAL / 2;
constexpr int GOLOMB_ORDER = 4, LARGEST_PREFIX = 14;  // 2^(4 + 14) is above every distance of two symbols

void put_bit(ArithmeticEncoder &encoder, bool bit) { encoder.put(bit ? HALF : 0, bit ? TOTAL : HALF); }

bool get_bit(ArithmeticDecoder &decoder) {
    const bool bit = !decoder.before(HALF);
    decoder.skip(bit ? HALF : 0, bit ? TOTAL : HALF);
    return bit;
}

// Exponential-Golomb code of order 4: a prefix of ones, as many as the number has bits beyond four, a zero, the bits.
void put_number(ArithmeticEncoder &encoder, uint32_t number) {
    int bits = GOLOMB_ORDER;
    for (; number >> bits; number -= uint32_t{1} << bits++) put_bit(encoder, true);
    put_bit(encoder, false);
    while (bits-- > 0) put_bit(encoder, number >> bits & 1);
}

uint32_t get_number(ArithmeticDecoder &decoder) {
    int bits = GOLOMB_ORDER;
    uint32_t number = 0;
    for (; get_bit(decoder); number += uint32_t{1} << bits++)
        if (bits == GOLOMB_ORDER + LARGEST_PREFIX) throw BrokenPayload("an escape code without end");
    uint32_t rest = 0;
    while (bits-- > 0) rest = rest << 1 | static_cast<uint32_t>(get_bit(decoder));
    return number + rest;
}

// The integer nearest to a mean in 1/16, and the fraction 0..15 left, in 1/16 from -8 on.
struct Center {
    int32_t nearest, fraction;

    explicit Center(int32_t mean) : nearest((mean + 8) >> 4), fraction(mean + 8 - nearest * 16) {}
};

void put_symbol(ArithmeticEncoder &encoder, const IntervalTable &table, int32_t offset) {
    const int32_t magnitude = offset < 0 ? -offset : offset;
    const int32_t index = magnitude <= table.radius ? offset + table.radius : 2 * table.radius + 1;
    encoder.put(index == 0 ? 0 : static_cast<uint32_t>(table.ends[index - 1]), static_cast<uint32_t>(table.ends[index]));
    if (magnitude > table.radius) {
        put_bit(encoder, offset < 0);
        put_number(encoder, static_cast<uint32_t>(magnitude - table.radius - 1));
    }
}

int32_t get_symbol(ArithmeticDecoder &decoder, const IntervalTable &table) {
    const auto end = [&](int32_t index) { return index < 0 ? 0 : static_cast<uint32_t>(table.ends[index]); };
    if (decoder.take(end(table.radius - 1), end(table.radius))) return 0;  // as mostly
    const int32_t escape = 2 * table.radius + 1;
    const bool above = !decoder.before(end(table.radius));
    // the first index whose interval ends behind the coded number
    int32_t low = above ? table.radius + 1 : 0, high = above ? escape : table.radius - 1;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (decoder.before(end(middle)))
            high = middle;
        else
            low = middle + 1;
    }
    decoder.skip(end(low - 1), end(low));
    if (low < escape) return low - table.radius;
    const bool negative = get_bit(decoder);
    const auto magnitude = static_cast<int32_t>(get_number(decoder)) + table.radius + 1;
    return negative ? -magnitude : magnitude;
}

}  // namespace

LogisticCoder::LogisticCoder(const LogisticModel &model,
                             const std::vector<std::pair<const int64_t *, int64_t>> &positions, int64_t height,
                             int64_t width, const Kernels &kernels)
    : model_(model), height_(height), width_(width), kernels_(kernels) {
    if (height < 1 || width < 1 || positions.size() != model.passes().size())
        throw std::invalid_argument("positions of every pass are needed, in a plane of 1x1 or more");
    for (const auto &[first, count] : positions) {
        if (std::any_of(first, first + count, [&](int64_t i) { return i < 0 || i >= height * width; }))
            throw std::invalid_argument("a position outside of the plane");
        positions_.emplace_back(first, count, width);
    }
}

// The order of coding: next(channel, position, nearest integer to the mean, table) says each symbol; done() after each
// pass.
template <typename Next, typename Done>
void LogisticCoder::run(const Next &next, const Done &done) const {
    Planes planes(model_.channels(), height_, width_);
    std::vector<int32_t> symbols(planes.whole.size());
    std::vector<Prediction> predictions;
    for (size_t index = 0; index < positions_.size(); ++index) {
        const LogisticPass &pass = model_.passes()[index];
        const Positions &positions = positions_[index];
        if (positions.count() > 0 && !pass.channels.empty())
            model_.predict(pass, positions, planes, symbols, kernels_, predictions);
        const Prediction *prediction = predictions.data();
        for (const int32_t channel : pass.channels) {
            for (int64_t i = 0; i < positions.count(); ++i, ++prediction) {
                const Center center(prediction->mean);
                const IntervalTable table = model_.table(prediction->scale, center.fraction);
                const int32_t symbol = next(channel, positions.plain[i], center.nearest, table);
                if (symbol == 0) continue;  // as mostly; so the planes begin
                planes.set(channel, positions.padded[i], model_.value(symbol));
                symbols[channel * planes.stride + positions.padded[i]] = symbol;
            }
        }
        done();
    }
}

std::string LogisticCoder::encode(const int16_t *symbols) const {
    ArithmeticEncoder encoder;
    const auto next = [&](int32_t channel, int64_t position, int32_t nearest, const IntervalTable &table) -> int32_t {
        const int32_t symbol = symbols[channel * height_ * width_ + position];
        if (symbol < -LARGEST_SYMBOL) throw std::invalid_argument("a symbol below -32767");
        put_symbol(encoder, table, symbol - nearest);
        return symbol;
    };
    run(next, [] {});
    return encoder.finish();
}

// Read a payload: set(channel, position, symbol) for each symbol, done(bytes so far) after each pass.
template <typename Set, typename Done>
void LogisticCoder::read(std::string_view payload, const Set &set, const Done &done) const {
    ArithmeticDecoder decoder(payload);
    const auto next = [&](int32_t channel, int64_t position, int32_t nearest, const IntervalTable &table) -> int32_t {
        const int32_t symbol = nearest + get_symbol(decoder, table);
        if (symbol < -LARGEST_SYMBOL || symbol > LARGEST_SYMBOL)
            throw BrokenPayload("a symbol that its codec does not have");
        set(channel, position, symbol);
        return symbol;
    };
    run(next, [&] { done(static_cast<int64_t>(decoder.length())); });
    if (payload.size() > decoder.length()) throw BrokenPayload("bytes after the last symbol of a tile");
}

std::vector<int64_t> LogisticCoder::lengths(std::string_view payload) const {
    std::vector<int64_t> lengths;
    read(payload, [](int32_t, int64_t, int32_t) {}, [&](int64_t length) { lengths.push_back(length); });
    return lengths;
}

void LogisticCoder::decode(const std::vector<std::string_view> &payloads, int16_t *symbols, int64_t threads) const {
    const int64_t size = model_.channels() * height_ * width_;
    share(static_cast<int64_t>(payloads.size()), threads, [&](int64_t tile) {
        int16_t *out = symbols + tile * size;
        const auto set = [&](int32_t channel, int64_t position, int32_t symbol) {
            if (symbol != 0) out[channel * height_ * width_ + position] = static_cast<int16_t>(symbol);
        };
        read(payloads[tile], set, [](int64_t) {});
    });
}

}  // namespace dcu
