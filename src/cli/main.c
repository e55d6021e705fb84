/* imp: the table of subcommands, and how an error leaves the program. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

const struct command command_table[] = {
    {"run", IN_RUN, "MODEL", 1, 1, "chat in the terminal, or answer one prompt",
     "Opens MODEL and chats with it. With -p, or when standard input is a pipe, one answer is "
     "written to standard output and nothing else. Ctrl-C ends an answer, Ctrl-D the chat.\n\n"
     "In a chat, /help lists what can be said to imp itself.",
     "imp run models/smollm2-nvfp4\n"
     "imp run models/smollm2-nvfp4 -p \"Why is the sky blue?\"\n"
     "echo \"Say it shorter: $TEXT\" | imp run models/smollm2-nvfp4",
     command_run},
    {"bench", IN_BENCH, "MODEL", 1, 1, "measure prefill and decode speed",
     "Runs random prompts and reports tokens a second, the share of the memory's bandwidth that "
     "decoding reached (a probe runs before and after), and a hash of all logits: equal hashes mean "
     "equal arithmetic.",
     "imp bench models/smollm2-nvfp4 -p 512 -n 128 -b 1,8,32\n"
     "imp bench models/smollm2-nvfp4 --json",
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
     "plan. A folder with config.json alone will do.",
     "imp inspect models/smollm2-nvfp4\nimp inspect models/smollm2-nvfp4 --memory --ctx 4096",
     command_inspect},
    {"quantize", IN_QUANTIZE, "SOURCE DESTINATION", 2, 2, "make an NVFP4 checkpoint",
     "SOURCE is a GGUF file, or a folder of BF16, F16 or F32 SafeTensors. DESTINATION is a new "
     "folder, which appears whole or not at all. lm_head, embeddings, routers and norms stay BF16.\n\n"
     "weighted runs 1,024 random tokens through the model first and weighs each error by what the "
     "channel carries; sweep tries 13 scales a block; amax is the makers' rule; none writes BF16.",
     "imp quantize model.gguf models/new\n"
     "imp quantize models/bf16 models/new --format modelopt --method sweep",
     command_quantize},
    {"tokenize", IN_TOKENIZE, "MODEL [TEXT]", 1, 2, "text to token ids and back",
     "Prints the ids of TEXT, or of standard input where TEXT is -, as a JSON array. Special tokens "
     "in the text are recognised unless --plain; none is added unless --add-special. Needs the "
     "tokenizer's files only. --decode prints the text and one newline.",
     "imp tokenize MODEL \"Hello\"\n"
     "imp tokenize MODEL --decode '[19556]'\n"
     "imp tokenize MODEL --chat conversation.json --render",
     command_tokenize},
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

static int unknown_command(const char *name, imp_error *err) {
    struct nearest best = {0};
    for (const struct command *c = command_table; c->name; c++)
        nearest_offer(&best, name, c->name);
    err->code = IMP_ERR_USAGE;
    err->where[0] = 0;
    snprintf(err->message, sizeof err->message, "no command \"%.100s\"%s%s%s; see imp --help", name,
             best.word ? "; did you mean " : "", best.word ? best.word : "", best.word ? "?" : "");
    return IMP_ERR_USAGE;
}

static int run_command(const struct command *command, int argc, char **argv, imp_error *err) {
    struct options options;
    int rc = options_parse(&options, command, argc, argv, err);
    if (rc == 0 && options_flag(&options, OPT_HELP)) {
        help_print_command(stdout, command);
    } else if (rc == 0 && options_flag(&options, OPT_VERSION)) {
        printf("imp %s\n", imp_version());
    } else if (rc == 0) {
        rc = command->run(&options, err);
    }
    options_free(&options);
    return rc;
}

/* imp help [COMMAND], and imp __man [COMMAND] for the build of the man pages. */
static int print_about(bool manual, const char *name, imp_error *err) {
    const struct command *command = name ? command_find(name) : NULL;
    if (name && command == NULL) return unknown_command(name, err);
    if (manual) manual_print(stdout, command);
    else if (command) help_print_command(stdout, command);
    else help_print(stdout);
    return 0;
}

static int dispatch(int argc, char **argv, imp_error *err) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL) {
        help_print(stderr);
        return IMP_ERR_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return print_about(false, NULL, err);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("imp %s\n", imp_version());
        return 0;
    }
    bool help = strcmp(name, "help") == 0;
    if (help || strcmp(name, "__man") == 0)
        return print_about(!help, argc > 2 ? argv[2] : NULL, err);
    const struct command *command = command_find(name);
    if (command == NULL) return unknown_command(name, err);
    return run_command(command, argc - 2, argv + 2, err);
}

int main(int argc, char **argv) {
    imp_error err = {0};
    /* A reader that has seen enough is no failure; a full disk must reach the code that cleans up. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    int rc = dispatch(argc, argv, &err);
    if (rc < 0 && err.message[0]) print_error(&err);
    if (fflush(stdout) != 0 && rc == 0) rc = IMP_ERR_IO;
    return exit_status(rc);
}
