/* num/fp.h on the device: the same lines as on the host, and NVIDIA's own converters as oracle.
 *
 * Every one of the 2^32 fp32 patterns goes through each encoder and through the converter of
 * cuda_fp8.h, cuda_fp4.h, cuda_bf16.h, cuda_fp16.h; a sample of them also through the host. Every
 * code goes through each decoder on both. NaNs need only be NaNs where the format has several. */
#include <cstdio>
#include <cstdlib>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp4.h>
#include <cuda_fp8.h>

#include "num/fp.h"

#define CUDA(call)                                                                                 \
    do {                                                                                           \
        cudaError_t e = (call);                                                                    \
        if (e != cudaSuccess) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(e));             \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { E4M3, E2M1, BF16, FP16, FORMATS };
static const char *const NAMES[FORMATS] = {"e4m3", "e2m1", "bf16", "fp16"};

__host__ __device__ static uint16_t encode(int format, float x) {
    switch (format) {
    case E4M3:
        return e4m3_encode(x);
    case E2M1:
        return e2m1_encode(x);
    case BF16:
        return bf16_encode(x);
    default:
        return fp16_encode(x);
    }
}

__host__ __device__ static float decode(int format, uint16_t code) {
    switch (format) {
    case E4M3:
        return e4m3_decode((uint8_t)code);
    case E2M1:
        return e2m1_decode((uint8_t)code);
    case BF16:
        return bf16_decode(code);
    default:
        return fp16_decode(code);
    }
}

__device__ static uint16_t oracle(int format, float x) {
    switch (format) {
    case E4M3:
        return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
    case E2M1:
        return __nv_cvt_float_to_fp4(x, __NV_E2M1, cudaRoundNearest);
    case BF16:
        return __bfloat16_as_ushort(__float2bfloat16_rn(x));
    default:
        return __half_as_ushort(__float2half_rn(x));
    }
}

/* Equal, or NaN in both: payload and sign of a NaN are free. */
__device__ static bool agree(int format, uint16_t a, uint16_t b) {
    if (a == b) return true;
    if (format == BF16) return (a & 0x7FFF) > 0x7F80 && (b & 0x7FFF) > 0x7F80;
    if (format == FP16) return (a & 0x7FFF) > 0x7C00 && (b & 0x7FFF) > 0x7C00;
    return format == E4M3 && (a & 0x7F) == 0x7F && (b & 0x7F) == 0x7F;
}

struct result {
    unsigned long long wrong;
    uint32_t input;
};

__global__ static void check_all(int format, struct result *out) {
    uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < 1ull << 32;
         i += stride) {
        float x = fp32_from_bits((uint32_t)i);
        if (agree(format, encode(format, x), oracle(format, x))) continue;
        if (atomicAdd(&out->wrong, 1ull) == 0) out->input = (uint32_t)i;
    }
}

enum { SAMPLE = 1 << 22 };

__host__ __device__ static uint32_t sample_bits(uint32_t i) {
    return i * 1024u + (i * 2654435761u >> 22); /* each stretch of 1024 patterns, one of them */
}

__global__ static void encode_sample(int format, uint16_t *out) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < SAMPLE) out[i] = encode(format, fp32_from_bits(sample_bits(i)));
}

__global__ static void decode_all(int format, uint32_t *out) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < 65536) out[i] = fp32_bits(decode(format, (uint16_t)i));
}

static int failures;

static void report(const char *what, int format, unsigned long long wrong, uint32_t input) {
    printf("%-28s %s  %s", what, NAMES[format], wrong ? "FAILED" : "ok");
    if (wrong) printf("  %llu differ, e.g. at 0x%08x", wrong, input);
    printf("\n");
    failures += wrong != 0;
}

static void against_nvidia(int format) {
    struct result *r;
    CUDA(cudaMallocManaged(&r, sizeof *r));
    *r = (struct result){0, 0};
    check_all<<<1024, 256>>>(format, r);
    CUDA(cudaGetLastError());
    CUDA(cudaDeviceSynchronize());
    report("all 2^32, NVIDIA's converter", format, r->wrong, r->input);
    CUDA(cudaFree(r));
}

static void against_host(int format) {
    uint16_t *codes;
    uint32_t *values;
    CUDA(cudaMallocManaged(&codes, SAMPLE * sizeof *codes));
    CUDA(cudaMallocManaged(&values, 65536 * sizeof *values));
    CUDA(cudaMemset(codes, 0xA5, SAMPLE * sizeof *codes));
    CUDA(cudaMemset(values, 0xA5, 65536 * sizeof *values));
    encode_sample<<<SAMPLE / 256, 256>>>(format, codes);
    decode_all<<<256, 256>>>(format, values);
    CUDA(cudaGetLastError());
    CUDA(cudaDeviceSynchronize());
    unsigned long long wrong = 0;
    uint32_t input = 0;
    for (uint32_t i = 0; i < SAMPLE; i++) {
        if (codes[i] == encode(format, fp32_from_bits(sample_bits(i)))) continue;
        if (wrong++ == 0) input = sample_bits(i);
    }
    report("encode, host and device", format, wrong, input);
    wrong = 0;
    uint32_t count = format == E2M1 ? 16 : format == E4M3 ? 256 : 65536;
    for (uint32_t i = 0; i < count; i++) {
        if (values[i] == fp32_bits(decode(format, (uint16_t)i))) continue;
        if (wrong++ == 0) input = i;
    }
    report("decode, host and device", format, wrong, input);
    CUDA(cudaFree(codes));
    CUDA(cudaFree(values));
}

int main(void) {
    for (int format = 0; format < FORMATS; format++) {
        against_nvidia(format);
        against_host(format);
    }
    printf("%d passed, %d failed\n", 3 * FORMATS - failures, failures);
    return failures != 0;
}
