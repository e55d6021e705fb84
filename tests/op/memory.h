/* The memory that ops read and write in the tests, and a watch over what ops are given.
 *
 * A test fills arguments and looks at results by plain pointers. On a CPU op_alloc gives ordinary
 * memory. On a GPU it gives managed memory of the driver, which both sides may touch, the host only
 * while no step runs: from step_end to the next op. The driver is opened by hand, since the program
 * is built without CUDA; it and the backend's module share the device's primary context.
 *
 * The environment's IMP_TEST_GPU says what is tested. "1": the GPU and not the CPUs. "cpu": a
 * stand-in for it, the fast CPU backend under the watch, to see on any machine that the tests keep
 * the rules: only memory of op_alloc goes to ops, an op belongs to a step, a step ends before the
 * next. */
#ifndef IMP_TESTS_OP_MEMORY_H
#define IMP_TESTS_OP_MEMORY_H

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "base/str.h"

static inline const char *test_gpu(void) {
    const char *asked = getenv("IMP_TEST_GPU");
    return asked && *asked ? asked : NULL;
}

/* ---- the driver ---- */

struct driver {
    int (*init)(unsigned flags);
    int (*retain)(void **context, int device);
    int (*set_current)(void *context);
    int (*alloc)(unsigned long long *out, size_t bytes, unsigned flags);
    int (*free)(unsigned long long at);
};
enum { ATTACH_GLOBAL = 1 }; /* CU_MEM_ATTACH_GLOBAL: any stream may use it */

static inline void driver_find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    if (symbol == NULL) fail_msg("the driver has no %s", name);
    memcpy(function, &symbol, sizeof symbol);
}

static inline const struct driver *driver_open(void) {
    static struct driver d;
    if (d.init) return &d;
    void *library = dlopen("libcuda.so.1", RTLD_NOW), *context;
    if (library == NULL) fail_msg("%s", dlerror());
    driver_find(library, "cuDevicePrimaryCtxRetain", &d.retain);
    driver_find(library, "cuCtxSetCurrent", &d.set_current);
    driver_find(library, "cuMemAllocManaged", &d.alloc);
    driver_find(library, "cuMemFree_v2", &d.free);
    driver_find(library, "cuInit", &d.init);
    assert_int_equal(d.init(0), 0);
    assert_int_equal(d.retain(&context, 0), 0);
    assert_int_equal(d.set_current(context), 0);
    return &d;
}

/* ---- memory ---- */

enum {
    MEMORY_LEAD = 64
}; /* in front of what the stand-in gives: free() of it is an error at once */

struct op_memory {
    struct {
        char *at;
        size_t bytes;
    } * live;
    size_t count;
    bool running; /* a step */
    const struct backend_ops *ops;
    struct backend_ops watched;
};
static struct op_memory memory;

/* NaN in fp32 and in BF16. */
static inline void *op_alloc(size_t bytes) {
    const size_t whole = (bytes / 64 + 1) * 64;
    char *p;
    if (test_gpu() && strcmp(test_gpu(), "1") == 0) {
        unsigned long long at = 0;
        int rc = driver_open()->alloc(&at, whole, ATTACH_GLOBAL);
        if (rc != 0) fail_msg("the driver's error %d for %zu bytes of managed memory", rc, whole);
        p = (char *)(uintptr_t)at;
    } else {
        p = aligned_alloc(64, whole + (test_gpu() ? MEMORY_LEAD : 0));
        if (test_gpu()) p += MEMORY_LEAD;
    }
    memset(p, 0xFF, whole);
    if (!test_gpu()) return p;
    memory.live = realloc(memory.live, (memory.count + 1) * sizeof *memory.live);
    memory.live[memory.count].at = p;
    memory.live[memory.count++].bytes = whole;
    return p;
}

static inline void op_free(void *p) {
    if (p == NULL) return;
    if (test_gpu() == NULL) {
        free(p);
        return;
    }
    for (size_t i = memory.count; i-- > 0;) {
        if (memory.live[i].at != p) continue;
        memory.live[i] = memory.live[--memory.count];
        if (memory.running) fail_msg("memory was freed while a step ran");
        if (strcmp(test_gpu(), "1") == 0)
            assert_int_equal(driver_open()->free((unsigned long long)(uintptr_t)p), 0);
        else
            free((char *)p - MEMORY_LEAD);
        return;
    }
    fail_msg("what is no op's memory was freed as such");
}

/* ---- the watch ---- */

static inline void watch_given(const char *op, const void *const *p, size_t count) {
    if (!memory.running) fail_msg("%s outside of a step", op);
    for (size_t i = 0; i < count; i++) {
        size_t k = 0;
        if (p[i] == NULL) continue;
        while (k < memory.count && !((const char *)p[i] >= memory.live[k].at &&
                                     (const char *)p[i] < memory.live[k].at + memory.live[k].bytes))
            k++;
        if (k == memory.count) fail_msg("%s: pointer %zu is the host's", op, i);
    }
}

#define WATCHED(NAME, ...)                                                                         \
    static inline void watched_##NAME(struct backend *be, const struct op_##NAME *op) {            \
        const void *const given[] = {__VA_ARGS__};                                                 \
        watch_given(#NAME, given, sizeof given / sizeof given[0]);                                 \
        memory.ops->NAME(be, op);                                                                  \
    }
WATCHED(embed, op->h)
WATCHED(norm, op->h, op->weight, op->out)
WATCHED(convert, op->x, op->out)
WATCHED(post_norm, op->x, op->weight, op->y)
WATCHED(linear, op->x, op->y)
WATCHED(rope_angles, op->frequency, op->out)
WATCHED(qkv, op->qkv, op->q_norm, op->k_norm, op->angles, op->q, op->kv)
WATCHED(attention, op->q, op->kv, op->sinks, op->gate, op->out)
WATCHED(glu, op->gate, op->up, op->row_gate, op->out)
WATCHED(route, op->h, op->norm, op->router, op->bias, op->expert_scale, op->expert, op->weight)
WATCHED(moe, op->x, op->expert, op->weight, op->y)
WATCHED(gdn, op->in, op->conv, op->decay, op->dt_bias, op->norm, op->state, op->out)
WATCHED(softcap, op->y)
WATCHED(sample, op->logits)
#undef WATCHED

static inline void watched_step_begin(struct backend *be, const struct batch *batch) {
    if (memory.running) fail_msg("a step begins in a step");
    memory.running = true;
    memory.ops->step_begin(be, batch);
}
static inline int watched_step_end(struct backend *be, struct imp_error *err) {
    memory.running = false;
    return memory.ops->step_end(be, err);
}

/* From now on the ops of this backend, one at a time, are watched. */
static inline void watch(struct backend *be) {
    memory.ops = be->ops;
    memory.watched = *be->ops;
    memory.watched.step_begin = watched_step_begin;
    memory.watched.step_end = watched_step_end;
    memory.watched.embed = watched_embed;
    memory.watched.norm = watched_norm;
    memory.watched.convert = watched_convert;
    memory.watched.post_norm = watched_post_norm;
    memory.watched.linear = watched_linear;
    memory.watched.rope_angles = watched_rope_angles;
    memory.watched.qkv = watched_qkv;
    memory.watched.attention = watched_attention;
    memory.watched.glu = watched_glu;
    memory.watched.route = watched_route;
    memory.watched.moe = watched_moe;
    memory.watched.gdn = watched_gdn;
    memory.watched.softcap = watched_softcap;
    memory.watched.sample = watched_sample;
    be->ops = &memory.watched;
}

#endif
