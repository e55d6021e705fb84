#!/usr/bin/env python3
"""Seeds of the targets jinja and jinja_chat, from the programs, templates and conversations of
tests/data. Usage: tests/fuzz/make_jinja_seeds.py"""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA, CORPUS = ROOT / "data", ROOT / "fuzz" / "corpus"
TEMPLATES = ["Qwen3-0.6B", "SmolLM3-3B", "mistral-common-v7", "Phi-3.5-mini-instruct", "GLM-4.6",
             "MiniMax-M2"]
CASES = ["tool_call_round", "content_parts", "tool_call_nested_arguments", "reasoning_history", "unicode", "whitespace"]


def main():
    for name in ("jinja", "jinja_chat"):
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
    lines = (DATA / "jinja" / "programs.jsonl").read_text(encoding="utf-8").split("\n")[1:-1]
    programs = [json.loads(line)["source"] for line in lines]
    for i in range(0, 300, 3):  # the hand-written ones stand first
        (CORPUS / "jinja" / f"program{i}").write_bytes("\n".join(programs[i:i + 3]).encode())
    cases = json.loads((DATA / "chat-templates" / "conversations.json").read_text(encoding="utf-8"))["cases"]
    cases = {c["id"]: c for c in cases}
    for template in TEMPLATES:
        source = (DATA / "chat-templates" / f"{template}.jinja").read_text(encoding="utf-8")
        (CORPUS / "jinja" / template).write_bytes(source.encode())
        for case in CASES:
            talk = {k: cases[case][k] for k in ("messages", "tools", "kwargs")}
            text = json.dumps(talk, ensure_ascii=False)
            (CORPUS / "jinja_chat" / f"{template}.{case}").write_bytes(source.encode() + b"\0" + text.encode())
    for i, source in enumerate(programs[::40]):
        talk = '{"messages": [{"role": "user", "content": "a <b> é 10"}], "tools": [], "kwargs": ' \
               '{"s": "Hello", "l": [3, 1], "d": {"a": 1}, "i": 7, "m": ["b", "A"], "u": "é日"}}'
        (CORPUS / "jinja_chat" / f"program{i}").write_bytes(source.encode() + b"\0" + talk.encode())


if __name__ == "__main__":
    main()
