"""imp run and what the model says: reasoning folded, tool calls shown, the answer alone in a pipe.
The models say what scripted.py made them say."""
import json
import os
import signal
import subprocess

import pytest

from scripted import SAY, scripted_model
from test_run import DEADLINE, IMP, Chat, environment

TURNS = ("{% for m in messages %}{{ m.role }}: {{ m.content }}"
         "{% if m.reasoning_content %} ({{ m.reasoning_content }}){% endif %}\n{% endfor %}")
# What tells imp the format; the models' own templates hold these words where they render a call.
QWEN = "{# <tool_call> </think> #}" + TURNS + "<think>{{ '\\n' }}"
QWEN_XML = "{# <tool_call><function=><parameter=> #}" + TURNS + SAY
MISTRAL = "{# [TOOL_CALLS] #}" + TURNS + SAY
GEMMA = "{# <|tool_call> <|channel> #}" + TURNS + SAY
HARMONY = "{# <|channel|><|message|> #}" + TURNS + "<|start|>assistant" + SAY
# One token may hold the end of one part and the beginning of the next, or half a tag.
THOUGHT = ["Let me ", "think", " it over.", "\n</thi", "nk>\n\nIt is", " **4", "**."]


@pytest.fixture
def say(tmp_path):
    def make(template, pieces, **how):
        return scripted_model(tmp_path / "said", template, pieces, **how)
    return make


@pytest.fixture
def run(tmp_path):
    def call(model, *args, prompt="Hello"):
        return subprocess.run([IMP, "run", str(model), "-p", prompt, "--temperature", "0",
                               *map(str, args)],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE,
                              env=environment(tmp_path))
    return call


def told(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_pipe_gets_the_answer_alone(say, run):
    result = run(say(QWEN, THOUGHT, after="\n"))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"It is **4**.\n", b"")


@pytest.mark.parametrize("tag", ["</think>", ("</think>",)])
def test_the_tag_is_found_special_or_not(say, run, tag):
    """Qwen's </think> is an added token that is not special; other tokenizers make it one."""
    model = say(QWEN, ["Let me think.", tag, "It is **4**."], after="\n")
    assert run(model).stdout == b"It is **4**.\n"


def test_reasoning_is_shown_on_demand_and_in_json(say, run):
    model = say(QWEN, THOUGHT, after="\n")
    shown = run(model, "--show-reasoning")
    assert shown.stdout == b"It is **4**.\n" and shown.stderr == b"Let me think it over.\n"
    assert run(model, "--show-reasoning", "-q").stderr == b""
    answer = told(run(model, "--json"))
    assert answer["text"] == "It is **4**." and answer["reasoning"] == "Let me think it over."
    assert "tool_calls" not in answer and answer["finish"] == "stop"
    assert answer["generated_tokens"] == len(THOUGHT) + 1


def test_raw_and_no_format_leave_the_text_as_it_is(say, run):
    model = say(QWEN, THOUGHT, after="\n")
    whole = "".join(THOUGHT).encode() + b"\n"
    assert run(model, "--raw", prompt="x\n").stdout == whole
    assert run(model, "--set", "text.reply_format=none").stdout == whole


def test_stop_strings_are_of_the_answer(say, run):
    model = say(QWEN, THOUGHT, after="\n")
    assert run(model, "--stop", "think").stdout == b"It is **4**.\n"
    stopped = told(run(model, "--stop", "**4", "--json"))
    assert stopped["text"] == "It is " and stopped["finish"] == "stop"
    assert stopped["generated_tokens"] == 6


def test_an_answer_that_never_comes_is_said(say, run):
    result = run(say(QWEN, THOUGHT, after="\n"), "-n", 2)
    assert result.returncode == 0 and result.stdout == b"\n"
    assert b"before it came to an answer" in result.stderr


def test_a_plain_model_is_left_alone(say, run):
    said = "\n <think>x</think> <tool_call>\n{} \n"
    result = run(say(TURNS + SAY, [said]))
    assert result.stdout == said.encode() and result.stderr == b""


@pytest.mark.parametrize("template, pieces, calls", [
    (QWEN_XML, ["<tool_call>", "\n<function=f>\n<para", "meter=s>\nx \"y\"\n</parameter>\n",
                "</function>\n</tool_call>"],
     [{"name": "f", "arguments": '{"s": "x \\"y\\""}'}]),
    (MISTRAL, [("[THINK]",), "Hm.", ("[/THINK]",), "Look.", ("[TOOL_CALLS]",), "get", "_it",
               ("[CALL_ID]",), "call00001", ("[ARGS]",), '{"a": ', '"]"}'],
     [{"name": "get_it", "id": "call00001", "arguments": '{"a": "]"}'}]),
    (GEMMA, [("<|channel>",), "thought\nHm.\n", ("<channel|>",), "Look.", ("<|tool_call>",),
             "call:get_it{a:", ('<|"|>',), "]", "}", ],
     [{"name": "get_it", "arguments": '{"a": "]}', "broken": True}]),
    (MISTRAL, [("[TOOL_CALLS]",), "f", ("[ARGS]",), '{"a"'],
     [{"name": "f", "arguments": '{"a"', "broken": True}]),
])
def test_calls_of_special_tokens(say, run, template, pieces, calls):
    model = say(template, pieces)
    answer = told(run(model, "--json"))
    assert answer["tool_calls"] == calls
    if "Hm." in str(pieces):
        assert answer["text"] == "Look." and answer["reasoning"] == "Hm."
    shown = run(model)
    assert f"calls {calls[0]['name']} {calls[0]['arguments']}".encode() in shown.stderr
    assert shown.stdout.decode().rstrip("\n") == answer["text"]


def test_harmony_ends_with_its_call(say, run):
    """<|call|> is one of the model's ends, so the text never shows it."""
    model = say(HARMONY, [" to=functions.f", ("<|channel|>",), "commentary json", ("<|message|>",),
                          '{"a": 1', "}"], end="<|call|>")
    answer = told(run(model, "--json"))
    assert answer["text"] == "" and answer["finish"] == "stop"
    assert answer["tool_calls"] == [{"name": "f", "arguments": '{"a": 1}'}]


def test_the_chat_folds_what_the_model_thinks(say, tmp_path):
    chat = Chat(tmp_path, "--temperature", "0", model=say(QWEN, THOUGHT, after="\n"))
    try:
        seen = chat.say("Hello")
        assert b"thinking... 3" in seen and b"thought for 3 tokens" in seen
        assert b"over" not in seen and b"It is" in seen
        chat.say("/think")
        seen = chat.say("Again")
        assert b"Let me think" not in seen  # each token has its style
        assert b"Let me " in seen and b"it over." in seen and b"thinking..." not in seen
        chat.say(f"/save {tmp_path}/talk.json")
        turn = json.loads((tmp_path / "talk.json").read_text())["messages"][1]
        assert turn == {"role": "assistant", "content": "It is **4**.",
                        "reasoning_content": "Let me think it over."}
        chat.say(f"/load {tmp_path}/talk.json")
        chat.say(f"/save {tmp_path}/again.json")
        assert (tmp_path / "talk.json").read_text() == (tmp_path / "again.json").read_text()
        chat.send("\x04")
        assert chat.end() == 0
    finally:
        try:
            os.kill(chat.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
