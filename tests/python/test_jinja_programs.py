"""Fresh Jinja programs: the interpreter against jinja2, byte for byte or both refuse.

Two kinds: programs of the generator that made tests/data/jinja, under other seeds; and a matrix of
every filter, test, method and operator over the same values. IMP_JINJA_PROGRAMS: how many of each
(800). IMP_JINJA_SEED: other seeds may find the differences that are known, a few in ten thousand:
slices of constants of types without slices, where jinja2's compiler is lenient and its generated
code is not.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("jinja2")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from make_jinja_fixtures import VARS, Generator, environment, matrix, run  # noqa: E402

TOOL = pathlib.Path(os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))).parent / "tool_jinja_render"
COUNT = int(os.environ.get("IMP_JINJA_PROGRAMS", "800"))
SEED = int(os.environ.get("IMP_JINJA_SEED", "20261124"))
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}", re.I)

MOST = int(os.environ.get("IMP_JINJA_SHOWN", "10"))

pytestmark = [pytest.mark.skipif(not os.access(TOOL, os.X_OK), reason=f"{TOOL} is not there"),
              pytest.mark.filterwarnings("ignore::SyntaxWarning")]


def fresh():
    gen, seen = Generator(SEED), set()
    while len(seen) < COUNT:
        source = gen.program()
        if source not in seen and len(source) <= 400:
            seen.add(source)
            yield source


def compare(sources, tmp_path):
    sources, env = list(sources), environment()
    path = tmp_path / "programs.jsonl"
    rows = [{"vars": VARS}] + [{"source": s} for s in sources]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = subprocess.run([TOOL, path], capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    results = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert len(results) == len(sources)
    bad = []
    for source, got in zip(sources, results):
        want = run(env, source)
        if want is not None and ADDRESS.search(want):
            continue
        if got.get("text") != want:
            bad.append(f"{ascii(source)}\n  jinja2 {ascii(want)[:200]}\n  imp    {ascii(got)[:200]}")
    assert not bad, f"{len(bad)} of {len(sources)} differ\n" + "\n".join(bad[:MOST])


def test_fresh_programs(tmp_path):
    compare(fresh(), tmp_path)


def test_matrix(tmp_path):
    compare(matrix(COUNT, SEED), tmp_path)
