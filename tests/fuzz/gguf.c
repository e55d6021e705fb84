/* Any bytes as a GGUF file: refused, or tensors inside the file and, where it is a model that can
 * be imported, rows that can be read and a tokenizer whose JSON parses.
 *
 * Proved by planting (clang-14): without the test of long strings' lengths in read_string it is
 * found within 1 s. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "load/gguf_import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_import(const struct gguf *g) {
    struct gguf_import in;
    struct imp_error err = {0};
    yyjson_doc *doc = NULL;
    if (gguf_import_open(g, &in, &err) < 0) {
        check(err.code < 0 && err.message[0] && in.config == NULL);
        return;
    }
    check(json_read(in.config, strlen(in.config), "config", &doc, &err) == 0);
    yyjson_doc_free(doc);
    check(json_read(in.tokenizer, strlen(in.tokenizer), "tokenizer", &doc, &err) == 0);
    yyjson_doc_free(doc);
    for (size_t i = 0; i < in.tensor_count; i++) {
        float *row = mem_alloc((size_t)in.tensors[i].cols * sizeof *row);
        gguf_import_row(&in, i, in.tensors[i].rows - 1, row, &err);
        free(row);
    }
    gguf_import_close(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf g;
    if (gguf_parse(data, size, "fuzz", &g, NULL) < 0) return 0;
    for (size_t i = 0; i < g.tensor_count; i++)
        check(g.tensors[i].bytes <= size && g.tensors[i].file_offset <= size - g.tensors[i].bytes);
    try_import(&g);
    gguf_close(&g);
    return 0;
}
