// Does with a model what CMSSW does: dlopen by name, create, std::any in, std::any out, destroy.
//
//   loader [--global] NAME... CODES RESULTS
//
// NAME without ".so"; a name with a slash is looked up as a path. All models are loaded before the first event, and
// each event goes through all of them in turn. CODES: little-endian int32, one row of hardware codes an event.
// RESULTS: little-endian int64, for each event and model the integer score (score x 16) and the codes of the vector.
// --global opens the libraries with RTLD_GLOBAL, which no model should notice.
#include "emulator.h"
#include "payload.h"

#include <any>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <dlfcn.h>
#include <exception>
#include <string>
#include <vector>

namespace {

using namespace L1AD_PAYLOAD;

struct Loaded {
    void *library;
    hls4mlEmulator::Model *model;
    void (*destroy)(hls4mlEmulator::Model *);
};

template <class Fixed> int64_t code_of(const Fixed &value) {
    ap_int<Fixed::width + 1> code = 0;
    code.range(Fixed::width - 1, 0) = value.range(Fixed::width - 1, 0);
    code[Fixed::width] = value < 0;
    return code.to_int64();
}

template <class Fixed, std::size_t N> void put_codes(std::vector<int64_t> &row, const std::array<Fixed, N> &values) {
    for (const Fixed &value : values)
        row.push_back(code_of(value));
}

template <class Other> void put_codes(std::vector<int64_t> &, const Other &) {}

// The integer score, and what stands before it: a pair of both, or the output of the network alone.
template <class First, class Second> void put(std::vector<int64_t> &row, const std::pair<First, Second> &result) {
    row.push_back(static_cast<int64_t>(result.second.to_double() * 16));
    put_codes(row, result.first);
}

template <class Fixed> void put(std::vector<int64_t> &row, const Fixed &result) {
    row.push_back(static_cast<int64_t>(std::floor(result.to_double() * 16)));
    row.push_back(code_of(result));
}

int fail(const std::string &what) {
    std::fprintf(stderr, "loader: %s\n", what.c_str());
    return 1;
}

bool load(const std::string &name, int flags, Loaded &to) {
    to.library = dlopen((name + ".so").c_str(), flags);
    if (!to.library)
        return false;
    auto create = reinterpret_cast<hls4mlEmulator::Model *(*)()>(dlsym(to.library, "create_model"));
    to.destroy = reinterpret_cast<void (*)(hls4mlEmulator::Model *)>(dlsym(to.library, "destroy_model"));
    if (!create || !to.destroy)
        return false;
    to.model = create();
    return true;
}

int score(const std::vector<Loaded> &models, std::FILE *in, std::FILE *out) {
    int32_t codes[n_inputs];
    std::vector<int64_t> row;
    while (std::fread(codes, sizeof codes, 1, in) == 1) {
        row.clear();
        for (const Loaded &one : models) {
            word_t words[n_inputs];
            for (int i = 0; i < n_inputs; i++)
                words[i] = codes[i] * unit[i];
            result_t result;
            one.model->prepare_input(std::any(static_cast<word_t *>(words)));
            one.model->predict();
            one.model->read_result(std::any(&result));
            put(row, result);
        }
        if (std::fwrite(row.data(), sizeof(int64_t), row.size(), out) != row.size())
            return fail("cannot write the results");
    }
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    std::vector<std::string> names(argv + 1, argv + argc);
    int flags = RTLD_LAZY | RTLD_LOCAL;
    if (!names.empty() && names[0] == "--global") {
        flags = RTLD_LAZY | RTLD_GLOBAL;
        names.erase(names.begin());
    }
    if (names.size() < 3)
        return fail("usage: loader [--global] NAME... CODES RESULTS");
    std::FILE *out = std::fopen(names.back().c_str(), "wb");
    names.pop_back();
    std::FILE *in = std::fopen(names.back().c_str(), "rb");
    names.pop_back();
    if (!in || !out)
        return fail("cannot open the events or the results");

    std::vector<Loaded> models(names.size());
    for (std::size_t i = 0; i < names.size(); i++)
        if (!load(names[i], flags, models[i])) {
            const char *why = dlerror();
            return fail("cannot load " + names[i] + ".so: " + (why ? why : "no factories"));
        }
    int status = 0;
    try {
        status = score(models, in, out);
    } catch (const std::exception &error) {
        status = fail(error.what());
    }
    for (const Loaded &one : models) {
        one.destroy(one.model);
        dlclose(one.library);
    }
    std::fclose(in);
    return std::fclose(out) ? fail("cannot write the results") : status;
}
