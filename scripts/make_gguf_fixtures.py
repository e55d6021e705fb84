#!/usr/bin/env python3
"""Writes tests/data/gguf/TYPE.bin: blocks of every GGUF format and what they mean in fp32.

Needs PyPI's gguf and numpy. One file: u32 ggml type, u32 blocks, u32 bytes of a block, u32 elements
of a block, the blocks, then the fp32 values as the package's own dequantiser gives them. Bytes are
random with a fixed seed, after hand-made blocks whose scales are at the edges of fp16, E8M0, E4M3.
"""
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/gguf"

# Where the fp16 scales of a block lie.
HALVES = {
    T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
# 0, -0, smallest and largest subnormal, smallest normal, 1, -1, largest, +Inf, -Inf, NaN
HALF_EDGES = [0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0x7C00, 0xFC00, 0x7E00]
FLOAT_EDGES = [0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000,
               0xFF800000, 0x7FC00000]
SMALL = {T.F32: 64, T.F16: 64, T.BF16: 64}


def blocks(qtype, rng):
    elements, size = GGML_QUANT_SIZES[qtype]
    count = SMALL.get(qtype, max(24, 1024 // elements))
    if size > 80:
        count = 16
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    halves = HALVES.get(qtype, [])
    for row in data:  # ordinary scales first
        for at in halves:
            row[at:at + 2] = np.frombuffer(np.float16(rng.normal()).tobytes(), np.uint8)
    if halves:
        for i, edge in enumerate(HALF_EDGES[:count]):
            data[i, halves[0]:halves[0] + 2] = np.frombuffer(struct.pack("<H", edge), np.uint8)
        if len(halves) > 1:  # finite edges in the minimum alone
            for i, edge in enumerate(HALF_EDGES[1:5]):
                j = len(HALF_EDGES) + i
                data[j, halves[1]:halves[1] + 2] = np.frombuffer(struct.pack("<H", edge), np.uint8)
    if qtype == T.F32:
        data[:len(FLOAT_EDGES)] = np.array(FLOAT_EDGES, np.uint32).view(np.uint8).reshape(-1, 4)
    if qtype == T.MXFP4:
        data[:8, 0] = [0, 1, 2, 127, 128, 253, 254, 255]
    if qtype == T.NVFP4:
        edges = [0x00, 0x01, 0x07, 0x08, 0x38, 0x77, 0x78, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF]
        data[:len(edges), 0] = edges
    if not qtype in SMALL:
        data[-1, :] = 0xFF  # every field at its largest code
        for at in halves:
            data[-1, at:at + 2] = [0x00, 0x3C]
    return data


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for qtype in [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K,
                  T.Q4_K, T.Q5_K, T.Q6_K, T.MXFP4, T.NVFP4]:
        elements, size = GGML_QUANT_SIZES[qtype]
        data = blocks(qtype, np.random.default_rng(int(qtype) + 1))
        with np.errstate(all="ignore"):
            values = dequantize(data.reshape(1, -1), qtype).astype("<f4").reshape(-1)
        assert values.size == data.shape[0] * elements
        head = struct.pack("<4I", int(qtype), data.shape[0], size, elements)
        (OUT / f"{qtype.name}.bin").write_bytes(head + data.tobytes() + values.tobytes())


main()
