// Streams events through the Verilated top module, one a clock, and writes what comes out: CODES RESULTS, little-endian
// int32 (n, inputs) and int64 (n, outputs). ports.h says where each input and output lies in the ports.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

#include "Vl1ad.h"
#include "ports.h"

namespace {

template <std::size_t N> void store(VlWide<N> &port, const std::uint32_t *words) {
    for (std::size_t i = 0; i < N; ++i) port[i] = words[i];
}
void store(CData &port, const std::uint32_t *words) { port = static_cast<CData>(words[0]); }
void store(SData &port, const std::uint32_t *words) { port = static_cast<SData>(words[0]); }
void store(IData &port, const std::uint32_t *words) { port = words[0]; }
void store(QData &port, const std::uint32_t *words) {
    port = static_cast<QData>(words[0]) | (static_cast<QData>(words[1]) << 32);
}

template <std::size_t N> void load(const VlWide<N> &port, std::uint32_t *words) {
    for (std::size_t i = 0; i < N; ++i) words[i] = port[i];
}
template <class Scalar> void load(const Scalar &port, std::uint32_t *words) {
    const std::uint64_t bits = port;
    words[0] = static_cast<std::uint32_t>(bits);
    words[1] = static_cast<std::uint32_t>(bits >> 32);
}

void put(std::uint32_t *words, const Field &field, std::int64_t code) {
    for (unsigned i = 0; i < field.width; ++i) {
        const unsigned bit = field.lsb + i;
        if ((code >> i) & 1) words[bit / 32] |= 1u << (bit % 32);
    }
}

std::int64_t get(const std::uint32_t *words, const Field &field) {
    std::uint64_t bits = 0;
    for (unsigned i = 0; i < field.width; ++i) {
        const unsigned bit = field.lsb + i;
        bits |= static_cast<std::uint64_t>((words[bit / 32] >> (bit % 32)) & 1u) << i;
    }
    const bool negative = field.is_signed && field.width > 0 && ((bits >> (field.width - 1)) & 1);
    const std::uint64_t extended = negative ? bits | ~((std::uint64_t{1} << (field.width - 1)) - 1) : bits;
    return static_cast<std::int64_t>(extended) << field.shift;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " CODES RESULTS\n";
        return 2;
    }
    std::ifstream source(argv[1], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(source), {}};
    const auto *codes = reinterpret_cast<const std::int32_t *>(bytes.data());
    const std::size_t n = bytes.size() / (4 * N_INPUTS);
    std::vector<std::int64_t> results(n * N_OUTPUTS);
    Vl1ad dut;
    for (std::size_t clock = 0; n > 0 && clock < n + (LATENCY > 0 ? LATENCY - 1 : 0); ++clock) {
        if (clock < n) {
            std::uint32_t words[INPUT_WORDS] = {};
            for (std::size_t i = 0; i < N_INPUTS; ++i) put(words, INPUTS[i], codes[clock * N_INPUTS + i]);
            store(dut.inputs, words);
        }
#if LATENCY > 0
        dut.clk = 0;
        dut.eval();
        dut.clk = 1;
#endif
        dut.eval();
        const std::size_t delay = LATENCY > 0 ? LATENCY - 1 : 0;
        if (clock >= delay) {
            std::uint32_t words[OUTPUT_WORDS] = {};
            load(dut.outputs, words);
            for (std::size_t i = 0; i < N_OUTPUTS; ++i) results[(clock - delay) * N_OUTPUTS + i] = get(words, OUTPUTS[i]);
        }
    }
    dut.final();
    std::ofstream target(argv[2], std::ios::binary);
    target.write(reinterpret_cast<const char *>(results.data()), static_cast<std::streamsize>(results.size() * 8));
    return target ? 0 : 1;
}
