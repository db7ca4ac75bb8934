// Joins the program to the network that hls4ml wrote: the same values in types that carry other names.
#ifndef L1AD_@GUARD@_NETWORK_GLUE_H
#define L1AD_@GUARD@_NETWORK_GLUE_H

#include "network/network.h"
#include "program.h"

namespace @NAMESPACE@ {

inline void network(@PARAMETERS@) {
#pragma HLS INLINE
@BODY@
}

} // namespace @NAMESPACE@

#endif
