#include "quantize/rules_search_inner.h"

uint8_t rules_search_portable(const float *a, const float *h, float multiplier, uint8_t base) {
    return search(a, h, multiplier, base);
}
