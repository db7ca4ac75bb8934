// Object words in, score and threshold bits out (program @HASH@, wrapper "@WRAPPER@").
#include "top.h"
@INCLUDES@

void @TOP@(
@PARAMETERS@
) {
@PRAGMAS@
#pragma HLS PIPELINE II=@INTERVAL@
#pragma HLS LATENCY max=@LATENCY@
    @NAMESPACE@::@INPUT@_t input[@INPUTS@];
#pragma HLS ARRAY_PARTITION variable=input complete
@UNPACK@

@LOCALS@
    @NAMESPACE@::evaluate(@ARGUMENTS@);

    // The integer of the menu: score x 16 in 18 bits.
    const ap_uint<18> word = @NAMESPACE@::code_of<@CODE@ >(score[0]);
    anomaly_score = word;
@DECISIONS@
}
