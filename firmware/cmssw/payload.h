// What crosses the border between CMSSW and @MODEL@, to the letter: std::any compares types, not values.
#ifndef @GUARD@
#define @GUARD@

#include "ap_fixed.h"
#include "ap_int.h"
#include <array>
#include <utility>

namespace @NAMESPACE@ {
namespace payload {

typedef @WORD@ word_t;
typedef @RESULT@ result_t;

static const int n_inputs = @INPUTS@;

// Value of one hardware code of each input: pt in GeV, its half kept; angles in hardware codes.
static const double unit[n_inputs] = {@UNITS@};

} // namespace payload
} // namespace @NAMESPACE@

#define L1AD_PAYLOAD @NAMESPACE@::payload
#endif
