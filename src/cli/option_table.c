#include "cli/options.h"

/* A seed is any 64-bit number; a double holds the bound well enough, parse_uint does the rest. */
#define SEED_MAX    18446744073709551615.0
#define TOKENS_MAX  67108864.0
#define THREADS_MAX 1024.0

#define SAMPLING (IN_RUN | IN_CHAT)

/* Order here is the order in --help, the man pages and /set. */
const struct option option_table[OPT_COUNT] = {
    /* run */
    [OPT_PROMPT] = {"prompt", 'p', KIND_TEXT, false, "TEXT", NULL, NULL, NULL, 0, 0, IN_RUN,
                    "answer this and end; without it, a chat, or one answer to standard input"},
    [OPT_MAX_TOKENS] = {"max-tokens", 'n', KIND_INT, false, "N", "IMP_MAX_TOKENS", NULL, NULL, 1,
                        TOKENS_MAX, SAMPLING,
                        "end an answer after this many tokens (default: when the context is full)"},
    [OPT_TEMPERATURE] = {"temperature", 0, KIND_REAL, false, "T", "IMP_TEMPERATURE", NULL, NULL, 0,
                         100, SAMPLING, "0 takes the most likely token (default: the model's)"},
    [OPT_TOP_P] = {"top-p", 0, KIND_REAL, false, "P", "IMP_TOP_P", NULL, NULL, 0, 1, SAMPLING,
                   "keep the likeliest tokens that sum to P; 1 is off (default: the model's)"},
    [OPT_TOP_K] = {"top-k", 0, KIND_INT, false, "K", "IMP_TOP_K", NULL, NULL, 0, 16777216, SAMPLING,
                   "keep the K likeliest tokens; 0 is off (default: the model's)"},
    [OPT_MIN_P] = {"min-p", 0, KIND_REAL, false, "P", "IMP_MIN_P", NULL, NULL, 0, 1, SAMPLING,
                   "keep tokens at least P times as likely as the likeliest; 0 is off (default: "
                   "the model's)"},
    [OPT_REPETITION_PENALTY] =
        {"repetition-penalty", 0, KIND_REAL, false, "R", "IMP_REPETITION_PENALTY", NULL, NULL, 0.01,
         100, SAMPLING, "divide the logits of tokens seen; 1 is off (default: the model's)"},
    [OPT_PRESENCE_PENALTY] = {"presence-penalty", 0, KIND_REAL, false, "R", "IMP_PRESENCE_PENALTY",
                              "0", NULL, -2, 2, SAMPLING,
                              "subtract from the logits of tokens already generated"},
    [OPT_FREQUENCY_PENALTY] = {"frequency-penalty", 0, KIND_REAL, false, "R",
                               "IMP_FREQUENCY_PENALTY", "0", NULL, -2, 2, SAMPLING,
                               "the same, times how often each was generated"},
    [OPT_SEED] = {"seed", 0, KIND_INT, false, "S", "IMP_SEED", "0", NULL, 0, SEED_MAX, SAMPLING,
                  "of the random draws: equal seeds give equal answers"},
    [OPT_STOP] = {"stop", 0, KIND_TEXT, true, "TEXT", NULL, NULL, NULL, 0, 0, IN_RUN,
                  "end an answer before this text; may be given several times"},
    [OPT_SYSTEM] = {"system", 0, KIND_TEXT, false, "TEXT", "IMP_SYSTEM", NULL, NULL, 0, 0, IN_RUN,
                    "the system message"},
    [OPT_RAW] = {"raw", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_RUN,
                 "no chat template: the model continues the text"},
    [OPT_SHOW_REASONING] = {"show-reasoning", 0, KIND_FLAG, false, NULL, "IMP_SHOW_REASONING", NULL,
                            NULL, 0, 0, IN_RUN,
                            "what the model thinks before it answers, on standard error"},

    /* bench */
    [OPT_PROMPT_TOKENS] = {"prompt-tokens", 'p', KIND_INT, false, "N", NULL, "512", NULL, 1,
                           TOKENS_MAX, IN_BENCH, "length of each prompt"},
    [OPT_DECODE_TOKENS] = {"decode-tokens", 'n', KIND_INT, false, "N", NULL, "128", NULL, 1,
                           TOKENS_MAX, IN_BENCH, "tokens to generate after each prompt"},
    [OPT_BATCH] = {"batch", 'b', KIND_TEXT, false, "N,N", NULL, "1", NULL, 0, 0, IN_BENCH,
                   "sequences at a time; one row of results for each number"},
    [OPT_REPEATS] = {"repeats", 'r', KIND_INT, false, "N", NULL, "1", NULL, 1, 1000, IN_BENCH,
                     "measure each row so often and report the median"},
    [OPT_BENCH_SEED] = {"seed", 0, KIND_INT, false, "S", NULL, "0", NULL, 0, SEED_MAX, IN_BENCH,
                        "of the random prompts"},
    [OPT_CSV] = {"csv", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_BENCH | IN_INSPECT,
                 "results as CSV"},
    [OPT_TOKENIZER] = {"tokenizer", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_BENCH,
                       "measure the tokenizer alone, on the text of --text"},

    /* score */
    [OPT_TEXT] = {"text", 0, KIND_FILE, false, "FILE", NULL, NULL, NULL, 0, 0, IN_SCORE | IN_BENCH,
                  "the text to measure on"},
    [OPT_WINDOW] = {"window", 0, KIND_INT, false, "N", NULL, "1024", NULL, 2, TOKENS_MAX, IN_SCORE,
                    "cut the text into windows of N tokens, each read from an empty cache"},
    [OPT_TOKENS] = {"tokens", 0, KIND_INT, false, "N", NULL, NULL, NULL, 2, TOKENS_MAX, IN_SCORE,
                    "only the first N tokens of the text"},
    [OPT_REFERENCE] =
        {"reference", 0, KIND_FILE, false, "MODEL2", NULL, NULL, NULL, 0, 0, IN_SCORE,
         "also the KL divergence from, and top-1 agreement with, this model; with "
         "numerics.activations=nvfp4 the model itself without that, if none is given"},
    [OPT_IDS] = {"ids", 0, KIND_FILE, true, "FILE", NULL, NULL, NULL, 0, 0, IN_SCORE | IN_TRACE,
                 "a JSON array of token ids to run; several run together in one batch"},
    [OPT_LOGITS] = {"logits", 0, KIND_FILE, false, "OUT.npy", NULL, NULL, NULL, 0, 0, IN_SCORE,
                    "write their logits, float32 [tokens, vocab]; several go to OUT.0.npy and on"},

    [OPT_TRACE] = {"trace", 0, KIND_FILE, false, "FILE", NULL, NULL, "debug.trace", 0, 0,
                   IN_RUN | IN_SCORE,
                   "write what each stage of the model leaves, for imp trace; - for a table on "
                   "standard error"},

    /* inspect */
    [OPT_TENSORS] = {"tensors", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_INSPECT,
                     "only the tensors"},
    [OPT_WEIGHTS] = {"weights", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_INSPECT,
                     "statistics of the weights, and what is wrong with the checkpoint"},
    [OPT_OTHER_MODEL] = {"reference", 0, KIND_FILE, false, "MODEL2", NULL, NULL, NULL, 0, 0,
                         IN_INSPECT,
                         "with --weights: compare with the same model in BF16 or another format"},
    [OPT_MEMORY] = {"memory", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_INSPECT,
                    "only the memory plan"},

    /* quantize */
    [OPT_FORMAT] = {"format", 0, KIND_CHOICE, false, "compressed-tensors|modelopt", NULL,
                    "compressed-tensors", NULL, 0, 0, IN_QUANTIZE, "the dialect to write"},
    [OPT_METHOD] = {"method", 0, KIND_CHOICE, false, "none|amax|sweep|weighted", NULL, "weighted",
                    NULL, 0, 0, IN_QUANTIZE, "how block scales are chosen; none writes BF16"},

    /* synth */
    [OPT_SYNTH_FORMAT] = {"format", 0, KIND_CHOICE, false, "bf16|compressed-tensors|modelopt|mxfp4",
                          NULL, "compressed-tensors", NULL, 0, 0, IN_SYNTH,
                          "how weights are stored; mxfp4 is for gpt_oss"},
    [OPT_LAYERS] = {"layers", 0, KIND_INT, false, "N", NULL, NULL, NULL, 1, 4096, IN_SYNTH,
                    "keep N layers, every kind of the model's among them (default: all)"},
    [OPT_VOCAB] = {"vocab", 0, KIND_INT, false, "N", NULL, NULL, NULL, 257, 16777216, IN_SYNTH,
                   "a vocabulary of N with a tokenizer of bytes (default: the model's)"},
    [OPT_SYNTH_SEED] = {"seed", 0, KIND_INT, false, "S", NULL, "0", NULL, 0, SEED_MAX, IN_SYNTH,
                        "of the weights: equal seeds give equal files"},

    /* trace */
    [OPT_TRACE_A] = {"a", 0, KIND_TEXT, true, "SECTION.KEY=VALUE", NULL, NULL, NULL, 0, 0, IN_TRACE,
                     "a setting of the first run; may be given several times"},
    [OPT_TRACE_B] = {"b", 0, KIND_TEXT, true, "SECTION.KEY=VALUE", NULL, NULL, NULL, 0, 0, IN_TRACE,
                     "a setting of the second run"},
    [OPT_TOLERANCE] = {"tolerance", 0, KIND_REAL, false, "T", NULL, "0", NULL, 0, 1000, IN_TRACE,
                       "rows are equal where their differences, relative to the row, are at most "
                       "T; 0 asks for equal bits"},

    /* tokenize */
    [OPT_PLAIN] = {"plain", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_TOKENIZE,
                   "text that looks like a special token stays text"},
    [OPT_ADD_SPECIAL] = {"add-special", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0,
                         IN_TOKENIZE,
                         "add the special tokens that the model expects around a text"},
    [OPT_TEXTS] = {"texts", 0, KIND_FILE, false, "FILE", NULL, NULL, NULL, 0, 0, IN_TOKENIZE,
                   "a JSON array of texts, to an array of id arrays"},
    [OPT_DECODE] = {"decode", 0, KIND_TEXT, false, "IDS", NULL, NULL, NULL, 0, 0, IN_TOKENIZE,
                    "a JSON array of ids, to text"},
    [OPT_CHAT] = {"chat", 0, KIND_FILE, false, "FILE", NULL, NULL, NULL, 0, 0, IN_TOKENIZE,
                  "a JSON conversation, or several under \"cases\", through the chat template"},
    [OPT_RENDER] = {"render", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_TOKENIZE,
                    "with --chat: the rendered text in place of its ids"},

    [OPT_CHAT_TEMPLATE] = {"chat-template", 0, KIND_FILE, false, "FILE", NULL, NULL, NULL, 0, 0,
                           IN_TOKENIZE | IN_RUN, "a Jinja file in place of the model's template"},

    /* common */
    [OPT_DEVICE] = {"device", 0, KIND_TEXT, false, "cpu|cuda[:N]|auto", "IMP_DEVICE", NULL,
                    "runtime.device", 0, 0, IN_ENGINE, "where to run (default: auto)"},
    [OPT_THREADS] = {"threads", 't', KIND_INT, false, "N", "IMP_THREADS", NULL, "runtime.threads",
                     1, THREADS_MAX, IN_ENGINE, "threads of the CPU (default: every core)"},
    [OPT_CTX] = {"ctx", 'c', KIND_INT, false, "N", "IMP_CTX", NULL, "runtime.context", 1,
                 TOKENS_MAX, IN_ENGINE, "context in tokens (default: the model's, if it fits)"},
    [OPT_SET] = {"set", 0, KIND_TEXT, true, "SECTION.KEY=VALUE", NULL, NULL, NULL, 0, 0, IN_ENGINE,
                 "any setting of the engine; may be given several times"},
    [OPT_CONFIG] = {"config", 0, KIND_FILE, false, "FILE", "IMP_CONFIG", NULL, NULL, 0, 0,
                    IN_ENGINE, "read settings from an ini file"},
    [OPT_JSON] = {"json", 0, KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_ENGINE,
                  "results as JSON"},
    [OPT_QUIET] = {"quiet", 'q', KIND_FLAG, false, NULL, "IMP_QUIET", NULL, NULL, 0, 0, IN_ENGINE,
                   "nothing but results and errors"},
    [OPT_VERBOSE] = {"verbose", 'v', KIND_FLAG, false, NULL, "IMP_VERBOSE", NULL, NULL, 0, 0,
                     IN_ENGINE, "say what is being done"},
    [OPT_VERSION] = {"version", 'V', KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_ALL,
                     "print the version and end"},
    [OPT_HELP] = {"help", 'h', KIND_FLAG, false, NULL, NULL, NULL, NULL, 0, 0, IN_ALL,
                  "print this and end"},
};
