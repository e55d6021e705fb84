#include "base/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/str.h"

/* Turns of the spin loop before sleeping: some 20 us, longer than the gap between two ops. */
enum { SPIN_TURNS = 4000 };

#define GATE_OPEN 0x80000000u

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    struct worker *workers; /* [threads - 1] */
    pool_fn fn;
    void *ctx;
    int tasks;
    /* Each on a line of its own: they are written by different threads at once. */
    _Alignas(64) atomic_uint epoch; /* a new value is a new loop; futex word of the workers */
    _Alignas(64) atomic_int next_task;
    /* GATE_OPEN, and how many workers are inside; futex word of the caller. A worker that comes
     * late finds the gate shut: the caller never waits for one that has not begun, which on a busy
     * machine is what a loop of microseconds would mostly wait for. */
    _Alignas(64) atomic_uint gate;
    _Alignas(64) atomic_int sleepers;
    atomic_int caller_sleeps;
    atomic_bool stop;
};

static void futex_wait(atomic_uint *word, unsigned seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 20, NULL, NULL, 0);
}

static inline void spin_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_tasks(struct pool *pool, int thread) {
    for (;;) {
        int task = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed);
        if (task >= pool->tasks) return;
        pool->fn(pool->ctx, task, thread);
    }
}

/* Returns when the epoch differs from seen. */
static unsigned wait_for_epoch(struct pool *pool, unsigned seen) {
    for (int i = 0; i < SPIN_TURNS; i++) {
        unsigned now = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        if (now != seen) return now;
        spin_pause();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    unsigned now;
    while ((now = atomic_load(&pool->epoch)) == seen) futex_wait(&pool->epoch, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
    return now;
}

static bool enter_gate(struct pool *pool) {
    unsigned gate = atomic_load_explicit(&pool->gate, memory_order_relaxed);
    while (gate & GATE_OPEN) {
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) return true;
    }
    return false;
}

static void *worker_main(void *arg) {
    struct worker *worker = arg;
    struct pool *pool = worker->pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_epoch(pool, seen);
        if (pool->stop) return NULL;
        if (!enter_gate(pool)) continue;
        run_tasks(pool, worker->index);
        if (atomic_fetch_sub(&pool->gate, 1) == 1 && atomic_load(&pool->caller_sleeps))
            futex_wake_all(&pool->gate);
    }
}

int pool_create(int threads, struct pool **out, struct imp_error *err) {
    check(threads >= 1);
    struct pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (pool == NULL) return error_memory(err, sizeof *pool);
    memset(pool, 0, sizeof *pool);
    pool->workers = mem_zero((size_t)threads, sizeof *pool->workers);
    pool->threads = 1;
    for (int i = 1; i < threads; i++) {
        struct worker *worker = &pool->workers[i - 1];
        *worker = (struct worker){.pool = pool, .index = i};
        int failed = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (failed) {
            pool_destroy(pool);
            return error_set(err, IMP_ERR_IO, NULL, "cannot start thread %d of %d: %s", i + 1,
                             threads, strerror(failed));
        }
        pool->threads++;
    }
    *out = pool;
    return 0;
}

static void start_epoch(struct pool *pool) {
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers) > 0) futex_wake_all(&pool->epoch);
}

void pool_destroy(struct pool *pool) {
    if (pool == NULL) return;
    pool->stop = true;
    start_epoch(pool);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i - 1].thread, NULL);
    free(pool->workers);
    free(pool);
}

int pool_threads(const struct pool *pool) {
    return pool->threads;
}

void pool_run(struct pool *pool, pool_fn fn, void *ctx, int tasks) {
    if (pool->threads == 1 || tasks <= 1) {
        for (int i = 0; i < tasks; i++) fn(ctx, i, 0);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next_task, 0, memory_order_relaxed);
    atomic_store(&pool->gate, GATE_OPEN);
    start_epoch(pool);
    run_tasks(pool, 0);
    atomic_fetch_and(&pool->gate, ~GATE_OPEN);
    for (int i = 0; i < SPIN_TURNS; i++) {
        if (atomic_load_explicit(&pool->gate, memory_order_acquire) == 0) return;
        spin_pause();
    }
    atomic_store(&pool->caller_sleeps, 1);
    unsigned inside;
    while ((inside = atomic_load(&pool->gate)) != 0) futex_wait(&pool->gate, inside);
    atomic_store(&pool->caller_sleeps, 0);
}

int cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
