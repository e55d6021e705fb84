/* Any SafeTensors file with a linear "m": refused, or a weight whose rows can all be read.
 *
 * Proved by planting (clang-14, one core): @@QUANT@@ */
#include <stdlib.h>

#include "base/error.h"
#include "load/quant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors st;
    struct weight w;
    struct imp_error err;
    if (safetensors_parse(data, size, "fuzz", &st, &err) < 0) return 0;
    char config[] = "{\"model_type\":\"m\"}", path[] = "fuzz";
    struct checkpoint ck = {.path = path, .files = &st, .file_count = 1};
    check(config_parse(config, sizeof config - 1, "config", &ck.config, &err) == 0);
    ck.tensors = mem_zero(st.count, sizeof *ck.tensors);
    for (size_t i = 0; i < st.count; i++) {
        ck.tensors[i] = &st.tensors[i];
        map_add(&ck.by_name, slice_of(st.tensors[i].name), (int64_t)i);
    }
    if (quant_weight(&ck, "m", -1, -1, &w, &err) == 0) {
        check(w.rows > 0 && w.cols > 0 && w.multiplier > 0);
        float *row = mem_alloc((size_t)w.cols * sizeof *row);
        for (int64_t r = 0; r < w.rows; r++) weight_dequantize_row(&w, r, row);
        free(row);
    } else {
        check(err.code == IMP_ERR_FILE || err.code == IMP_ERR_UNSUPPORTED);
    }
    free(ck.tensors);
    map_free(&ck.by_name);
    arena_free(&ck.arena);
    config_close(&ck.config);
    safetensors_close(&st);
    return 0;
}
