#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets safetensors, quant, experts, index
and config."""
import json
import pathlib
import re
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
BITS = {"F32": 32, "BF16": 16, "F16": 16, "U8": 8, "F8_E4M3": 8, "I32": 32, "F4": 4}


def safetensors(*tensors, metadata=None, raw_header=None):
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape, fill in tensors:
        count = 1
        for dim in shape:
            count *= dim
        size = count * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += (fill * size)[:size]
    text = raw_header if raw_header is not None else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


# As tests/fuzz/quant.c reads them; the numbers of the dtypes are those of src/num/dtype.h.
NAMES = ["m.weight", "m.weight_packed", "m.weight_scale", "m.weight_scale_inv", "m.weight_scale_2",
         "m.input_scale", "m.weight_global_scale", "m.input_global_scale"]
DTYPES = {"F32": 2, "F16": 3, "BF16": 4, "F8_E4M3": 5, "U8": 18}


def records(tensors):
    out = b""
    for name, dtype, shape, fill in tensors:
        if name in NAMES:
            dims = (shape + [1, 1, 1, 1])[:4]
            out += bytes([NAMES.index(name), DTYPES[dtype] - 1, len(shape), fill[-1], *dims])
    return out


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


one, half = struct.pack("<f", 1.0), struct.pack("<H", 0x3F80)
LINEARS = {
    "ct": [("m.weight_packed", "U8", [2, 16], b"\x7a"), ("m.weight_scale", "F8_E4M3", [2, 2], b"\x38"),
           ("m.weight_global_scale", "F32", [1], one), ("m.input_global_scale", "F32", [1], one)],
    "mo": [("m.weight", "U8", [2, 8], b"\x7a"), ("m.weight_scale", "F8_E4M3", [2, 1], b"\x38"),
           ("m.weight_scale_2", "F32", [], one), ("m.input_scale", "F32", [], one)],
    "fp8_channel": [("m.weight", "F8_E4M3", [3, 4], b"\x38"), ("m.weight_scale", "BF16", [3, 1], half)],
    "fp8_block": [("m.weight", "F8_E4M3", [4, 4], b"\x38"), ("m.weight_scale_inv", "F32", [2, 2], one)],
    "fp8_block4": [("m.weight", "F8_E4M3", [4, 4], b"\x38"), ("m.weight_scale", "F32", [2, 1, 2, 1], one)],
    "mx": [("m.weight", "U8", [2, 16], b"\x7a"), ("m.weight_scale", "U8", [2, 1], b"\x7f")],
    "plain": [("m.weight", "BF16", [2, 3], half), ("m.bias", "F32", [2], one)],
}
for key, tensors in LINEARS.items():
    write("quant", key, records(tensors))
    write("safetensors", key, safetensors(*tensors))

# As tests/fuzz/experts.c reads them: two experts, I = H = 32.
EXPERT_NAMES = re.findall(r'^    "(m\.[^"]*)",$', (CORPUS.parent / "experts.c").read_text(), re.M)


def experts(layout, tensors):
    out = bytes([layout | 1 << 1])
    for name, dtype, shape, fill in tensors:
        dims = (shape + [1, 1, 1, 1])[:4]
        out += bytes([EXPERT_NAMES.index(name), DTYPES[dtype] - 1, len(shape), fill[-1], *dims])
    return out


PLAIN, GPT_OSS = 0, 1
write("experts", "stacked", experts(PLAIN, [("m.gate_up_proj", "BF16", [2, 64, 32], half),
                                            ("m.down_proj", "BF16", [2, 32, 32], half)]))
write("experts", "transposed", experts(GPT_OSS, [("m.gate_up_proj", "BF16", [2, 32, 64], half),
                                                 ("m.gate_up_proj_bias", "F32", [2, 64], one),
                                                 ("m.down_proj", "BF16", [2, 32, 32], half),
                                                 ("m.down_proj_bias", "F32", [2, 32], one)]))
write("experts", "mxfp4", experts(GPT_OSS, [("m.gate_up_proj_blocks", "U8", [2, 64, 1, 16], b"\x7a"),
                                            ("m.gate_up_proj_scales", "U8", [2, 64, 1], b"\x7f"),
                                            ("m.down_proj_blocks", "U8", [2, 32, 1, 16], b"\x7a"),
                                            ("m.down_proj_scales", "U8", [2, 32, 1], b"\x7f")]))
write("experts", "modelopt", experts(GPT_OSS, [
    ("m.gate_up_proj", "U8", [2, 16, 64], b"\x7a"), ("m.down_proj", "U8", [2, 16, 32], b"\x7a"),
    ("m.gate_up_proj_weight_scale", "F8_E4M3", [2, 2, 64], b"\x38"),
    ("m.down_proj_weight_scale", "F8_E4M3", [2, 2, 32], b"\x38"),
    ("m.gate_up_proj_weight_scale_2", "F32", [2], one), ("m.down_proj_weight_scale_2", "F32", [], one)]))
write("experts", "linears", experts(PLAIN, [("m.gate_proj.weight", "F8_E4M3", [2, 32, 32], b"\x38"),
                                            ("m.gate_proj.weight_scale", "F32", [2], one),
                                            ("m.up_proj.weight", "BF16", [2, 32, 32], half),
                                            ("m.down_proj.weight", "F32", [2, 32, 32], one)]))
write("experts", "one_by_one", experts(PLAIN, [("m.0.gate_proj.weight", "BF16", [32, 32], half),
                                               ("m.0.up_proj.weight", "BF16", [32, 32], half),
                                               ("m.0.down_proj.weight", "BF16", [32, 32], half),
                                               ("m.0.gate_proj.bias", "F32", [32], one),
                                               ("m.0.up_proj.bias", "F32", [32], one)]))

write("safetensors", "empty", safetensors())
write("safetensors", "metadata", safetensors(metadata={"format": "pt"}))
write("safetensors", "scalar_and_none", safetensors(("a", "F32", [], one), ("b", "F32", [2, 0], one),
                                                    ("c", "F4", [4], one)))
write("safetensors", "padded", safetensors(raw_header=b"{}      "))

A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
write("index", "two", {"metadata": {"total_size": 8}, "weight_map": {"a": A, "b": B, "c": A}})
write("index", "folder", {"weight_map": {"a": "sub/" + A}})
write("index", "leaves", {"weight_map": {"a": "../" + A}})
write("index", "none", {"weight_map": {}})

write("config", "llama", {"model_type": "llama", "num_hidden_layers": 2, "rope_theta": 1e4,
                          "hidden_act": "silu", "tie_word_embeddings": True, "eos_token_id": [1, [2]]})
write("config", "wrapped", {"model_type": "x", "text_config": {"model_type": "y", "eos_token_id": 2,
                                                               "rope_scaling": {"n": 2}}})
write("config", "ct", {"model_type": "m", "quantization_config": {
    "quant_method": "compressed-tensors", "config_groups": {"g": {
        "weights": {"num_bits": 4, "type": "float", "group_size": 16, "block_structure": [128, 128]},
        "input_activations": {}}, "NVFP4": ["Linear"]},
    "transform_config": {"config_groups": {"R1": {"type": "h", "apply": [{"location": "weight_input"}]}}}}})
write("config", "mo", {"model_type": "m", "quantization_config": {
    "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
    "quantized_layers": {"a": {"quant_algo": "FP8_PB_WO"}}, "weight_block_size": [128, 128]}})
