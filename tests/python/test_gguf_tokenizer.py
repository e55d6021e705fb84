"""The tokenizer of a GGUF file: `imp quantize` writes a tokenizer.json of it, which gives imp and the
package `tokenizers` the ids that the vocabulary's own package gave.

Byte-level: the vocabularies of tests/data/tokenizer written as GGUF keys. SentencePiece: spm.json,
whose ids are those of the package `sentencepiece`.
"""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")
from tokenizer_strings import generate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data" / "tokenizer"
BIN = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6

pytestmark = pytest.mark.skipif(not os.access(BIN, os.X_OK), reason=f"{BIN} is not there")


def write_model(path, vocab):
    """One layer of a llama with that many rows of the embedding; `tokenizer` adds its keys."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(1)
    w.add_context_length(64)
    w.add_embedding_length(16)
    w.add_feed_forward_length(16)
    w.add_head_count(1)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(1e4)
    one, square = np.ones(16, np.float32), np.eye(16, dtype=np.float32)
    for name in "attn_norm", "ffn_norm":
        w.add_tensor(f"blk.0.{name}.weight", one)
    for name in "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down":
        w.add_tensor(f"blk.0.{name}.weight", square)
    w.add_tensor("output_norm.weight", one)
    w.add_tensor("token_embd.weight", np.ones((vocab, 16), np.float32))
    return w


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def quantize(source, folder):
    done = subprocess.run([BIN, "quantize", source, folder, "--method", "none"],
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def encode(folder, texts, tmp_path, *flags):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(texts), encoding="ascii")
    done = subprocess.run([BIN, "tokenize", folder, "--texts", path, *flags], capture_output=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def texts_of_cases():
    lines = (DATA / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("family, pre, bos", [
    ("smollm2", "smollm", None), ("llama3", "llama-bpe", "<|begin_of_text|>"),
    ("qwen2", "qwen2", None), ("qwen35", "qwen35", None), ("tekken", "tekken", "<s>"),
    ("o200k", "gpt-4o", None)])
def test_byte_level(family, pre, bos, tmp_path):
    source = (DATA / family / "tokenizer.json").read_text(encoding="utf-8")
    doc = json.loads(source)
    added = {a["id"]: a for a in doc["added_tokens"]}
    tokens = {i: t for t, i in doc["model"]["vocab"].items()}
    tokens |= {i: a["content"] for i, a in added.items()}
    w = write_model(tmp_path / "m.gguf", len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([tokens[i] for i in range(len(tokens))])
    w.add_token_types([NORMAL if i not in added else CONTROL if added[i]["special"] else USER
                       for i in range(len(tokens))])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in doc["model"]["merges"]])
    if bos:
        w.add_bos_token_id(next(i for i, t in tokens.items() if t == bos))
    finish(w)
    quantize(tmp_path / "m.gguf", tmp_path / "m")
    texts = texts_of_cases() + list(generate(300, 5, [a["content"] for a in added.values()]))
    own = tokenizers.Tokenizer.from_str(source)
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    got = encode(tmp_path / "m", texts, tmp_path)
    around = encode(tmp_path / "m", texts[:5], tmp_path, "--add-special")
    for text, ids in zip(texts, got, strict=True):
        assert ids == own.encode(text, add_special_tokens=False).ids, ascii(text)
        assert ids == written.encode(text, add_special_tokens=False).ids, ascii(text)
        assert written.decode(ids, skip_special_tokens=False) == \
            own.decode(ids, skip_special_tokens=False), ascii(text)
    assert around == [own.encode(text).ids for text in texts[:5]]


def test_sentencepiece(tmp_path):
    doc = json.loads((DATA / "spm.json").read_text(encoding="ascii"))
    w = write_model(tmp_path / "m.gguf", len(doc["pieces"]))
    w.add_tokenizer_model("llama")
    w.add_token_list(doc["pieces"])
    w.add_token_scores(doc["scores"])
    w.add_token_types(doc["types"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    finish(w)
    quantize(tmp_path / "m.gguf", tmp_path / "m")
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    texts = texts_of_cases()
    got = encode(tmp_path / "m", texts, tmp_path)
    compared = 0
    for text, ids, want in zip(texts, got, doc["ids"], strict=True):
        assert want is None or ids == want, ascii(text)
        assert ids == written.encode(text, add_special_tokens=False).ids, ascii(text)
        compared += want is not None
    assert compared > 450
    more = list(generate(500, 6, ["<s>", "</s>"]))
    for text, ids in zip(more, encode(tmp_path / "m", more, tmp_path), strict=True):
        assert ids == written.encode(text, add_special_tokens=False).ids, ascii(text)
    assert encode(tmp_path / "m", ["a"], tmp_path, "--add-special")[0][0] == 1
