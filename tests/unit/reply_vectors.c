/* Replies that the makers' own packages wrote or read (scripts/make_reply_fixtures.py), taken apart
 * whole and byte by byte: the same content, reasoning and calls as theirs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/reply_print.h"

static bool is_text(yyjson_val *v, struct slice text) {
    return yyjson_is_str(v) && slice_equal(json_slice(v), text);
}

struct call {
    struct slice name, id, arguments;
};

static struct call *find_calls(const struct reply_parts *p, size_t *count, struct slice said[2]) {
    static struct call calls[16];
    const char *at = p->text.data;
    *count = 0;
    for (size_t i = 0; i < p->count; at += p->part[i++].bytes) {
        struct slice text = {at, p->part[i].bytes};
        struct call *c = &calls[*count];
        switch (p->part[i].kind) {
        case IMP_PART_CONTENT:
        case IMP_PART_REASONING:
            assert_int_equal(said[p->part[i].kind].size, 0); /* each in one piece here */
            said[p->part[i].kind] = text;
            break;
        case IMP_PART_CALL:
            *c = (struct call){.name = text};
            break;
        case IMP_PART_CALL_ID:
            c->id = text;
            break;
        case IMP_PART_ARGUMENTS:
            c->arguments = text;
            break;
        case IMP_PART_CALL_END:
            assert_true(++*count < 16);
            break;
        case IMP_PART_CALL_CUT:
            fail_msg("a call is broken");
        }
    }
    return calls;
}

static void check_call(yyjson_val *want, const struct call *got) {
    yyjson_val *id = yyjson_obj_get(want, "id");
    assert_true(is_text(yyjson_obj_get(want, "name"), got->name));
    if (id) assert_true(is_text(id, got->id));
    if (id == NULL) assert_int_equal(got->id.size, 0);
    yyjson_doc *doc = yyjson_read(got->arguments.data, got->arguments.size, 0);
    assert_true(yyjson_equals(yyjson_doc_get_root(doc), yyjson_obj_get(want, "arguments")));
    yyjson_doc_free(doc);
}

static void check_vector(yyjson_val *v, size_t cut) {
    bool mistral = yyjson_equals_str(yyjson_obj_get(v, "format"), "mistral");
    struct reply_style style = {mistral ? REPLY_MISTRAL : REPLY_HARMONY, false};
    struct reply_parts parts = {0};
    struct slice said[2] = {{"", 0}, {"", 0}};
    size_t count, i, n;
    yyjson_val *calls = yyjson_obj_get(v, "calls"), *call;
    reply_collect_parts(style, json_slice(yyjson_obj_get(v, "prompt")), (struct slice){NULL, 0},
                        json_slice(yyjson_obj_get(v, "text")), cut, &parts);
    struct call *got = find_calls(&parts, &count, said);
    if (!is_text(yyjson_obj_get(v, "content"), said[IMP_PART_CONTENT]) ||
        !is_text(yyjson_obj_get(v, "reasoning"), said[IMP_PART_REASONING]) ||
        count != yyjson_arr_size(calls))
        fail_msg("%s: %s\n  content   %.*s\n  reasoning %.*s\n  %zu calls",
                 yyjson_get_str(yyjson_obj_get(v, "from")),
                 yyjson_get_str(yyjson_obj_get(v, "text")), (int)said[0].size, said[0].data,
                 (int)said[1].size, said[1].data, count);
    yyjson_arr_foreach(calls, i, n, call) check_call(call, &got[i]);
    reply_parts_free(&parts);
}

static void replies_of_the_makers(void **state) {
    (void)state;
    yyjson_doc *doc = NULL;
    size_t i, n;
    yyjson_val *v;
    assert_int_equal(
        json_read_file(IMP_SOURCE_DIR "/tests/data/reply/vectors.json", 1 << 24, &doc, NULL), 0);
    assert_true(yyjson_arr_size(yyjson_doc_get_root(doc)) > 50);
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, v) {
        check_vector(v, 0);
        check_vector(v, SIZE_MAX);
    }
    yyjson_doc_free(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(replies_of_the_makers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
