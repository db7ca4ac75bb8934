// The trigger as one function (program @HASH@, wrapper "@WRAPPER@").
#ifndef L1AD_@GUARD@_TOP_H
#define L1AD_@GUARD@_TOP_H

#include "program.h"

void @TOP@(
@PARAMETERS@
);

#endif
