/* The file of debug.trace: what every stage of every step left, one line of CSV a row.
 *
 *     seq,position,token,layer,stage,type,cols,max,l2,probe,nan,inf,hash
 *
 * seq numbers the requests in order of submission; layer is -1 outside of layers. type is f32, act
 * (an input of a matrix product, read as fp32) or i32. max is the largest magnitude and l2 the
 * norm, both over finite values. probe is the sum of the values under fixed random signs: what
 * changes a row but not its size, as a wrong rotation does, moves it by about the norm of the
 * difference. hash is XXH32 of the row's values as 32-bit little-endian words. Lines stand in the
 * order of the pass, so that equal runs give equal files; `imp trace` reads them.
 *
 * Used by the engine's thread. A trace only reads: the traced step gives the same bytes. */
#ifndef IMP_ENGINE_TRACE_H
#define IMP_ENGINE_TRACE_H

#include "engine/scheduler.h"

struct trace;

/* Creates the file. model is open, and outlives the trace. */
int trace_open(const char *path, const struct model *model, const struct step_limits *max,
               struct trace **out, struct imp_error *err);
void trace_close(struct trace *trace); /* NULL is fine */

/* What to give to model_forward for this step; NULL for no trace. */
const struct model_tap *trace_begin(struct trace *trace, const struct plan *plan,
                                    const struct batch *batch);
/* The step's lines are in the file when it returns; NULL is fine. */
int trace_end(struct trace *trace, struct imp_error *err);

#endif
