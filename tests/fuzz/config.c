/* Any bytes as config.json: refused, or getters that keep their ranges.
 *
 * Proved by planting (clang-14, one core): without the upper limit of integers an end token out of
 * range was found in 2 s. Found in earnest: absent objects went into yyjson_obj_foreach, which adds
 * to NULL. */
#include <math.h>

#include "base/error.h"
#include "load/quant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct checkpoint ck = {0};
    struct imp_error err;
    if (config_parse((const char *)data, size, "fuzz", &ck.config, &err) < 0) {
        check(err.code == IMP_ERR_FILE && err.message[0] && ck.config.doc == NULL);
        return 0;
    }
    const struct config *c = &ck.config;
    int64_t n = 1;
    int32_t ids[4];
    size_t count;
    double x = 1;
    bool flag;
    config_int(c, "num_hidden_layers", 1, 4096, 1, &n, &err);
    config_float(c, "rope_theta", 1, 1e9, 1, &x, &err);
    config_member_int(config_get(c, "rope_scaling"), "$.rope_scaling", "n", 1, 9, 1, &n, &err);
    config_bool(c, "tie_word_embeddings", false, &flag, &err);
    config_only_string(c, "hidden_act", "silu", &err);
    check(n >= 1 && n <= 4096 && x >= 1 && x <= 1e9);
    if (config_eos_ids(c, 100, ids, 4, &count, &err) == 0) {
        check(count <= 4);
        for (size_t i = 0; i < count; i++) check(ids[i] >= 0 && ids[i] < 100);
    }
    quant_read_config(&ck);
    check(ck.declared.block_rows >= 0 && ck.declared.block_rows <= CAP_HIDDEN);
    quant_check_config(&ck, &err);
    config_close(&ck.config);
    return 0;
}
