/* After a model is built no tensor of the language model is left unread, in any family and format:
 * one that is left is a bias, a norm or a scale that the family's file forgot. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "model/model.h"

static int open_and_count(const char *folder, const char *name, struct backend *be) {
    struct checkpoint ck;
    struct model model;
    struct imp_error err;
    const struct tensor *first;
    if (checkpoint_open(folder, true, NULL, &ck, &err) < 0 ||
        model_open(&ck, be, NULL, NULL, &model, &err) < 0)
        fail_msg("%s: %s: %s", name, err.where, err.message);
    size_t unread = checkpoint_unread(&ck, &first);
    if (unread) print_error("%s: %zu tensors unread, as %s\n", name, unread, first->name);
    model_close(&model);
    checkpoint_close(&ck);
    return unread != 0;
}

static void nothing_left(void **state) {
    (void)state;
    const char *root = IMP_SOURCE_DIR "/tests/data/models";
    const struct backend_options options = {.kind = BACKEND_CPU_REFERENCE, .threads = 1};
    struct backend *be;
    struct imp_error err;
    int models = 0, bad = 0;
    assert_int_equal(backend_open(&options, &be, &err), 0);
    DIR *dir = opendir(root);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char folder[512], config[600];
        snprintf(folder, sizeof folder, "%s/%.200s", root, entry->d_name);
        snprintf(config, sizeof config, "%s/config.json", folder);
        if (entry->d_name[0] == '.' || !file_exists(config)) continue;
        bad += open_and_count(folder, entry->d_name, be);
        models++;
    }
    closedir(dir);
    backend_close(be);
    assert_true(models > 20);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
