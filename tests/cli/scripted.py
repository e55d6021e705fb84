"""Models that say what a test wants: a one-layer Llama whose next token depends on the last one alone.

Attention and feed-forward give zero, so a row of logits is the head times the token's embedding, a
random vector of ones; the head's row of the token to follow is that same vector."""
import json
import random
import struct
from pathlib import Path

TINY = Path(__file__).resolve().parents[1] / "data" / "models" / "tiny-smol"
HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM = 128, 96, 2, 1, 64
SAY = "<|say|>"  # the last token of a prompt: after it the model speaks
NEWLINE = 201  # of the tiny tokenizer
ONE, MINUS_ONE, ZERO = b"\x80\x3f", b"\x80\xbf", b"\x00\x00"  # in BF16


def write_weights(path, vocab, follows):
    draw = random.Random(1)
    rows = [b"".join(draw.choice((ONE, MINUS_ONE)) for _ in range(HIDDEN)) for _ in range(vocab)]
    head = [ZERO * HIDDEN] * vocab
    for token, following in follows:
        assert head[following] == ZERO * HIDDEN, "a token may follow one other only"
        head[following] = rows[token]
    layer = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": ([vocab, HIDDEN], b"".join(rows)),
        "lm_head.weight": ([vocab, HIDDEN], b"".join(head)),
        "model.norm.weight": ([HIDDEN], ONE * HIDDEN),
        layer + "input_layernorm.weight": ([HIDDEN], ONE * HIDDEN),
        layer + "post_attention_layernorm.weight": ([HIDDEN], ONE * HIDDEN),
        layer + "self_attn.q_proj.weight": ([HEADS * HEAD_DIM, HIDDEN], None),
        layer + "self_attn.k_proj.weight": ([KV_HEADS * HEAD_DIM, HIDDEN], None),
        layer + "self_attn.v_proj.weight": ([KV_HEADS * HEAD_DIM, HIDDEN], None),
        layer + "self_attn.o_proj.weight": ([HIDDEN, HEADS * HEAD_DIM], None),
        layer + "mlp.gate_proj.weight": ([INNER, HIDDEN], None),
        layer + "mlp.up_proj.weight": ([INNER, HIDDEN], None),
        layer + "mlp.down_proj.weight": ([HIDDEN, INNER], None),
    }
    header, data = {}, b""
    for name, (shape, content) in shapes.items():
        size = 1
        for n in shape:
            size *= n
        content = content or ZERO * size
        header[name] = {"dtype": "BF16", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def scripted_model(folder, template, pieces, after=SAY, end="<|im_end|>"):
    """Says the pieces, one token each, once the prompt ends with `after`, a special token or a
    newline; then the token `end`. A piece that is a tuple, ("[THINK]",), is a special token."""
    folder.mkdir()
    tokenizer = json.loads((TINY / "tokenizer.json").read_text())
    config = json.loads((TINY / "config.json").read_text())
    added = tokenizer["added_tokens"]

    def token(content, special):
        for known in added:
            if known["content"] == content:
                return known["id"]
        if content in tokenizer["model"]["vocab"]:
            return tokenizer["model"]["vocab"][content]
        added.append({"id": 297 + len(added), "content": content, "single_word": False,
                      "lstrip": False, "rstrip": False, "normalized": False, "special": special})
        return added[-1]["id"]

    ids = [NEWLINE if after == "\n" else token(after, True)]
    for piece in pieces:
        special = isinstance(piece, tuple)
        ids.append(token(piece[0] if special else piece, special))
    ids.append(token(end, True))
    config |= {"vocab_size": 297 + len(added), "tie_word_embeddings": False, "eos_token_id": ids[-1]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids[-1]}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text(template)
    write_weights(folder / "model.safetensors", config["vocab_size"], list(zip(ids, ids[1:])))
    return folder
