"""transformers models made from exactly expanded checkpoints, and from a GGUF file."""
import json
import os
import pathlib
import tempfile

os.environ.setdefault("TQDM_DISABLE", "1")  # before the tools are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

import exact

torch.set_num_threads(1)  # tiny models: a second thread costs more than it does


def config_of(folder):
    """Of a folder, or of the fields themselves."""
    fields = folder if isinstance(folder, dict) else json.loads(
        (pathlib.Path(folder) / "config.json").read_text())
    config = dict(fields)
    config.pop("quantization_config", None)
    return transformers.AutoConfig.for_model(**config)


def build(config, arrays, dtype=torch.float32):
    """A model whose every parameter comes from `arrays`; a missing or spare name is an error."""
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager")
    model.to_empty(device="cpu")
    state = {k: torch.from_numpy(np.array(v)).to(dtype) for k, v in arrays.items()}
    missing, spare = model.load_state_dict(state, strict=False, assign=True)
    missing = [m for m in missing if not (m == "lm_head.weight" and config.tie_word_embeddings)]
    if missing or spare:
        raise SystemExit(f"parameters missing {missing[:5]}, spare {spare[:5]}")
    model.tie_weights()
    # Buffers (rotary frequencies) were made on the meta device: make them again, in fp32.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=config)
    return model.eval()


def auto_class(config):
    """A wrapper (text_config beside pictures or sound) needs its own class to read its names."""
    wrapped = config.get_text_config() is not config
    return transformers.AutoModelForImageTextToText if wrapped else transformers.AutoModelForCausalLM


def stack_experts(arrays, kind):
    """One tensor an expert -> the stacks of gemma4 and gpt_oss, whose loaders do not know the
    tools' names. gpt_oss: [E, inputs, outputs], gate and up alternating."""
    found = {n: n.split(".experts.") for n in arrays if ".experts." in n and n.endswith("_proj.weight")}
    layers = sorted({layer for layer, _ in found.values()})
    out = {n: a for n, a in arrays.items() if not any(n.startswith(x + ".experts.") for x in layers)}
    for layer in layers:
        count = 1 + max(int(rest.split(".")[0]) for x, rest in found.values() if x == layer)

        def stack(what):
            return np.stack([arrays[f"{layer}.experts.{e}.{what}"] for e in range(count)])
        gate, up, down = (stack(f"{p}_proj.weight") for p in ("gate", "up", "down"))
        if kind != "gpt_oss":
            out[f"{layer}.experts.gate_up_proj"] = np.concatenate([gate, up], 1)
            out[f"{layer}.experts.down_proj"] = down
            continue
        both = np.stack([gate, up], 2).reshape(count, -1, gate.shape[-1])
        bias = np.stack([stack("gate_proj.bias"), stack("up_proj.bias")], 2)
        out[f"{layer}.experts.gate_up_proj"] = both.swapaxes(1, 2)
        out[f"{layer}.experts.gate_up_proj_bias"] = bias.reshape(count, -1)
        out[f"{layer}.experts.down_proj"] = down.swapaxes(1, 2)
        out[f"{layer}.experts.down_proj_bias"] = stack("down_proj.bias")
    return out


def read(folder, arrays, dtype=torch.float32):
    """The same by transformers' own loader, which knows what the names of a family's files become
    (experts stacked, prefixes); the arrays go through a folder of their own."""
    from safetensors.numpy import save_file
    config = config_of(folder)
    if config.model_type in ("gpt_oss", "gemma4"):
        arrays = stack_experts(arrays, config.model_type)
    if any(n.endswith("lm_head.weight") for n in arrays):
        # mistral3's class ties by default, its files do not say and have a head of their own.
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    with tempfile.TemporaryDirectory() as work:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()},
                  f"{work}/model.safetensors", {"format": "pt"})
        config.save_pretrained(work)
        model, info = auto_class(config).from_pretrained(
            work, dtype=dtype, attn_implementation="eager", experts_implementation="eager",
            output_loading_info=True)
    spare = [n for n in info["unexpected_keys"] if not n.startswith("mtp.")]
    if info["missing_keys"] or spare or info["mismatched_keys"]:
        raise SystemExit(f"{folder}: parameters missing {sorted(info['missing_keys'])[:5]}, "
                         f"spare {sorted(spare)[:5]}, {info['mismatched_keys']}")
    for module in model.modules():
        # Gemma multiplies embeddings by sqrt(H) in the weights' type: BF16 in every real file.
        # fp32 weights would leave it unrounded and make the oracle another model.
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = module.embed_scale.to(torch.bfloat16).to(dtype)
    return model.eval()


def load(folder, dtype=torch.float32):
    arrays = exact.expand_folder(folder)
    if config_of(folder).model_type == "llama":
        return build(config_of(folder), arrays, dtype)
    return read(folder, arrays, dtype)


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids])).logits[0].double().numpy().astype(np.float32)


def versions():
    from importlib.metadata import version
    return {p: version(p) for p in ("torch", "transformers", "compressed-tensors", "llmcompressor",
                                    "nvidia-modelopt", "numpy")}


# ---- GGUF files (SmolLM2: llama, Gemma 3), by the PyPI package gguf ----

LAYER = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}
GEMMA3 = {**LAYER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
          "post_attention_norm": "post_attention_layernorm",
          "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
       "output.weight": "lm_head.weight"}


def unpermute(w, heads):
    """GGUF keeps the rows of q and k in pairs (2i, 2i+1); Hugging Face as (i, i + d/2)."""
    d = w.shape[0] // heads
    return w.reshape(heads, d // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_fields(path):
    import gguf
    reader = gguf.GGUFReader(path)
    return reader, lambda key, default=None: (
        default if reader.get_field(key) is None else reader.get_field(key).contents())


def gguf_config(field):
    arch = field("general.architecture")
    config = dict(
        vocab_size=len(field("tokenizer.ggml.tokens")),
        hidden_size=field(f"{arch}.embedding_length"),
        intermediate_size=field(f"{arch}.feed_forward_length"),
        num_hidden_layers=field(f"{arch}.block_count"),
        num_attention_heads=field(f"{arch}.attention.head_count"),
        num_key_value_heads=field(f"{arch}.attention.head_count_kv"),
        max_position_embeddings=field(f"{arch}.context_length"),
        rms_norm_eps=float(np.float32(field(f"{arch}.attention.layer_norm_rms_epsilon"))),
        rope_theta=field(f"{arch}.rope.freq_base", 10000.0),
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        pad_token_id=field("tokenizer.ggml.padding_token_id"), dtype="bfloat16")
    if arch == "llama":
        config.update(model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu")
    else:
        # As the hub's config of the 270M model has it.
        head_dim = field("gemma3.attention.key_length")
        config.update(model_type="gemma3_text", architectures=["Gemma3ForCausalLM"],
                      head_dim=head_dim, query_pre_attn_scalar=head_dim, rope_local_base_freq=10000.0,
                      sliding_window=field("gemma3.attention.sliding_window"),
                      sliding_window_pattern=6, hidden_activation="gelu_pytorch_tanh")
    return config


def gguf_arrays(path):
    """(config fields, name -> fp32 array) of a GGUF file of architecture llama or gemma3."""
    import gguf
    reader, field = gguf_fields(path)
    config, arrays = gguf_config(field), {}
    gemma = config["model_type"] == "gemma3_text"
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        name = TOP.get(t.name)
        if name is None:
            _, layer, kind, suffix = t.name.split(".")
            name = f"model.layers.{layer}.{(GEMMA3 if gemma else LAYER)[kind]}.{suffix}"
            if not gemma and kind in ("attn_q", "attn_k"):
                heads = "num_attention_heads" if kind == "attn_q" else "num_key_value_heads"
                w = unpermute(w, config[heads])
        arrays[name] = w - 1 if gemma and "norm" in name else w
    config["tie_word_embeddings"] = "lm_head.weight" not in arrays
    return config, arrays


def gguf_tokenizer(path):
    """The byte-level BPE of the file as a tokenizers.Tokenizer (no special token is added)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    _, field = gguf_fields(path)
    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ", 1)) for m in field("tokenizer.ggml.merges")]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True)
                            for t, k in zip(tokens, field("tokenizer.ggml.token_type")) if k == 3])
    return tok


def sentencepiece_ids(field, text):
    """As SentencePiece does it: user-defined pieces first, longest first; what is between them in
    characters, of whose neighbours the pair with the best score is merged, the leftmost of equals."""
    import re
    tokens, scores = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.scores")
    kinds, number = field("tokenizer.ggml.token_type"), {}
    for i, t in enumerate(tokens):
        number[t] = i
    own = sorted((t for t, k in zip(tokens, kinds) if k in (3, 4)), key=len, reverse=True)
    out = []
    for piece in re.split("(" + "|".join(map(re.escape, own)) + ")", text):
        if piece in number and kinds[number[piece]] in (3, 4):
            out.append(number[piece])
            continue
        for word in re.findall("\u2581*[^\u2581]*", piece.replace(" ", "\u2581")):
            parts = list(word)  # no piece of Gemma's has a space behind another character
            while True:
                pairs = [(-scores[number[a + b]], i) for i, (a, b) in enumerate(zip(parts, parts[1:]))
                         if kinds[number.get(a + b, 0)] == 1]
                if not pairs:
                    break
                i = min(pairs)[1]
                parts[i:i + 2] = [parts[i] + parts[i + 1]]
            for p in parts:
                out += [number[p]] if p in number else [number[f"<0x{b:02X}>"] for b in p.encode()]
    return out


def gguf_ids(path, text):
    _, field = gguf_fields(path)
    if field("tokenizer.ggml.model") == "llama":
        return sentencepiece_ids(field, text)
    return gguf_tokenizer(path).encode(text, add_special_tokens=False).ids
