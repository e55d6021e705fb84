"""Mistral's own form of a checkpoint (params.json, consolidated.safetensors) gives the logits of the
usual form to the byte. IMP_BIN names the binary (default build/imp)."""
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
NAMES = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
         "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
         "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
         "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
         "post_attention_layernorm": "ffn_norm"}
OUTER = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
BYTES = {"BF16": 2, "F32": 4, "U8": 1, "F8_E4M3": 1}


def read(path):
    raw = path.read_bytes()
    size, = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    data = raw[8 + size:]
    return {k: (v["dtype"], v["shape"], data[slice(*v["data_offsets"])]) for k, v in header.items()}


def write(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def interleaved(tensor, head):
    """Rows of each head from rotate-half order to pairs."""
    dtype, shape, raw = tensor
    rows = np.frombuffer(raw, np.uint8).reshape(shape[0] // head, 2, head // 2, -1)
    return dtype, shape, rows.transpose(0, 2, 1, 3).tobytes()


def own_name(name):
    module, parameter = name.rsplit(".", 1)
    layer = re.match(r"model\.layers\.(\d+)\.(.*)", module)
    if layer:
        return f"layers.{layer[1]}.{NAMES[layer[2]]}.{parameter}"
    return f"{OUTER[module]}.{parameter}"


def convert(source, target):
    target.mkdir()
    config = json.loads((source / "config.json").read_text())
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    tensors = {}
    for name, tensor in read(source / "model.safetensors").items():
        turned = re.search(r"self_attn\.[qk]_proj", name) and len(tensor[1]) == 2
        tensors[own_name(name)] = interleaved(tensor, head) if turned else tensor
    write(target / "consolidated.safetensors", tensors)
    params = dict(dim=config["hidden_size"], n_layers=config["num_hidden_layers"],
                  head_dim=head, hidden_dim=config["intermediate_size"],
                  n_heads=config["num_attention_heads"], n_kv_heads=config["num_key_value_heads"],
                  norm_eps=config["rms_norm_eps"], vocab_size=config["vocab_size"],
                  rope_theta=(config.get("rope_parameters") or config)["rope_theta"],
                  max_seq_len=config["max_position_embeddings"])
    if config.get("sliding_window"):
        params["sliding_window"] = config["sliding_window"]
    (target / "params.json").write_text(json.dumps(params))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, target)


@pytest.mark.parametrize("model", ["tiny-mistral", "tiny-mistral-window",
                                   "tiny-mistral-modelopt-w4a16"])
def test_the_same_logits(model, tmp_path):
    convert(MODELS / model, tmp_path / "own")
    (tmp_path / "ids.json").write_text(json.dumps([3, 17, 99, 250, 4, 4, 31, 8] * 6))
    out = []
    for folder in (MODELS / model, tmp_path / "own"):
        npy = tmp_path / f"{len(out)}.npy"
        done = subprocess.run([IMP, "score", folder, "--ids", tmp_path / "ids.json", "--logits", npy],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out.append(npy.read_bytes())
    assert out[0] == out[1]
