"""Models of real shapes with random weights: `imp synth`, shortened, made once and kept in a folder.

The folder is IMP_WORK, default /tmp/imp-gpu. Configurations are those of tests/data/configs; what
may not lie in the repository (Gemma's) is looked for in build/configs and skipped if it is not there.
"""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
WORK = pathlib.Path(os.environ.get("IMP_WORK", "/tmp/imp-gpu"))
# (configuration, format, small model of the same family in tests/data/models)
SHAPES = [
    ("Qwen3-8B", "modelopt", "tiny-qwen3-modelopt"),
    ("Mistral-Small-3.2-24B-Instruct-2506", "compressed-tensors", "tiny-mistral3-nvfp4"),
    ("Qwen3-30B-A3B", "modelopt", "tiny-qwen3-moe-modelopt"),
    ("gemma-4-26B-A4B-it", "modelopt", "tiny-gemma4-moe-modelopt"),
    ("Qwen3.6-35B-A3B", "modelopt", "tiny-qwen3.5-moe-modelopt"),
    ("gpt-oss-20b", "mxfp4", "tiny-gpt-oss-mxfp4"),
]


def imp(*arguments, **more):
    """What a command prints; its last words in an error if it fails."""
    done = subprocess.run([IMP, *map(str, arguments)], capture_output=True, text=True, **more)
    if done.returncode:
        raise RuntimeError(f"imp {arguments[0]}: {done.stderr.strip()[-200:]} ({done.returncode})")
    return done.stdout


def config_of(name):
    """The folder of a configuration, or None."""
    for folder in (ROOT / "tests" / "data" / "configs", ROOT / "build" / "configs"):
        if (folder / name / "config.json").exists():
            return folder / name
    return None


def made(name, form, layers, vocab=0):
    """A checkpoint's folder, made if it is not there; None without a configuration."""
    config = config_of(name)
    folder = WORK / f"{name}-{layers}-{form}"
    if config and not folder.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        extra = ["--vocab", vocab] if vocab else []
        imp("synth", config, folder, "--layers", layers, "--format", form, "--quiet", *extra)
    return folder if config else None
