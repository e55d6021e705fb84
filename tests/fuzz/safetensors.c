/* Any bytes as a SafeTensors file: refused, or tensors that tile the data and can all be read.
 *
 * Proved by planting (clang-14, one core): without the test for overlap, the test of the span
 * against the shape, or that of the header's length, each is found within 1 s. */
#include "load/safetensors.h"
#include "base/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors st;
    struct imp_error err;
    if (safetensors_parse(data, size, "fuzz", &st, &err) < 0) {
        check(err.code == IMP_ERR_FILE && err.message[0] && st.tensors == NULL);
        return 0;
    }
    uint64_t header = 0, at;
    for (int i = 0; i < 8; i++) header |= (uint64_t)data[i] << 8 * i;
    at = 8 + header;
    for (size_t i = 0; i < st.count; i++) {
        const struct tensor *t = &st.tensors[i];
        check(t->file_offset == at && t->bytes <= size - at);
        check(t->bytes == 0 || t->data == data + at);
        check((uint64_t)tensor_elements(t) * (unsigned)dtype_bits(t->dtype) == 8 * t->bytes);
        volatile uint8_t last = t->bytes ? t->data[t->bytes - 1] : 0;
        (void)last;
        at += t->bytes;
    }
    check(at == size);
    safetensors_close(&st);
    return 0;
}
