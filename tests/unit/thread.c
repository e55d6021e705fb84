/* The thread pool: every task once, the caller sees all of it, loops far apart and close together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/thread.h"

enum { TASKS = 257, MAX_THREADS = 8 };

/* Plain memory on purpose: ThreadSanitizer then sees whether the loop orders its accesses. */
struct work {
    int runs[TASKS];
    int threads;
    int per_thread[MAX_THREADS][16]; /* a line each */
    atomic_int wrong_thread;
};

static void add_one(void *ctx, int task, int thread) {
    struct work *work = ctx;
    if (thread < 0 || thread >= work->threads) atomic_store(&work->wrong_thread, 1);
    work->runs[task]++;
    work->per_thread[thread][0]++;
}

static void run_loops(int threads, int loops, unsigned pause_us) {
    struct pool *pool = NULL;
    struct work work = {.threads = threads};
    assert_int_equal(pool_create(threads, &pool, NULL), 0);
    assert_int_equal(pool_threads(pool), threads);
    int done = 0;
    for (int i = 0; i < loops; i++) {
        int tasks = i % 5 == 4 ? 1 : TASKS - i % 3;
        pool_run(pool, add_one, &work, tasks);
        done += tasks;
        int sum = 0; /* the caller reads what the workers wrote, without a lock */
        for (int t = 0; t < TASKS; t++) sum += work.runs[t];
        assert_int_equal(sum, done);
        if (pause_us) usleep(pause_us);
    }
    int sum = 0;
    for (int t = 0; t < threads; t++) sum += work.per_thread[t][0];
    assert_int_equal(sum, done);
    assert_int_equal(work.wrong_thread, 0);
    pool_destroy(pool);
}

static void loops_close_together(void **state) {
    (void)state;
    for (int threads = 1; threads <= MAX_THREADS; threads *= 2) run_loops(threads, 300, 0);
}

/* Long enough apart that the workers sleep in between. */
static void loops_far_apart(void **state) {
    (void)state;
    run_loops(2, 40, 2000);
    run_loops(5, 40, 2000);
}

static void slow_task(void *ctx, int task, int thread) {
    (void)thread;
    if (task == 1) usleep(20000);
    ((int *)ctx)[task] = task;
}

/* The caller has to sleep until the last task is done. */
static void a_slow_task_is_waited_for(void **state) {
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(3, &pool, NULL), 0);
    for (int i = 0; i < 20; i++) {
        int out[3] = {-1, -1, -1};
        pool_run(pool, slow_task, out, 3);
        for (int t = 0; t < 3; t++) assert_int_equal(out[t], t);
    }
    pool_destroy(pool);
}

static void no_task_and_no_pool(void **state) {
    (void)state;
    struct pool *pool = NULL;
    struct work work = {.threads = 2};
    assert_int_equal(pool_create(2, &pool, NULL), 0);
    pool_run(pool, add_one, &work, 0);
    assert_int_equal(work.runs[0], 0);
    pool_destroy(pool);
    pool_destroy(NULL);
    for (int i = 0; i < 50; i++) { /* workers that never ran anything */
        assert_int_equal(pool_create(4, &pool, NULL), 0);
        pool_destroy(pool);
    }
    assert_true(cpu_count() >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_close_together),
        cmocka_unit_test(loops_far_apart),
        cmocka_unit_test(a_slow_task_is_waited_for),
        cmocka_unit_test(no_task_and_no_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
