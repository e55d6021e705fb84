/* The object, its memory, and the step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.cuh"

int cuda_error(struct cuda_backend *cuda, struct imp_error *err) {
    if (cuda->failed == cudaSuccess) return 0;
    return error_set(err, IMP_ERR_DEVICE, cuda->base.name, "%s in %s",
                     cudaGetErrorString(cuda->failed), cuda->failed_at);
}

static void cuda_write(struct backend *be, void *device, const void *host, size_t bytes) {
    struct cuda_backend *cuda = cuda_of(be);
    gpu_call(cuda, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda->stream));
    gpu_call(cuda, cudaStreamSynchronize(cuda->stream)); /* `host` is the caller's */
}

static void cuda_read(struct backend *be, void *host, const void *device, size_t bytes) {
    struct cuda_backend *cuda = cuda_of(be);
    graph_flush(cuda);
    gpu_call(cuda, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda->stream));
    gpu_call(cuda, cudaStreamSynchronize(cuda->stream));
}

static size_t cuda_act_bytes(struct backend *be, int64_t cols) {
    (void)be;
    return (size_t)act_stride(cols) * sizeof(uint16_t);
}

static void cuda_act_read(struct backend *be, const void *act, int rows, int64_t cols,
                          float *host) {
    const size_t bytes = cuda_act_bytes(be, cols);
    uint16_t *rows_host = (uint16_t *)mem_alloc((size_t)rows * bytes);
    cuda_read(be, rows_host, act, (size_t)rows * bytes);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < cols; k++)
            host[r * cols + k] = bf16_decode(rows_host[r * act_stride(cols) + act_place(k)]);
    free(rows_host);
}

static size_t cuda_kv_block_bytes(struct backend *be, int kv_heads, int head_dim) {
    const size_t element = cuda_of(be)->kv_fp8 ? sizeof(uint8_t) : sizeof(uint16_t);
    return (size_t)2 * KV_BLOCK_TOKENS * (size_t)kv_heads * (size_t)head_dim * element;
}

/* ---- the step ---- */

/* Where the arrays of a step stand, in ints: the same for every step, so that a graph finds them.
 */
struct batch_places {
    size_t token, position, seq, seq_row, slot, out_row, blocks, end;
};
static struct batch_places batch_places(const struct step_limits *max) {
    const size_t rows = (size_t)max->rows, seqs = (size_t)max->seqs;
    struct batch_places p = {};
    p.position = p.token + rows;
    p.seq = p.position + rows;
    p.seq_row = p.seq + rows;
    p.slot = p.seq_row + seqs + 1;
    p.out_row = p.slot + seqs;
    p.blocks = p.out_row + (size_t)max->out_rows; /* [seqs, KV_GROUPS, max_blocks] */
    p.end = p.blocks + seqs * KV_GROUPS * (size_t)max->max_blocks;
    return p;
}

static size_t cuda_scratch_bytes(struct backend *be, const struct step_limits *max) {
    return batch_places(max).end * sizeof(int32_t) + cuda_linear_bytes(cuda_of(be), max) +
           cuda_attention_bytes(max) + cuda_moe_bytes(max) + cuda_gdn_bytes(max) +
           cuda_sample_bytes(max);
}

static void place_batch(struct cuda_backend *cuda) {
    const struct batch_places p = batch_places(&cuda->limits);
    struct dev_batch *d = &cuda->batch;
    const int32_t *at = cuda->dev_batch;
    d->token = at + p.token;
    d->position = at + p.position;
    d->seq = at + p.seq;
    d->seq_row = at + p.seq_row;
    d->slot = at + p.slot;
    d->out_row = at + p.out_row;
    for (int g = 0; g < KV_GROUPS; g++) d->blocks[g] = at + p.blocks + g * cuda->limits.max_blocks;
    d->block_stride = KV_GROUPS * cuda->limits.max_blocks;
}

static int cuda_reserve(struct backend *be, const struct step_limits *max, struct imp_error *err) {
    struct cuda_backend *cuda = cuda_of(be);
    const size_t batch_bytes = batch_places(max).end * sizeof(int32_t);
    cuda->limits = *max;
    gpu_call(cuda, cudaMallocHost((void **)&cuda->host_batch, batch_bytes));
    int rc = cuda_error(cuda, err);
    if (rc == 0) rc = cuda_alloc(be, batch_bytes, (void **)&cuda->dev_batch, err);
    if (rc < 0) return rc;
    place_batch(cuda);
    stage_close(cuda);
    if ((rc = cuda_linear_reserve(cuda, max, err)) < 0 ||
        (rc = cuda_attention_reserve(cuda, max, err)) < 0 ||
        (rc = cuda_moe_reserve(cuda, max, err)) < 0 || (rc = cuda_gdn_reserve(cuda, max, err)) < 0)
        return rc;
    return cuda_sample_reserve(cuda, max, err);
}

static void put(struct cuda_backend *cuda, const int32_t *device, const int32_t *from, int count) {
    if (from) memcpy(cuda->host_batch + (device - cuda->dev_batch), from, count * sizeof *from);
}

/* The block tables: of each sequence as many entries as this step has. */
static void put_blocks(struct cuda_backend *cuda, const struct batch *batch) {
    const size_t pitch = (size_t)cuda->limits.max_blocks * sizeof(int32_t);
    for (int g = 0; g < KV_GROUPS; g++) {
        for (int s = 0; s < batch->seqs && batch->blocks[g]; s++)
            put(cuda, cuda->batch.blocks[g] + s * cuda->batch.block_stride,
                batch->blocks[g] + (int64_t)s * batch->max_blocks, batch->max_blocks);
    }
    if (batch->max_blocks == 0) return;
    const size_t at = batch_places(&cuda->limits).blocks;
    gpu_call(cuda, cudaMemcpy2DAsync(cuda->dev_batch + at, pitch, cuda->host_batch + at, pitch,
                                     (size_t)batch->max_blocks * sizeof(int32_t),
                                     (size_t)batch->seqs * KV_GROUPS, cudaMemcpyHostToDevice,
                                     cuda->stream));
}

/* The pinned copy is free: the step before has ended. */
static void cuda_step_begin(struct backend *be, const struct batch *batch) {
    struct cuda_backend *cuda = cuda_of(be);
    struct dev_batch *d = &cuda->batch;
    gpu_call(cuda, cudaSetDevice(cuda->device)); /* of this thread, which may not be the opener */
    check(batch->max_blocks <= cuda->limits.max_blocks);
    d->rows = batch->rows;
    d->seqs = batch->seqs;
    d->out_rows = batch->out_rows;
    d->most = 0;
    for (int r = 0; r < batch->rows && batch->position; r++)
        if (batch->position[r] > d->most) d->most = batch->position[r];
    put(cuda, d->token, batch->token, batch->rows);
    put(cuda, d->position, batch->position, batch->rows);
    put(cuda, d->seq, batch->seq, batch->rows);
    put(cuda, d->seq_row, batch->seq_row, batch->seqs + 1);
    put(cuda, d->slot, batch->slot, batch->seqs);
    put(cuda, d->out_row, batch->out_row, batch->out_rows);
    gpu_call(cuda, cudaMemcpyAsync(cuda->dev_batch, cuda->host_batch,
                                   batch_places(&cuda->limits).blocks * sizeof(int32_t),
                                   cudaMemcpyHostToDevice, cuda->stream));
    put_blocks(cuda, batch);
    graph_begin(cuda, batch);
}

/* A fault that left the device sound ends the step alone: what was kept is forgotten. After one
 * that did not, every later call fails with it. */
static int cuda_step_end(struct backend *be, struct imp_error *err) {
    struct cuda_backend *cuda = cuda_of(be);
    graph_flush(cuda);
    gpu_call(cuda, cudaStreamSynchronize(cuda->stream));
    if (cuda->failed == cudaSuccess) return 0;
    int rc = cuda_error(cuda, err);
    graph_drop(cuda);
    cudaGetLastError();
    if (cudaStreamSynchronize(cuda->stream) == cudaSuccess) cuda->failed = cudaSuccess;
    return rc;
}

static void cuda_destroy(struct backend *be) {
    struct cuda_backend *cuda = cuda_of(be);
    graph_drop(cuda);
    stage_close(cuda);
    cuda_linear_release(cuda);
    cuda_moe_release(cuda);
    cuda_gdn_release(cuda);
    cuda_sample_release(cuda);
    cuda_attention_release(cuda);
    cuda_free(be, cuda->dev_batch);
    cudaFreeHost(cuda->host_batch);
    memory_close(cuda);
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
    ops.linear_glu = cuda_linear_glu;
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
    struct cuda_backend *cuda = (struct cuda_backend *)mem_zero(1, sizeof *cuda);
    cudaDeviceProp properties;
    cuda->base.ops = &ops;
    cuda->pdl = options->pdl;
    cuda->graphs = options->graphs;
    cuda->kv_fp8 = options->kv_fp8;
    cuda->nvfp4_activations = options->nvfp4_activations;
    cuda->fail_call = options->fail_call;
    cuda->device = options->device;
    gpu_call(cuda, cudaSetDevice(options->device));
    gpu_call(cuda, cudaGetDeviceProperties(&properties, options->device));
    gpu_call(cuda, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    cuda->processors = properties.multiProcessorCount;
    cuda->bulk_copies = properties.major >= 9 &&
                        (int64_t)properties.sharedMemPerBlockOptin >= LINEAR_FEW_SHARED &&
                        !options->plain_linears;
    cuda->wgmma = properties.major == 9 && !options->plain_linears;
    cuda->nvfp4_units = options->nvfp4_activations && properties.major == 12 &&
                        properties.minor == 0 && !options->plain_linears;
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
