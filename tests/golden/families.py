"""The tiny models of every family but Llama: configurations as the hub's files spell them, with the
sizes cut. `make_checkpoints.py` fills them with random numbers and has the makers' tools quantise
them.

Every field of the real configuration is kept, with its real value where that is no size. Sizes are
odd but legal: a hidden size of 48 is no multiple of 64, every K is a multiple of 16 (32 where MXFP4
needs it), three query heads share one key head, windows are shorter than the prompts, and the
vocabulary is larger than the tokenizer's, as in Qwen's and Gemma's files. Layers are as few as show
every kind of layer the family has, in an order that is not the default one where a file may say so.
"""
VOCAB = 320

COMMON = dict(vocab_size=VOCAB, attention_dropout=0.0, initializer_range=0.02, use_cache=True,
              max_position_embeddings=256, hidden_size=48)
IDS = dict(bos_token_id=1, eos_token_id=2)
GEMMA_IDS = dict(bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0)
# Placeholders of pictures and sound: outside the vocabulary, so no prompt has one.
SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"


def qwen2():
    # head_dim is not a field: 48 / 3. Biases on q, k and v only, and no field says so.
    return dict(COMMON, **IDS, architectures=["Qwen2ForCausalLM"], model_type="qwen2",
                hidden_act="silu", intermediate_size=64, max_window_layers=3, num_attention_heads=3,
                num_hidden_layers=3, num_key_value_heads=1, rms_norm_eps=1e-6, rope_theta=1e6,
                sliding_window=24, tie_word_embeddings=False, torch_dtype="bfloat16",
                transformers_version="4.43.1", use_sliding_window=False)


def qwen3():
    # q is twice as wide as the stream; tied.
    return dict(COMMON, **IDS, architectures=["Qwen3ForCausalLM"], model_type="qwen3",
                attention_bias=False, head_dim=32, hidden_act="silu", intermediate_size=64,
                max_window_layers=3, num_attention_heads=3, num_hidden_layers=3,
                num_key_value_heads=1, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=1000000,
                sliding_window=None, tie_word_embeddings=True, torch_dtype="bfloat16",
                transformers_version="4.51.0", use_sliding_window=False)


def qwen3_moe():
    # Layer 1 is dense by mlp_only_layers; norm_topk_prob is true in files, false by default.
    return dict(qwen3(), architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe",
                decoder_sparse_step=1, head_dim=16, mlp_only_layers=[1], moe_intermediate_size=32,
                norm_topk_prob=True, num_experts=6, num_experts_per_tok=2,
                output_router_logits=False, router_aux_loss_coef=0.001, tie_word_embeddings=False)


def qwen3_moe_raw():
    # The other router: values of the whole softmax, every second layer sparse, four heads to two.
    return dict(qwen3_moe(), norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[],
                num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=4,
                num_experts=5, num_experts_per_tok=3, moe_intermediate_size=16,
                tie_word_embeddings=True)


def mistral():
    return dict(COMMON, **IDS, architectures=["MistralForCausalLM"], model_type="mistral",
                hidden_act="silu", intermediate_size=64, num_attention_heads=3,
                num_hidden_layers=2, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-5,
                rope_theta=1e6, sliding_window=None, tie_word_embeddings=False,
                torch_dtype="bfloat16", transformers_version="4.36.0")


def mistral_window():
    # No head_dim, as Mistral-7B's files; every layer has the window. (The real files with one have
    # 4096.)
    c = dict(mistral(), sliding_window=24, num_hidden_layers=3)
    del c["head_dim"]
    return c


# What llm-compressor's recipes leave out.
IGNORE = ["lm_head", r"re:.*mlp\.gate$", r"re:.*shared_expert_gate$", r"re:.*router.*",
          r"re:.*linear_attn.*", r"re:.*vision.*", r"re:.*multi_modal_projector.*",
          r"re:.*visual.*", r"re:.*audio.*"]

# name -> (configuration, seed, tools)
FAMILIES = {
    "qwen2": (qwen2, 21, ["nvfp4a16"]),
    "qwen3": (qwen3, 22, ["nvfp4", "modelopt"]),
    "qwen3-moe": (qwen3_moe, 23, ["nvfp4a16", "modelopt"]),
    "qwen3-moe-raw": (qwen3_moe_raw, 24, []),
    "mistral": (mistral, 25, ["modelopt-w4a16"]),
    "mistral-window": (mistral_window, 26, []),
}


# ---- random numbers ----

OFFSET_NORMS = {"gemma3_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}  # gain is 1 + w


def value_of(name, shape, randn, kind, tied):
    """Random numbers for one parameter; `kind` is the text model's model_type. No parameter keeps
    the value that its class gives it, and none is so large that a softmax or a sigmoid saturates:
    logits end up between 10 and 30 from lowest to highest."""
    x = randn(shape)
    if name.endswith("norm.weight") or "layernorm" in name:
        if kind in OFFSET_NORMS and "linear_attn.norm" not in name:
            return 0.4 * x
        # Gemma 4 has no 1/sqrt(d): q and k gains carry it.
        return (0.6 if kind.startswith("gemma4") and "self_attn" in name else 1.0) + 0.3 * x
    if name.endswith("layer_scalar"):
        return 0.8 + 0.15 * x
    if name.endswith("A_log"):
        return 0.7 * x
    if name.endswith("dt_bias"):
        return -2 + 1.2 * x
    if name.endswith("sinks"):
        return 1.0 + x
    if name.endswith(("router.scale", "per_expert_scale")):
        return 1 + 0.4 * x
    if "bias" in name:
        return 0.3 * x
    if "conv1d" in name:
        return 0.5 * x
    if "embed_tokens" in name:
        return (0.45 if tied else 1.0) * x
    if name.endswith("lm_head.weight"):
        return 2.5 * x / shape[-1] ** 0.5
    # Columns of unequal size, so that rounding rules and channel orders show; the input columns of
    # a router stay equal, so that its decisions are spread over the experts.
    last = shape[-1]
    if name.endswith(("mlp.gate.weight", "router.weight", "router.proj.weight")):
        scale = 2.0 * (last ** 0.5 if "proj" in name else 1.0)
        return scale * x / last ** 0.5
    return 1.2 * x * (0.5 * randn((last,))).exp() / last ** 0.5


def fill(model, seed):
    """Overwrites every parameter and every stored buffer, each from its own name's generator."""
    import zlib

    import torch
    text = model.config.get_text_config()
    kind, tied = text.model_type, text.tie_word_embeddings
    stored = dict(model.state_dict())
    with torch.no_grad():
        for name, p in list(model.named_parameters()) + list(model.named_buffers()):
            if name not in stored or not p.is_floating_point():
                continue
            g = torch.Generator().manual_seed(seed << 32 | zlib.crc32(name.encode()))
            p.copy_(value_of(name, tuple(p.shape), lambda s: torch.randn(s, generator=g), kind,
                             tied))
    return model.eval()
