/* Element types as files name them, with their sizes. Pure; any thread. */
#ifndef IMP_NUM_DTYPE_H
#define IMP_NUM_DTYPE_H

#include <stdint.h>

#include "base/str.h"

enum dtype {
    DTYPE_UNKNOWN = 0,
    DTYPE_F64,
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_F8_E8M0,
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_F4,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U64,
    DTYPE_U32,
    DTYPE_U16,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_C64,
    DTYPE_COUNT
};

const char *dtype_name(enum dtype t);          /* as SafeTensors spells it: "BF16" */
int dtype_bits(enum dtype t);                  /* of one element; 0 for DTYPE_UNKNOWN */
enum dtype dtype_from_name(struct slice name); /* DTYPE_UNKNOWN if none */

#endif
