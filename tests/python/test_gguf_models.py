"""The tiny models as GGUF files, written by PyPI's gguf as llama.cpp's converter does it, imported
again: the same tensors, the same logits to the bit, and what cannot be imported refused by name."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
import exact  # noqa: E402

MODELS = ROOT / "tests" / "data" / "models"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))

# folder, architecture in GGUF
CASES = {"tiny-gqa": "llama", "tiny-smol": "llama", "tiny-mistral": "llama", "tiny-qwen2": "qwen2",
         "tiny-qwen3": "qwen3", "tiny-qwen3-moe": "qwen3moe", "tiny-gemma3-text": "gemma3"}
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}
GEMMA = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
         "post_feedforward_layernorm": "post_ffw_norm"}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
       "lm_head.weight": "output.weight"}
# What a GGUF file cannot say of the tiny models, made as it always is.
FIXED = {"tiny-gemma3-text": {"query_pre_attn_scalar": 16},
         "tiny-qwen3-moe": {"mlp_only_layers": [], "decoder_sparse_step": 1}}


def permute(w, heads):
    d = len(w) // heads
    return w.reshape(heads, 2, d // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def stacked(tensors):
    """name -> fp32, experts one by one in stacks of [E, rows, cols]."""
    out, experts = {}, {}
    for name, (dtype, data) in tensors.items():
        data = exact.bf16_to_f32(data) if dtype == "BF16" else data.astype(np.float32)
        if ".experts." not in name:
            out[name] = data
            continue
        before, after = name.split(".experts.")
        number, leaf = after.split(".", 1)
        experts.setdefault(f"{before}.experts.{leaf}", {})[int(number)] = data
    for name, parts in experts.items():
        out[name] = np.stack([parts[e] for e in range(len(parts))])
    return out


def gguf_name(name, arch):
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)
    module, suffix = rest.rsplit(".", 1)
    if ".experts." in rest:
        return f"blk.{layer}.{NAMES['mlp.' + module.rsplit('.', 1)[1]]}_exps.{suffix}"
    names = {**NAMES, **GEMMA} if arch == "gemma3" else NAMES
    return f"blk.{layer}.{names[module]}.{suffix}"


def add_tokenizer(writer, folder):
    model = json.loads((folder / "tokenizer.json").read_text())
    special = {t["id"] for t in model["added_tokens"]}
    vocab = sorted(model["model"]["vocab"].items(), key=lambda x: x[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([t for t, _ in vocab])
    writer.add_token_types([3 if i in special else 1 for _, i in vocab])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m
                             for m in model["model"]["merges"]])
    writer.add_eos_token_id(2)


def write(folder, path, arch, drop=(), change=lambda writer: None):
    config = json.loads((folder / "config.json").read_text())
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config.get("rope_parameters") or {}
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config.get("rope_theta") or rope.get("rope_theta"))
    if arch == "gemma3":
        w.add_sliding_window(config["sliding_window"])
        w.add_uint32("gemma3.attention.sliding_window_pattern", 3)
    if arch == "qwen3moe":
        w.add_expert_count(config["num_experts"])
        w.add_expert_used_count(config["num_experts_per_tok"])
        w.add_expert_feed_forward_length(config["moe_intermediate_size"])
    add_tokenizer(w, folder)
    change(w)
    for name, data in stacked(exact.read_folder(folder)).items():
        if name in drop:
            continue
        if arch == "llama" and ".q_proj." in name:
            data = permute(data, heads)
        if arch == "llama" and ".k_proj." in name:
            data = permute(data, kv)
        if arch == "gemma3" and "norm" in name:
            data = data + np.float32(1)
        w.add_tensor(gguf_name(name, arch), np.ascontiguousarray(data))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def source(name, work):
    """The tiny folder, with its fixed fields."""
    folder = shutil.copytree(MODELS / name, work / "source")
    config = json.loads((folder / "config.json").read_text())
    config.update(FIXED.get(name, {}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(*arguments):
    return subprocess.run([IMP, *map(str, arguments)], capture_output=True, text=True)


def score(folder, work):
    (work / "ids.json").write_text(json.dumps(
        [int(i) for i in np.random.default_rng(9).integers(3, 290, 60)]))
    done = run("score", folder, "--ids", work / "ids.json", "--logits", work / "l.npy")
    assert done.returncode == 0, done.stderr
    return np.load(work / "l.npy")


def dense_layers(name, folder):
    """A mixture with dense layers has no GGUF."""
    return name == "tiny-qwen3-moe" and any(
        ".mlp.up_proj." in k for k in exact.read_folder(folder))


@pytest.mark.parametrize("name", CASES)
def test_same_tensors_and_logits(name, tmp_path):
    folder = source(name, tmp_path)
    if dense_layers(name, folder):
        keep_mixtures(folder)
    write(folder, tmp_path / "m.gguf", CASES[name])
    done = run("quantize", tmp_path / "m.gguf", tmp_path / "new", "--method", "none")
    assert done.returncode == 0, done.stderr
    got, want = exact.read_folder(tmp_path / "new"), exact.read_folder(folder)
    assert {k: (v[0], v[1].tobytes()) for k, v in got.items()} == {
        k: (v[0], v[1].tobytes()) for k, v in want.items()}
    assert score(tmp_path / "new", tmp_path).tobytes() == score(folder, tmp_path).tobytes()


def test_text_straight_from_the_file(tmp_path):
    """tokenize reads a GGUF file as it is: ids, a conversation; run says what to do with it."""
    folder = source("tiny-qwen3", tmp_path)
    write(folder, tmp_path / "m.gguf", "qwen3",
          change=lambda w: w.add_chat_template("{% for m in messages %}<{{ m.content }}>{% endfor %}"))
    for text in ("The quick brown fox", "naïve 東京\n\n 12"):
        got, want = run("tokenize", tmp_path / "m.gguf", text), run("tokenize", folder, text)
        assert got.returncode == want.returncode == 0 and got.stdout == want.stdout
    (tmp_path / "c.json").write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}))
    done = run("tokenize", tmp_path / "m.gguf", "--chat", tmp_path / "c.json", "--render")
    assert done.stdout.strip() == "<Hi>", done.stderr
    done = run("run", tmp_path / "m.gguf", "-p", "x")
    assert done.returncode == 3 and "imp quantize" in done.stderr


@pytest.mark.parametrize("name", ["tiny-qwen3-moe", "tiny-gemma3-text"])
def test_same_nvfp4(name, tmp_path):
    """Calibrated, from the file and from the folder."""
    folder = source(name, tmp_path)
    if dense_layers(name, folder):
        keep_mixtures(folder)
    write(folder, tmp_path / "m.gguf", CASES[name])
    made = []
    for start in (folder, tmp_path / "m.gguf"):
        made.append(tmp_path / f"{start.name}.nvfp4")
        done = run("quantize", start, made[-1], "--method", "weighted", "--quiet")
        assert done.returncode == 0 and done.stderr == "", done.stderr
    a, b = exact.read_folder(made[0]), exact.read_folder(made[1])
    assert {k: (v[0], v[1].tobytes()) for k, v in a.items()} == {
        k: (v[0], v[1].tobytes()) for k, v in b.items()}
    assert any(k.endswith(".weight_packed") for k in a)


def keep_mixtures(folder):
    """Only the layers with experts, renumbered: what the converter can write."""
    tensors = exact.read_folder(folder)
    mixed = sorted({int(k.split(".")[2]) for k in tensors if ".experts." in k})
    out = {}
    for k, (dtype, data) in tensors.items():
        parts = k.split(".")
        if parts[1] == "layers":
            if int(parts[2]) not in mixed:
                continue
            parts[2] = str(mixed.index(int(parts[2])))
        out[".".join(parts)] = data
    assert all(t[0] == "BF16" for t in tensors.values())
    save_bf16(folder / "model.safetensors", out)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = len(mixed)
    (folder / "config.json").write_text(json.dumps(config))


def save_bf16(path, tensors):
    header, offset = {}, 0
    for k, v in tensors.items():
        header[k] = {"dtype": "BF16", "shape": list(v.shape), "data_offsets": [offset, offset + v.nbytes]}
        offset += v.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(v.tobytes() for v in tensors.values()))


@pytest.mark.parametrize("name,architecture,key,add", [
    ("tiny-gqa", "rwkv9", "general.architecture", None),
    ("tiny-gqa", "llama", "llama.attention.sliding_window", lambda w, k: w.add_uint32(k, 16)),
    ("tiny-gqa", "llama", "llama.attn_logit_softcapping", lambda w, k: w.add_float32(k, 30.0)),
    ("tiny-gqa", "llama", "llama.expert_count", lambda w, k: w.add_uint32(k, 4)),
    ("tiny-qwen3", "qwen3", "qwen3.rope.scaling.attn_factor", lambda w, k: w.add_float32(k, 1.5)),
    ("tiny-qwen3", "qwen3", "qwen3.expert_feed_forward_length", lambda w, k: w.add_uint32(k, 8)),
    ("tiny-gemma3-text", "gemma3", "gemma3.attention.scale", lambda w, k: w.add_float32(k, 0.5)),
])
def test_unknown_meanings_are_refused_by_name(name, architecture, key, add, tmp_path):
    arch = "llama" if architecture == "rwkv9" else architecture
    path = tmp_path / "m.gguf"
    write(MODELS / name, path, arch, change=lambda w: add and add(w, key))
    if architecture != arch:
        path.write_bytes(path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0rwkv9", 1))
    done = run("quantize", path, tmp_path / "new", "--method", "none", "--quiet")
    assert done.returncode == 4 and f"key {key}" in done.stderr, done.stderr
    assert not (tmp_path / "new").exists()


def test_missing_and_spare_tensors_are_named(tmp_path):
    path = tmp_path / "m.gguf"
    write(MODELS / "tiny-gemma3-text", path, "gemma3",
          drop=["model.layers.2.post_feedforward_layernorm.weight"])
    done = run("quantize", path, tmp_path / "new", "--method", "none", "--quiet")
    assert done.returncode == 3 and "blk.2.post_ffw_norm.weight" in done.stderr, done.stderr
    write(MODELS / "tiny-qwen3", path, "qwen3",
          change=lambda w: w.add_tensor("blk.0.attn_sinks.weight", np.ones(4, np.float32)))
    done = run("quantize", path, tmp_path / "new", "--method", "none", "--quiet")
    assert done.returncode == 4 and "blk.0.attn_sinks.weight" in done.stderr, done.stderr
