"""The command line of imp from outside: exit statuses, the forms of every command, their output.

IMP_BIN names the binary (default build/imp). Models are the tiny ones of tests/data/models.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
MODEL = DATA / "models" / "tiny-smol"
QUANTISED = DATA / "models" / "tiny-smol-nvfp4a16"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
COMMANDS = ["run", "bench", "score", "inspect", "quantize", "synth", "tokenize", "trace",
            "completion"]
# On the CPU, also where a CUDA module lies beside the program.
NO_IMP = {k: v for k, v in os.environ.items() if not k.startswith("IMP_")} | {"IMP_DEVICE": "cpu"}

pytestmark = pytest.mark.skipif(not os.access(IMP, os.X_OK), reason=f"{IMP} is not there")


def call(*arguments, env=None, stdin=b"", stdout=subprocess.PIPE):
    return subprocess.run([IMP, *map(str, arguments)], input=stdin, stdout=stdout,
                          stderr=subprocess.PIPE, env={**NO_IMP, **(env or {})}, timeout=120)


def imp(*arguments, **how):
    done = call(*arguments, **how)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stderr.decode()}"
    return done.stdout.decode()


def fails(status, *arguments, **how):
    """One line on standard error, nothing on standard output, the exit status."""
    done = call(*arguments, **how)
    message = done.stderr.decode()
    assert done.returncode == status, f"{arguments}: exit {done.returncode}: {message}"
    assert not done.stdout, f"{arguments}: wrote {done.stdout[:200]}"
    assert message.startswith("imp: ") and message.count("\n") == 1, message
    return message


def options_of(command):
    """name -> letter or "", from --help."""
    rows = re.findall(r"^  (?:-(\w), |    )--([a-z0-9-]+)", imp(command, "--help"), re.M)
    assert rows
    return {name: letter for letter, name in rows}


@pytest.fixture
def ids_file(tmp_path):
    def write(name, ids):
        path = tmp_path / name
        path.write_text(json.dumps(ids))
        return path
    return write


# ---- the program ----

def test_version_and_help():
    assert re.fullmatch(r"imp \d+\.\d+\.\d+\n", imp("--version"))
    text = imp("--help")
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.M), command
    statuses = [int(n) for n in re.findall(r"^  (\d+)  ", text.split("Exit status:")[1], re.M)]
    assert statuses == list(range(13))


def test_no_command_is_usage():
    done = call()
    assert done.returncode == 1 and not done.stdout and b"Usage" in done.stderr


@pytest.mark.parametrize("wrong, nearest", [
    (["tokenise", MODEL], "tokenize"), (["scor"], "score"), (["--versoin"], "--version"),
    (["score", MODEL, "--windw", "3"], "--window"), (["bench", MODEL, "--bacth=1"], "--batch"),
    (["tokenize", MODEL, "a", "--set", "runtime.thread=1"], "runtime.threads"),
])
def test_nearest_name(wrong, nearest):
    assert nearest in fails(1, *wrong)


@pytest.mark.parametrize("wrong", [
    ["zzzzzz"], ["help", "zzzzzz"], ["score"], ["score", MODEL], ["inspect", MODEL, "another"],
    ["score", MODEL, "--text"], ["score", MODEL, "--text", ""], ["tokenize", MODEL],
    ["score", MODEL, "--text", "a", "--window", "1"], ["score", MODEL, "--text", "a", "--window", "x"],
    ["score", MODEL, "--text", "a", "--ids", "b", "--logits", "c"], ["score", MODEL, "--ids", "b"],
    ["score", MODEL, "--text", "a", "--logits", "c"], ["bench", MODEL, "-b", "1,0"],
    ["bench", MODEL, "-b", "1,,2"], ["bench", MODEL, "-b", ""], ["bench", MODEL, "-n", "0"],
    ["bench", MODEL, "-p", "250", "-n", "250"], ["quantize", MODEL],
    ["quantize", MODEL, "x", "--format", "gguf"], ["quantize", MODEL, "x", "--method", "best"],
    ["tokenize", MODEL, "a", "--decode", "[1]"], ["tokenize", MODEL, "a", "--render"],
    ["tokenize", MODEL, "--decode", "[1"], ["tokenize", MODEL, "--decode", "{}"],
    ["tokenize", MODEL, "--plain=1", "a"], ["tokenize", MODEL, "a", "--set", "kv.dtype"],
    ["tokenize", MODEL, "a", "--threads", "0"], ["completion", "tcsh"], ["tokenize", "", "a"],
], ids=lambda w: " ".join(str(x).replace(str(MODEL), "MODEL") for x in w))
def test_usage(wrong):
    fails(1, *wrong)


def test_double_dash_ends_options():
    assert imp("tokenize", MODEL, "--", "--plain") == imp("tokenize", MODEL, "-", stdin=b"--plain")


def test_missing_model_is_io():
    assert "no-such-folder" in fails(5, "inspect", "/no-such-folder")


def test_broken_file(tmp_path):
    folder = shutil.copytree(MODEL, tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:len(whole) // 2])
    assert "model.safetensors" in fails(3, "score", folder, "--text", DATA / "prose/README.md")
    (folder / "config.json").write_text("{")
    assert "config.json" in fails(3, "inspect", folder)
    (folder / "tokenizer.json").write_text("[]")
    assert "tokenizer.json" in fails(3, "tokenize", folder, "a")


@pytest.mark.skipif(not pathlib.Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_full_disk_is_io():
    with open("/dev/full", "wb") as full:
        done = call("tokenize", MODEL, "a", stdout=full)
    assert done.returncode == 5 and b"standard output" in done.stderr


def test_reader_that_leaves_is_no_failure():
    process = subprocess.Popen([IMP, "inspect", str(MODEL), "--json"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=NO_IMP)
    process.stdout.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == b""
    process.stderr.close()


# ---- one table ----

@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_table(command):
    """What --help lists is taken, each name and letter; what it does not list is refused."""
    assert imp("help", command) == imp(command, "--help") == imp(command, "-h")
    mine = options_of(command)
    every = {name for c in COMMANDS for name in options_of(c)}
    for name in every:
        message = call(command, f"--{name}", *(["x"] * 6)).stderr.decode()
        assert ("unknown option" in message) == (name not in mine), (name, message)
    for letter in filter(None, mine.values()):
        assert "unknown option" not in call(command, f"-{letter}").stderr.decode(), letter


def plain(roff):
    return roff.replace("\\", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_manual_is_the_table(command):
    source = imp("__man", command)
    named = re.findall(r"^\*--([a-z0-9-]+)\*(?:, \*-(\w)\*)?", source, re.M)
    assert dict(named) == options_of(command)
    settings = set(re.findall(r"^  ([a-z]+\.[a-z_]+) ", imp(command, "--help"), re.M))
    assert settings == set(re.findall(r"^\*([a-z]+\.[a-z_]+)\*", plain(source), re.M))


@pytest.mark.skipif(not shutil.which("scdoc"), reason="no scdoc")
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_manual_is_scdoc(command):
    source = imp("__man", *([command] if command else []))
    page = subprocess.run(["scdoc"], input=source.encode(), capture_output=True, timeout=60)
    assert page.returncode == 0, page.stderr.decode()
    assert page.stdout.count(b".SH ") >= 4
    if command is None:
        assert all(f"imp-{c}" in plain(page.stdout.decode()) for c in COMMANDS)


def test_completion_bash():
    script = imp("completion", "bash")

    def complete(*words):
        ask = (f'{script}\nCOMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _imp; '
               'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-uc", ask], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return set(done.stdout.split())

    assert complete("imp", '""') == {*COMMANDS, "help"}
    assert complete("imp", "sc") == {"score"}
    for command in COMMANDS:
        assert complete("imp", command, "--") == {f"--{n}" for n in options_of(command)}
    assert complete("imp", "completion", '""') >= {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_names_every_option(shell):
    script = imp("completion", shell)
    for command in COMMANDS:
        if shell == "fish":
            named = re.findall(rf"_from {command}\" -l ([a-z0-9-]+)", script)
        else:
            part = script.split(f"    {command}) _arguments")[1].split(";;")[0]
            named = re.findall(r"^ +'\*?--([a-z0-9-]+)\[", part, re.M)
        assert sorted(named) == sorted(options_of(command)), command
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script.encode(), check=True, timeout=60)


# ---- settings: line, environment, file ----

def context(*arguments, env=None):
    return json.loads(imp("inspect", MODEL, "--json", *arguments, env=env))["memory"]["context_tokens"]


def test_order_of_sources(tmp_path):
    config = tmp_path / "imp.ini"
    config.write_text("[runtime]\ncontext = 64\n")
    assert context() == 256
    assert context("--config", config) == 64
    assert context(env={"IMP_CONFIG": str(config)}) == 64
    assert context("--config", config, env={"IMP_CTX": "96"}) == 96
    assert context("--config", config, "--ctx", "128", env={"IMP_CTX": "96"}) == 128
    assert context("--ctx", "128", "--set", "runtime.context=160") == 160
    assert "IMP_CTX" in fails(1, "inspect", MODEL, env={"IMP_CTX": "many"})


def test_section_of_a_command(tmp_path):
    config = tmp_path / "imp.ini"
    config.write_text("[tokenize]\nplain = true\n[score]\nwindow = 64\n")
    assert json.loads(imp("tokenize", MODEL, SPECIAL, "--config", config)) != [1]
    config.write_text("[score]\nwindow = never\n")
    fails(1, "tokenize", MODEL, "a", "--config", config)


@pytest.mark.parametrize("text, told", [
    ("[runtime]\nthreds = 1\n", "runtime.threads"), ("[score]\nwindw = 8\n", "score.window"),
    ("[runtime]\nthreads\n", "line 2"), ("threads = 1\n", "section"),
    ("[runtime]\nthreads = 0x1\n", "line 2"), ("[runtime]\n  threads = 1\n", "line 2"),
])
def test_bad_config_file(tmp_path, text, told):
    config = tmp_path / "imp.ini"
    config.write_text(text)
    assert told in fails(1, "inspect", MODEL, "--config", config)
    fails(5, "inspect", MODEL, "--config", tmp_path / "none.ini")


# ---- tokenize ----

SPECIAL = json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"][1]["content"]


@pytest.fixture(scope="module")
def theirs():
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))


TEXTS = ["Hello, world!", "", " ", "a\nb\t c", "zwölf Boxkämpfer 漢字 🙂", f"x{SPECIAL}y", "a\0b"]


def test_text_forms(theirs, tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))
    for flags, special in [([], False), (["--plain"], True)]:
        theirs.encode_special_tokens = special
        want = [theirs.encode(t, add_special_tokens=False).ids for t in TEXTS]
        assert json.loads(imp("tokenize", MODEL, "--texts", path, *flags)) == want
        for text, ids in zip(TEXTS, want):
            assert json.loads(imp("tokenize", MODEL, "-", *flags, stdin=text.encode())) == ids
            if "\0" not in text:
                assert json.loads(imp("tokenize", MODEL, text, *flags)) == ids
    theirs.encode_special_tokens = False
    want = theirs.encode("Hello", add_special_tokens=True).ids
    assert json.loads(imp("tokenize", MODEL, "Hello", "--add-special")) == want


def test_decode_gives_the_bytes_and_one_newline():
    for text in TEXTS:
        ids = imp("tokenize", MODEL, "-", stdin=text.encode()).strip()
        assert call("tokenize", MODEL, "--decode", ids).stdout == text.encode() + b"\n"
    assert call("tokenize", MODEL, "--decode", "[]").stdout == b"\n"
    fails(1, "tokenize", MODEL, "--decode", "[-1]")


def test_tokenize_needs_no_weights(tmp_path):
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(MODEL / name, tmp_path / name)
    assert imp("tokenize", tmp_path, "Hello") == imp("tokenize", MODEL, "Hello")


def test_texts_refused_whole(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text('["a", 1]')
    assert "$[1]" in fails(3, "tokenize", MODEL, "--texts", path)
    path.write_text('{"a": 1}')
    fails(3, "tokenize", MODEL, "--texts", path)


def test_chat_forms(tmp_path):
    template, chat = tmp_path / "t.jinja", tmp_path / "chat.json"
    template.write_text("{{ bos_token }}{% for m in messages %}{% if m.role == 'x' %}"
                        "{{ raise_exception('no x here') }}{% endif %}{{ m.role }}:{{ m.content }};"
                        "{% endfor %}{% if add_generation_prompt %}>{{ word }}{% endif %}"
                        "{{ strftime_now('%Y') }}{{ eos_token }}")
    one = {"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True,
           "kwargs": {"word": "w"}, "bos_token": "B", "eos_token": "E",
           "strftime_now": "2026-01-02T03:04:05"}
    how = ["--chat", chat, "--chat-template", template]
    chat.write_text(json.dumps(one))
    assert imp("tokenize", MODEL, *how, "--render") == "Buser:hi;>w2026E"
    assert json.loads(imp("tokenize", MODEL, *how)) == json.loads(
        imp("tokenize", MODEL, "Buser:hi;>w2026E"))
    chat.write_text(json.dumps({
        "bos_token": "<1>", "eos_token": "<2>", "strftime_now": "2025-01-02T03:04:05",
        "cases": [{"messages": one["messages"]},
                  {"messages": [{"role": "x", "content": ""}]},
                  {"messages": [], "bos_token": "own", "tools": None, "kwargs": {}}]}))
    assert json.loads(imp("tokenize", MODEL, *how, "--render")) == [
        "<1>user:hi;2025<2>", {"error": "no x here"}, "own2025<2>"]
    ids = json.loads(imp("tokenize", MODEL, *how))
    assert ids[0] == json.loads(imp("tokenize", MODEL, "<1>user:hi;2025<2>"))
    assert list(ids[1]) == ["error"]
    chat.write_text(json.dumps({"messages": [{"role": "x", "content": ""}]}))
    assert "no x here" in fails(8, "tokenize", MODEL, *how, "--render")
    chat.write_text('{"messages": 1}')
    assert "messages" in fails(7, "tokenize", MODEL, *how)


# ---- score ----

def npy(path):
    raw = path.read_bytes()
    assert raw[:8] == b"\x93NUMPY\x01\x00" and (10 + int.from_bytes(raw[8:10], "little")) % 64 == 0
    return np.load(path, allow_pickle=False)


def draw(count, seed):
    return [int(i) for i in np.random.default_rng(seed).integers(3, 300, count)]


@pytest.mark.parametrize("model", [MODEL, QUANTISED], ids=lambda p: p.name)
def test_logits_together_equal_alone(model, tmp_path, ids_file):
    sequences = [draw(1, 0), draw(70, 1), draw(200, 2)]
    flags = []
    for i, ids in enumerate(sequences):
        flags += ["--ids", ids_file(f"{i}.json", ids)]
    assert imp("score", model, *flags, "--logits", tmp_path / "out.npy") == ""
    assert not (tmp_path / "out.npy").exists()
    for i, ids in enumerate(sequences):
        together, alone = tmp_path / f"out.{i}.npy", tmp_path / f"alone{i}.npy"
        imp("score", model, "--ids", tmp_path / f"{i}.json", "--logits", alone, "--threads", "1")
        rows = npy(alone)
        assert rows.dtype == np.dtype("<f4") and rows.shape == (len(ids), 300)
        assert rows.flags.c_contiguous and np.isfinite(rows).all() and rows.std() > 0
        assert together.read_bytes() == alone.read_bytes()


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def test_perplexity_from_logits(tmp_path, ids_file):
    """nll, kl and top1_agreement made again from the logits of every window."""
    text = (DATA / "prose" / "news-from-nowhere.txt").read_text()[:3000]
    (tmp_path / "text.txt").write_text(text)
    ids = json.loads(imp("tokenize", MODEL, "-", stdin=text.encode()))
    window, tokens = 96, 2 * 96 + 2  # the last window is of two tokens
    assert len(ids) > tokens
    nll, kl, agree = [], [], []
    for first in range(0, tokens, window):
        part = ids[first:min(first + window, tokens)]
        name, rows = ids_file("w.json", part), []
        for model in (QUANTISED, MODEL):
            imp("score", model, "--ids", name, "--logits", tmp_path / "w.npy")
            rows.append(log_softmax(npy(tmp_path / "w.npy"))[:-1])
        nll += [-row[i] for row, i in zip(rows[0], part[1:])]
        kl += list((np.exp(rows[1]) * (rows[1] - rows[0])).sum(axis=1))
        agree += list(rows[0].argmax(axis=1) == rows[1].argmax(axis=1))
    how = ["score", QUANTISED, "--text", tmp_path / "text.txt", "--window", window, "--tokens", tokens]
    got = json.loads(imp(*how, "--json", "--reference", MODEL))
    assert list(got) == ["tokens", "nll", "perplexity", "kl", "top1_agreement"]
    assert got["tokens"] == len(nll) == 2 * 95 + 1
    assert got["nll"] == pytest.approx(np.mean(nll), rel=1e-7)
    assert got["perplexity"] == pytest.approx(np.exp(np.mean(nll)), rel=1e-7)
    assert got["kl"] == pytest.approx(np.mean(kl), rel=1e-6) and got["kl"] > 0
    assert got["top1_agreement"] == pytest.approx(np.mean(agree))
    alone = json.loads(imp(*how, "--json"))
    assert alone == {**got, "kl": None, "top1_agreement": None}
    same = json.loads(imp(*how, "--json", "--reference", QUANTISED))
    assert same["kl"] == 0 and same["top1_agreement"] == 1
    shown = dict(re.findall(r"^(.*?)  +([0-9.]+)$", imp(*how), re.M))
    assert float(shown["perplexity"]) == pytest.approx(got["perplexity"], rel=1e-4)


def test_tail_of_one_token_is_left_out(tmp_path):
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    how = ["score", MODEL, "--json", "--text", tmp_path / "text.txt", "--window", "32"]
    whole = imp(*how, "--tokens", "64")
    assert imp(*how, "--tokens", "65") == whole
    assert json.loads(imp(*how, "--tokens", "66"))["tokens"] == 2 * 31 + 1


def test_score_refuses(tmp_path, ids_file):
    empty, out = tmp_path / "empty.txt", tmp_path / "o.npy"
    empty.write_text("")
    fails(7, "score", MODEL, "--text", empty)
    for ids in ([], [300], [1] * 257, [1.5], ["a"], {}):
        message = call("score", MODEL, "--ids", ids_file("i.json", ids), "--logits", out)
        assert message.returncode in (3, 7), (ids, message)
    assert not list(tmp_path.glob("*.npy*")), "a refused request leaves no file"
    fails(5, "score", MODEL, "--ids", ids_file("i.json", [1]), "--logits", tmp_path / "no" / "o.npy")


# ---- bench ----

BENCH_KEYS = ["batch", "prompt_tokens", "decode_tokens", "prefill_tokens_per_s", "decode_tokens_per_s",
              "bytes_per_step", "bandwidth_probe_before", "bandwidth_probe_after",
              "share_of_bandwidth", "logits_hash"]


def test_bench_rows():
    how = ["bench", QUANTISED, "-p", "24", "-n", "8", "-b", "1,3"]
    rows = [json.loads(line) for line in imp(*how, "--json").splitlines()]
    assert [r["batch"] for r in rows] == [1, 3]
    for row in rows:
        assert list(row) == BENCH_KEYS
        assert (row["prompt_tokens"], row["decode_tokens"]) == (24, 8)
        assert re.fullmatch("[0-9a-f]{16}", row["logits_hash"])
        assert all(row[key] > 0 for key in BENCH_KEYS[:-1])
        probe = (row["bandwidth_probe_before"] + row["bandwidth_probe_after"]) / 2
        steps = row["decode_tokens_per_s"] / row["batch"]
        share = row["bytes_per_step"] * steps / probe
        assert row["share_of_bandwidth"] == pytest.approx(share, rel=1e-3, abs=1e-4)
    assert rows[0]["logits_hash"] != rows[1]["logits_hash"]
    table = imp(*how, "--threads", "1", "--csv").splitlines()
    assert table[0].split(",") == BENCH_KEYS
    assert [line.split(",")[-1] for line in table[1:]] == [r["logits_hash"] for r in rows]


def test_bench_human_and_settings():
    """A table by default; what the user sets stays: here the batch has to queue, one by one."""
    how = ["bench", QUANTISED, "-p", "4", "-n", "4", "-b", "2"]
    text, queued = imp(*how), imp(*how, "--set", "runtime.max_batch=1")
    assert text.count("\n") == 2 and text.split()[-1] == queued.split()[-1]
    assert "kv.memory" in fails(6, *how, "--set", "kv.memory=1K")


def test_bench_longer_than_the_ring(tmp_path):
    """More events than a stream holds: sequences whose events nobody takes would stand still, and
    the batch would decode one after another. The hash must be that of all of them all the same."""
    folder = shutil.copytree(MODEL, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 2048
    (folder / "config.json").write_text(json.dumps(config))
    how = ["bench", folder, "-p", "4", "-n", "700", "-b", "4", "--json"]
    row = json.loads(imp(*how))
    assert row["logits_hash"] == json.loads(imp(*how, "--set", "runtime.max_batch=2"))["logits_hash"]


def test_bench_tokenizer(tmp_path):
    keys = ["text_bytes", "tokens", "load_ms", "encode_bytes_per_s", "decode_bytes_per_s"]
    text = tmp_path / "text"
    text.write_text("One morning, when Gregor Samsa woke. " * 50)
    how = ["bench", DATA / "tokenizer" / "qwen2", "--tokenizer", "--text", text]
    row = json.loads(imp(*how, "--json"))
    assert list(row) == keys and row["text_bytes"] == text.stat().st_size
    ids = json.loads(imp("tokenize", how[1], text.read_text()))
    assert row["tokens"] == len(ids) and all(row[k] > 0 for k in keys)
    table = imp(*how, "--csv", "-r", "3").splitlines()
    assert table[0].split(",") == keys and table[1].startswith(f"{row['text_bytes']},{len(ids)},")
    assert imp(*how).count("\n") == 2
    assert "--text" in fails(1, "bench", how[1], "--tokenizer")
    assert "--tokenizer" in fails(1, "bench", MODEL, "--text", text)
    fails(5, *how[:-1], tmp_path / "none")
    text.write_text("")
    assert "is empty" in fails(7, *how)


# ---- inspect ----

PARTS = ("weight_bytes", "kv_bytes", "window_bytes", "state_bytes", "activation_bytes",
         "scratch_bytes")


# Real configurations: layers of several kinds, each with what it keeps.
@pytest.mark.parametrize("name, kinds, window, state, experts, lines", [
    ("Qwen3-4B", [("attention", 36)], False, False, None, []),
    ("Qwen3-30B-A3B", [("attention", 48)], False, False, 128, ["experts                128"]),
    ("Mistral-7B-Instruct-v0.2", [("attention", 32)], False, False, None, []),
    ("Qwen3.6-35B-A3B", [("gated delta net", 30), ("attention", 10)], False, True, 256,
     ["text model of          qwen3_5_moe", "heads                  16", "+ recurrent state",
      "  gated delta net      30 layers, 16 key heads of 128, 32 value heads of 128"]),
    ("gpt-oss-20b", [("attention", 12), ("attention", 12)], True, False, 32,
     ["+ KV of windows", "  attention            12 layers, 64 heads, 8 of KV, of 64, window of 128"]),
])
def test_inspect_families(name, kinds, window, state, experts, lines):
    folder = ROOT / "tests/data/configs" / name
    got = json.loads(imp("inspect", folder, "--json"))
    m = got["memory"]
    assert [(k["kind"], k["layers"]) for k in got["layer_kinds"]] == kinds
    assert got["heads"] > 0 and got["head_dim"] > 0 and got.get("experts") == experts
    assert (m["window_bytes"] > 0) == window and (m["state_bytes"] > 0) == state
    assert m["window_bytes"] == (m["sequences"] * m["window_blocks_per_sequence"] *
                                 m["window_block_bytes"])
    assert m["state_bytes"] == m["sequences"] * m["state_bytes_per_sequence"]
    assert m["total_bytes"] == sum(m[part] for part in PARTS)
    text = imp("inspect", folder)
    assert all(line in text for line in lines)


def test_inspect_folder():
    got = json.loads(imp("inspect", QUANTISED, "--json"))
    assert got["supported"] is True and got["dialect"] == "compressed-tensors"
    assert (got["family"], got["vocab_size"], got["layers"]) == ("llama", 300, 1)
    assert len(got["tensors"]) == got["tensor_count"] > 0
    assert sum(t["bytes"] for t in got["tensors"]) == got["tensor_bytes"]
    m = got["memory"]
    assert m["total_bytes"] == sum(m[part] for part in PARTS)
    text = imp("inspect", QUANTISED)
    assert all(t["name"] in text for t in got["tensors"]) and "memory plan" in text
    memory = imp("inspect", QUANTISED, "--memory")
    weights = imp("inspect", QUANTISED, "--tensors")
    assert "memory plan" in memory and "model.norm.weight" not in memory
    assert "memory plan" not in weights and "model.norm.weight" in weights
    assert imp("inspect", QUANTISED / "model.safetensors", "--memory") == memory


def test_inspect_config_alone(tmp_path):
    shutil.copy(MODEL / "config.json", tmp_path)
    got = json.loads(imp("inspect", tmp_path, "--json"))
    assert got["tensors"] == [] and got["family"] == "llama" and got["parameters"] > 0
    assert got["memory"]["weight_bytes"] >= 2 * got["parameters"]
    assert "memory plan" in imp("inspect", tmp_path)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_inspect_what_cannot_run(tmp_path, flags):
    config = json.loads((MODEL / "config.json").read_text())
    config["model_type"], config["architectures"] = "rwkv9", ["Rwkv9ForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = call("inspect", tmp_path, *flags)
    assert done.returncode == 4 and done.stderr.startswith(b"imp: ")
    if flags:
        got = json.loads(done.stdout)
        assert got["supported"] is False and got["model_type"] == "rwkv9" and got["reason"]
    else:
        assert b"rwkv9" in done.stdout


# ---- quantize ----

@pytest.mark.parametrize("dialect", ["compressed-tensors", "modelopt"])
@pytest.mark.parametrize("method", ["amax", "weighted"])
def test_quantize(tmp_path, ids_file, dialect, method):
    new = tmp_path / "new"
    done = call("quantize", MODEL, new, "--format", dialect, "--method", method)
    assert done.returncode == 0 and done.stdout == b"", done.stderr
    assert str(new) in done.stderr.decode().splitlines()[-1]
    assert json.loads(imp("inspect", new, "--json"))["dialect"] == dialect
    name = ids_file("i.json", draw(40, 3))
    imp("score", new, "--ids", name, "--logits", tmp_path / "new.npy")
    imp("score", MODEL, "--ids", name, "--logits", tmp_path / "old.npy")
    a, b = npy(tmp_path / "new.npy"), npy(tmp_path / "old.npy")
    assert 0 < np.abs(a - b).max() and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_quantize_quiet_and_none(tmp_path, ids_file):
    done = call("quantize", MODEL, tmp_path / "new", "--method", "none", "--quiet")
    assert done.returncode == 0 and done.stdout == done.stderr == b""
    name = ids_file("i.json", draw(40, 3))
    imp("score", tmp_path / "new", "--ids", name, "--logits", tmp_path / "a.npy")
    imp("score", MODEL, "--ids", name, "--logits", tmp_path / "b.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_quantize_failed_leaves_nothing(tmp_path):
    source, work = shutil.copytree(MODEL, tmp_path / "m"), tmp_path / "work"
    work.mkdir()
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-100])
    fails(3, "quantize", source, work / "new", "--quiet")
    fails(5, "quantize", tmp_path / "none", work / "new", "--quiet")
    assert list(work.iterdir()) == []
    (work / "old").mkdir()
    (work / "old" / "mine").write_text("kept")
    done = call("quantize", MODEL, work / "old")
    assert done.returncode in (1, 5), done.stderr
    assert [p.name for p in work.rglob("*")] == ["old", "mine"]


def large_folder(path, layers):
    """tiny-smol with many layers, so that quantising it lasts long enough to be interrupted."""
    shutil.copytree(MODEL, path)
    raw = (path / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8:8 + size]), raw[8 + size:]
    header.pop("__metadata__", None)
    new, blob = {}, bytearray()
    for name, entry in header.items():
        body = data[slice(*entry["data_offsets"])]
        for i in range(layers if ".layers.0." in name else 1):
            at = [len(blob), len(blob) + len(body)]
            new[name.replace(".layers.0.", f".layers.{i}.")] = {**entry, "data_offsets": at}
            blob += body
    text = json.dumps(new).encode()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + blob)
    config = json.loads((path / "config.json").read_text())
    config["num_hidden_layers"] = layers
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_quantize_interrupted_leaves_nothing(tmp_path):
    source, work = large_folder(tmp_path / "m", 400), tmp_path / "work"
    work.mkdir()
    process = subprocess.Popen([IMP, "quantize", str(source), str(work / "new"), "--threads", "1"],
                               stderr=subprocess.PIPE, env=NO_IMP)
    until = time.monotonic() + 60
    while not list(work.iterdir()) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    assert process.poll() is None, "ended before it could be interrupted"
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 11, message
    assert list(work.iterdir()) == []
