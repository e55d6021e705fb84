"""imp inspect --weights: faults planted in the configuration, the names of tensors, the tokenizer, the
template and the end tokens of copies of checkpoints. test_weights.py sees that the healthy ones have
none; where a change is fine by itself, it is tried here too."""
import contextlib
import json

import pytest

import block_formats as fmt
from health import MODELS, ROOT, SKIP, copy, examine, rules  # noqa: F401

pytestmark = SKIP
TOKENIZERS = ROOT / "tests" / "data" / "tokenizer"


@contextlib.contextmanager
def edit_json(path):
    value = json.loads(path.read_text())
    yield value
    path.write_text(json.dumps(value))


def finding(report, rule):
    [found] = [f for f in report["findings"] if f["rule"] == rule]
    return found


# ---- tensors against config.json ----

@pytest.mark.parametrize("model,old,new,missing", [
    ("tiny-gqa", "model.layers.1.input_layernorm.weight", "model.layers.1.other.weight",
     "model.layers.1.input_layernorm.weight"),
    ("tiny-gqa-nvfp4", "model.layers.1.mlp.up_proj.", "model.layers.1.mlp.other.",
     "model.layers.1.mlp.up_proj"),
    ("tiny-qwen3-moe-modelopt", "model.layers.0.mlp.experts.1.up_proj.",
     "model.layers.0.mlp.experts.1.other.", "model.layers.0.mlp.experts.1.up_proj"),
    ("tiny-qwen3.5-moe", "model.language_model.layers.1.mlp.experts.",
     "model.language_model.layers.1.mlp.other.", "model.layers.1.mlp.experts"),
])
def test_missing_tensor(copy, model, old, new, missing):
    folder = copy(model)
    fmt.rename(folder, lambda name: name.replace(old, new))
    report = examine(folder, status=2)
    assert rules(report) == {"tensor_missing"}
    assert finding(report, "tensor_missing")["tensor"] == missing
    assert finding(report, "tensor_extra")["level"] == "weak"
    assert ".other" in finding(report, "tensor_extra")["tensor"]


def test_missing_expert(copy):
    folder = copy("tiny-qwen3-moe-modelopt")
    fmt.rename(folder, lambda name: name.replace("layers.0.mlp.experts.2.", "layers.0.mlp.other.2."))
    found = {f["tensor"] for f in examine(folder, status=2)["findings"]
             if f["rule"] == "tensor_missing"}
    assert found == {f"model.layers.0.mlp.experts.2.{part}_proj" for part in ("gate", "up", "down")}


def test_many_missing_tensors(copy):
    folder = copy("tiny-qwen3-moe-modelopt")
    fmt.rename(folder, lambda name: name.replace("model.layers.0.", "model.layers.7."))
    found = [f for f in examine(folder, status=2)["findings"] if f["rule"] == "tensor_missing"]
    assert len(found) == 9 and sum(f["tensor"] is None for f in found) == 1


@pytest.mark.parametrize("model,key,value,tensor", [
    ("tiny-gqa-nvfp4", "intermediate_size", 160, "model.layers.0.mlp.up_proj"),
    ("tiny-gqa", "vocab_size", 328, "model.embed_tokens"),
    ("tiny-qwen3-moe-modelopt", "num_local_experts", 3, "model.layers.0.mlp.experts"),
])
def test_wrong_shape(copy, model, key, value, tensor):
    folder = copy(model)
    with edit_json(folder / "config.json") as config:
        assert config[key] != value
        config[key] = value
    report = examine(folder, status=2)
    assert rules(report) == {"tensor_shape"}
    assert rules(report, tensor) == {"tensor_shape"}


def test_unexpected_bias(copy):
    """A bias that the configuration denies would be left out without a word."""
    folder = copy("tiny-bias")
    with edit_json(folder / "config.json") as config:
        config["attention_bias"] = False
    report = examine(folder)
    assert rules(report, level="weak") == {"tensor_extra"}
    assert finding(report, "tensor_extra")["tensor"].endswith("_proj.bias")


def test_extra_head_beside_a_tied_embedding(copy):
    folder = copy("tiny-gqa")
    with edit_json(folder / "config.json") as config:
        config["tie_word_embeddings"] = True
    report = examine(folder)
    assert not rules(report, level="weak") and rules(report, level="note") == {"tensor_extra"}


def test_head_is_missing(copy):
    folder = copy("tiny-gqa")
    fmt.rename(folder, lambda name: name.replace("lm_head", "model.vision_tower.head"))
    assert rules(examine(folder), level="weak") == {"tensor_missing"}


def test_config_of_no_model(copy):
    folder = copy("tiny-gqa")
    with edit_json(folder / "config.json") as config:
        config["num_attention_heads"] = 0
    report = examine(folder, status=2)
    assert rules(report) == {"config"} and "num_attention_heads" in report["findings"][0]["text"]
    with edit_json(folder / "config.json") as config:
        config["model_type"] = "nonesuch"
    assert rules(examine(folder), level="note") == {"config"}


# ---- the quantisation's configuration against the tensors ----


@pytest.mark.parametrize("model,entry,tensors", [
    ("tiny-gqa-nvfp4", "model.layers.0.self_attn.q_proj", 1),
    ("tiny-gqa-nvfp4", "re:.*mlp.up_proj$", 2),
    ("tiny-gqa-modelopt", "model.layers.0.self_attn*", 4),
    ("tiny-gqa-modelopt", "model.layers.1.mlp", 3),
    ("tiny-mistral3-nvfp4", "model.language_model.layers.0.self_attn.q_proj", 1),
    # these are fine
    ("tiny-gqa-nvfp4", "re:.*lm_head", 0),
    ("tiny-gqa-nvfp4", "re:up_proj", 0),
    ("tiny-gqa-nvfp4", "re:.*mlp.gate$", 0),
    ("tiny-gqa-modelopt", "*vision*", 0),
    ("tiny-gqa-modelopt", "*.?.mlp.*_proj", 6),
    ("tiny-gqa-modelopt", "*a" * 40, 0),
])
def test_ignored_but_quantised(copy, model, entry, tensors):
    folder = copy(model)
    with edit_json(folder / "config.json") as config:
        config["quantization_config"]["ignore"].append(entry)
    report = examine(folder)
    assert rules(report, level="weak") == ({"ignored_quantised"} if tensors else set())
    if tensors:
        assert finding(report, "ignored_quantised")["value"] == tensors


def test_to_be_quantised_but_plain(copy):
    folder = copy("tiny-gqa-nvfp4")
    with edit_json(folder / "config.json") as config:
        config["quantization_config"]["ignore"].remove("lm_head")
    assert rules(examine(folder), "lm_head", "weak") == {"target_plain"}


def test_ignored_but_nowhere(copy):
    folder = copy("tiny-gqa-nvfp4")
    with edit_json(folder / "config.json") as config:
        config["quantization_config"]["ignore"] += ["model.layers.9.mlp.up_proj", "re:visual.*"]
    report = examine(folder)
    assert finding(report, "ignore_unmatched")["value"] == 1
    assert not rules(report, level="weak")


def test_format_is_not_announced(copy):
    folder = copy("tiny-gqa-nvfp4")
    with edit_json(folder / "config.json") as config:
        del config["quantization_config"]
    assert rules(examine(folder), level="weak") == {"format"}


def test_announced_format_is_not_there(copy):
    folder = copy("tiny-gqa")
    quantised = json.loads((MODELS / "tiny-gqa-nvfp4" / "config.json").read_text())
    with edit_json(folder / "config.json") as config:
        config["quantization_config"] = quantised["quantization_config"]
    assert rules(examine(folder), level="weak") == {"format", "target_plain"}


def test_other_dialect(copy):
    folder = copy("tiny-gqa-nvfp4")
    with edit_json(folder / "config.json") as config:
        config["quantization_config"]["quant_method"] = "modelopt"
    assert rules(examine(folder), level="weak") == {"dialect"}


# ---- the tokenizer ----

def test_no_tokenizer(copy):
    folder = copy("tiny-gqa")
    (folder / "tokenizer.json").unlink()
    assert rules(examine(folder), level="weak") == {"tokenizer"}


def test_unreadable_tokenizer(copy):
    folder = copy("tiny-gqa")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[:len(text) // 2])
    assert rules(examine(folder, status=2)) == {"tokenizer"}


def test_tokenizer_of_another_model(copy):
    folder = copy("tiny-qwen3")  # 300 ids, 320 rows
    with edit_json(folder / "tokenizer.json") as tokenizer:
        tokenizer["added_tokens"].append(dict(tokenizer["added_tokens"][0], id=319, content="<new>"))
    assert not rules(examine(folder))
    with edit_json(folder / "tokenizer.json") as tokenizer:
        tokenizer["added_tokens"][-1]["id"] = 320
    assert rules(examine(folder, status=2)) == {"tokenizer_size"}
    folder = copy("tiny-qwen3")
    with edit_json(folder / "tokenizer.json") as tokenizer:
        model = tokenizer["model"]
        model["merges"] = []
        model["vocab"] = {token: i for token, i in model["vocab"].items() if i < 270}
    assert rules(examine(folder), level="weak") == {"tokenizer_size"}


@pytest.mark.parametrize("model,split,inst,found", [
    ("tiny-mistral", "llama3", True, True),
    ("tiny-mistral3-nvfp4", "llama3", True, True),
    # Mistral's own expression; Llama 3's vocabulary in a Mistral model; a Llama
    ("tiny-mistral", "tekken", True, False),
    ("tiny-mistral", "llama3", False, False),
    ("tiny-qwen3", "llama3", True, False),
])
def test_llama3_regex_in_mistral(copy, model, split, inst, found):
    folder = copy(model)
    with edit_json(folder / "tokenizer.json") as tokenizer:
        source = json.loads((TOKENIZERS / split / "tokenizer.json").read_text())
        tokenizer["pre_tokenizer"] = source["pre_tokenizer"]
        if inst:
            tokenizer["added_tokens"].append(
                dict(tokenizer["added_tokens"][0], id=300, content="[INST]"))
    report = examine(folder, status=2 if found else 0)
    assert rules(report) == ({"tokenizer_regex"} if found else set())


# ---- the template and the end tokens ----

@pytest.mark.parametrize("template,level,expected", [
    (None, "note", {"template"}),
    ("{% for m in messages %}", "broken", {"template"}),
    ("{{ raise_exception('no') }}", "weak", {"template"}),
    ("{% for m in messages %}<|nonesuch|>{{ m.content }}<|im_end|>{% endfor %}", "weak",
     {"template_tokens"}),
    ("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", "weak", set()),
    ("{% for m in messages %}a <| b |> {{ m.content }}{% endfor %}", "weak", set()),
])
def test_template(copy, template, level, expected):
    folder = copy("tiny-gqa")
    if template is None:
        (folder / "chat_template.jinja").unlink()
    else:
        (folder / "chat_template.jinja").write_text(template)
    report = examine(folder, status=2 if level == "broken" else 0)
    assert rules(report, level=level) == expected


@pytest.mark.parametrize("ends,broken,weak", [
    (0, {"eos_of_turn"}, set()),
    ([0, 1], {"eos_of_turn"}, set()),
    (None, {"eos_of_turn"}, {"eos"}),
    ([2, 310], set(), {"eos"}),
    ([2, 999], {"eos", "config"}, set()),
    ([0, 2], set(), set()),
])
def test_end_tokens(copy, ends, broken, weak):
    folder = copy("tiny-qwen3")  # 300 ids, 320 rows
    for name in ("config.json", "generation_config.json"):
        with edit_json(folder / name) as config:
            config["eos_token_id"] = ends
    report = examine(folder, status=2 if broken else 0)
    assert (rules(report), rules(report, level="weak")) == (broken, weak)


def test_one_file_with_the_end_token_is_enough(copy):
    folder = copy("tiny-gqa")
    with edit_json(folder / "config.json") as config:
        config["eos_token_id"] = 0
    assert not rules(examine(folder))
