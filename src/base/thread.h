/* A pool of threads that runs one parallel loop at a time.
 *
 * The caller of pool_run takes part and returns when every task is done. Tasks are handed out in
 * any order to any thread: what they compute must not depend on that. Workers spin for a moment
 * between loops (a decode step makes hundreds of them a few microseconds apart), then sleep.
 * One caller at a time. */
#ifndef IMP_BASE_THREAD_H
#define IMP_BASE_THREAD_H

#include "imp/imp.h"

struct pool;
typedef void (*pool_fn)(void *ctx, int task, int thread); /* thread: 0 .. threads-1 */

/* threads counts the caller; 1 makes no thread at all. */
int pool_create(int threads, struct pool **out, struct imp_error *err);
void pool_destroy(struct pool *pool); /* NULL is fine */
int pool_threads(const struct pool *pool);
void pool_run(struct pool *pool, pool_fn fn, void *ctx, int tasks);
int cpu_count(void); /* cores this process may run on */

#endif
