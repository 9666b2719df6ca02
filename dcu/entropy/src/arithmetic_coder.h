// Arithmetic coding with integers, as published by Witten, Neal and Cleary ("Arithmetic coding for data compression",
// Communications of the ACM 30(6), 1987): an interval [low, high] of 32-bit numbers is narrowed by each symbol, and bits
// are written as soon as both ends agree in them. Probabilities are intervals [start, end) of [0, 2^16).
//
// Both classes know nothing of the model: whoever uses them says which interval each symbol has.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace dcu {

constexpr int PRECISION = 16;
constexpr uint32_t TOTAL = uint32_t{1} << PRECISION;

// How many bits are settled by an interval whose ends differ.
struct Settled {
    int same;    // leading bits in which both ends agree (cases E1 and E2 of the publication)
    int middle;  // then: bits that keep both ends in the middle half, low 01..., high 10... (case E3)

    Settled(uint32_t low, uint32_t high) {
        same = __builtin_clz(low ^ high);
        // There is always a zero to count to: an interval that is coded is at least 2^14 - 1 wide.
        middle = __builtin_clz(~((low << same & ~(high << same)) << 1));
    }
};

class ArithmeticEncoder {
  public:
    // Code a symbol whose interval is [start, end), start < end <= 2^16.
    void put(uint32_t start, uint32_t end) {
        const uint64_t width = uint64_t{high_} - low_ + 1;
        high_ = low_ + static_cast<uint32_t>((width * end >> PRECISION) - 1);
        low_ += static_cast<uint32_t>(width * start >> PRECISION);
        const Settled settled(low_, high_);
        if (settled.same > 0) {
            write_bit(low_ >> 31);
            write(low_ << 1, settled.same - 1);
        }
        const int shift = settled.same + settled.middle;
        pending_ += static_cast<uint64_t>(settled.middle);
        low_ = low_ << shift & 0x7FFFFFFFU;
        high_ = high_ << shift | ((uint32_t{1} << shift) - 1) | 0x80000000U;
    }

    // The payload; nothing can be coded after it.
    std::string finish() {
        ++pending_;
        write_bit(low_ >> 30);  // a number inside the interval: 01... or 10...
        write(0, -count_ & 7);
        return std::move(bytes_);
    }

  private:
    // A bit, and after it the opposite bits that waited for it.
    void write_bit(uint32_t bit) {
        write(bit << 31, 1);
        const uint32_t opposite = bit ? 0 : 0xFFFFFFFFU;
        for (; pending_ > 31; pending_ -= 31) write(opposite, 31);
        write(opposite, static_cast<int>(pending_));
        pending_ = 0;
    }

    // The first `n` bits of a number, n < 32.
    void write(uint32_t bits, int n) {
        cache_ = cache_ << n | static_cast<uint64_t>(bits) >> (32 - n);
        for (count_ += n; count_ >= 8; count_ -= 8) bytes_.push_back(static_cast<char>(cache_ >> (count_ - 8)));
    }

    std::string bytes_;
    uint64_t cache_ = 0;
    int count_ = 0;         // bits of `cache_` that are not in `bytes_` yet
    uint64_t pending_ = 0;  // bits that follow the next one and are its opposite
    uint32_t low_ = 0, high_ = 0xFFFFFFFFU;
};

// Reads what the encoder wrote; behind the end of the payload there are zeros. In the place of the interval's upper end
// and of the number in the interval it holds their distances from the lower end.
class ArithmeticDecoder {
  public:
    explicit ArithmeticDecoder(std::string_view payload) : payload_(payload) { ahead_ = read(32); }

    // Whether the coded number lies before the point `end` of [0, 2^16]: the next symbol's interval starts before it.
    bool before(uint32_t end) const { return (ahead_ + 1) << PRECISION <= width_ * end; }

    // Whether the next symbol's interval is [start, end); if so, go on behind it.
    bool take(uint32_t start, uint32_t end) {
        const uint64_t first = width_ * start >> PRECISION, behind = width_ * end >> PRECISION;
        const bool inside = first <= ahead_ && ahead_ < behind;
        if (inside) go_on(first, behind);
        return inside;
    }

    // Go on behind the next symbol, whose interval is [start, end).
    void skip(uint32_t start, uint32_t end) { go_on(width_ * start >> PRECISION, width_ * end >> PRECISION); }

    // Bytes that the encoder writes of the symbols until here: a bit for each that is settled, and two to finish.
    size_t length() const { return static_cast<size_t>((settled_ + 2 + 7) / 8); }

  private:
    // Go on behind what begins and ends so far from the lower end.
    void go_on(uint64_t first, uint64_t behind) {
        width_ = behind - first;
        low_ += static_cast<uint32_t>(first);
        ahead_ -= first;
        const uint32_t high = low_ + static_cast<uint32_t>(width_ - 1);
        if ((low_ ^ high) >> 31 && !((low_ & ~high) >> 30)) return;  // as mostly: no bit is settled
        const Settled settled(low_, high);
        const int shift = settled.same + settled.middle;
        settled_ += static_cast<uint64_t>(shift);
        low_ = low_ << shift & 0x7FFFFFFFU;
        width_ <<= shift;
        ahead_ = ahead_ << shift | read(shift);
    }

    // The next `n` bits, n <= 32.
    uint64_t read(int n) {
        for (; count_ < n; count_ += 8) {
            const uint8_t byte = place_ < payload_.size() ? static_cast<uint8_t>(payload_[place_]) : 0;
            cache_ = cache_ << 8 | byte;
            ++place_;
        }
        count_ -= n;
        return cache_ >> count_ & ((uint64_t{1} << n) - 1);
    }

    std::string_view payload_;
    size_t place_ = 0;
    uint64_t cache_ = 0;
    int count_ = 0;  // bits of `cache_` that were not read
    uint32_t low_ = 0;
    uint64_t width_ = uint64_t{1} << 32, ahead_ = 0, settled_ = 0;
};

}  // namespace dcu
