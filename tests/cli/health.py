"""Calling imp inspect --weights, for the tests of its findings."""
import json
import os
import pathlib
import shutil
import subprocess

import jsonschema
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
ENV = {k: v for k, v in os.environ.items() if not k.startswith("IMP_")} | {"IMP_DEVICE": "cpu"}
SCHEMA = json.loads((ROOT / "docs" / "inspect-weights.schema.json").read_text())
ALL = sorted(p.name for p in MODELS.iterdir() if p.is_dir())
REAL = ROOT / "models" / "smollm2-nvfp4"
SKIP = pytest.mark.skipif(not os.access(IMP, os.X_OK), reason=f"{IMP} is not there")


def call(*arguments, stdout=subprocess.PIPE):
    return subprocess.run([IMP, *map(str, arguments)], stdout=stdout, stderr=subprocess.PIPE,
                          env=ENV, timeout=120)


def examine(model, *more, status=0):
    done = call("inspect", model, "--weights", "--json", *more)
    assert done.returncode == status, f"exit {done.returncode}: {done.stderr} {done.stdout[:2000]}"
    got = json.loads(done.stdout)
    jsonschema.validate(got, SCHEMA)
    assert (got["verdict"] == "broken") == (status == 2)
    return got


def matrix(report, name):
    return next(m for m in report["matrices"] if m["name"] == name)


def rules(report, tensor=None, level="broken"):
    return {f["rule"] for f in report["findings"]
            if f["level"] == level and tensor in (None, f["tensor"])}


@pytest.fixture
def copy(tmp_path):
    """A fresh copy of a model, in place of an earlier one."""
    def make(model):
        shutil.rmtree(tmp_path / model, ignore_errors=True)
        shutil.copytree(MODELS / model, tmp_path / model)
        return tmp_path / model
    return make
