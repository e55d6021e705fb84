#include "cli/probe.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

enum { PROBE_BYTES = 256 << 20, PROBE_TASKS = 64, PROBE_PASSES = 5 };

struct probe {
    const uint64_t *data;
    uint64_t sums[PROBE_TASKS]; /* so that no compiler drops the reads */
};

/* Eight sums: one chain of additions would be slower than memory. */
static void read_part(void *ctx, int task, int thread) {
    (void)thread;
    struct probe *probe = ctx;
    const size_t words = PROBE_BYTES / PROBE_TASKS / sizeof(uint64_t);
    const uint64_t *p = probe->data + words * (size_t)task;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < words; i += 8) {
        for (size_t j = 0; j < 8; j++) sum[j] += p[i + j];
    }
    for (size_t j = 1; j < 8; j++) sum[0] += sum[j];
    probe->sums[task] = sum[0];
}

int probe_bandwidth(int threads, double *bytes_per_s, imp_error *err) {
    struct probe probe = {0};
    struct pool *pool;
    int rc = pool_create(threads, &pool, err);
    if (rc < 0) return rc;
    uint64_t *data = malloc(PROBE_BYTES);
    if (data == NULL) {
        pool_destroy(pool);
        return error_memory(err, PROBE_BYTES);
    }
    memset(data, 0x5A, PROBE_BYTES);
    probe.data = data;
    *bytes_per_s = 0;
    for (int pass = 0; pass < PROBE_PASSES; pass++) {
        double start_ms = clock_ms();
        pool_run(pool, read_part, &probe, PROBE_TASKS);
        double rate = PROBE_BYTES / (clock_ms() - start_ms) * 1e3;
        if (rate > *bytes_per_s) *bytes_per_s = rate;
    }
    free(data);
    pool_destroy(pool);
    return 0;
}
