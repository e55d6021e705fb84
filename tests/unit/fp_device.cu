/* num/fp.h compiled for the device: every function of it is called by this kernel. `make cuda-check`
 * compiles it with warnings as errors; nothing runs. */
#include "num/fp.h"

extern "C" __global__ void fp_device(const float *in, float *out, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    float x = in[i];
    out[i] = bf16_round(x) + bf16_decode(bf16_encode(x)) + fp16_decode(fp16_encode(x)) +
             e4m3_decode(e4m3_encode(x)) + e2m1_decode(e2m1_encode(x)) +
             e8m0_decode(e8m0_encode(x)) + fp32_from_bits(fp32_bits(x));
}
