/* The table of subcommands: --help, man pages and completion are made from it too. */
#include <string.h>

#include "cli/cli.h"

const struct command command_table[] = {
    {"run", IN_RUN, "MODEL", 1, 1, "chat in the terminal, or answer one prompt",
     "Opens MODEL and chats with it. With -p, or when standard input is a pipe, one answer is "
     "written to standard output and nothing else. Ctrl-C ends an answer, Ctrl-D the chat.\n\n"
     "What a model thinks before it answers is not part of the answer: on a terminal it is folded "
     "into a line that counts its tokens, --show-reasoning or /think shows it. Tool calls are "
     "shown "
     "on standard error, and with --json as `tool_calls`. The model's chat template tells how both "
     "are marked; the setting text.reply_format overrides it, and with --raw all is text.\n\n"
     "In a chat, /help lists what can be said to imp itself.",
     "imp run models/smollm2-nvfp4\n"
     "imp run models/smollm2-nvfp4 -p \"Why is the sky blue?\"\n"
     "echo \"Say it shorter: $TEXT\" | imp run models/smollm2-nvfp4",
     command_run},
    {"bench", IN_BENCH, "MODEL", 1, 1, "measure prefill and decode speed",
     "Runs random prompts and reports tokens a second, the share of the memory's bandwidth that "
     "decoding reached (on a CPU: a probe runs before and after; on a GPU 0, not measured), and a "
     "hash of all logits: equal hashes mean equal arithmetic.\n\n"
     "With --tokenizer, only the time to load the tokenizer and the speed of text to ids and back, "
     "on one thread; needs the tokenizer's files only.",
     "imp bench models/smollm2-nvfp4 -p 512 -n 128 -b 1,8,32\n"
     "imp bench models/smollm2-nvfp4 --json\n"
     "imp bench models/smollm2-nvfp4 --tokenizer --text book.txt",
     command_bench},
    {"score", IN_SCORE, "MODEL", 1, 1, "perplexity, logits, comparison with a reference",
     "With --text, the perplexity of a text: it is encoded whole, without special tokens, cut into "
     "windows that do not overlap, each read from an empty cache; the mean is over the predicted "
     "tokens (all but the first of each window). With --reference also the mean KL divergence from "
     "that model and how often both name the same next token.\n\n"
     "With --ids, token ids are run as they are and --logits takes the logits of every position.",
     "imp score MODEL --text book.txt --tokens 8192 --json\n"
     "imp score MODEL --ids a.json --ids b.json --logits out.npy",
     command_score},
    {"inspect", IN_INSPECT, "MODEL", 1, 1, "what is in a checkpoint, and what it will need",
     "Shows tensors, number formats, the dialect of the quantisation, the family and the memory "
     "plan. A folder with config.json alone will do.\n\n"
     "With --weights every linear is read once: zero codes, block scales, ranges of channels, "
     "blocks that outliers dominate, the expected error; and the other files are held against each "
     "other: tensors, quantisation, tokenizer, chat template, end tokens. Findings are broken, "
     "weak "
     "or notes, and say what they were judged against: the format, a normal distribution alone, "
     "the same part in other layers or experts, the model of --reference, or another file. The "
     "exit "
     "status is 2 if anything is broken.",
     "imp inspect models/smollm2-nvfp4\nimp inspect models/smollm2-nvfp4 --memory --ctx 4096\n"
     "imp inspect models/nvfp4 --weights --reference models/bf16",
     command_inspect},
    {"quantize", IN_QUANTIZE, "SOURCE DESTINATION", 2, 2, "make an NVFP4 checkpoint",
     "SOURCE is a folder of BF16, F16 or F32 SafeTensors, gpt-oss's MXFP4 among them, or a GGUF "
     "file of llama, qwen2, qwen3, qwen3moe or gemma3. DESTINATION is a new folder, which appears "
     "whole or not at all. Attention, MLP and experts become NVFP4; experts are written one by "
     "one. lm_head, embeddings, routers, norms, gated delta nets, per-layer embeddings, towers of "
     "other senses and multi-token prediction stay BF16.\n\n"
     "weighted runs 1,024 random tokens through the model first and weighs each error by what the "
     "channel carries, in every expert apart; sweep tries 13 scales a block; amax is the makers' "
     "rule; none writes BF16.",
     "imp quantize model.gguf models/new\n"
     "imp quantize models/bf16 models/new --format modelopt --method sweep",
     command_quantize},
    {"synth", IN_SYNTH, "CONFIG DESTINATION", 2, 2, "make a checkpoint of random weights",
     "CONFIG is a config.json, or the folder of one, of any family that imp runs. DESTINATION is a "
     "new folder, which appears whole or not at all: all tensors of that text model in their real "
     "shapes, with random numbers of the usual sizes, for measuring speed and for tests. Equal "
     "seeds give equal files, with any number of threads, and about the same model in every "
     "format.\n\n"
     "Tokenizer and chat template are CONFIG's where it has them, else a tokenizer that makes a "
     "token of each byte.",
     "imp synth models/qwen3-30b/config.json models/random\n"
     "imp synth models/qwen3-30b models/small --layers 4 --vocab 1024 --format bf16",
     command_synth},
    {"tokenize", IN_TOKENIZE, "MODEL [TEXT]", 1, 2, "text to token ids and back",
     "Prints the ids of TEXT, or of standard input where TEXT is -, as a JSON array. Special "
     "tokens "
     "in the text are recognised unless --plain; none is added unless --add-special. Needs the "
     "tokenizer's files only. --decode prints the text and one newline.",
     "imp tokenize MODEL \"Hello\"\n"
     "imp tokenize MODEL --decode '[19556]'\n"
     "imp tokenize MODEL --chat conversation.json --render",
     command_tokenize},
    {"trace", IN_TRACE, "FILE|MODEL [FILE2]", 1, 2, "find where two runs of a model part",
     "Two files that --trace has written are compared: rows are matched by layer, stage, sequence "
     "and position, however the prompts were cut, and the first that differs is named, with a "
     "line for each layer of how the difference grows. Without FILE2, what the stages of one run "
     "left. With MODEL and --ids the model is run twice, under the settings --a and --b.\n\n"
     "A row differs by the largest of three: its largest magnitude, its norm, and a sum under "
     "fixed random signs, which moves by about the norm of the difference. Other experts, and a "
     "NaN on one side, are infinitely apart. Without --tolerance rows are equal in all bits. The "
     "exit status is 0 for equal runs and 2 for different ones.\n\n"
     "A file is CSV: a line for each row of each stage, with its size, counts of NaN and Inf, and "
     "a hash of its values. Equal runs with equal chunks give equal files.",
     "imp score MODEL --ids a.json --trace fast.csv\n"
     "imp score MODEL --ids a.json --trace plain.csv --set runtime.reference=true\n"
     "imp trace fast.csv plain.csv --tolerance 0.02\n"
     "imp trace MODEL --ids a.json --a runtime.device=cuda --b runtime.device=cpu",
     command_trace},
    {"completion", IN_COMPLETION, "bash|zsh|fish", 1, 1, "print a completion script",
     "Prints a script for the shell to source.", "eval \"$(imp completion bash)\"",
     command_completion},
    {NULL, 0, NULL, 0, 0, NULL, NULL, NULL, NULL},
};

const struct command *command_find(const char *name) {
    for (const struct command *c = command_table; c->name; c++) {
        if (strcmp(c->name, name) == 0) return c;
    }
    return NULL;
}
