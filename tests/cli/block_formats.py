"""NVFP4 and MXFP4 in numpy, from their definitions alone, and editing of SafeTensors files."""
import contextlib
import json
import re

import numpy as np

E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6])
NUMPY = {"U8": np.uint8, "F8_E4M3": np.uint8, "BF16": np.uint16, "F16": np.float16,
         "F32": np.float32, "I64": np.int64, "F8_E8M0": np.uint8}


def e4m3(b):
    e, m = (b >> 3 & 15).astype(int), (b & 7).astype(float)
    return np.where(e == 0, m * 2.0 ** -9, (1 + m / 8) * 2.0 ** (e - 7.0))


def e4m3_encode(x):
    """Nearest byte; the table is in the order of the values."""
    table = e4m3(np.arange(127))
    at = np.clip(np.searchsorted(table, x), 1, 126)
    return np.where(x - table[at - 1] < table[at] - x, at - 1, at).astype(np.uint8)


def from_bf16(u):
    return (u.astype(np.uint32) << 16).view(np.float32)


def to_bf16(x):
    return (x.astype(np.float32).view(np.uint32) + 0x8000 >> 16).astype(np.uint16)


def load(path):
    """name -> array in the file's own bytes, as a copy; and the header's size."""
    data = bytearray(path.read_bytes())
    n = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name == "__metadata__":
            continue
        a, b = t["data_offsets"]
        view = np.frombuffer(memoryview(data)[8 + n + a:8 + n + b], NUMPY[t["dtype"]])
        tensors[name] = view.reshape(t["shape"])
    return data, tensors


@contextlib.contextmanager
def edit(folder):
    path = folder / "model.safetensors"
    data, tensors = load(path)
    yield tensors
    path.write_bytes(data)


def rename(folder, change):
    """Gives every tensor the name change(name); the bytes stay."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = {change(name): t for name, t in json.loads(data[8:8 + n]).items()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n:])


def unpack(packed):
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def quantised(folder):
    """(module, its codes, scales ...) of every linear, the experts of stacks one by one."""
    _, tensors = load(folder / "model.safetensors")
    for name, t in tensors.items():
        if t.dtype != np.uint8 or t.ndim < 2:
            continue
        if name.endswith("_blocks"):
            stack = name[:-len("_blocks")]
            yield from blocks_of(stack, t, tensors[stack + "_scales"])
        elif re.search(r"\.weight(_packed)?$", name) and t.ndim == 2:
            module = name.rsplit(".", 1)[0]
            scales = tensors[module + ".weight_scale"]
            g = tensors.get(module + ".weight_global_scale")
            g = tensors[module + ".weight_scale_2"] if g is None else 1 / g
            yield module, {"codes": unpack(t), "scales": scales, "block": 16,
                           "scale_values": e4m3(scales), "multiplier": float(g.reshape(()))}


def blocks_of(stack, blocks, scales):
    module, leaf = stack.rsplit(".", 1)
    for e in range(len(blocks)):
        codes = unpack(blocks[e].reshape(blocks.shape[1], -1))
        parts = {"down_proj": slice(None)} if leaf == "down_proj" else {
            "gate_proj": slice(0, None, 2), "up_proj": slice(1, None, 2)}
        for part, rows in parts.items():
            s = scales[e][rows]
            yield f"{module}.{e}.{part}", {"codes": codes[rows], "scales": s, "block": 32,
                                           "scale_values": 2.0 ** (s.astype(float) - 127),
                                           "multiplier": 1.0}


def quantise(w, clamp=0x7E):
    """amax/6, with scale bytes that end at `clamp`."""
    blocks = np.abs(w).reshape(len(w), -1, 16)
    multiplier = blocks.max() / 2688
    scales = np.minimum(e4m3_encode(blocks.max(axis=2) / 6 / multiplier), clamp)
    t = blocks / (e4m3(scales) * multiplier)[:, :, None]
    code = np.abs(t[..., None] - E2M1).argmin(axis=-1).reshape(w.shape).astype(np.uint8)
    code |= (w < 0).astype(np.uint8) << 3
    return code[:, ::2] | code[:, 1::2] << 4, scales, multiplier
