"""Generated conversations through every chat template: imp against jinja2 as transformers sets it up.

IMP_BIN: the binary (build/imp). IMP_CHAT_CONVERSATIONS: how many a template (60). IMP_CHAT_SEED.
IMP_CHAT_TEMPLATES: further folders of *.jinja, between colons, whose licence keeps them out of here.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import zlib

import pytest

pytest.importorskip("jinja2")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from chat_conversations import generate  # noqa: E402
from make_jinja_fixtures import environment  # noqa: E402

BIN = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
MODEL = ROOT / "tests" / "data" / "tokenizer" / "qwen2"
COUNT = int(os.environ.get("IMP_CHAT_CONVERSATIONS", "60"))
SEED = int(os.environ.get("IMP_CHAT_SEED", "1"))
FOLDERS = [ROOT / "tests" / "data" / "chat-templates"]
FOLDERS += [pathlib.Path(p) for p in os.environ.get("IMP_CHAT_TEMPLATES", "").split(":") if p]
TEMPLATES = {p.stem: p for folder in reversed(FOLDERS) for p in sorted(folder.glob("*.jinja"))}
TOKENS = {"bos_token": "<BOS>", "eos_token": "<EOS>"}
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")

pytestmark = pytest.mark.skipif(not os.access(BIN, os.X_OK), reason=f"{BIN} is not there")


def theirs(template, case):
    """The text, or None where rendering fails. Through JSON, as a request comes."""
    case = json.loads(json.dumps(case))
    variables = {"tools": None, "documents": None, **TOKENS, **case["kwargs"]}
    variables |= {k: case[k] for k in ("messages", "tools", "add_generation_prompt")}
    try:
        text = template.render(**variables)
        text.encode()
        return text
    except Exception:
        return None


def ours(path, cases, tmp_path):
    chat = tmp_path / "cases.json"
    chat.write_text(json.dumps({**TOKENS, "strftime_now": "2026-01-02T03:04:05", "cases": cases}))
    done = subprocess.run([BIN, "tokenize", MODEL, "--chat", chat, "--render", "--chat-template", path],
                          capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return json.loads(done.stdout)


def difference(want, got):
    """Both texts around the first character that differs."""
    if not isinstance(want, str) or not isinstance(got, str):
        return f"jinja2 {ascii(want)[-300:]}\n  imp    {ascii(got)[-300:]}"
    at = len(os.path.commonprefix([want, got]))
    return f"at {at}: jinja2 {ascii(want[max(0, at - 80):at + 80])}\n  imp {ascii(got[max(0, at - 80):at + 80])}"


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_generated_conversations(name, tmp_path):
    template = environment().from_string(TEMPLATES[name].read_text(encoding="utf-8"))
    cases = list(generate(COUNT, zlib.crc32(name.encode()) + SEED))
    results = ours(TEMPLATES[name], cases, tmp_path)
    assert len(results) == len(cases)
    rendered, bad = 0, []
    for i, (case, got) in enumerate(zip(cases, results)):
        want = theirs(template, case)
        if want is not None and ADDRESS.search(want):
            continue
        rendered += want is not None
        if got != want and not (want is None and isinstance(got, dict)):
            bad.append(f"{name} {i}: {difference(want, got)}\n  {ascii(case)}")
    assert not bad, f"{len(bad)} differ\n" + "\n".join(bad[:3])
    assert rendered >= COUNT // 12 or COUNT < 30  # not refusals alone
