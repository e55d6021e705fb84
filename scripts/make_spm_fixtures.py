#!/usr/bin/env python3
"""A small SentencePiece vocabulary with Llama-2's settings, and what the package `sentencepiece`
makes of the texts.

    python3 scripts/make_spm_fixtures.py        (PyPI: sentencepiece 0.2)

Reads tests/data/tokenizer/cases.jsonl and writes tests/data/tokenizer/spm.json: "pieces", "scores",
"types" (numbers of GGUF's tokenizer.ggml.token_type) as a GGUF file holds them, and "ids" of the
cases; null where the text has the name of a control token, which the package never reads in a text.
"""
import io
import json
import pathlib

import sentencepiece as spm

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizer"


def type_of(model, i):
    if model.is_unknown(i):
        return 2
    return 3 if model.is_control(i) else 6 if model.is_byte(i) else 1


def main():
    lines = (ROOT / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, model_type="bpe", vocab_size=1600,
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
        remove_extra_whitespaces=False, split_digits=True, character_coverage=0.98,
        allow_whitespace_only_pieces=True, minloglevel=2, num_threads=1)
    model = spm.SentencePieceProcessor(model_proto=out.getvalue())
    count = model.vocab_size()
    pieces = [model.id_to_piece(i) for i in range(count)]
    control = [p for i, p in enumerate(pieces) if type_of(model, i) in (2, 3)]
    doc = {"pieces": pieces, "scores": [model.get_score(i) for i in range(count)],
           "types": [type_of(model, i) for i in range(count)],
           "ids": [None if any(c in t for c in control) else model.encode(t) for t in texts]}
    text = json.dumps(doc, separators=(",", ":"))
    (ROOT / "spm.json").write_text(text + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
