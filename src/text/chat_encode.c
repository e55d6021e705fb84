#include <stdlib.h>

#include "text/chat.h"

void chat_encode(const struct tokenizer *t, const struct jinja_output *rendered,
                 bool special_in_messages, struct ids *out) {
    struct text_span *spans = mem_zero(rendered->run_count, sizeof *spans);
    for (size_t i = 0; i < rendered->run_count; i++) {
        bool special = special_in_messages || !rendered->runs[i].message;
        spans[i] = (struct text_span){rendered->runs[i].bytes, special};
    }
    tokenizer_encode(t, rendered->text.data, rendered->text.size, spans, rendered->run_count, 0,
                     out);
    free(spans);
}
