/* For each SafeTensors file named on the command line one line: "ok", or "refused" and why. */
#include <stdio.h>

#include "load/safetensors.h"

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct safetensors st;
        struct imp_error err;
        if (safetensors_open(argv[i], &st, &err) < 0)
            printf("refused %s\n", err.message);
        else
            puts("ok");
        safetensors_close(&st);
    }
    return 0;
}
