"""Writes the checkpoints that the stored goldens are about.

    python make_checkpoints.py [--only NAME...] [--gguf FILE --large FOLDER [--name NAME]]

Without --gguf: tiny Llamas and the other families (families.py) with every parameter random (norm
gains and biases too), plain and as llm-compressor and ModelOpt quantise them, into
tests/data/models/NAME. With --gguf: the model in that GGUF file, plain and by both tools, into
FOLDER (too large to commit).
"""
import argparse
import json
import pathlib
import shutil

import numpy as np
import torch
import transformers

import families
import hf
import layouts

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parent / "data" / "models"
ROPE3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32, "rope_theta": 10000.0}
VOCAB = 300

# name -> (config, seed). Odd but legal sizes; K of every linear is a multiple of 16.
TINY = {
    # Grouped heads 4:2, q wider than the stream.
    "tiny-gqa": (dict(hidden_size=64, intermediate_size=112, num_hidden_layers=2,
                      num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                      tie_word_embeddings=False, rms_norm_eps=1e-5), 11),
    # head_dim 48, one key/value head, tied, biases everywhere, eps large enough to be seen.
    "tiny-bias": (dict(hidden_size=96, intermediate_size=64, num_hidden_layers=2,
                       num_attention_heads=3, num_key_value_heads=1, head_dim=48,
                       tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                       rms_norm_eps=1e-3), 12),
    # llama3 rope whose three bands all occur below position 130; q narrower than the stream.
    "tiny-rope3": (dict(hidden_size=96, intermediate_size=80, num_hidden_layers=2,
                        num_attention_heads=3, num_key_value_heads=3, head_dim=16,
                        tie_word_embeddings=False, rope_parameters=ROPE3, rms_norm_eps=1e-6), 13),
    # Heads of 64 as real models have, tied, theta 1e5, one layer.
    "tiny-smol": (dict(hidden_size=128, intermediate_size=96, num_hidden_layers=1,
                       num_attention_heads=2, num_key_value_heads=1, head_dim=64,
                       tie_word_embeddings=True, rope_theta=100000.0, rms_norm_eps=1e-5), 14),
}
# Which tools make which tiny model: every tool at least twice, W4A4 files of both tools included.
BY = {"tiny-gqa": ["nvfp4a16", "nvfp4", "modelopt"], "tiny-bias": ["nvfp4a16", "modelopt"],
      "tiny-rope3": ["nvfp4", "modelopt-w4a16"], "tiny-smol": ["nvfp4a16", "modelopt"]}


def tiny_tokenizer():
    """Byte-level BPE of exactly VOCAB ids: 3 specials, 256 bytes, 41 merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator([(HERE / "tiny-corpus.txt").read_text()], trainer)
    assert tok.get_vocab_size() == VOCAB
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|im_end|>", unk_token="<|endoftext|>")
    fast.chat_template = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
                          "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>"
                          "assistant\n{% endif %}")
    return fast


def tiny_model(fields, seed):
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
        pad_token_id=2, dtype="bfloat16", **fields)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            x = torch.randn(p.shape, generator=g)
            if name.endswith("norm.weight"):
                x = 1 + 0.4 * x
            elif name.endswith("bias"):
                x = 0.3 * x
            elif "embed_tokens" in name:
                pass
            else:
                # Columns of unequal size, so that rounding rules and channel orders show.
                gain = torch.exp(0.5 * torch.randn(p.shape[1], generator=g))
                x = 1.2 * x * gain / p.shape[1] ** 0.5
            p.copy_(x.to(torch.bfloat16))
    return model.eval()


def family_model(fields, seed):
    config = transformers.AutoConfig.for_model(**fields)
    if fields["model_type"] == "mistral3":
        # These files do not speak of tying and have a head; the class ties by default.
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model = hf.auto_class(config).from_config(config, dtype=torch.bfloat16)
    return families.fill(model, seed)


def finish(folder, tokenizer, compact=False):
    """Drops what no reader of a checkpoint needs and checks the size."""
    tokenizer.save_pretrained(folder)
    if compact:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")) + "\n")
    for spare in ("recipe.yaml", "special_tokens_map.json", "README.md"):
        (folder / spare).unlink(missing_ok=True)
    print(f"{folder.name}: {sum(f.stat().st_size for f in folder.iterdir())} bytes")


def by_llmcompressor(model, scheme, samples, folder, ignore, tokenizer):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    recipe = QuantizationModifier(targets="Linear", scheme=scheme, ignore=ignore)
    data = {}
    if scheme == "NVFP4":
        data = dict(dataset=Dataset.from_dict({"input_ids": samples,
                                               "attention_mask": [[1] * len(s) for s in samples]}),
                    num_calibration_samples=len(samples), max_seq_length=len(samples[0]),
                    processor=tokenizer)  # a wrapper's own would need its pictures' settings
    oneshot(model=model, recipe=recipe, **data)
    model.save_pretrained(folder, save_compressed=True)


def by_modelopt(model, name, samples, folder):
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    config = mtq.W4A16_NVFP4_CFG if name.endswith("w4a16") else mtq.NVFP4_DEFAULT_CFG

    def loop(m):
        for s in samples:
            m(torch.tensor([s]))
    mtq.quantize(model, config, loop)
    export_hf_checkpoint(model, export_dir=folder)


def write_all(make_model, base, folder, tools, tokenizer, samples, config=None):
    """The plain checkpoint and every tool's. `config`: the hub's spelling, in place of the one that
    transformers writes; the tools keep transformers' own."""
    def fresh(name):
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        return target
    source, family = fresh(base), base.removeprefix("tiny-")
    make_model().save_pretrained(source)
    if family in layouts.PLAIN:
        layouts.rewrite(source, layouts.PLAIN[family])
    if config:
        (source / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    finish(source, tokenizer, bool(config))

    def reload():
        # The tools look the model's folder up, so it has to come from one.
        return hf.auto_class(hf.config_of(source)).from_pretrained(source, dtype=torch.bfloat16)
    for tool in tools:
        target = fresh(f"{base}-{tool}")
        if tool.startswith("modelopt"):
            by_modelopt(reload(), tool, samples, target)
        else:
            by_llmcompressor(reload(), tool.upper(), samples, target,
                             families.IGNORE if config else ["lm_head"], tokenizer)
        finish(target, tokenizer, bool(config))
    for suffix, change, quantization in layouts.DERIVED.get(family, []):
        layouts.derive(source, f"{base}-{suffix}", change, quantization)


def random_ids(vocab, count, length, seed):
    g = np.random.Generator(np.random.PCG64(seed))
    return [[int(i) for i in g.integers(0, vocab, length)] for _ in range(count)]


def large(gguf_path, folder, name):
    """Gemma's tokenizer stays in its file: the makers' tools need none."""
    fields, arrays = hf.gguf_arrays(gguf_path)
    samples = random_ids(fields["vocab_size"], 4, 256, 5)
    if fields["model_type"] == "llama":
        config = transformers.AutoConfig.for_model(**fields)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=hf.gguf_tokenizer(gguf_path))
        def make_model():
            return hf.build(config, arrays, torch.bfloat16)
    else:
        tokenizer = tiny_tokenizer()
        def make_model():
            return hf.read(fields, arrays, torch.bfloat16)
    write_all(make_model, name, folder, ["nvfp4a16", "modelopt"], tokenizer, samples)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--gguf")
    parser.add_argument("--large", type=pathlib.Path)
    parser.add_argument("--name", default="smollm2")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.gguf:
        large(args.gguf, args.large, args.name)
        return
    tokenizer = tiny_tokenizer()
    for name, (fields, seed) in TINY.items():
        if args.only is None or name in args.only:
            write_all(lambda: tiny_model(fields, seed), name, MODELS, BY[name], tokenizer,
                      random_ids(VOCAB, 4, 48, seed))
    for name, (config, seed, tools) in families.FAMILIES.items():
        if args.only is None or name in args.only:
            write_all(lambda: family_model(config(), seed), f"tiny-{name}", MODELS, tools, tokenizer,
                      random_ids(families.VOCAB, 4, 48, seed), config())


if __name__ == "__main__":
    main()
