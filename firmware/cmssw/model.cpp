// The emulator of @MODEL@ (program @HASH@).
//
// Everything but the two factories is in a namespace that carries the model and the program's hash, and the linker
// exports nothing but the factories: two models in one process must not share a symbol (cms-sw/cmssw#44435).
#include "emulator.h"
#include "payload.h"
#include "program.h"

#include <any>

namespace @NAMESPACE@ {

class Emulator : public hls4mlEmulator::Model {
  public:
    void prepare_input(std::any input) override {
        const payload::word_t *words = std::any_cast<payload::word_t *>(input);
        for (int i = 0; i < payload::n_inputs; i++)
            // Exact: a word is a whole number of units, which are powers of two.
            input_[i] = @INPUT@_t(words[i].to_double() / payload::unit[i]);
    }

    void predict() override { evaluate(@ARGUMENTS@); }

    void read_result(std::any result) override {
        payload::result_t *to = std::any_cast<payload::result_t *>(result);
@COPY@
    }

  private:
@MEMBERS@
};

} // namespace @NAMESPACE@

extern "C" {

__attribute__((visibility("default"))) hls4mlEmulator::Model *create_model() { return new @NAMESPACE@::Emulator; }

__attribute__((visibility("default"))) void destroy_model(hls4mlEmulator::Model *model) { delete model; }
}
