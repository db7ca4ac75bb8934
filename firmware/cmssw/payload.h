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
typedef @FIRST@ first_t;
typedef @SECOND@ second_t;
typedef std::pair<first_t, second_t> result_t;

static const int n_inputs = @INPUTS@;
// Codes in `first`: a vector, or nothing that is worth a comparison.
static const int n_first = @COUNT@;

// Value of one hardware code of each input: pt in GeV, its half kept; angles in hardware codes.
static const double unit[n_inputs] = {@UNITS@};

} // namespace payload
} // namespace @NAMESPACE@

#define L1AD_PAYLOAD @NAMESPACE@::payload
#endif
