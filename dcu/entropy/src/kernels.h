// The arithmetic of the context model's layers, for 16 positions at a time, in the instruction sets of several processors.
//
// All of it is exact: integers of 32 bits where sums fit, else integers held in a double, where no sum leaves 2^53. Hence
// all kernels give the same results, which coder.py describes.

#pragma once

#include <cstdint>
#include <vector>

namespace dcu {

constexpr int64_t CHUNK = 16;  // positions that go through the layers together, so that they stay in the nearest cache
constexpr int WEIGHT_BITS = 12;
constexpr int32_t CLIP = 1 << 20;

// One layer: weights (rows, columns) and biases (rows,), integers with 12 and 20 fractional bits; twice.
class Layer {
  public:
    Layer(const int32_t *weights, const int32_t *biases, int64_t rows, int64_t columns);

    int64_t rows, columns;

    // In doubles: weights (even rows, columns), biases (even rows,), both divided by 2^12, half of which is in the biases.
    int64_t even_rows;
    std::vector<double> weights, biases;

    // In 16 bits: weights (padded rows, pairs, 2) and biases (padded rows,) with 2^11 added; padded rows are a multiple of
    // 8, and there are zeros where there is nothing. No sum leaves 32 bits, in whatever order it is taken, for inputs
    // of magnitudes up to `limit`, which is below 2^15, and negative where there are none such.
    int64_t padded_rows, pairs, limit;
    std::vector<int16_t> weights16;
    std::vector<int32_t> biases32;
    std::vector<int32_t> all_pairs;  // 0, 1, ..., pairs - 1
};

// From logits to intervals.
struct Softmax {
    const int32_t *exponential;  // exponential[d] = round(2^16 exp(-d / 2^8))
    int32_t last;                // index of the last entry
    int32_t room;                // 2^16 less one for each symbol
};

// What one instruction set computes with.
struct Kernels {
    const char *name;

    // Sums (padded rows, CHUNK) of inputs (pairs, CHUNK), each of which is a pair of 16-bit numbers; null: not there.
    // `pairs` says which of the layer's pairs they are, in rising order; the others are zero.
    void (*multiply16)(const Layer &layer, const std::vector<int32_t> &pairs, const int32_t *inputs, int32_t *sums);

    // Sums to the next layer's inputs; returns the largest of them. `rows` is even.
    int32_t (*activate16)(const int32_t *sums, int64_t rows, int32_t *inputs);

    // Sums (levels, CHUNK) of one channel to where in [0, 2^16] the interval of each symbol ends, (levels, CHUNK).
    void (*intervals16)(const int32_t *sums, int64_t levels, const Softmax &softmax, int32_t *ends);

    // The same in doubles: outputs (even rows, CHUNK) = floor(weights * inputs (columns, CHUNK) + biases), clipped to
    // [0, CLIP] where asked; and logits to where intervals end.
    void (*multiply)(const Layer &layer, const double *inputs, bool clip, double *outputs);
    void (*intervals)(const double *logits, int64_t levels, const Softmax &softmax, int32_t *ends);
};

// What this processor can use, the quickest first; the last, "doubles", needs nothing special.
const std::vector<Kernels> &kernels();

}  // namespace dcu
