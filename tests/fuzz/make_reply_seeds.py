#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/reply: one reply of every kind and format, for fuzz_reply."""
import pathlib

OUT = pathlib.Path(__file__).parent / "corpus" / "reply"
NONE, HERMES, XML, MISTRAL, LLAMA3, GEMMA4, HARMONY = range(7)
THINK, OPEN, START, OPEN_MISTRAL, TOOLS = 7, 14, 28, 42, 56

NESTED = '{"name": "f", "arguments": {"a": [1, -2.5e3, {"b": "x\\n\\u00e9\\ud83d\\ude00"}], "c": null}}'
SEEDS = [
    (NONE + THINK, "<think>\nWell.\n</think>\n\nYes, **4**.\n"),
    (NONE + THINK + OPEN, "Well.\n</think>\n\nYes."),
    (NONE, "Plain <think> [x] {y} text \n\n"),
    (HERMES + THINK, "Let me look.\n<tool_call>\n" + NESTED + "\n</tool_call>\n<tool_call>\n" + NESTED
     + "\n</tool_call>"),
    (HERMES, '<tool_call>{"arguments": "{\\"a\\": 1}", "id": "c1", "x": [true, 12], "name": "f"}</tool_call>.'),
    (HERMES, '<tool_call>{"name": "f", "arguments": null, "z": 1.0}<tool_call>{"name": "g"}'),
    (XML + THINK + OPEN + TOOLS, "Hm.\n</think>\n\n<tool_call>\n<function=f>\n<parameter=s>\na\n<b>\n</parameter>\n"
     "<parameter=n>\n12\n</parameter>\n<parameter=b>\nNone\n</parameter>\n<parameter=l>\n[1, {'x': \"y\"}]\n"
     "</parameter>\n<parameter=o>\n{\"k\": \"v\n\"}\n</parameter>\n</function>\n</tool_call>"),
    (XML + TOOLS, "<function=f><parameter=a>true</parameter></tool_call> and then <func"),
    (MISTRAL, "[THINK]Hm.[/THINK]Look.[TOOL_CALLS]f[CALL_ID]call00001[ARGS]{\"a\": \"]\"}[TOOL_CALLS]g[ARGS]{}"),
    (MISTRAL, "[TOOL_CALLS][" + NESTED + ', {"name": "g", "arguments": {}, "id": "x"}]'),
    (MISTRAL + OPEN_MISTRAL, "Hm.[/THINK]Yes."),
    (LLAMA3 + TOOLS, '{"name": "f", "parameters": {"s": "x"}}; {"type": "function", "name": "f", "parameters": {}}'),
    (LLAMA3, '<|python_tag|>{"name": "f", "parameters": {}}'),
    (GEMMA4, '<|channel>thought\nHm.\n<channel|><|tool_call>call:f{a:<|"|>x "y" <|<|"|>,<|"|>k<|"|>:[1,{b:true}],c:None,'
     'd:red,e:"q"}<tool_call|>'),
    (HARMONY + START, '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary '
     'to=functions.f <|constrain|>json<|message|>{"a": "<"}<|call|>'),
    (HARMONY + START, ' to=functions.f<|channel|>commentary json<|message|>{}<|call|><|start|>assistant<|channel|>'
     'final<|message|>Yes.<|return|>'),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 255 + "]" * 255 + "}}</tool_call>"),
    (GEMMA4, "<|tool_call>call:f" + "{a:" * 256 + "1" + "}" * 256 + "<tool_call|>"),
]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for i, (style, text) in enumerate(SEEDS):
        (OUT / f"{i:02}").write_bytes(bytes([style, 1 + i]) + text.encode())


main()
