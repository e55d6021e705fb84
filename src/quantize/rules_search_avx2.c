#include "quantize/rules_search_inner.h"

#if defined(__x86_64__)
uint8_t rules_search_avx2(const float *a, const float *h, float multiplier, uint8_t base) {
    return search(a, h, multiplier, base);
}
#endif
