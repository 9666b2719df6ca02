// What Python sees of the coder: arrays and bytes in, arrays and bytes out. The interpreter's lock is not held meanwhile.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "arithmetic_coder.h"
#include "context_model.h"
#include "kernels.h"
#include "logistic_coder.h"
#include "logistic_model.h"
#include "tile_coder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename Number, typename Shape>
using Array = nb::ndarray<const Number, Shape, nb::c_contig, nb::device::cpu>;
using Ints1 = Array<int32_t, nb::ndim<1>>;
using Ints2 = Array<int32_t, nb::ndim<2>>;
using Tables = Array<uint16_t, nb::ndim<2>>;
using Grid = std::vector<Array<int64_t, nb::ndim<1>>>;

template <typename Number>
using Result = nb::ndarray<nb::numpy, Number>;

// An array of zeros that Python will own.
template <typename Number>
std::pair<Number *, Result<Number>> zeros(std::initializer_list<size_t> shape) {
    size_t size = 1;
    for (const size_t side : shape) size *= side;
    auto *numbers = new Number[size]();
    const nb::capsule owner(numbers, [](void *p) noexcept { delete[] static_cast<Number *>(p); });
    return {numbers, Result<Number>(numbers, shape, owner)};
}

std::string_view view(const nb::bytes &bytes) { return {bytes.c_str(), bytes.size()}; }

// weights and biases of each layer
using LayerPairs = std::vector<std::pair<Ints2, Ints1>>;
// first and last channel, levels, known neighbors (K, 3), layers
using PassTuple = std::tuple<int64_t, int64_t, int64_t, Ints2, LayerPairs>;
// channels, known neighbors (K, 3), layers, known neighbors in the own channel (M, 3), what they add (channels, M)
using LogisticPassTuple = std::tuple<Ints1, Ints2, LayerPairs, Ints2, Ints2>;

std::vector<dcu::Neighbor> neighbors_of(const Ints2 &known) {
    if (known.shape(1) != 3) throw std::invalid_argument("neighbors are channel, row, column");
    std::vector<dcu::Neighbor> neighbors;
    for (size_t k = 0; k < known.shape(0); ++k)
        neighbors.push_back({known.data()[3 * k], known.data()[3 * k + 1], known.data()[3 * k + 2]});
    return neighbors;
}

dcu::Network network_of(const Ints2 &known, const LayerPairs &layers) {
    dcu::Network network{neighbors_of(known), {}};
    for (const auto &[weights, biases] : layers) {
        if (weights.shape(0) != biases.shape(0)) throw std::invalid_argument("a layer has one bias for each row");
        network.layers.emplace_back(weights.data(), biases.data(), weights.shape(0), weights.shape(1));
    }
    return network;
}

std::vector<int32_t> numbers(const Ints1 &array) { return {array.data(), array.data() + array.size()}; }

dcu::ContextModel make_model(const std::vector<PassTuple> &tuples, const Ints2 &values, const Ints1 &exponential) {
    std::vector<dcu::Pass> passes;
    for (const auto &[first, last, levels, known, layers] : tuples)
        passes.push_back({first, last, levels, network_of(known, layers)});
    return dcu::ContextModel(std::move(passes), static_cast<int64_t>(values.shape(0)),
                             static_cast<int64_t>(values.shape(1)),
                             std::vector<int32_t>(values.data(), values.data() + values.size()),
                             numbers(exponential));
}

// The kernels of one of instruction_sets(), the quickest where none is named.
const dcu::Kernels &kernels_named(const std::string &name) {
    for (const dcu::Kernels &kernels : dcu::kernels())
        if (name.empty() || name == kernels.name) return kernels;
    throw std::invalid_argument("instructions that this processor does not have");
}

template <typename Coder, typename Model>
Coder coder_of(const Model &model, const Grid &grid, int64_t height, int64_t width, const std::string &instructions) {
    std::vector<std::pair<const int64_t *, int64_t>> positions;
    for (const auto &array : grid) positions.emplace_back(array.data(), static_cast<int64_t>(array.size()));
    return {model, positions, height, width, kernels_named(instructions)};
}

template <typename Coder, typename Symbol, typename Model>
nb::bytes encode(const Model &model, const Array<Symbol, nb::ndim<3>> &symbols, const Grid &grid,
                 const std::string &instructions) {
    if (static_cast<int64_t>(symbols.shape(0)) != model.channels())
        throw std::invalid_argument("symbols of another number of channels than the model's");
    const auto height = static_cast<int64_t>(symbols.shape(1)), width = static_cast<int64_t>(symbols.shape(2));
    const Coder coder = coder_of<Coder>(model, grid, height, width, instructions);
    std::string payload;
    {
        const nb::gil_scoped_release release;
        payload = coder.encode(symbols.data());
    }
    return nb::bytes(payload.data(), payload.size());
}

template <typename Coder, typename Symbol, typename Model>
Result<Symbol> decode(const Model &model, const std::vector<nb::bytes> &payloads, const Grid &grid, int64_t height,
                      int64_t width, int64_t threads, const std::string &instructions) {
    const Coder coder = coder_of<Coder>(model, grid, height, width, instructions);
    std::vector<std::string_view> views;
    for (const nb::bytes &payload : payloads) views.push_back(view(payload));
    auto [symbols, result] = zeros<Symbol>({payloads.size(), static_cast<size_t>(model.channels()),
                                            static_cast<size_t>(height), static_cast<size_t>(width)});
    {
        const nb::gil_scoped_release release;
        coder.decode(views, symbols, threads);
    }
    return result;
}

dcu::LogisticModel make_logistic_model(const std::vector<LogisticPassTuple> &tuples, int64_t channels,
                                       const Ints1 &compressed, const Ints1 &radii, const Ints1 &ends) {
    std::vector<dcu::LogisticPass> passes;
    for (const auto &[coded, known, layers, own, linear] : tuples) {
        if (linear.shape(0) != coded.shape(0) || linear.shape(1) != own.shape(0))
            throw std::invalid_argument("linear weights of each channel and neighbor are needed");
        passes.push_back({numbers(coded), network_of(known, layers), neighbors_of(own),
                          std::vector<int32_t>(linear.data(), linear.data() + linear.size())});
    }
    return {std::move(passes), channels, numbers(compressed), numbers(radii), numbers(ends)};
}

// Of each pass and each of its layers.
std::vector<std::vector<int64_t>> limits(const dcu::ContextModel &model) {
    std::vector<std::vector<int64_t>> result;
    for (const dcu::Pass &pass : model.passes()) {
        result.emplace_back();
        for (const dcu::Layer &layer : pass.network.layers) result.back().push_back(layer.limit);
    }
    return result;
}

// Where a symbol's interval of a table (0, ..., 2^16) ends; the last entry is 0, as 2^16 has no place in 16 bits.
uint32_t end_of(const uint16_t *table, int64_t symbol, int64_t levels) {
    return symbol == levels - 1 ? dcu::TOTAL : table[symbol + 1];
}

nb::bytes encode_tables(const Tables &tables, const Array<int16_t, nb::ndim<1>> &symbols) {
    const auto width = static_cast<int64_t>(tables.shape(1)), levels = width - 1;
    if (tables.shape(0) != symbols.shape(0)) throw std::invalid_argument("one table for each symbol is needed");
    std::string payload;
    {
        const nb::gil_scoped_release release;
        dcu::ArithmeticEncoder encoder;
        for (int64_t i = 0; i < static_cast<int64_t>(symbols.size()); ++i) {
            const uint16_t *table = tables.data() + i * width;
            const int64_t symbol = symbols.data()[i];
            if (symbol < 0 || symbol >= levels) throw std::invalid_argument("a symbol that its table does not have");
            const uint32_t start = table[symbol], end = end_of(table, symbol, levels);
            if (start >= end) throw std::invalid_argument("a symbol of probability 0");
            encoder.put(start, end);
        }
        payload = encoder.finish();
    }
    return nb::bytes(payload.data(), payload.size());
}

Result<int16_t> decode_tables(const Tables &tables, const nb::bytes &payload) {
    const auto count = static_cast<int64_t>(tables.shape(0)), width = static_cast<int64_t>(tables.shape(1));
    const int64_t levels = width - 1;
    if (levels < 1) throw std::invalid_argument("a table has one symbol at least");
    auto [symbols, result] = zeros<int16_t>({static_cast<size_t>(count)});
    {
        const nb::gil_scoped_release release;
        dcu::ArithmeticDecoder decoder(view(payload));
        for (int64_t i = 0; i < count; ++i) {
            const uint16_t *table = tables.data() + i * width;
            int64_t symbol = 0;
            while (symbol < levels - 1 && !decoder.before(table[symbol + 1])) ++symbol;
            const uint32_t start = table[symbol], end = end_of(table, symbol, levels);
            if (start >= end) throw std::invalid_argument("a table that does not increase");
            decoder.skip(start, end);
            symbols[i] = static_cast<int16_t>(symbol);
        }
    }
    return result;
}

}  // namespace

NB_MODULE(_native, module) {
    nb::set_leak_warnings(false);  // what caches still hold when the interpreter ends is no news for users
    nb::exception<dcu::BrokenPayload>(module, "BrokenPayload", PyExc_ValueError);

    nb::class_<dcu::ContextModel>(module, "ContextModel")
        .def(nb::new_(&make_model), "passes"_a, "values"_a, "exponential"_a)
        .def("encode", &encode<dcu::TileCoder, uint8_t, dcu::ContextModel>, "symbols"_a, "positions"_a, "instructions"_a = "")
        .def("decode", &decode<dcu::TileCoder, uint8_t, dcu::ContextModel>, "payloads"_a, "positions"_a, "height"_a, "width"_a, "threads"_a,
             "instructions"_a = "")
        .def_prop_ro("limits", &limits);

    nb::class_<dcu::LogisticModel>(module, "LogisticModel")
        .def(nb::new_(&make_logistic_model), "passes"_a, "channels"_a, "compressed"_a, "radii"_a, "ends"_a)
        .def("encode", &encode<dcu::LogisticCoder, int16_t, dcu::LogisticModel>, "symbols"_a, "positions"_a, "instructions"_a = "")
        .def("decode", &decode<dcu::LogisticCoder, int16_t, dcu::LogisticModel>, "payloads"_a, "positions"_a, "height"_a, "width"_a, "threads"_a,
             "instructions"_a = "");

    module.def("encode_tables", &encode_tables, "tables"_a, "symbols"_a);
    module.def("decode_tables", &decode_tables, "tables"_a, "payload"_a);
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const dcu::Kernels &kernels : dcu::kernels()) names.emplace_back(kernels.name);
        return names;
    });
}
