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


def config_of(folder):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
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


def read(folder, arrays, dtype=torch.float32):
    """The same by transformers' own loader, which knows what the names of a family's files become
    (experts stacked, prefixes); the arrays go through a folder of their own."""
    from safetensors.numpy import save_file
    config = config_of(folder)
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


# ---- SmolLM2 from its GGUF file, by the PyPI package gguf ----

LAYER = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}


def unpermute(w, heads):
    """GGUF keeps the rows of q and k in pairs (2i, 2i+1); Hugging Face as (i, i + d/2)."""
    d = w.shape[0] // heads
    return w.reshape(heads, d // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_arrays(path):
    """(config fields, name -> fp32 array) of a GGUF file of architecture llama."""
    import gguf
    reader = gguf.GGUFReader(path)

    def field(key, default=None):
        f = reader.get_field(key)
        return default if f is None else f.contents()
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    config = dict(
        model_type="llama", architectures=["LlamaForCausalLM"],
        vocab_size=len(field("tokenizer.ggml.tokens")), hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=float(np.float32(field("llama.attention.layer_norm_rms_epsilon"))),
        rope_theta=field("llama.rope.freq_base", 10000.0), hidden_act="silu",
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        pad_token_id=field("tokenizer.ggml.padding_token_id"), dtype="bfloat16")
    arrays = {}
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        base = t.name.rsplit(".", 1)
        if t.name == "token_embd.weight":
            name = "model.embed_tokens.weight"
        elif t.name == "output_norm.weight":
            name = "model.norm.weight"
        elif t.name == "output.weight":
            name = "lm_head.weight"
        else:
            _, layer, kind, suffix = t.name.split(".")
            name = f"model.layers.{layer}.{LAYER[kind]}.{suffix}"
            if kind == "attn_q":
                w = unpermute(w, heads)
            elif kind == "attn_k":
                w = unpermute(w, kv_heads)
        arrays[name] = w
    config["tie_word_embeddings"] = "lm_head.weight" not in arrays
    return config, arrays


def gguf_tokenizer(path):
    """The byte-level BPE of the file as a tokenizers.Tokenizer (no special token is added)."""
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    reader = gguf.GGUFReader(path)
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    merges = [tuple(m.split(" ", 1)) for m in reader.get_field("tokenizer.ggml.merges").contents()]
    kinds = reader.get_field("tokenizer.ggml.token_type").contents()
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True)
                            for t, k in zip(tokens, kinds) if k == 3])
    return tok
