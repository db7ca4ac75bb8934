// The interface through which CMSSW talks to an emulated model, for building and testing outside CMSSW.
//
// It declares what cms-hls4ml/hls4mlEmulatorExtras declares, with the virtual functions in the same order, so that a
// library built against either header works with both. Inside CMSSW build with EMULATOR=<folder of its emulator.h>.
#ifndef HLS4ML_EMULATOR_H_
#define HLS4ML_EMULATOR_H_

#include <any>

namespace hls4mlEmulator {

class Model {
  public:
    virtual void prepare_input(std::any input) = 0;
    virtual void predict() = 0;
    virtual void read_result(std::any result) = 0;
    virtual ~Model() = default;
};

} // namespace hls4mlEmulator

#endif
