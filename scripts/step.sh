# shellcheck shell=sh
# Sourced by dev and scripts/*.sh. Everything here speaks on stderr: stdout belongs to imp.

say() { printf '%s\n' "$*" >&2; }

# step WHAT COMMAND...: runs a program without input, shows what it does and how long it took (on a
# terminal also its last line, as it goes), and shows the end of its output if it fails.
step() {
    step_what=$1
    shift
    step_log=$(mktemp "${TMPDIR:-/tmp}/imp-step.XXXXXX")
    step_start=$(date +%s)
    step_rc=0
    step_ticker=""
    if [ -t 2 ]; then
        step_tick &
        step_ticker=$!
    else
        say "$step_what ..."
    fi
    "$@" >"$step_log" 2>&1 </dev/null || step_rc=$?
    [ -z "$step_ticker" ] || { kill "$step_ticker" && wait "$step_ticker"; } 2>/dev/null || :
    [ ! -t 2 ] || printf '\r\033[K' >&2
    if [ "$step_rc" != 0 ]; then
        say "$step_what: failed (exit status $step_rc). The end of its output:"
        tail -n 40 "$step_log" >&2
    else
        say "$step_what: done in $(($(date +%s) - step_start)) s"
    fi
    rm -f "$step_log"
    return "$step_rc"
}

# Ends by itself when the script is gone: a Ctrl-C does not reach a background job.
step_tick() {
    while kill -0 $$ 2>/dev/null; do
        step_line=$(tail -n 1 "$step_log" 2>/dev/null | tr -d '\r\033' | cut -c 1-40)
        printf '\r\033[K%s ... %s s  %s' "$step_what" "$(($(date +%s) - step_start))" \
            "$step_line" >&2
        sleep 1
    done
}
