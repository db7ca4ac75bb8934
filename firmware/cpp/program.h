// The integer program of one trigger: one function for each node, every value in its own fixed-point type.
// Generated; program @HASH@.
//
// Arithmetic inside a node is exact and the assignment to the result casts, so that rounding and overflow are those of
// the result's type and of nothing else. Dense layers sum integer codes: weights are constants, zero weights are left
// out, and the accumulator is as wide as the proof of the program says.
#ifndef @GUARD@
#define @GUARD@

#include "ap_fixed.h"
#include "ap_int.h"

namespace @NAMESPACE@ {

// The bits of a fixed-point value as an integer, and back. The value of the integer is code * 2^fraction.
template <class Code, class Fixed> inline Code code_of(const Fixed &value) {
    Code code;
    code.range(Fixed::width - 1, 0) = value.range(Fixed::width - 1, 0);
    return code;
}

template <class Fixed, class Code> inline Fixed of_code(const Code &code) {
    Fixed value;
    value.range(Fixed::width - 1, 0) = code.range(Fixed::width - 1, 0);
    return value;
}

// ---------------------------------------------------------------- types

@TYPES@

// ---------------------------------------------------------------- nodes

@FUNCTIONS@

// ---------------------------------------------------------------- program

@EVALUATE@

#ifndef __SYNTHESIS__
// Codes of every node one after the other, in program order; for comparison with the golden evaluation.
template <class Fixed> inline long long *put_codes(long long *to, const Fixed *values, int n, bool is_signed) {
    for (int i = 0; i < n; i++) {
        ap_int<Fixed::width + 1> code = 0;
        code.range(Fixed::width - 1, 0) = values[i].range(Fixed::width - 1, 0);
        code[Fixed::width] = is_signed && bool(code[Fixed::width - 1]);
        to[i] = code.to_int64();
    }
    return to + n;
}

@TRACE@
#endif

} // namespace @NAMESPACE@

#endif
