#!/bin/sh
# The heavy comparison, live: `make oracle`.
#   oracle.sh VENV GGUF WORK IMP
# Quantises the GGUF file by imp in every dialect and method, loads the results by the makers' own
# code, scores them by transformers, and compares imp's logits and perplexities on the makers' files.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$1 gguf=$2 work=$3 imp=$4
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import modelopt, llmcompressor, gguf, pytest' 2>/dev/null ||
    "$venv/bin/pip" install -q -r "$here/requirements.txt" pytest
python=$venv/bin/python
[ -d "$work/smollm2-modelopt" ] ||
    "$python" "$here/make_checkpoints.py" --gguf "$gguf" --large "$work"
for format in compressed-tensors modelopt; do
    for method in amax sweep weighted; do
        out=$work/imp-$method-$format
        rm -rf "$out"
        "$imp" quantize "$gguf" "$out" --method $method --format $format
        "$python" "$here/check_written.py" "$out"
    done
done
"$python" "$here/ppl.py" --gguf "$gguf" --model original="$work/smollm2" \
    --model imp-amax="$work/imp-amax-compressed-tensors" \
    --model imp-sweep="$work/imp-sweep-compressed-tensors" \
    --model imp-weighted="$work/imp-weighted-compressed-tensors"
# One tiny model of every family, in both dialects.
for model in "$here"/../data/models/tiny-*; do
    grep -q '"quant_method": "[^m]\|"quant_method": "modelopt' "$model/config.json" && continue
    for format in compressed-tensors modelopt; do
        out=$work/imp-$(basename "$model")-$format
        rm -rf "$out"
        "$imp" quantize "$model" "$out" --format $format --quiet
        set -- "$@" "$out"
    done
done
shift 4
"$python" "$here/check_written.py" --imp "$imp" "$@"
# Gemma 3 270M: the import, imp's methods and both makers' files, by transformers and by imp.
gemma=$work/gemma-3-270m-q4_k_m.gguf
"$here/fetch_gemma.sh" "$python" "$work"
[ -d "$work/gemma3-modelopt" ] ||
    "$python" "$here/make_checkpoints.py" --gguf "$gemma" --large "$work" --name gemma3
for method in none amax sweep weighted; do
    rm -rf "$work/imp-gemma3-$method"
    "$imp" quantize "$gemma" "$work/imp-gemma3-$method" --method $method --format modelopt
done
for folder in gemma3 gemma3-nvfp4a16 gemma3-modelopt; do
    cp "$work/imp-gemma3-none/tokenizer.json" "$work/imp-gemma3-none/tokenizer_config.json" \
        "$work/$folder"
done
"$python" "$here/check_written.py" "$work/imp-gemma3-amax" "$work/imp-gemma3-sweep" \
    "$work/imp-gemma3-weighted"
"$python" "$here/ppl.py" --gguf "$gemma" --tokens 2048 --imp "$imp" \
    --model original="$work/gemma3" --model import="$work/imp-gemma3-none" \
    --model llm-compressor="$work/gemma3-nvfp4a16" --model modelopt="$work/gemma3-modelopt" \
    --model imp-amax="$work/imp-gemma3-amax" --model imp-sweep="$work/imp-gemma3-sweep" \
    --model imp-weighted="$work/imp-gemma3-weighted"
IMP_BIN=$imp IMP_LARGE=$work "$python" -m pytest -q "$here/../python/test_golden.py"
