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


def gemma3_text():
    # 270M's spelling: layer_types beside the private pattern, two bases, a scale of q that is not
    # head_dim's.
    return dict(COMMON, **GEMMA_IDS, _sliding_window_pattern=3, architectures=["Gemma3ForCausalLM"],
                attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None,
                head_dim=16, hidden_activation="gelu_pytorch_tanh", intermediate_size=80,
                layer_types=[SLIDING, SLIDING, FULL, SLIDING], model_type="gemma3_text",
                num_attention_heads=3, num_hidden_layers=4, num_key_value_heads=1,
                query_pre_attn_scalar=24, rms_norm_eps=1e-6, rope_local_base_freq=1e4,
                rope_scaling=None, rope_theta=1e6, sliding_window=24, torch_dtype="bfloat16",
                transformers_version="4.55.0.dev0", use_bidirectional_attention=False)


def gemma3():
    # 4B's spelling: a wrapper whose text_config leaves out what equals the class's defaults (layer
    # pattern 6, scale 256^-1/2, eps, bases, activation, tying). Global layers have linear rope.
    return dict(architectures=["Gemma3ForConditionalGeneration"], boi_token_index=400,
                eoi_token_index=401, eos_token_id=[2, 0], image_token_index=402,
                initializer_range=0.02, mm_tokens_per_image=4, model_type="gemma3",
                text_config=dict(head_dim=16, hidden_size=48, intermediate_size=48,
                                 model_type="gemma3_text", num_attention_heads=3,
                                 num_hidden_layers=6, num_key_value_heads=1,
                                 rope_scaling=dict(factor=8.0, rope_type="linear"),
                                 sliding_window=24, vocab_size=VOCAB),
                torch_dtype="bfloat16", transformers_version="4.50.0.dev0",
                vision_config=dict(hidden_size=16, image_size=8, intermediate_size=16,
                                   model_type="siglip_vision_model", num_attention_heads=2,
                                   num_hidden_layers=1, patch_size=4, vision_use_head=False))


def gpt_oss():
    # Two layers, one of each window; K is two blocks of MXFP4 in gate/up, one in down.
    return dict(architectures=["GptOssForCausalLM"], attention_bias=True, attention_dropout=0.0,
                eos_token_id=2, experts_per_token=2, head_dim=32, hidden_act="silu",
                hidden_size=64, initial_context_length=64, initializer_range=0.02,
                intermediate_size=32, layer_types=[SLIDING, FULL], max_position_embeddings=256,
                model_type="gpt_oss", num_attention_heads=3, num_experts_per_tok=2,
                num_hidden_layers=2, num_key_value_heads=1, num_local_experts=4,
                output_router_logits=False, pad_token_id=0, rms_norm_eps=1e-5,
                rope_scaling=dict(beta_fast=4.0, beta_slow=1.0, factor=32.0,
                                  original_max_position_embeddings=64, rope_type="yarn",
                                  truncate=False),
                rope_theta=1000, router_aux_loss_coef=0.9, sliding_window=24, swiglu_limit=7.0,
                tie_word_embeddings=False, transformers_version="4.55.0.dev0", use_cache=True,
                vocab_size=VOCAB)


def qwen3_next():
    # No layer_types in these files: the interval decides. dk and dv differ, two value heads to a
    # key head.
    return dict(COMMON, **IDS, architectures=["Qwen3NextForCausalLM"], attention_bias=False,
                decoder_sparse_step=1, full_attention_interval=2, head_dim=32, hidden_act="silu",
                intermediate_size=32, linear_conv_kernel_dim=4, linear_key_head_dim=16,
                linear_num_key_heads=2, linear_num_value_heads=4, linear_value_head_dim=24,
                mlp_only_layers=[], model_type="qwen3_next", moe_intermediate_size=16,
                norm_topk_prob=True, num_attention_heads=3, num_experts=5, num_experts_per_tok=2,
                num_hidden_layers=3, num_key_value_heads=1, output_router_logits=False,
                partial_rotary_factor=0.25, rms_norm_eps=1e-6, rope_scaling=None,
                rope_theta=10000000, router_aux_loss_coef=0.001,
                shared_expert_intermediate_size=16, tie_word_embeddings=False,
                torch_dtype="bfloat16", transformers_version="4.57.0.dev0",
                use_sliding_window=False)


QWEN35_VISION = dict(deepstack_visual_indexes=[], depth=1, hidden_act="gelu_pytorch_tanh",
                     hidden_size=16, in_channels=3, initializer_range=0.02, intermediate_size=16,
                     num_heads=2, num_position_embeddings=4, out_hidden_size=48, patch_size=2,
                     spatial_merge_size=1, temporal_patch_size=2)


def qwen3_5_text():
    return dict(attention_bias=False, attention_dropout=0.0, attn_output_gate=True,
                dtype="bfloat16", eos_token_id=2, full_attention_interval=3, head_dim=32,
                hidden_act="silu", hidden_size=48, initializer_range=0.02, intermediate_size=64,
                layer_types=[LINEAR, LINEAR, FULL], linear_conv_kernel_dim=4,
                linear_key_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4,
                linear_value_head_dim=16, max_position_embeddings=256, mlp_only_layers=[],
                model_type="qwen3_5_text", mtp_num_hidden_layers=1,
                mtp_use_dedicated_embeddings=False, num_attention_heads=3, num_hidden_layers=3,
                num_key_value_heads=1, rms_norm_eps=1e-6, tie_word_embeddings=True,
                use_cache=True, vocab_size=VOCAB, mamba_ssm_dtype="float32",
                rope_parameters=dict(mrope_interleaved=True, mrope_section=[2, 1, 1],
                                     rope_type="default", rope_theta=10000000,
                                     partial_rotary_factor=0.25))


def qwen3_5():
    return dict(architectures=["Qwen3_5ForConditionalGeneration"], image_token_id=400,
                model_type="qwen3_5", text_config=qwen3_5_text(), tie_word_embeddings=True,
                transformers_version="4.57.0.dev0", video_token_id=401,
                vision_config=dict(QWEN35_VISION, model_type="qwen3_5"), vision_end_token_id=402,
                vision_start_token_id=403)


def qwen3_5_moe():
    # Another number of value heads a key head; no norm_topk_prob field, always renormalised.
    text = dict(qwen3_5_text(), bos_token_id=1, layer_types=[LINEAR, FULL, LINEAR],
                full_attention_interval=2, linear_num_value_heads=6,
                model_type="qwen3_5_moe_text", moe_intermediate_size=16, num_experts=5,
                num_experts_per_tok=2, output_router_logits=False, pad_token_id=None,
                partial_rotary_factor=0.25, router_aux_loss_coef=0.001,
                shared_expert_intermediate_size=32, tie_word_embeddings=False)
    del text["intermediate_size"], text["mlp_only_layers"]
    return dict(architectures=["Qwen3_5MoeForConditionalGeneration"], dtype="bfloat16",
                image_token_id=400, model_type="qwen3_5_moe", text_config=text,
                tie_word_embeddings=False, transformers_version="5.7.0.dev0", video_token_id=401,
                vision_config=dict(QWEN35_VISION, dtype="bfloat16",
                                   model_type="qwen3_5_moe_vision"),
                vision_end_token_id=402, vision_start_token_id=403)


def gemma4_text(**fields):
    rope = {FULL: dict(partial_rotary_factor=0.25, rope_theta=1e6, rope_type="proportional"),
            SLIDING: dict(rope_theta=1e4, rope_type="default")}
    return dict(dict(
        attention_bias=False, attention_dropout=0.0, attention_k_eq_v=True, bos_token_id=1,
        dtype="bfloat16", enable_moe_block=False, eos_token_id=2, final_logit_softcapping=30.0,
        global_head_dim=32, head_dim=16, hidden_activation="gelu_pytorch_tanh", hidden_size=48,
        hidden_size_per_layer_input=0, initializer_range=0.02, intermediate_size=64,
        layer_types=[SLIDING, FULL, SLIDING, FULL], max_position_embeddings=256,
        model_type="gemma4_text", num_attention_heads=4, num_experts=None,
        num_global_key_value_heads=1, num_hidden_layers=4, num_key_value_heads=2,
        num_kv_shared_layers=0, pad_token_id=0, rms_norm_eps=1e-6, rope_parameters=rope,
        sliding_window=24, tie_word_embeddings=True, top_k_experts=None,
        use_bidirectional_attention="vision", use_cache=True, use_double_wide_mlp=False,
        vocab_size=VOCAB, vocab_size_per_layer_input=VOCAB), **fields)


def gemma4_wrap(text, vision=None, **fields):
    return dict(dict(
        architectures=["Gemma4ForConditionalGeneration"], audio_config=None, audio_token_id=400,
        boa_token_id=401, boi_token_id=402, dtype="bfloat16", eoa_token_id=403,
        eoa_token_index=403, eoi_token_id=404, eos_token_id=[2, 0], image_token_id=405,
        initializer_range=0.02, model_type="gemma4", text_config=text, tie_word_embeddings=True,
        transformers_version="5.5.0.dev0", video_token_id=406, vision_config=vision,
        vision_soft_tokens_per_image=4), **fields)


GEMMA4_VISION = dict(attention_bias=False, attention_dropout=0.0, default_output_length=4,
                     dtype="bfloat16", global_head_dim=8, head_dim=8,
                     hidden_activation="gelu_pytorch_tanh", hidden_size=16,
                     initializer_range=0.02, intermediate_size=16, max_position_embeddings=64,
                     model_type="gemma4_vision", num_attention_heads=2, num_hidden_layers=1,
                     num_key_value_heads=2, patch_size=2, pooling_kernel_size=3,
                     position_embedding_size=8, rms_norm_eps=1e-6,
                     rope_parameters=dict(rope_theta=100.0, rope_type="default"),
                     standardize=True, use_clipped_linears=False)


def gemma4():
    # 31B: V is the key projection in full layers, whose heads are twice as wide and half as many.
    return gemma4_wrap(gemma4_text(), expert_intermediate_size=None)


def gemma4_moe():
    # 26B-A4B: a dense branch beside the experts in every layer; a vision tower in the file.
    return gemma4_wrap(
        gemma4_text(enable_moe_block=True, layer_types=[SLIDING, SLIDING, FULL],
                    num_hidden_layers=3, intermediate_size=48, moe_intermediate_size=16,
                    num_experts=5, top_k_experts=2), GEMMA4_VISION)


def gemma4_ple():
    # E2B: per-layer embeddings; layers 3 and 4 read the keys of 2 and 1 and have a double MLP.
    return gemma4_wrap(
        gemma4_text(attention_k_eq_v=False, hidden_size_per_layer_input=16, intermediate_size=32,
                    layer_types=[SLIDING, FULL, SLIDING, SLIDING, FULL], num_attention_heads=3,
                    num_global_key_value_heads=None, num_hidden_layers=5, num_key_value_heads=1,
                    num_kv_shared_layers=2, use_bidirectional_attention=None,
                    use_double_wide_mlp=True))


def gemma4_unified():
    text = gemma4_text(model_type="gemma4_unified_text", num_attention_heads=3,
                       num_key_value_heads=3, layer_types=[SLIDING, SLIDING, FULL],
                       num_hidden_layers=3)
    for name in ("enable_moe_block", "hidden_size_per_layer_input", "num_experts", "top_k_experts",
                 "vocab_size_per_layer_input"):
        del text[name]
    return gemma4_wrap(text, architectures=["Gemma4UnifiedForConditionalGeneration"],
                       model_type="gemma4_unified")


PIXTRAL = dict(attention_dropout=0.0, head_dim=8, hidden_act="silu", hidden_size=16, image_size=8,
               initializer_range=0.02, intermediate_size=16, model_type="pixtral",
               num_attention_heads=2, num_channels=3, num_hidden_layers=1, patch_size=4)


def mistral3():
    # Mistral-Small-3.2: text_config is a Mistral and says nothing of tying.
    text = dict(attention_dropout=0.0, dtype="bfloat16", head_dim=32, hidden_act="silu",
                hidden_size=48, initializer_range=0.02, intermediate_size=80,
                max_position_embeddings=256, model_type="mistral", num_attention_heads=3,
                num_hidden_layers=2, num_key_value_heads=1, rms_norm_eps=1e-5, rope_theta=1e9,
                sliding_window=None, use_cache=True, vocab_size=VOCAB)
    return dict(architectures=["Mistral3ForConditionalGeneration"], dtype="bfloat16",
                image_token_index=400, model_type="mistral3", multimodal_projector_bias=False,
                projector_hidden_act="gelu", spatial_merge_size=2, text_config=text,
                transformers_version="4.57.1", vision_config=dict(PIXTRAL, rope_theta=10000.0),
                vision_feature_layer=-1)


def ministral3():
    # Devstral-Small-2: yarn, and a scale of q that grows every 32 positions.
    rope = dict(beta_fast=4.0, beta_slow=1.0, factor=48.0, llama_4_scaling_beta=0.1, mscale=1.0,
                mscale_all_dim=1.0, original_max_position_embeddings=32, rope_theta=1000.0,
                rope_type="yarn", type="yarn")
    c = mistral3()
    text = dict(c["text_config"], model_type="ministral3", rope_parameters=rope,
                intermediate_size=64)
    del text["rope_theta"], text["dtype"]
    vision = dict(PIXTRAL, rope_parameters=dict(rope_theta=10000.0, rope_type="default"))
    return dict(c, text_config=text, vision_config=vision, tie_word_embeddings=False,
                transformers_version="5.0.0.dev0")


def granite():
    # Granite-3.x: four multipliers that Llama has not, nearer to 1 than the real ones (12, 0.22, 8),
    # which suit real sizes: with them three layers of random numbers would not be seen.
    return dict(COMMON, architectures=["GraniteForCausalLM"], attention_bias=False,
                attention_multiplier=0.0625, bos_token_id=0, embedding_multiplier=1.5,
                eos_token_id=0, hidden_act="silu", intermediate_size=64, logits_scaling=2.0,
                mlp_bias=False, model_type="granite", num_attention_heads=3, num_hidden_layers=3,
                num_key_value_heads=1, pad_token_id=0, residual_multiplier=0.7,
                rms_norm_eps=1e-5, rope_scaling=None, rope_theta=10000000.0,
                tie_word_embeddings=True, torch_dtype="bfloat16", transformers_version="4.47.0")


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
    "gemma3-text": (gemma3_text, 27, []),
    "gemma3": (gemma3, 28, []),
    "gpt-oss": (gpt_oss, 29, []),
    "qwen3-next": (qwen3_next, 30, []),
    "qwen3.5": (qwen3_5, 31, []),
    "qwen3.5-moe": (qwen3_5_moe, 32, []),
    "gemma4": (gemma4, 33, []),
    "gemma4-moe": (gemma4_moe, 34, []),
    "gemma4-ple": (gemma4_ple, 35, []),
    "gemma4-unified": (gemma4_unified, 36, []),
    "mistral3": (mistral3, 37, []),
    "ministral3": (ministral3, 38, []),
    "granite": (granite, 39, []),
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
        return (0.3 if kind.startswith("gemma") else 1 if kind == "granite" or not tied else 0.45) * x
    if name.endswith("lm_head.weight"):
        return 2.5 * x / shape[-1] ** 0.5
    # Columns of unequal size, so that rounding rules and channel orders show; the input columns of
    # a router stay equal, so that its decisions are spread over the experts.
    last = shape[-1]
    if name.endswith(("mlp.gate.weight", "router.weight", "router.proj.weight")):
        scale = 2.0 * (last ** 0.5 if "proj" in name else 1.0)
        return scale * x / last ** 0.5
    if kind == "gpt_oss" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        # [E, inputs, outputs]; large enough inside for one value in ten to reach the clamp.
        return (4 if "gate_up" in name else 0.25) * x / shape[-2] ** 0.5
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
