"""imp run: one answer for scripts, and the chat driven through a pseudo-terminal."""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
MODELS = ROOT / "tests" / "data" / "models"
MODEL = MODELS / "tiny-gqa-nvfp4"
DEADLINE = 30  # seconds


def environment(home, **more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("IMP_", "XDG_", "HF_"))}
    kept.pop("NO_COLOR", None)
    return {**kept, "HOME": str(home), "TERM": "xterm", "LC_ALL": "C", "IMP_DEVICE": "cpu", **more}


@pytest.fixture
def run(tmp_path):
    def call(*args, model=MODEL, stdin=b"", **more):
        return subprocess.run([IMP, "run", str(model), *map(str, args)], input=stdin,
                              capture_output=True, timeout=DEADLINE,
                              env=environment(tmp_path, **more))
    return call


@pytest.fixture
def long_model(tmp_path):
    """A context that takes far longer to fill than any test lasts."""
    folder = tmp_path / "long"
    shutil.copytree(MODELS / "tiny-smol-nvfp4a16", folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 400000
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# ---- one answer ----


def test_the_answer_alone_and_always_the_same(run):
    first = run("-p", "Hello", "-n", 20, "--temperature", 0)
    assert first.returncode == 0 and first.stderr == b""
    assert len(first.stdout) > 5 and first.stdout.endswith(b"\n")
    for _ in range(3):
        assert run("-p", "Hello", "-n", 20, "--temperature", 0).stdout == first.stdout
    assert run("-p", "Hullo", "-n", 20, "--temperature", 0).stdout != first.stdout


def test_answer_that_ends_in_a_newline_gets_no_second(run):
    model = MODELS / "tiny-smol"
    told = json.loads(run("-p", "Hello", "-n", 3, "--temperature", 0, "--json", model=model).stdout)
    assert told["text"].endswith("\n")
    shown = run("-p", "Hello", "-n", 3, "--temperature", 0, model=model).stdout
    assert shown.decode() == told["text"]


def test_json(run):
    told = json.loads(run("-p", "Hello", "-n", 5, "--temperature", 0, "--json").stdout)
    assert told["finish"] == "length" and told["generated_tokens"] == 5
    shown = run("-p", "Hello", "-n", 5, "--temperature", 0).stdout.decode()
    assert shown == told["text"] + "\n"


def test_standard_input(run):
    given = run("-p", "Hello\nyou", "-n", 20).stdout
    assert run("-n", 20, stdin=b"Hello\nyou\n").stdout == given
    assert run("-n", 20, "-p", "-", stdin=b"Hello\nyou").stdout == given
    assert run("-n", 20, "-p", "Hello\nyou", stdin=b"other").stdout == given
    assert run("-n", 20, stdin=b"Hello\nyou\n\n").stdout != given


def test_raw_system_and_template(run, tmp_path):
    def tokens(*args):
        return json.loads(run("-n", 1, "--json", *args).stdout)["prompt_tokens"]
    chat, raw = tokens("-p", "Hello"), tokens("-p", "Hello", "--raw")
    assert raw < chat < tokens("-p", "Hello", "--system", "Be short.")
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}")
    assert tokens("-p", "Hello", "--chat-template", template) == raw
    template.write_text("{{ raise_exception('not this one') }}")
    refused = run("-p", "Hello", "--chat-template", template)
    assert refused.returncode == 8 and b"not this one" in refused.stderr and refused.stdout == b""


def test_stop_and_length(run):
    whole = run("-p", "Hello", "-n", 40, "--temperature", 0, model=MODELS / "tiny-smol-nvfp4a16")
    assert b"hat" in whole.stdout
    stopped = run("-p", "Hello", "-n", 40, "--temperature", 0, "--stop", "zzz", "--stop", "hat",
                  model=MODELS / "tiny-smol-nvfp4a16")
    assert stopped.stdout.rstrip(b"\n") == whole.stdout[:whole.stdout.index(b"hat")].rstrip(b"\n")
    counts = [json.loads(run("-p", "Hello", "-n", n, "--temperature", 0, "--json",
                             model=MODELS / "tiny-smol").stdout)["generated_tokens"]
              for n in (1, 7)]
    assert counts == [1, 7]


def test_context_full(run):
    full = run("-p", "Hello", "-n", 100000, "--temperature", 0, "--json", model=MODELS / "tiny-smol")
    told = json.loads(full.stdout)
    assert full.returncode == 0 and told["finish"] == "context"
    assert told["prompt_tokens"] + told["generated_tokens"] in (256, 257)
    assert b"context is full" in full.stderr
    too_long = run("-p", "xyz " * 400)
    assert too_long.returncode == 7 and b"context" in too_long.stderr and too_long.stdout == b""


def test_seed(run):
    def answer(seed):
        return run("-p", "Hello", "-n", 20, "--temperature", 1, "--seed", seed).stdout
    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) == 4


def test_mistakes(run, tmp_path):
    assert run("-p", "x", "--temperature", "hot").returncode == 1
    assert run("-p", "x", "--chat-template", tmp_path / "none").returncode == 5
    assert run("-p", "x", model=tmp_path / "none").returncode == 5


def test_reader_that_leaves_early(long_model, tmp_path):
    shell = f'"{IMP}" run "{long_model}" -p Hello --temperature 0 | head -c 1 | wc -c'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, timeout=DEADLINE,
                          env=environment(tmp_path))
    assert done.stdout.strip() == b"1" and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_full_disk(run, tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([IMP, "run", str(MODEL), "-p", "Hello", "-n", "5"], stdout=full,
                              stderr=subprocess.PIPE, timeout=DEADLINE, env=environment(tmp_path))
    assert done.returncode == 5 and b"standard output" in done.stderr


def test_interrupt(long_model, tmp_path):
    process = subprocess.Popen([IMP, "run", str(long_model), "-p", "Hello", "--temperature", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                               env=environment(tmp_path))
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 11 and b"interrupted" in err
    assert first and (first + out).endswith(b"\n")


def test_interrupt_while_nobody_reads(long_model, tmp_path):
    process = subprocess.Popen([IMP, "run", str(long_model), "-p", "Hello", "--temperature", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                               env=environment(tmp_path))
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    assert process.stdout.read(1)
    time.sleep(0.3)  # the pipe is full by then; if it is not, the test still has to pass
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=DEADLINE) == 11


# ---- the chat ----


class Chat:
    def __init__(self, home, *args, model=MODEL, columns=80, **more):
        self.process, self.screen = None, b""
        try:
            self.pid, self.fd = pty.fork()
        except OSError as error:  # a bare root without /dev/pts
            pytest.skip(f"no terminal to be had: {error}")
        if self.pid == 0:
            os.execve(IMP, [IMP, "run", str(model), *map(str, args)], environment(home, **more))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.wait_prompt()

    def wait(self, pattern):
        """What the terminal was sent up to and with the pattern."""
        end = time.monotonic() + DEADLINE
        while not (match := re.search(pattern, self.screen, re.S)):
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.screen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.screen += os.read(self.fd, 65536)
                except OSError:
                    raise AssertionError(f"ended without {pattern!r}: {self.screen!r}") from None
        seen, self.screen = self.screen[:match.end()], self.screen[match.end():]
        return seen

    def wait_prompt(self):
        return self.wait(rb">(\x1b\[[0-9;]*m)* (\x1b\[[0-9;]*m)*(\x1b\[K)?$")

    def send(self, text):
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def say(self, text):
        self.send(text + "\r")
        return self.wait(rb"\r\n") + self.wait_prompt()

    def end(self):
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def chat(tmp_path):
    opened = []

    def open_chat(*args, **more):
        opened.append(Chat(tmp_path, *args, **more))
        return opened[-1]
    yield open_chat
    for c in opened:
        try:
            os.kill(c.pid, signal.SIGKILL)
            os.waitpid(c.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def used_context(seen):
    return int(re.findall(rb"context (\d+)/256", seen)[-1])


def test_two_turns_and_the_end(chat, tmp_path):
    c = chat("-n", 10, "--temperature", 0)
    first = c.say("Hello")
    assert b"10 tokens" in first
    second = c.say("and again")
    assert used_context(second) > used_context(first) + 10
    c.send("\x04")
    assert c.end() == 0
    history = tmp_path / ".local/state/imp/history"
    assert "and\\040again" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_history_comes_back(chat, tmp_path):
    c = chat("-n", 3, "--temperature", 0)
    c.say("h\u00e9llo from before")
    c.send("/quit\r")
    assert c.end() == 0
    c = chat("-n", 3, "--temperature", 0)
    c.send("\x1b[A\x1b[A")
    c.wait("h\u00e9llo from before".encode())


def test_commands(chat):
    c = chat("-n", 10, "--temperature", 0)
    seen = c.say("/help")
    for name in (b"/help", b"/clear", b"/system", b"/set", b"/save", b"/load", b"/quit"):
        assert name in seen
    assert b"nearest is /clear" in c.say("/claer")
    listed = c.say("/set")
    assert b"temperature" in listed and b"frequency-penalty" in listed and b"stop" not in listed
    assert b"nearest is temperature" in c.say("/set temprature 1")
    assert b"from 0 to 100" in c.say("/set temperature -1")
    c.say("/set max-tokens 4")
    assert b"4 tokens" in c.say("Hello")
    assert b"/etc/passwd" in c.say("/etc/passwd what is it?")  # a message
    c.send("/quit\r")
    assert c.end() == 0


def test_clear_and_system(chat):
    c = chat("-n", 5, "--temperature", 0)
    alone = used_context(c.say("Hello"))
    assert used_context(c.say("Hello")) > alone
    c.say("/clear")
    assert used_context(c.say("Hello")) == alone
    c.say("/clear")
    assert b"Be short." in c.say("/system Be short.")
    assert used_context(c.say("Hello")) > alone
    c.say("/clear")
    assert b"none" in c.say("/system -")
    assert used_context(c.say("Hello")) == alone


def test_save_and_load(chat, tmp_path):
    saved = tmp_path / "c \u00e9.json"
    c = chat("-n", 5, "--temperature", 0, "--system", 'Say "x"')
    c.say("Hello")
    assert b"Saved 2 messages" in c.say(f"/save {saved}")
    document = json.loads(saved.read_text())
    assert document["system"] == 'Say "x"'
    assert [m["role"] for m in document["messages"]] == ["user", "assistant"]
    assert document["messages"][0]["content"] == "Hello"
    next_turn = used_context(c.say("more"))
    other = chat("-n", 5, "--temperature", 0)
    assert b"Loaded 2 messages" in other.say(f"/load {saved}")
    assert used_context(other.say("more")) == next_turn
    saved.write_text('{"messages": [{"role": "wizard", "content": "x"}]}')
    assert b"role" in other.say(f"/load {saved}")
    assert b"imp: " in other.say("/load /nowhere/file")
    assert used_context(other.say("x")) > next_turn  # the conversation is still there


def test_paste_of_several_lines(chat, tmp_path):
    c = chat("-n", 3, "--temperature", 0)
    c.send("\x1b[200~first\rsecond \u65e5\u672c\x1b[31m\r\n  third\r\x1b[201~")
    c.wait(rb"third")
    c.say("!")
    saved = tmp_path / "s.json"
    c.say(f"/save {saved}")
    messages = json.loads(saved.read_text())["messages"]
    assert len(messages) == 2
    assert messages[0]["content"] == "first\nsecond \u65e5\u672c[31m\n  third!"


def test_conversation_that_no_longer_fits(chat):
    c = chat("-n", 3, "--temperature", 0)
    assert b"/clear" in c.say("xyz " * 120)
    assert b"3 tokens" in c.say("Hello")


def test_interrupt_keeps_the_chat(chat, long_model, tmp_path):
    c = chat("--temperature", 0, model=long_model)
    c.send("Hello\r")
    c.wait(rb"hat")
    c.send("\x03")
    assert b"stopped" in c.wait_prompt()
    saved = tmp_path / "s.json"
    c.say(f"/save {saved}")
    assert "hat" in json.loads(saved.read_text())["messages"][1]["content"]
    c.send("thrown away")
    c.wait(rb"away")
    c.send("\x03")
    assert b"Ctrl-D" not in c.wait_prompt()
    c.send("\x03")
    assert b"Ctrl-D" not in c.wait_prompt()
    c.send("\x03")
    assert b"Ctrl-D" in c.wait_prompt()
    c.send("\x04")
    assert c.end() == 0


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_control_of_the_model_reaches_the_terminal(chat, run, more):
    args = ("-n", 200, "--temperature", 2, "--seed", 5)
    text = json.loads(run("-p", "Hello", *args, "--json").stdout)["text"]
    assert set(text) & set(map(chr, range(0x01, 0x09))), "the answer must hold controls"
    c = chat("-q", *args, **more)
    c.send("Hello\r")
    c.wait(rb"\n")
    seen = c.wait_prompt()
    if more:
        assert b"\x1b[0;" not in seen
    seen = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen)
    assert not set(seen) & (set(range(0x20)) - {0x0a, 0x0d, 0x09}), seen
