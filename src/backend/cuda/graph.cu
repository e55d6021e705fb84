/* Decode steps as graphs: a step whose sequences have one row each is captured the second time its
 * shape comes, and replayed from then on. The kernels are the same, so the bytes are.
 *
 * A shape is the number of rows, of rows with logits, and a bound of the positions, in powers of
 * two. What differs between steps of a shape lies in the arrays of step_begin, at places that do
 * not move. Between step_begin and graph_flush the ops either launch into the capture, or nothing:
 * cuda->replaying. */
#include <string.h>

#include "backend/cuda/cuda.cuh"

static bool same_shape(const struct graph_shape *a, const struct graph_shape *b) {
    return a->rows == b->rows && a->out_rows == b->out_rows && a->most == b->most;
}

/* The entry of a shape, or the one unused longest for it. */
static struct cuda_graph *find_graph(struct cuda_backend *cuda, const struct graph_shape *shape) {
    struct cuda_graph *oldest = &cuda->graph[0];
    for (int i = 0; i < MAX_GRAPHS; i++) {
        struct cuda_graph *g = &cuda->graph[i];
        if (g->uses > 0 && same_shape(&g->shape, shape)) return g;
        if (g->last_step < oldest->last_step) oldest = g;
    }
    if (oldest->exec) gpu_call(cuda, cudaGraphExecDestroy(oldest->exec));
    *oldest = {};
    oldest->shape = *shape;
    return oldest;
}

static bool is_decode(const struct batch *batch) {
    return batch->seq_row && batch->rows == batch->seqs && batch->rows > 0;
}

void graph_begin(struct cuda_backend *cuda, const struct batch *batch) {
    cuda->current = NULL;
    if (!cuda->graphs || !is_decode(batch) || cuda->failed != cudaSuccess) return;
    int most = GRAPH_LEAST_CONTEXT;
    while (most <= cuda->batch.most) most *= 2;
    cuda->batch.most = most - 1;
    const struct graph_shape shape = {batch->rows, batch->out_rows, cuda->batch.most};
    struct cuda_graph *g = find_graph(cuda, &shape);
    g->last_step = ++cuda->steps;
    g->uses++;
    cuda->current = g;
    cuda->replaying = g->exec != NULL;
    cuda->capturing = false;
    if (g->exec == NULL && g->uses == 2)
        cuda->capturing =
            gpu_call(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeRelaxed));
}

/* Launches what the ops since step_begin were captured as, or would have launched. */
void graph_flush(struct cuda_backend *cuda) {
    struct cuda_graph *g = cuda->current;
    cuda->current = NULL;
    if (g == NULL) return;
    if (cuda->capturing) {
        cudaGraph_t graph = NULL;
        cuda->capturing = false;
        /* Made even where it is to fail: a stream left in a capture fails every later step. */
        cudaError_t rc = cudaStreamEndCapture(cuda->stream, &graph);
        if (gpu_fails(cuda)) rc = cudaErrorUnknown;
        if (gpu_keep(cuda, rc, "cudaStreamEndCapture") && cuda->failed == cudaSuccess)
            gpu_call(cuda, cudaGraphInstantiate(&g->exec, graph, 0));
        if (graph) cudaGraphDestroy(graph);
        if (g->exec == NULL) return;
    }
    cuda->replaying = false;
    if (g->exec) gpu_call(cuda, cudaGraphLaunch(g->exec, cuda->stream));
}

void graph_drop(struct cuda_backend *cuda) {
    for (int i = 0; i < MAX_GRAPHS; i++) {
        if (cuda->graph[i].exec) cudaGraphExecDestroy(cuda->graph[i].exec);
        cuda->graph[i] = {};
    }
    cuda->current = NULL;
    cuda->replaying = cuda->capturing = false;
}
