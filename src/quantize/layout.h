/* Where every tensor of the new checkpoint goes: shards, names, order.
 *
 * Owns its arrays and names until layout_free; borrows the source. Immutable once made. */
#ifndef IMP_QUANTIZE_LAYOUT_H
#define IMP_QUANTIZE_LAYOUT_H

#include "quantize/rules.h"
#include "quantize/safetensors_writer.h"
#include "quantize/source.h"

enum layout_dialect { LAYOUT_COMPRESSED_TENSORS, LAYOUT_MODELOPT };

struct layout_tensor { /* of one source tensor */
    bool quantized;
    size_t shard;
    size_t plain;                 /* index in the shard's tensors, if not quantised */
    size_t codes, scales, global; /* if quantised */
    size_t group;                 /* of those with one multiplier: 0 .. group_count-1 */
};

struct layout_shard {
    char name[64];
    size_t first, end; /* source tensors */
    struct writer_tensor *tensors;
    size_t count;
    uint64_t bytes; /* of data */
};

struct layout {
    struct layout_tensor *tensors; /* [source->tensor_count] */
    size_t tensor_count;
    size_t group_count, quantized_count;
    struct layout_shard *shards;
    size_t shard_count;
    struct arena arena;
};

/* Shards hold at most shard_bytes, or one source tensor. QUANTIZE_NONE quantises nothing. */
void layout_make(const struct source *source, enum quantize_method method,
                 enum layout_dialect dialect, uint64_t shard_bytes, struct layout *out);
void layout_free(struct layout *layout); /* zeroed is fine */

/* model.safetensors.index.json; wanted if there are several shards. */
void layout_index_json(const struct layout *layout, struct str *out);

#endif
