// Test bench of @TOP@: golden vectors for csim and cosim, files of events for our own runs.
//
// Without arguments: reads golden.dat (a line an event: hardware codes, score, threshold bits), fails on a difference.
// Compiled with L1AD_BATCH: test_bench [--trace] CODES RESULTS scores little-endian int32 codes (n, @INPUTS@) into
// little-endian int64 (n, 2): score, threshold bits; with --trace followed by the codes of all nodes.
#ifdef L1AD_BATCH
// The design in the same unit: its functions serve the top and the trace, and are compiled once.
#include "../firmware/top.cpp"
#else
#include "../firmware/top.h"
#endif

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

const int n_inputs = @INPUTS@;

// The bits of a port that no network input uses: never zero, and different each time.
struct Noise {
    uint64_t state = 88172645463325252ULL;
    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
} noise;

void apply(const int32_t codes[n_inputs], int64_t &score, uint64_t &bits) {
    ap_uint<18> anomaly_score = 0;
@PACK@
    @TOP@(@PORTS@);
    score = @SIGNED@ && anomaly_score[17] ? anomaly_score.to_int64() - (1LL << 18) : anomaly_score.to_int64();
    bits = @BITS@;
}

int golden(const char *path) {
    std::FILE *in = std::fopen(path, "r");
    if (!in) {
        std::printf("ERROR: no %s\n", path);
        return 1;
    }
    int events = 0, wrong = 0;
    int32_t codes[n_inputs];
    while (std::fscanf(in, "%d", &codes[0]) == 1) {
        long long want_score;
        unsigned long long want_bits;
        bool whole = true;
        for (int i = 1; i < n_inputs; i++)
            whole = std::fscanf(in, "%d", &codes[i]) == 1 && whole;
        whole = std::fscanf(in, "%lld %llu", &want_score, &want_bits) == 2 && whole;
        int64_t score = 0;
        uint64_t bits = 0;
        if (whole)
            apply(codes, score, bits);
        if (!whole || score != want_score || bits != want_bits) {
            if (wrong++ < 10)
                std::printf("ERROR: event %d: score %lld, expected %lld; bits %llu, expected %llu\n", events,
                            (long long)score, want_score, (unsigned long long)bits, want_bits);
        }
        events++;
    }
    std::fclose(in);
    std::printf("%s: %d events, %d differ\n", wrong || !events ? "FAILED" : "PASSED", events, wrong);
    return wrong || !events;
}

#ifdef L1AD_BATCH
int batch(bool trace, const char *from, const char *to) {
    std::FILE *in = std::fopen(from, "rb"), *out = std::fopen(to, "wb");
    if (!in || !out)
        return 1;
    int32_t codes[n_inputs];
    std::vector<long long> row(2 + @TRACE_SIZE@);
    const size_t columns = trace ? row.size() : 2;
    while (std::fread(codes, sizeof codes, 1, in) == 1) {
        int64_t score;
        uint64_t bits;
        apply(codes, score, bits);
        row[0] = score;
        row[1] = (long long)bits;
        if (trace) {
            @NAMESPACE@::@INPUT@_t input[n_inputs];
            for (int i = 0; i < n_inputs; i++)
                input[i] = @NAMESPACE@::@INPUT@_t(codes[i]);
            @NAMESPACE@::trace(input, row.data() + 2);
        }
        if (std::fwrite(row.data(), sizeof(long long), columns, out) != columns)
            return 1;
    }
    std::fclose(in);
    return std::fclose(out) != 0;
}
#endif

} // namespace

int main(int argc, char **argv) {
#ifdef L1AD_BATCH
    if (argc == 3)
        return batch(false, argv[1], argv[2]);
    if (argc == 4 && std::strcmp(argv[1], "--trace") == 0)
        return batch(true, argv[2], argv[3]);
#else
    (void)argc;
    (void)argv;
#endif
    return golden("golden.dat");
}
