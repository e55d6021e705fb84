#!/bin/sh
# Writes tests/data/models, tests/data/golden and tests/data/nvfp4 again with the makers' tools: `make golden`.
#   golden.sh VENV GGUF WORK
# VENV is made from requirements.txt if it is missing (3 GB); WORK keeps the large checkpoints.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$1 gguf=$2 work=$3
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import modelopt, llmcompressor, gguf' 2>/dev/null ||
    "$venv/bin/pip" install -q -r "$here/requirements.txt"
python=$venv/bin/python
"$python" "$here/make_checkpoints.py"
"$python" "$here/make_golden.py"
"$python" "$here/make_w4a4.py"
"$python" "$here/make_activations.py"
[ -d "$work/smollm2-modelopt" ] ||
    "$python" "$here/make_checkpoints.py" --gguf "$gguf" --large "$work"
"$python" "$here/make_golden.py" --large "$work/smollm2" "$work/smollm2-nvfp4a16" \
    "$work/smollm2-modelopt"
"$python" "$here/ppl.py" --gguf "$gguf" --write --model original="$work/smollm2" \
    --model llm-compressor="$work/smollm2-nvfp4a16" --model modelopt="$work/smollm2-modelopt"
