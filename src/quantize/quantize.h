/* From a source to a folder of NVFP4 SafeTensors: the work behind imp_quantize.
 *
 * Memory does not grow with the model: rows are read, rounded and written in chunks of some 4 M
 * values. The same source, method and format give the same bytes with any number of threads. */
#ifndef IMP_QUANTIZE_QUANTIZE_H
#define IMP_QUANTIZE_QUANTIZE_H

#include "quantize/calibrate.h"

enum { QUANTIZE_CALIBRATION_TOKENS = 1024 };
#define QUANTIZE_SHARD_BYTES 5000000000u /* as transformers cuts them */

struct quantize_settings {
    uint64_t shard_bytes;          /* 0: QUANTIZE_SHARD_BYTES */
    const struct moments *moments; /* for `weighted`; NULL: run the model to get them */
};

/* imp_quantize with settings that its callers do not have; settings may be NULL. */
int quantize_run(const struct imp_quantize_options *options,
                 const struct quantize_settings *settings, struct imp_error *err);

#endif
