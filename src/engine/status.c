#include "imp/imp.h"

const char *imp_version(void) {
    return IMP_VERSION;
}

const char *imp_status_name(int status) {
    static const char *const names[] = {"ok",     "usage",   "file",      "unsupported",
                                        "io",     "memory",  "request",   "template",
                                        "device", "numeric", "cancelled", "internal"};
    int i = -status;
    return i >= 0 && i < (int)(sizeof names / sizeof names[0]) ? names[i] : "unknown";
}
