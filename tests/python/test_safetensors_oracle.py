"""Compares what imp accepts with what the safetensors package accepts, on made-up variations.

imp may never accept a file that the package refuses. Where it refuses one that the package accepts, the
reason must be one of those listed below, each a choice of ours. Needs build/tool_st_verdict (or the
environment variable IMP_ST_VERDICT)."""
import json
import os
import pathlib
import random
import struct
import subprocess

import pytest

safetensors = pytest.importorskip("safetensors")

ROOT = pathlib.Path(__file__).parents[2]
TOOL = pathlib.Path(os.environ.get("IMP_ST_VERDICT", ROOT / "build" / "tool_st_verdict"))
STRICTER = (
    "occurs twice",  # the package lets the last of two equal keys win
    "keys besides dtype",  # it ignores keys it does not know
    "control characters",
    "too many dimensions",
    "not an object of strings",  # it takes "__metadata__": null for none
    "nested too deep",
    "not a size",  # a dimension of 2^63 or more, beside a 0
)
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
        "F6_E2M3": 6, "F6_E3M2": 6, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
        "U16": 16, "U8": 8, "BOOL": 8, "C64": 64}
ODD = [-1, 1.5, 1e30, "4", None, True, [], {}, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**32, 0]


def sound(rng):
    """A valid file as (list of entries, data bytes)."""
    entries, at = [], 0
    for i in range(rng.randrange(4)):
        dtype = rng.choice(list(BITS))
        shape = [rng.choice([1, 2, 3, 4, 8, 0]) for _ in range(rng.randrange(4))]
        count = 1
        for dim in shape:
            count *= dim
        if count * BITS[dtype] % 8:
            shape.append(8)
            count *= 8
        size = count * BITS[dtype] // 8
        entries.append([f"t{i}", {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}])
        at += size
    rng.shuffle(entries)
    return entries, at


def bend(rng, entries, size):
    """Breaks something about the meaning of the header, or nothing."""
    kind = rng.randrange(9)
    if not entries or kind == 0:
        return entries, size
    name, entry = rng.choice(entries)
    if kind == 1:
        entry["dtype"] = rng.choice(["F37", "f32", "", None, 4, "F8_E4M3", "I64", "U8"])
    elif kind == 2:
        entry["shape"] = entry["shape"] + [rng.choice(ODD)]
    elif kind == 3:
        entry["data_offsets"][rng.randrange(2)] = rng.choice(ODD + [1, 2, 3, size, size + 1])
    elif kind == 4:
        size += rng.choice([-1, 1, 8])
    elif kind == 5:
        del entry[rng.choice(list(entry))]
    elif kind == 6:
        entries.append([rng.choice([name, "other", "__metadata__", "a\0b"]), entry])
    elif kind == 7:
        entries.append(["__metadata__", rng.choice([{"a": "b"}, {"a": 1}, {}, None, [], "x"])])
    else:
        entry[rng.choice(["extra", "dtype "])] = 1
    return entries, max(size, 0)


def text_of(rng, entries):
    pad = rng.choice(["", "", " ", "\n", "\t "])
    body = ("," + pad).join(json.dumps(k) + ":" + pad + json.dumps(v) for k, v in entries)
    return rng.choice(["", "", " "]) + "{" + body + pad + "}" + rng.choice(["", "", "   ", "\0", "x"])


def image(rng):
    entries, size = bend(rng, *sound(rng))
    text = text_of(rng, entries).encode()
    length = len(text) + rng.choice([0] * 12 + [-1, 1, 2**32, 2**64 - 8 - len(text)])
    data = bytearray(struct.pack("<Q", length) + text + bytes(size))
    if rng.random() < 0.3:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)):]
    return bytes(data)


def accepts(data):
    try:
        safetensors.deserialize(data)
        return True
    except Exception:  # the package raises several kinds
        return False


@pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built")
def test_same_verdicts(tmp_path):
    rng = random.Random(20260401)
    images = [image(rng) for _ in range(4000)]
    for i, data in enumerate(images):
        (tmp_path / f"{i:05}").write_bytes(data)
    paths = sorted(str(p) for p in tmp_path.iterdir())
    out = subprocess.run([TOOL, *paths], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(out) == len(images)
    accepted, stricter = 0, 0
    for data, line in zip(images, out):
        if line == "ok":
            assert accepts(data), f"imp accepts, the package refuses: {data!r}"
            accepted += 1
        elif accepts(data):
            assert any(reason in line for reason in STRICTER), f"only imp refuses: {line}: {data!r}"
            stricter += 1
    assert accepted > 400 and stricter > 20  # the variations are neither all broken nor all sound
