/* Memory as limits_make plans it, for a model of every family: what is allocated, part by part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/limits.h"
#include "support/small_models.h"

/* What the process holds of the heap, to some pages. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
size_t __sanitizer_get_current_allocated_bytes(void);
static size_t heap_bytes(void) {
    return __sanitizer_get_current_allocated_bytes();
}
#else
#include <malloc.h>
static size_t heap_bytes(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
#endif
enum { PAGES = 256 << 10 };

static void near(const char *model, const char *what, size_t found, size_t planned) {
    if (found + PAGES < planned || found > planned + PAGES)
        fail_msg("%s: %s takes %zu bytes, %zu planned", model, what, found, planned);
}

/* A backend whose allocations are counted. */
static struct {
    const struct backend_ops *real;
    struct backend_ops ops;
    size_t bytes;
} counted;

static int counted_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err) {
    counted.bytes += bytes;
    return counted.real->alloc(be, bytes, out, err);
}

static void count_allocations(struct backend *be) {
    counted.real = be->ops;
    counted.ops = *be->ops;
    counted.ops.alloc = counted_alloc;
    be->ops = &counted.ops;
}

/* What sequences keep, by what the layers' own memory holds. */
static void check_state(const struct model *model, const struct limits *l, struct backend *be,
                        const char *what) {
    size_t kv = 0, window = 0, state = 0;
    for (int i = 0; i < model->desc.layers; i++) {
        const struct layer_desc *layer = &model->desc.layer[i];
        const struct attention_desc *a = &layer->attention;
        const bool gdn = layer->mixer == MIXER_GDN;
        if ((model->state[i] != NULL) != (gdn || !a->shares_kv))
            fail_msg("%s: layer %d has memory or lacks it", what, i);
        if (model->state[i] == NULL) continue;
        const size_t block = gdn ? 0 : be->ops->kv_block_bytes(be, a->kv_heads, a->head_dim);
        if (gdn) {
            state += (size_t)l->seats * be->ops->gdn_state_bytes(be, &layer->gdn.shape);
        } else if (a->window) {
            window += (size_t)l->seats * (size_t)l->window_blocks * block;
        } else {
            kv += (size_t)l->kv_blocks * block;
        }
    }
    if (kv != l->kv_bytes || window != l->window_bytes || state != l->state_bytes)
        fail_msg("%s: KV %zu, windows %zu, state %zu; planned %zu, %zu, %zu", what, kv, window,
                 state, l->kv_bytes, l->window_bytes, l->state_bytes);
}

static void check_plan(const char *made, const char *what) {
    struct checkpoint ck;
    struct model model = {0};
    struct limits l;
    struct imp_options options;
    struct imp_error err = {0};
    struct backend *be = portable();
    options_default(&options);
    open_checkpoint(made, &ck);
    size_t before = heap_bytes(), host = ck.arena.used_bytes + ck.copies.used_bytes;
    assert_int_equal(model_open(&ck, be, NULL, NULL, &model, NULL), 0);
    host = ck.arena.used_bytes + ck.copies.used_bytes - host;
    near(what, "weights", heap_bytes() - before - host, model.weight_bytes);
    if (limits_make(&model.desc, be, &options, 1, model.weight_bytes, &l, &err) < 0)
        fail_msg("%s: %s", what, err.message);
    count_allocations(be);
    counted.bytes = 0;
    before = heap_bytes();
    const struct model_memory memory = {{l.kv_blocks, l.seats * l.window_blocks}, l.seats};
    assert_int_equal(model_reserve(&model, &l.step, &memory, NULL), 0);
    const size_t planned = l.activation_bytes + l.kv_bytes + l.window_bytes + l.state_bytes;
    near(what, "a step", heap_bytes() - before, planned + l.scratch_bytes);
    if (counted.bytes != planned)
        fail_msg("%s: %zu bytes allocated, %zu planned", what, counted.bytes, planned);
    assert_int_equal(limits_total_bytes(&l), planned + l.scratch_bytes + model.weight_bytes);
    check_state(&model, &l, be, what);
    model_close(&model);
    checkpoint_close(&ck);
    be->ops = counted.real;
    backend_close(be);
}

static void memory_as_planned(void **state) {
    (void)state;
    for (int i = 0; i < FAMILY_COUNT; i++) {
        char *folder = temp_folder();
        put_config(folder, FAMILIES[i].json);
        char *made = synth(folder, "compressed-tensors", 1);
        check_plan(made, FAMILIES[i].name);
        free(made);
        temp_remove(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_as_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
