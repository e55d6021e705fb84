#include "quantize/calibrate.h"

#include "base/error.h"

int calibrate_input_moments(const struct calibrate_options *options, struct moments *out,
                            struct imp_error *err) {
    (void)out;
    return error_set(err, IMP_ERR_UNSUPPORTED, options->folder,
                     "calibration is not part of this build: use --method sweep");
}
