/* Caps on sizes, counts and depths that come from input. The only place where they stand. */
#ifndef IMP_BASE_CAPS_H
#define IMP_BASE_CAPS_H

#define CAP_JSON_DEPTH         256
#define CAP_CONFIG_BYTES       (16u << 20)
#define CAP_SAFETENSORS_HEADER 100000000u   /* the format's own rule */
#define CAP_INDEX_BYTES        (256u << 20) /* 180,000 tensors take 20 MB */
#define CAP_TENSORS            1000000u
#define CAP_TENSOR_NAME        1024u
#define CAP_TENSOR_DIMS        8
#define CAP_SHARDS             10000u
#define CAP_LAYERS             4096
#define CAP_EXPERTS            4096
#define CAP_VOCAB              (1 << 24)
#define CAP_HIDDEN             (1 << 20)
#define CAP_HEADS              (1 << 14)
#define CAP_CONTEXT            (1 << 26)
#define CAP_GGUF_KEYS          100000u
#define CAP_GGUF_KEY_BYTES     65535u
#define CAP_GGUF_ALIGNMENT     (1u << 20)
#define CAP_TOKENIZER_BYTES    (256u << 20)
#define CAP_TOKENIZER_STEPS    32  /* normalizers, pre-tokenizers or decoders in a row */
#define CAP_TOKENIZER_DEPTH    8   /* Sequence inside Sequence */
#define CAP_TOKENIZER_CONTENT  64  /* bytes that a Replace or Prepend may put in */
#define CAP_TOKENIZER_GROWTH   256 /* times that text may grow in all of them together */
#define CAP_TOKEN_BYTES        65535u
#define CAP_TEKKEN_CUTS        (1u << 28) /* squares of its tokens' lengths; real ones: 9 M */
#define CAP_ADDED_TOKENS       100000u
#define CAP_ADDED_TOKEN_BYTES  1024u /* every place of a text may be read that far */
#define CAP_PATTERN_BYTES      8192u /* of one regular expression */
#define CAP_PATTERN_DEPTH      32
#define CAP_PATTERN_REPEAT     1000
#define CAP_PATTERN_STEPS      16 /* of one match, for each byte that it may look at */
#define CAP_PATTERN_READS      64 /* of each byte of a text, by long matches together */
#define CAP_PATTERN_STACK      (1u << 20)
#define CAP_TEMPLATE_BYTES     (4u << 20)
#define CAP_TEMPLATE_DEPTH     200       /* nesting of statements, expressions and macro calls */
#define CAP_TEMPLATE_STACK     2000      /* evaluations inside each other, macro calls included */
#define CAP_TEMPLATE_NAMES     20000     /* different names in one template */
#define CAP_TEMPLATE_DIGITS    20000     /* decimal digits of an int, about */
#define CAP_TEMPLATE_LITERAL   4300      /* digits of an int that is written out: CPython's limit */
#define CAP_TEMPLATE_WIDTH     (1 << 20) /* of a formatted value */
#define CAP_TEMPLATE_PRECISION 400
#define CAP_TEMPLATE_INDENT    10000
#define CAP_TEMPLATE_RANGE     100000       /* items of range(): the sandbox's limit */
#define CAP_TEMPLATE_MEMORY    (256u << 20) /* arena of one template, and of one rendering */
#define CAP_TEMPLATE_STEPS     10000000u    /* evaluation steps of one rendering */
#define CAP_TEMPLATE_OUTPUT    (64u << 20)
#define CAP_STOP_STRINGS       64
#define CAP_STOP_BYTES         4096
#define CAP_LOGPROBS           20
#define CAP_REPLY_HELD         16384u /* bytes of a reply that may wait for what follows them */
#define CAP_REPLY_NAME         256u /* bytes of a tool's name, of a call's id, of a header's word */
#define CAP_REPLY_BLANKS       64u  /* white space beside a call or reasoning that is dropped */
#define CAP_REPLY_CALLS        256u /* calls in one reply */
#define CAP_REPLY_TOOLS_BYTES  (16u << 20)
#define CAP_TRACE_BYTES        (2048u << 20)

#endif
