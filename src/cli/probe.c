#include "cli/probe.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

enum { PROBE_TASKS = 64, PROBE_PASSES = 5, PART_GRAIN = 4096 };

struct probe {
    const uint64_t *data;
    size_t part_words;          /* of one task */
    uint64_t sums[PROBE_TASKS]; /* so that no compiler drops the reads */
};

/* Eight sums: one chain of additions would be slower than memory. */
static void read_part(void *ctx, int task, int thread) {
    (void)thread;
    struct probe *probe = ctx;
    const size_t words = probe->part_words;
    const uint64_t *p = probe->data + words * (size_t)task;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < words; i += 8) {
        for (size_t j = 0; j < 8; j++) sum[j] += p[i + j];
    }
    for (size_t j = 1; j < 8; j++) sum[0] += sum[j];
    probe->sums[task] = sum[0];
}

/* Four times the last cache, or most of what is read comes from there; not more than an eighth of
 * the machine. Whole pages a task. */
static size_t probe_bytes(void) {
    const size_t least = (size_t)256 << 20;
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = cache > 0 ? 4 * (size_t)cache : least;
    size_t most = (size_t)sysconf(_SC_PHYS_PAGES) / 8 * (size_t)sysconf(_SC_PAGESIZE);
    if (bytes < least) bytes = least;
    if (bytes > most) bytes = most;
    return bytes - bytes % ((size_t)PROBE_TASKS * PART_GRAIN);
}

int probe_bandwidth(int threads, double *bytes_per_s, imp_error *err) {
    const size_t bytes = probe_bytes();
    struct probe probe = {.part_words = bytes / PROBE_TASKS / sizeof(uint64_t)};
    struct pool *pool;
    int rc = pool_create(threads, &pool, err);
    if (rc < 0) return rc;
    uint64_t *data = malloc(bytes);
    if (data == NULL) {
        pool_destroy(pool);
        return error_memory(err, bytes);
    }
    memset(data, 0x5A, bytes);
    probe.data = data;
    *bytes_per_s = 0;
    for (int pass = 0; pass < PROBE_PASSES; pass++) {
        double start_ms = clock_ms();
        pool_run(pool, read_part, &probe, PROBE_TASKS);
        double rate = (double)bytes / (clock_ms() - start_ms) * 1e3;
        if (rate > *bytes_per_s) *bytes_per_s = rate;
    }
    free(data);
    pool_destroy(pool);
    return 0;
}
