"""--trace and imp trace: what a trace file says of a step, and where two runs part.

IMP_BIN names the binary (default build/imp). Models are the tiny ones of tests/data/models.
"""
import csv
import json
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
SMOL, QWEN3, MOE = MODELS / "tiny-smol", MODELS / "tiny-qwen3", MODELS / "tiny-qwen3-moe"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
ENV = {k: v for k, v in os.environ.items() if not k.startswith("IMP_")} | {"IMP_DEVICE": "cpu"}
HEADER = "seq,position,token,layer,stage,type,cols,max,l2,probe,nan,inf,hash"

pytestmark = pytest.mark.skipif(not os.access(IMP, os.X_OK), reason=f"{IMP} is not there")


def call(*arguments, **env):
    return subprocess.run([IMP, *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120, env={**ENV, **env})


def imp(*arguments, status=0, **env):
    done = call(*arguments, **env)
    assert done.returncode == status, f"{arguments}: {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


def fails(status, *arguments):
    done = call(*arguments)
    assert done.returncode == status, f"{arguments}: {done.returncode}: {done.stderr}{done.stdout}"
    assert done.stdout == "" and done.stderr.startswith("imp: ") and done.stderr.count("\n") == 1
    return done.stderr


def draw(count, seed, most=300):
    return [int(i) for i in np.random.default_rng(seed).integers(3, most, count)]


@pytest.fixture
def ids(tmp_path):
    """Two sequences, and the flags that run them together."""
    flags = []
    for i, count in enumerate((19, 30)):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(draw(count, i)))
        flags += ["--ids", path]
    return flags


def trace(path, model, flags, *more):
    imp("score", model, *flags, "--trace", path, *more)
    return path


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def compare(a, b, *more, status):
    return json.loads(imp("trace", a, b, "--json", *more, status=status))


# ---- the file ----

def xxh32(data):
    """XXH32 with seed 0, from its specification."""
    p1, p2, p3, p4, p5, mask = 2654435761, 2246822519, 3266489917, 668265263, 374761393, 0xffffffff

    def rotate(x, n):
        return ((x << n) | (x >> (32 - n))) & mask

    words = [int(w) for w in np.frombuffer(data, "<u4")]
    whole = len(words) // 4 * 4
    hashed = p5
    if whole:
        lanes = [p1 + p2 & mask, p2, 0, -p1 & mask]
        for i, word in enumerate(words[:whole]):
            lanes[i % 4] = rotate(lanes[i % 4] + word * p2 & mask, 13) * p1 & mask
        hashed = sum(rotate(lane, n) for lane, n in zip(lanes, (1, 7, 12, 18)))
    hashed = hashed + len(data) & mask
    for word in words[whole:]:
        hashed = rotate(hashed + word * p3 & mask, 17) * p4 & mask
    for shift, prime in ((15, p2), (13, p3)):
        hashed = (hashed ^ hashed >> shift) * prime & mask
    return hashed ^ hashed >> 16


def signs(count):
    k = np.arange(count, dtype=np.uint32)
    for shift, prime in ((16, 0x85ebca6b), (13, 0xc2b2ae35), (16, 1)):
        k = (k ^ (k >> np.uint32(shift))) * np.uint32(prime)
    return np.where(k & 1, -1.0, 1.0)


def test_columns_are_made_of_the_values(tmp_path, ids):
    """The last stage is the logits, and those are known; so is what the run was given."""
    out = trace(tmp_path / "t.csv", SMOL, ids, "--logits", tmp_path / "l.npy")
    assert out.read_text().splitlines()[0] == HEADER
    rows = rows_of(out)
    for seq in range(2):
        tokens, logits = json.loads(ids[2 * seq + 1].read_text()), np.load(tmp_path / f"l.{seq}.npy")
        mine = [r for r in rows if r["stage"] == "logits" and r["seq"] == str(seq)]
        assert [int(r["position"]) for r in mine] == list(range(len(tokens)))
        assert [int(r["token"]) for r in mine] == tokens
        for row, values in zip(mine, logits):
            x = values.astype(np.float64)
            assert (row["layer"], row["type"], row["cols"]) == ("-1", "f32", "300")
            assert float(row["max"]) == pytest.approx(abs(x).max(), rel=1e-8)
            assert float(row["l2"]) == pytest.approx(np.sqrt((x * x).sum()), rel=1e-8)
            assert float(row["probe"]) == pytest.approx((signs(300) * x).sum(), rel=1e-6, abs=1e-6)
            assert (row["nan"], row["inf"]) == ("0", "0")
            assert row["hash"] == f"{xxh32(values.tobytes()):08x}"


def test_traced_step_gives_the_same_bytes(tmp_path, ids):
    for model in (SMOL, MOE):
        trace(tmp_path / "t.csv", model, ids, "--logits", tmp_path / "a.npy")
        imp("score", model, *ids, "--logits", tmp_path / "b.npy")
        for i in range(2):
            assert (tmp_path / f"a.{i}.npy").read_bytes() == (tmp_path / f"b.{i}.npy").read_bytes()


ALWAYS = {"input_norm", "h_mixer", "ffn_norm", "h_ffn"}
ATTENTION, DENSE, ROUTED = {"qkv", "q", "attention"}, {"gate_up", "glu"}, {
    "expert_ids", "expert_weights", "experts"}
STAGES = {  # of all layers together
    "tiny-smol": ATTENTION | DENSE,
    "tiny-qwen3-moe": ATTENTION | DENSE | ROUTED,  # its second layer is dense
    "tiny-qwen3-next": ATTENTION | {"gdn_in", "gdn", "shared_gate_up", "shared_glu"} | ROUTED,
    "tiny-qwen3.5": ATTENTION | DENSE | {"gdn_in", "gdn"},
    "tiny-gemma3-text": ATTENTION | DENSE | {"mixer", "ffn"},
    "tiny-gemma4-moe": ATTENTION | DENSE | ROUTED | {"mixer", "ffn", "dense", "moe_norm"},
    "tiny-gemma4-ple": ATTENTION | DENSE | {"mixer", "ffn", "ple_gate", "ple_glu", "ple_out",
                                            "h_ple"},
    "tiny-gpt-oss": ATTENTION | ROUTED,
}


@pytest.mark.parametrize("model", sorted(p.name for p in MODELS.iterdir() if p.is_dir()))
def test_every_model_can_be_traced(model, tmp_path, ids):
    rows = rows_of(trace(tmp_path / "a.csv", MODELS / model, ids))
    outside = {r["stage"] for r in rows if r["layer"] == "-1"}
    assert outside - {"ple"} == {"embedding", "final_norm", "logits"}
    by_layer = {}
    for r in rows:
        by_layer.setdefault(int(r["layer"]), set()).add(r["stage"])
        assert r["nan"] == r["inf"] == "0" and float(r["l2"]) >= float(r["max"]) * (1 - 1e-6)
    by_layer.pop(-1)
    assert sorted(by_layer) == list(range(len(by_layer)))
    assert all(stages >= ALWAYS for stages in by_layer.values())
    if model in STAGES:
        assert set().union(*by_layer.values()) == STAGES[model] | ALWAYS
        assert ("ple" in outside) == ("ple" in model)
    keys = [(r["seq"], r["position"], r["layer"], r["stage"]) for r in rows]
    assert len(set(keys)) == len(keys) == 49 * len({k[2:] for k in keys})
    trace(tmp_path / "b.csv", MODELS / model, ids, "--set", "runtime.prefill_chunk=7")
    assert compare(tmp_path / "a.csv", tmp_path / "b.csv", status=0)["differ"] == 0


# ---- equal runs ----

def test_equal_runs_give_equal_files(tmp_path, ids):
    a, b = trace(tmp_path / "a.csv", MOE, ids), trace(tmp_path / "b.csv", MOE, ids, "-t", "1")
    assert a.read_bytes() == b.read_bytes()
    assert imp("trace", a, b).startswith("equal: ")


def test_chunks_and_neighbours_do_not_matter(tmp_path, ids):
    whole = trace(tmp_path / "a.csv", SMOL, ids)
    chunks = trace(tmp_path / "b.csv", SMOL, ids, "--set", "runtime.prefill_chunk=7")
    assert whole.read_bytes() != chunks.read_bytes()
    assert sorted(whole.read_text().splitlines()) == sorted(chunks.read_text().splitlines())
    got = compare(whole, chunks, status=0)
    assert got["equal"] and got["rows"] == len(rows_of(whole)) and got["differ"] == 0
    assert got["first"] is None and got["only_a"] == got["only_b"] == got["not_compared"] == 0
    alone = trace(tmp_path / "c.csv", SMOL, ids[:2])
    got = compare(whole, alone, status=2)  # the second sequence is not there
    assert got["differ"] == 0 and got["rows"] == len(rows_of(alone)) and got["only_a"] > 0


def test_rows_computed_twice_count_once(tmp_path):
    how = ["run", SMOL, "-p", "One two three", "-n", "6", "--trace"]
    imp(*how, tmp_path / "a.csv")
    imp(*how, tmp_path / "b.csv", "--set", "runtime.preempt_every=2", "--set",
        "runtime.prefix_cache=false")
    assert len(rows_of(tmp_path / "b.csv")) > len(rows_of(tmp_path / "a.csv"))
    got = compare(tmp_path / "a.csv", tmp_path / "b.csv", status=0)
    assert got["rows"] == len(rows_of(tmp_path / "a.csv"))
    twice = f"{HEADER}\n{GOOD}\n{GOOD[:-1]}2\n"  # other bits at the second time: no equal run
    (tmp_path / "a.csv").write_text(f"{HEADER}\n{GOOD}\n")
    (tmp_path / "b.csv").write_text(twice)
    assert compare(tmp_path / "a.csv", tmp_path / "b.csv", status=2)["only_b"] == 1


def test_rows_whose_logits_are_wanted(tmp_path):
    """Of an answer: the prompt's last row and every one after it, under their own position."""
    imp("run", SMOL, "-p", "One two three", "-n", "4", "--trace", tmp_path / "t.csv")
    rows = rows_of(tmp_path / "t.csv")
    tokens = {r["position"]: r["token"] for r in rows if r["stage"] == "embedding"}
    end = [r for r in rows if r["stage"] == "logits"]
    assert [int(r["position"]) for r in end] == list(range(len(tokens) - 4, len(tokens)))
    assert all(r["token"] == tokens[r["position"]] for r in end)


# ---- different runs ----

def test_reference_and_fast_are_near(tmp_path, ids):
    fast = trace(tmp_path / "a.csv", SMOL, ids)
    plain = trace(tmp_path / "b.csv", SMOL, ids, "--set", "runtime.reference=true")
    got = compare(fast, plain, status=2)
    assert got["beyond"] == got["differ"] > 0  # an act is rounded, and the first one is this:
    assert (got["first"]["layer"], got["first"]["stage"]) == (0, "input_norm")
    assert got["layers"][0]["differ"] == 0  # an embedding is not
    got = compare(fast, plain, "--tolerance", "0.05", status=0)
    assert got["equal"] and got["beyond"] == 0 and got["first_beyond"] is None
    assert 0 < max(layer["worst"]["apart"] for layer in got["layers"][1:]) < 0.05
    text = imp("trace", fast, plain, "--tolerance", "0.001", status=2)
    assert re.search(r"^first difference: layer 0, stage input_norm, sequence 0, position 0", text,
                     re.M)
    assert "first beyond the tolerance: layer 0" in text


def changed(folder, name, write, at=0):
    """A copy of tiny-qwen3 with two bytes of one tensor replaced: write gets the BF16 code."""
    shutil.copytree(QWEN3, folder)
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    size = int.from_bytes(raw[:8], "little")
    start = 8 + size + json.loads(raw[8:8 + size])[name]["data_offsets"][0] + 2 * at
    code = int.from_bytes(raw[start:start + 2], "little")
    raw[start:start + 2] = write(code).to_bytes(2, "little")
    file.write_bytes(raw)
    return folder


@pytest.mark.parametrize("name, layer, stage", [
    ("model.layers.0.input_layernorm", 0, "input_norm"),
    ("model.layers.1.self_attn.q_proj", 1, "qkv"), ("model.layers.1.self_attn.v_proj", 1, "qkv"),
    ("model.layers.2.self_attn.q_norm", 2, "q"), ("model.layers.2.self_attn.k_norm", 2, "attention"),
    ("model.layers.1.self_attn.o_proj", 1, "h_mixer"),
    ("model.layers.1.post_attention_layernorm", 1, "ffn_norm"),
    ("model.layers.0.mlp.up_proj", 0, "gate_up"), ("model.layers.1.mlp.down_proj", 1, "h_ffn"),
    ("model.norm", None, "final_norm"),
])
def test_one_weight_is_found(tmp_path, ids, name, layer, stage):
    other = changed(tmp_path / "m", f"{name}.weight", lambda code: code ^ 0x0070)
    a, b = trace(tmp_path / "a.csv", QWEN3, ids), trace(tmp_path / "b.csv", other, ids)
    got = compare(a, b, status=2)
    assert (got["first"]["layer"], got["first"]["stage"]) == (layer, stage)
    before = [g for g in got["layers"] if layer is None or (g["layer"] or 0) < layer]
    assert [g["differ"] for g in before[:-1]] == [0] * (len(before) - 1)
    assert f", stage {stage}, " in imp("trace", a, b, status=2)


def test_one_token_is_found(tmp_path, ids):
    """A row of the embedding: only positions with that token, or after one, can differ."""
    tokens = json.loads(ids[3].read_text())
    at = 11
    other = changed(tmp_path / "m", "model.embed_tokens.weight", lambda code: code ^ 0x0070,
                    at=48 * tokens[at] + 5)
    a, b = trace(tmp_path / "a.csv", QWEN3, ids), trace(tmp_path / "b.csv", other, ids)
    first = compare(a, b, status=2)["first"]
    assert first["stage"] == "embedding" and first["layer"] is None
    if tokens[at] not in json.loads(ids[1].read_text()):
        assert (first["sequence"], first["position"]) == (1, tokens.index(tokens[at]))


def test_inf_and_nan_are_counted(tmp_path, ids):
    """A weight near the largest BF16 (a NaN would not be loaded): products of it run over."""
    other = changed(tmp_path / "m", "model.layers.1.post_attention_layernorm.weight",
                    lambda code: 0x7f7f, at=7)
    a, b = trace(tmp_path / "a.csv", QWEN3, ids), trace(tmp_path / "b.csv", other, ids)
    rows = rows_of(b)
    bad = next(r for r in rows if r["inf"] != "0" or r["nan"] != "0")
    assert (bad["layer"], bad["stage"], bad["nan"], bad["inf"]) == ("1", "ffn_norm", "0", "1")
    after = [r for r in rows if all(r[k] == bad[k] for k in ("seq", "position")) and
             r["stage"] == "logits"]
    assert [r["nan"] for r in after] == ["320"] and after[0]["max"] == after[0]["l2"] == "0"
    got = compare(a, b, "--tolerance", "0.5", status=2)
    assert (got["first"]["layer"], got["first"]["stage"]) == (1, "ffn_norm")
    worst = got["layers"][2]["worst"]
    assert worst["apart"] is None and worst["stage"] == "ffn_norm" and worst["inf"] == [0, 1]
    nan = sum(int(r["nan"]) for r in rows if r["stage"] == "logits")
    assert re.search(rf"^    -  logits .* {nan} +0$", imp("trace", b), re.M)


def test_turned_values_are_seen(tmp_path):
    """Norm and maximum of a rotated row stay the same; the probe does not."""
    def line(probe, hashed):
        return f"{HEADER}\n0,0,1,0,q,act,4,1,2,{probe},0,0,{hashed}\n"

    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text(line("1.5", "00000001"))
    b.write_text(line("-0.5", "00000002"))
    assert compare(a, b, "--tolerance", "0.5", status=2)["first_beyond"]["apart"] == 1


def test_other_experts_are_no_small_difference(tmp_path):
    def line(hashed):
        return f"{HEADER}\n0,0,1,0,expert_ids,i32,2,1,2,1.5,0,0,{hashed}\n"

    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text(line("00000001"))
    b.write_text(line("00000002"))
    assert compare(a, b, "--tolerance", "1000", status=2)["first_beyond"]["apart"] is None
    b.write_text(line("00000001"))
    compare(a, b, status=0)


def test_tokens_that_part(tmp_path):
    """From where two answers differ on, other tokens are read: that is said, and not compared."""
    how = ["run", SMOL, "--raw", "-p", "One two three four", "-n", "8", "--temperature", "100"]
    for name, seed in (("a", 1), ("b", 2)):
        imp(*how, "--seed", seed, "--trace", tmp_path / f"{name}.csv")
    a, b = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    tokens = [{int(r["position"]): r["token"] for r in rows} for rows in (a, b)]
    cut = next(p for p in sorted(tokens[0]) if tokens[0][p] != tokens[1][p])
    got = compare(tmp_path / "a.csv", tmp_path / "b.csv", status=2)
    assert got["cuts"] == [{"sequence": 0, "position": cut}]
    assert got["first"] is None and got["differ"] == 0 and got["not_compared"] > 0
    assert got["rows"] == sum(int(r["position"]) < cut for r in a)
    text = imp("trace", tmp_path / "a.csv", tmp_path / "b.csv", status=2)
    assert f"sequence 0 reads other tokens from position {cut} on" in text


# ---- tables, and two runs at once ----

def test_table(tmp_path, ids):
    path = trace(tmp_path / "t.csv", SMOL, ids)
    text = imp("trace", path)
    assert len(text.splitlines()) == 1 + len({(r["layer"], r["stage"]) for r in rows_of(path)})
    done = call("score", SMOL, *ids, "--trace", "-", TMPDIR=str(tmp_path / "empty"))
    assert done.returncode == 5 and "imp-trace" in done.stderr
    (tmp_path / "empty").mkdir()
    done = call("score", SMOL, *ids, "--trace", "-", TMPDIR=str(tmp_path / "empty"))
    assert done.returncode == 0 and done.stdout == "" and done.stderr == text
    assert not list((tmp_path / "empty").iterdir())
    totals = json.loads(imp("trace", path, "--json"))
    assert [t["stage"] for t in totals if t["layer"] is None] == ["embedding", "final_norm", "logits"]
    assert all(t["rows"] == 49 for t in totals)
    largest = max((r for r in rows_of(path) if r["stage"] == "logits"), key=lambda r: float(r["max"]))
    assert totals[-1]["max"] == pytest.approx(float(largest["max"]))
    assert (totals[-1]["sequence"], totals[-1]["position"]) == (
        int(largest["seq"]), int(largest["position"]))
    answer = call("run", SMOL, "-p", "Hello", "-n", "3", "--trace", "-")
    assert answer.returncode == 0 and "logits" in answer.stderr


def test_two_runs_of_a_model(tmp_path, ids):
    how = ["trace", SMOL, *ids, "--json"]
    assert json.loads(imp(*how, TMPDIR=str(tmp_path)))["equal"]
    imp(*how, "--b", "runtime.prefill_chunk=7", "--b", "runtime.max_batch=1")
    plain = "runtime.reference=true"
    for sides in (["--a", plain], ["--b", plain], ["--a", plain, "--b", "runtime.reference=rounded"]):
        assert not json.loads(imp(*how, *sides, status=2))["equal"], sides
        json.loads(imp(*how, *sides, "--tolerance", "0.05"))
    # What a sets is forgotten for b; what --set says holds for both.
    imp(*how, "--set", plain, "--a", "runtime.prefill_chunk=7")
    imp(*how, "--set", plain, "--b", "runtime.reference=false", status=2)
    assert not list(tmp_path.glob("imp-trace*"))


def test_score_of_a_text_traces_the_model_alone(tmp_path):
    (tmp_path / "text").write_text("The quick brown fox jumps over the lazy dog. " * 3)
    how = ["score", SMOL, "--text", tmp_path / "text", "--trace"]
    imp(*how, tmp_path / "a.csv")
    imp(*how, tmp_path / "b.csv", "--reference", MODELS / "tiny-smol-nvfp4a16")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


# ---- what is refused ----

GOOD = "0,0,1,0,q,act,4,1,2,1.5,0,0,00000001"


@pytest.mark.parametrize("line, told", [
    ("", "seq"), ("x" + GOOD, "seq"), ("-1,0,1,0,q,act,4,1,2,1.5,0,0,00000001", "seq"),
    ("0,,1,0,q,act,4,1,2,1.5,0,0,00000001", "position"), ("0,0,1", "layer"),
    ("0,0,99999999999,0,q,act,4,1,2,1.5,0,0,00000001", "token"),
    ("0,0,1,-2,q,act,4,1,2,1.5,0,0,00000001", "layer"),
    ("0,0,1,0,Q,act,4,1,2,1.5,0,0,00000001", "stage"),
    ("0,0,1,0," + "q" * 40 + ",act,4,1,2,1.5,0,0,00000001", "stage"),
    ("0,0,1,0,q,f64,4,1,2,1.5,0,0,00000001", "type"),
    ("0,0,1,0,q,act,0,1,2,1.5,0,0,00000001", "cols"),
    ("0,0,1,0,q,act,4,nan,2,1.5,0,0,00000001", "max"),
    ("0,0,1,0,q,act,4,1,-2,1.5,0,0,00000001", "l2"),
    ("0,0,1,0,q,act,4,1,2,1e999,0,0,00000001", "probe"),
    ("0,0,1,0,q,act,4,1,2,1.5,5,0,00000001", "nan"),
    ("0,0,1,0,q,act,4,1,2,1.5,0,0,0001", "hash"), (GOOD + ",7", "hash"), (GOOD + "\0", "hash"),
], ids=lambda x: x.replace("\0", "NUL"))
def test_broken_lines(tmp_path, line, told):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(f"{HEADER}\n{GOOD}\n")
    bad.write_text(f"{HEADER}\n{GOOD}\n{line}\n{GOOD}\n")
    message = fails(3, "trace", bad)
    assert f"bad.csv: line 3: column {told} is missing or broken" in message
    assert message == fails(3, "trace", good, bad) == fails(3, "trace", bad, good)


def test_broken_files(tmp_path):
    path = tmp_path / "t.csv"
    fails(5, "trace", path)
    for text, told in [("", "holds no rows"), (f"{HEADER}\n", "holds no rows"),
                       (f"{GOOD}\n", "not a trace"), ("{}\n", "not a trace"),
                       (f"{HEADER}\n{GOOD}", "line 2: is cut off")]:
        path.write_text(text)
        assert told in fails(3, "trace", path), text
    assert "not a regular file" in fails(3, "trace", tmp_path)


def test_usage(tmp_path, ids):
    for wrong in (["trace"], ["trace", "a", "b", "c"], ["trace", "a", "b", *ids],
                  ["trace", "a", "b", "--tolerance", "-1"], ["trace", "a", "--tolerance", "1"],
                  ["trace", "a", "b", "--a", "runtime.threads=1"],
                  ["trace", SMOL, *ids, "--a", "runtime.thread=1"], ["trace", SMOL, *ids, "--b", "x"],
                  ["score", SMOL, *ids], ["score", SMOL, *ids, "--trace", ""]):
        fails(1, *wrong)
    assert "no" in fails(5, "score", SMOL, *ids, "--trace", tmp_path / "no" / "t.csv")


@pytest.mark.skipif(not pathlib.Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_full_disk(ids):
    assert "cannot write the trace" in fails(5, "score", SMOL, *ids, "--trace", "/dev/full")
