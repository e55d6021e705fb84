/* The object, its memory, the step, and drawing tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.cuh"

int cuda_error(struct cuda_backend *cuda, struct imp_error *err) {
    if (cuda->failed == cudaSuccess) return 0;
    return error_set(err, IMP_ERR_DEVICE, cuda->base.name, "%s in %s",
                     cudaGetErrorString(cuda->failed), cuda->failed_at);
}

int cuda_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err) {
    *out = NULL;
    cudaError_t rc = cudaMalloc(out, bytes ? bytes : 1);
    if (rc == cudaSuccess) return 0;
    *out = NULL;
    cudaGetLastError(); /* running out of memory is no fault of the device */
    if (rc == cudaErrorMemoryAllocation)
        return error_set(err, IMP_ERR_MEMORY, be->name, "%zu bytes of device memory are not there",
                         bytes);
    return error_set(err, IMP_ERR_DEVICE, be->name, "%s in cudaMalloc", cudaGetErrorString(rc));
}

void cuda_free(struct backend *be, void *device) {
    if (device) CUDA_CALL(cuda_of(be), cudaFree(device));
}

static void cuda_write(struct backend *be, void *device, const void *host, size_t bytes) {
    struct cuda_backend *cuda = cuda_of(be);
    CUDA_CALL(cuda, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda->stream));
    CUDA_CALL(cuda, cudaStreamSynchronize(cuda->stream)); /* `host` is the caller's */
}

static void cuda_read(struct backend *be, void *host, const void *device, size_t bytes) {
    struct cuda_backend *cuda = cuda_of(be);
    CUDA_CALL(cuda, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda->stream));
    CUDA_CALL(cuda, cudaStreamSynchronize(cuda->stream));
}

static size_t cuda_act_bytes(struct backend *be, int64_t cols) {
    (void)be;
    return (size_t)cuda_act_stride(cols) * sizeof(uint16_t);
}

static void cuda_act_read(struct backend *be, const void *act, int rows, int64_t cols,
                          float *host) {
    const size_t bytes = cuda_act_bytes(be, cols);
    uint16_t *rows_host = (uint16_t *)mem_alloc((size_t)rows * bytes);
    cuda_read(be, rows_host, act, (size_t)rows * bytes);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < cols; k++)
            host[r * cols + k] = bf16_decode(rows_host[r * (int64_t)(bytes / 2) + k]);
    free(rows_host);
}

static size_t cuda_kv_block_bytes(struct backend *be, int kv_heads, int head_dim) {
    (void)be;
    return (size_t)2 * KV_BLOCK_TOKENS * (size_t)kv_heads * (size_t)head_dim * sizeof(uint16_t);
}

/* ---- the step ---- */

static size_t batch_ints(const struct step_limits *max) {
    const size_t blocks = (size_t)max->seqs * (size_t)max->max_blocks;
    return 3 * (size_t)max->rows + (size_t)max->out_rows + 2 * (size_t)max->seqs + 1 +
           KV_GROUPS * blocks;
}

static size_t cuda_scratch_bytes(struct backend *be, const struct step_limits *max) {
    (void)be;
    return batch_ints(max) * sizeof(int32_t) + cuda_moe_bytes(max);
}

static int cuda_reserve(struct backend *be, const struct step_limits *max, struct imp_error *err) {
    struct cuda_backend *cuda = cuda_of(be);
    const size_t vocab = (size_t)max->vocab;
    cuda->limits = *max;
    cuda->batch_ints = batch_ints(max);
    CUDA_CALL(cuda, cudaMallocHost((void **)&cuda->host_batch, cuda->batch_ints * 4));
    CUDA_CALL(cuda, cudaMallocHost((void **)&cuda->host_logits, vocab * sizeof(float)));
    cuda->sampler.sample_logits = (float *)mem_alloc(vocab * sizeof(float));
    cuda->sampler.sample_ids = (int32_t *)mem_alloc(vocab * sizeof(int32_t));
    cuda->sampler.sample_ids_count = max->vocab;
    int rc = cuda_error(cuda, err);
    if (rc == 0) rc = cuda_alloc(be, cuda->batch_ints * 4, (void **)&cuda->dev_batch, err);
    return rc == 0 ? cuda_moe_reserve(cuda, max, err) : rc;
}

/* Appends count ints to the pinned copy; where they will be on the device. */
static const int32_t *put(struct cuda_backend *cuda, size_t *at, const int32_t *from,
                          size_t count) {
    check(*at + count <= cuda->batch_ints);
    if (from) memcpy(cuda->host_batch + *at, from, count * sizeof *from);
    const int32_t *device = cuda->dev_batch + *at;
    *at += count;
    return from ? device : NULL;
}

static void cuda_step_begin(struct backend *be, const struct batch *batch) {
    struct cuda_backend *cuda = cuda_of(be);
    struct dev_batch *d = &cuda->batch;
    const size_t rows = (size_t)batch->rows, seqs = (size_t)batch->seqs;
    size_t at = 0;
    /* The last step's copy may still be read from the pinned memory. */
    CUDA_CALL(cuda, cudaStreamSynchronize(cuda->stream));
    d->rows = batch->rows;
    d->seqs = batch->seqs;
    d->out_rows = batch->out_rows;
    d->max_blocks = batch->max_blocks;
    d->token = put(cuda, &at, batch->token, rows);
    d->position = put(cuda, &at, batch->position, rows);
    d->seq = put(cuda, &at, batch->seq, rows);
    d->seq_row = put(cuda, &at, batch->seq_row, seqs + 1);
    d->slot = put(cuda, &at, batch->slot, seqs);
    d->out_row = put(cuda, &at, batch->out_row, (size_t)batch->out_rows);
    for (int g = 0; g < KV_GROUPS; g++)
        d->blocks[g] = put(cuda, &at, batch->blocks[g], seqs * (size_t)batch->max_blocks);
    CUDA_CALL(cuda, cudaMemcpyAsync(cuda->dev_batch, cuda->host_batch, at * sizeof(int32_t),
                                    cudaMemcpyHostToDevice, cuda->stream));
}

static int cuda_step_end(struct backend *be, struct imp_error *err) {
    struct cuda_backend *cuda = cuda_of(be);
    CUDA_CALL(cuda, cudaStreamSynchronize(cuda->stream));
    return cuda_error(cuda, err);
}

/* One row at a time comes to the host and is drawn there by the CPU backends' own sampler. */
static void cuda_sample(struct backend *be, const struct op_sample *op) {
    struct cuda_backend *cuda = cuda_of(be);
    for (int i = 0; i < op->count; i++) {
        const int32_t first = 0;
        cuda_read(be, cuda->host_logits, op->logits + (int64_t)op->row[i] * op->vocab,
                  (size_t)op->vocab * sizeof(float));
        struct op_sample one = *op;
        one.logits = cuda->host_logits;
        one.row = &first;
        one.params = &op->params[i];
        one.results = &op->results[i];
        one.count = 1;
        cpu_sample(&cuda->sampler.base, &one);
    }
}

static void cuda_destroy(struct backend *be) {
    struct cuda_backend *cuda = cuda_of(be);
    cuda_moe_release(cuda);
    cudaFree(cuda->dev_batch);
    cudaFreeHost(cuda->host_batch);
    cudaFreeHost(cuda->host_logits);
    free(cuda->sampler.sample_logits);
    free(cuda->sampler.sample_ids);
    if (cuda->stream) cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static struct backend_ops make_ops(void) {
    struct backend_ops ops = {};
    ops.destroy = cuda_destroy;
    ops.alloc = cuda_alloc;
    ops.free = cuda_free;
    ops.write = cuda_write;
    ops.read = cuda_read;
    ops.matrix_create = cuda_matrix_create;
    ops.matrix_free = cuda_matrix_free;
    ops.matrix_bytes = cuda_matrix_bytes;
    ops.experts_create = cuda_experts_create;
    ops.experts_free = cuda_experts_free;
    ops.table_create = cuda_table_create;
    ops.table_free = cuda_table_free;
    ops.act_bytes = cuda_act_bytes;
    ops.act_read = cuda_act_read;
    ops.kv_block_bytes = cuda_kv_block_bytes;
    ops.gdn_state_bytes = cuda_gdn_state_bytes;
    ops.scratch_bytes = cuda_scratch_bytes;
    ops.reserve = cuda_reserve;
    ops.step_begin = cuda_step_begin;
    ops.step_end = cuda_step_end;
    ops.embed = cuda_embed;
    ops.norm = cuda_norm;
    ops.convert = cuda_convert;
    ops.post_norm = cuda_post_norm;
    ops.linear = cuda_linear;
    ops.rope_angles = cuda_rope_angles;
    ops.qkv = cuda_qkv;
    ops.attention = cuda_attention;
    ops.glu = cuda_glu;
    ops.route = cuda_route;
    ops.moe = cuda_moe;
    ops.gdn = cuda_gdn;
    ops.softcap = cuda_softcap;
    ops.sample = cuda_sample;
    return ops;
}

/* The module's one entry: see backend/cuda_module.c. */
extern "C" int imp_cuda_open(const struct backend_options *options, struct backend **out,
                             struct imp_error *err) {
    static const struct backend_ops ops = make_ops();
    int devices = 0;
    cudaError_t rc = cudaGetDeviceCount(&devices);
    if (rc != cudaSuccess || devices == 0)
        return error_set(err, IMP_ERR_DEVICE, "cuda", "no GPU that can be used: %s",
                         rc == cudaSuccess ? "none found" : cudaGetErrorString(rc));
    if (options->device < 0 || options->device >= devices)
        return error_set(err, IMP_ERR_DEVICE, "cuda", "there is no cuda:%d; %d found",
                         options->device, devices);
    if (options->nvfp4_activations)
        return error_set(err, IMP_ERR_UNSUPPORTED, "cuda",
                         "numerics.activations=nvfp4 is there on a CPU only");
    struct cuda_backend *cuda = (struct cuda_backend *)mem_zero(1, sizeof *cuda);
    cudaDeviceProp properties;
    cuda->base.ops = &ops;
    CUDA_CALL(cuda, cudaSetDevice(options->device));
    CUDA_CALL(cuda, cudaGetDeviceProperties(&properties, options->device));
    CUDA_CALL(cuda, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    snprintf(cuda->base.name, sizeof cuda->base.name, "cuda:%d, %.40s", options->device,
             cuda->failed == cudaSuccess ? properties.name : "?");
    int status = cuda_error(cuda, err);
    if (status < 0) {
        cuda_destroy(&cuda->base);
        return status;
    }
    *out = &cuda->base;
    return 0;
}
