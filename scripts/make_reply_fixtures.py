#!/usr/bin/env python3
"""Writes tests/data/reply/vectors.json: replies and what their makers' own packages say they hold.

mistral-common writes messages (tokenizers of v3, v7, v11, v13), openai-harmony reads completions back.
    pip install mistral-common[sentencepiece]==1.13.1 openai-harmony==0.0.8 bpe-openai==0.1.4
openai-harmony wants a vocabulary file that it checks by its hash; bpe-openai has that vocabulary."""
import base64
import json
import os
import pathlib
import tempfile

OUT = pathlib.Path(__file__).resolve().parents[1] / "tests" / "data" / "reply" / "vectors.json"

ARGUMENTS = [
    {}, {"city": "Paris"}, {"city": "Zoë \"Z\" \\ 李雷\n\t[ARGS] <|end|>", "days": -3, "ok": True, "no": None},
    {"list": [1, 2.5, 1e21, [], {}], "deep": {"a": {"b": [{"c": "}]"}]}}}, {"key with \"quotes\"": "x"},
]
TEXTS = ["It is 4.", "Größe 日本語 😀\n\n- a\n- b", "if (a[1] < b) { return \"x\"; }", "[1] [TOOLS] <|x|> {\"a\": 1}"]
THOUGHTS = ["2 + 2.", "One.\n\nTwo: [x] {y} <z>"]


# ---- Mistral ----


def mistral_tokenizers():
    from mistral_common.tokens.tokenizers import instruct, mistral, tekken
    from mistral_common.tokens.tokenizers.base import SpecialTokens, TokenizerVersion
    yield "v3", mistral.MistralTokenizer.v3().instruct_tokenizer
    yield "v7", mistral.MistralTokenizer.v7().instruct_tokenizer
    data = json.loads(next(pathlib.Path(tekken.__file__).parents[2].glob("data/tekken_240911.json")).read_text())
    specials = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(SpecialTokens)]
    classes = {"v11": instruct.InstructTokenizerV11, "v13": instruct.InstructTokenizerV13}
    for name, kind in classes.items():
        config = data["config"]
        tokenizer = tekken.Tekkenizer(data["vocab"], specials, config["pattern"], config["default_vocab_size"],
                                      config["default_num_special_tokens"], TokenizerVersion(name))
        yield name, kind(tokenizer)


def shown(tokenizer, tokens):
    """The text with its special tokens; SentencePiece's own way of showing them spoils the rest."""
    from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
    text, run = "", []
    for token in [*tokens, None]:
        if token is not None and not tokenizer.is_special(token):
            run.append(token)
            continue
        text += tokenizer.decode(run) if run else ""
        text += tokenizer.decode([token], special_token_policy=SpecialTokenPolicy.KEEP) if token else ""
        run = []
    return text


def mistral_vectors():
    from mistral_common.protocol.instruct.messages import AssistantMessage, TextChunk, ThinkChunk
    from mistral_common.protocol.instruct.tool_calls import FunctionCall, ToolCall
    for version, tokenizer in mistral_tokenizers():
        for content, thought, calls in messages():
            if (thought and version != "v13") or (version == "v3" and content and calls):
                continue
            said = [ToolCall(id=f"call{i:05}", function=FunctionCall(name=name, arguments=json.dumps(a)))
                    for i, (name, a) in enumerate(calls)]
            whole = [ThinkChunk(thinking=thought)] if thought else []
            whole += [TextChunk(text=content)] if content and thought else []
            message = AssistantMessage(content=(whole if thought else content) or None, tool_calls=said or None)
            tokens = tokenizer.encode_assistant_message(message, False)
            text = shown(tokenizer.tokenizer, tokens)
            assert text.endswith("</s>"), text
            ids = version in ("v3", "v7", "v11")
            yield {"format": "mistral", "from": f"mistral-common {version}", "prompt": "[/INST]",
                   "text": text.removesuffix("</s>"), "content": content, "reasoning": thought,
                   "calls": [{"name": n, "arguments": a} | ({"id": f"call{i:05}"} if ids else {})
                             for i, (n, a) in enumerate(calls)]}


def messages():
    calls = [("get_weather", a) for a in ARGUMENTS]
    for text in TEXTS:
        yield text, "", []
    for thought in THOUGHTS:
        yield TEXTS[0], thought, []
        yield "", thought, calls[1:2]
    for call in calls:
        yield "", "", [call]
    yield "", "", calls
    yield TEXTS[0], "", calls[:2]


# ---- harmony ----


def harmony_encoding(folder):
    import bpe_openai
    ranks = bpe_openai.get_encoding("o200k_base")._rank_to_bytes
    lines = [base64.b64encode(bytes(ranks[i])) + b" %d\n" % i for i in range(199998)]
    pathlib.Path(folder, "o200k_base.tiktoken").write_bytes(b"".join(lines))
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = folder
    import openai_harmony
    return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)


def completions():
    start, end = "<|start|>assistant", "<|end|>"
    for content, thought, calls in messages():
        head = [f"<|channel|>analysis<|message|>{thought}"] if thought else []
        both = [" to=functions.{0}<|channel|>commentary json<|message|>{1}",
                "<|channel|>commentary to=functions.{0} <|constrain|>json<|message|>{1}",
                "<|channel|>commentary to=functions.{0}<|message|>{1}"]
        if not calls:
            yield (end + start).join([*head, f"<|channel|>final<|message|>{content}"])
            yield (end + start).join([*head, f"<|channel|>commentary<|message|>{content}",
                                      f"<|channel|>final<|message|>{content}"])
            continue
        head += [f"<|channel|>commentary<|message|>{content}"] if content else []
        for form in both:
            told = [form.format(n, json.dumps(a, ensure_ascii=False)) for n, a in calls]
            yield (end + start).join([*head, told[0]])
            yield (end + start).join([*head, ("<|call|>" + start).join(told)])
    yield f"<|channel|>analysis<|message|>One.{end}{start}<|channel|>analysis<|message|>Two.{end}{start}" \
          "<|channel|>final<|message|>Three."


def harmony_vectors():
    from openai_harmony import Role
    with tempfile.TemporaryDirectory() as folder:
        encoding = harmony_encoding(folder)
        for text in completions():
            if "[ARGS] <|end|>" in text:  # a control token spelt inside a string: theirs is by tokens
                continue
            tokens = encoding.encode(text, allowed_special="all")
            content, reasoning, calls = [], [], []
            for m in encoding.parse_messages_from_completion_tokens(tokens, Role.ASSISTANT):
                said = "".join(c.text for c in m.content)
                if m.recipient and m.recipient.startswith("functions."):
                    calls.append({"name": m.recipient.removeprefix("functions."), "arguments": json.loads(said)})
                else:
                    (reasoning if m.channel == "analysis" else content).append(said)
            yield {"format": "harmony", "from": "openai-harmony", "prompt": "<|start|>assistant", "text": text,
                   "content": "\n".join(content), "reasoning": "\n".join(reasoning), "calls": calls}


def main():
    vectors = [*mistral_vectors(), *harmony_vectors()]
    lines = ",\n".join(json.dumps(v, ensure_ascii=False) for v in vectors)
    OUT.write_text(f"[\n{lines}\n]\n")
    print(len(vectors), "vectors")


main()
