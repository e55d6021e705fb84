/* Device memory in slabs: a model has thousands of tensors, the driver rounds each allocation up to
 * two megabytes, and asks the device each time. A slab is given back when the last thing in it is.
 */
#include "backend/cuda/cuda.cuh"

enum { SLAB_LEAST = 4 << 20, SLAB_MOST = 64 << 20, PIECE = 256 };

static size_t whole_pieces(size_t bytes) {
    return bytes ? (bytes + PIECE - 1) / PIECE * PIECE : PIECE;
}

/* As large as an eighth of what there is, so that little of the last one stays unused. */
static size_t slab_size(const struct cuda_backend *cuda, size_t bytes) {
    size_t total = 0;
    for (int i = 0; i < cuda->slabs; i++) total += cuda->slab[i].size;
    size_t size = total / 8;
    if (size < SLAB_LEAST) size = SLAB_LEAST;
    if (size > SLAB_MOST) size = SLAB_MOST;
    return bytes > size ? bytes : size;
}

static int add_slab(struct cuda_backend *cuda, size_t bytes, struct imp_error *err) {
    struct cuda_slab s = {};
    if (cuda->slabs == MAX_SLABS)
        return error_set(err, IMP_ERR_MEMORY, cuda->base.name, "more than %d pieces of memory",
                         (int)MAX_SLABS);
    s.size = slab_size(cuda, bytes);
    cudaError_t rc =
        gpu_fails(cuda) ? cudaErrorMemoryAllocation : cudaMalloc((void **)&s.base, s.size);
    if (rc == cudaSuccess) {
        cuda->slab[cuda->slabs++] = s;
        return 0;
    }
    cudaGetLastError(); /* running out of memory is no fault of the device */
    if (rc == cudaErrorMemoryAllocation)
        return error_set(err, IMP_ERR_MEMORY, cuda->base.name,
                         "%zu bytes of device memory are not there", bytes);
    return error_set(err, IMP_ERR_DEVICE, cuda->base.name, "%s in cudaMalloc",
                     cudaGetErrorString(rc));
}

int cuda_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err) {
    struct cuda_backend *cuda = cuda_of(be);
    const size_t size = whole_pieces(bytes);
    int i = 0;
    *out = NULL;
    while (i < cuda->slabs && cuda->slab[i].size - cuda->slab[i].used < size) i++;
    if (i == cuda->slabs) {
        int rc = add_slab(cuda, size, err);
        if (rc < 0) return rc;
    }
    struct cuda_slab *s = &cuda->slab[i];
    *out = s->base + s->used;
    s->used += size;
    s->live++;
    return 0;
}

/* No failpoint: what is to be given back is. */
void cuda_free(struct backend *be, void *device) {
    struct cuda_backend *cuda = cuda_of(be);
    if (device == NULL) return;
    int i = 0;
    while (i < cuda->slabs && ((uint8_t *)device < cuda->slab[i].base ||
                               (uint8_t *)device >= cuda->slab[i].base + cuda->slab[i].size))
        i++;
    check(i < cuda->slabs);
    if (--cuda->slab[i].live > 0) return;
    gpu_keep(cuda, cudaFree(cuda->slab[i].base), "cudaFree");
    cuda->slab[i] = cuda->slab[--cuda->slabs];
}

/* Everything that nobody gave back. */
void memory_close(struct cuda_backend *cuda) {
    for (int i = 0; i < cuda->slabs; i++) cudaFree(cuda->slab[i].base);
    cuda->slabs = 0;
}
