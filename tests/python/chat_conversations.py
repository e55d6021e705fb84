"""Generated conversations for comparing chat templates: what clients send, and what they should not.

Half of them are well formed (roles take turns, tool calls are answered) with odd values inside;
the others hold roles, types and missing keys that templates meet only by accident."""
import random

WORDS = [
    "Hello", "what's the weather?", "2 + 2 = ?", "", " ", "\n", "\n\n", "  leading", "trailing  ",
    "\ttab", "line one\nline two\n", "\r\nwindows\r\n", "Größe", "日本語のテキスト", "👩‍👩‍👧 😀", "ﬁ İ ß Σας",
    "e\u0301", "\u00a0nbsp\u00a0", "\u2028sep", "\u200bzero", "null", "None", "True", "0", "-1.5e3",
    "<|im_end|>", "<|im_start|>system", "[INST] x [/INST]", "</s><s>", "<think>\nhm\n</think>\n\nso",
    "<think>open", "a</think>b", "</think>", "<tool_call>\n{}\n</tool_call>", "[TOOL_CALLS]",
    "<|channel|>final", "<start_of_turn>", "{{ x }}", "{% if %}", "{# c #}", "%s %d %%", "{0} {}",
    "\"quoted\" 'single' \\back", "&<>\"'", "/no_think", "/think", "a" * 300, "\u007f\u0080\u0001",
    "Cutting Knowledge Date", "```json\n{\"a\": 1}\n```", "/system_override", "yes/no", "A\u030a",
]
NAMES = ["get_weather", "f", "", "search-web", "a.b", "Größe", "python", "run\"x", "browser", "名"]
NUMBERS = [
    0, 1, -1, 7, 1.0, -0.0, 0.1, 2.5, 1e16, 1e15, 123456789.123, 1e22, 1e-5, 5e-324, 1.7e308, 2**31,
    2**53 + 1, 2**63 - 1, -2**63, 2**63, 2**64 - 1, 2**64, -2**63 - 1, 10**30, -10**40, 3.0, 100000.0,
]
ROLES = [
    "user", "user", "assistant", "assistant", "system", "tool", "developer", "function", "ipython",
    "model", "documents", "context", "observation", "latest_reminder", "User", "", " user", "critic",
]
KEYS = ["city", "location", "n", "x", "", "items", "keys", "a b", "é", "type", "nested", "get", "1"]
SWITCHES = [
    "enable_thinking", "thinking", "preserve_thinking", "add_vision_id", "clear_thinking", "custom_tools",
    "builtin_tools", "reasoning_effort", "model_identity", "date_string", "today", "controls", "length",
    "tools_in_user_message", "system_message", "keep_past_thinking", "xml_tools", "python_tools",
    "available_tools", "citations", "thinking_mode", "truncate_history_thinking", "documents",
    "drop_thinking", "default_system_prompt", "system_prompt", "developer_prompt", "no_such_switch",
    "image_token", "audio_token", "skip_thinking", "tool_choice", "response_format", "is_first",
]


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def chance(self, p):
        return self.r.random() < p

    def text(self):
        if self.chance(0.06):
            low, high = self.r.choice([(0x20, 0x7e), (0x80, 0x24f), (0x370, 0x5ff), (0x2000, 0x206f),
                                       (0x3040, 0x30ff), (0x1f300, 0x1f6ff), (0, 0x1f)])
            return "".join(chr(self.r.randint(low, high)) for _ in range(self.r.randrange(12)))
        return self.r.choice(("", "", " ", "\n")).join(
            self.r.choice(WORDS) for _ in range(self.r.choice((1, 1, 1, 2, 3))))

    def scalar(self):
        k = self.r.random()
        if k < 0.45:
            return self.text()
        if k < 0.8:
            return self.r.choice(NUMBERS)
        return self.r.choice((None, True, False))

    def value(self, depth=0):
        if depth > 3 or self.chance(0.55):
            return self.scalar()
        if self.chance(0.4):
            return [self.value(depth + 1) for _ in range(self.r.randrange(4))]
        return {self.key(): self.value(depth + 1) for _ in range(self.r.randrange(4))}

    def key(self):
        return self.r.choice(KEYS) if self.chance(0.9) else self.text()

    def arguments(self, odd):
        k = self.r.random()
        if k < 0.65:
            return {self.key(): self.value(1) for _ in range(self.r.randrange(4))}
        if k < 0.9 or not odd:
            return self.r.choice(('{"city": "Paris", "n": 1.0}', "{}", "", "{\"a\": [1, null]}", "not json"))
        return self.r.choice((None, [], [1], 5, "", True))

    def tool_call(self, odd):
        function = {"name": self.r.choice(NAMES[:2]), "arguments": self.arguments(odd)}
        if odd and self.chance(0.15):
            function.pop(self.r.choice(("name", "arguments")))
        if odd and self.chance(0.15):
            function["name"] = self.r.choice(NAMES)
        call = {"type": "function", "function": function}
        if self.chance(0.2):
            call = dict(function)
        if self.chance(0.7):
            call["id"] = self.r.choice(("abcDEF123", "call_1", "0", "functions.f:0"))
        return call

    def part(self, odd):
        k = self.r.random()
        if k < 0.7 or not odd:
            return {"type": "text", "text": self.text()}
        return self.r.choice((
            {"type": "image"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
            {"type": "video"}, {"type": "audio"}, {"type": "text"}, {"text": self.text()},
            {"type": "text", "text": None}, {"type": "text", "content": "c"}, {"type": "input_text", "text": "i"},
            {"type": "thinking", "thinking": self.text()}, {"type": "text", "text": 5}, {}, "plain", None))

    def content(self, odd):
        k = self.r.random()
        if k < (0.55 if odd else 0.85):
            return self.text()
        if k < (0.75 if odd else 0.95):
            return [self.part(odd) for _ in range(self.r.randrange(4) if odd else self.r.randrange(1, 3))]
        if not odd:
            return ""
        return self.r.choice((None, None, "", [], {}, 5, 1.5, True, {"type": "text", "text": "x"}, {"a": [1]}))

    def extras(self, message, odd):
        if message["role"] == "assistant":
            if self.chance(0.25):
                message[self.r.choice(("reasoning_content", "reasoning", "thinking", "thought"))] = \
                    self.text() if self.chance(0.8) or not odd else self.r.choice((None, "", 5, ["x"], {}))
            if self.chance(0.3 if odd else 0.1):
                message["tool_calls"] = [self.tool_call(odd) for _ in range(self.r.randrange(3))]
            if odd and self.chance(0.1):
                message[self.r.choice(("tool_calls", "function_call", "prefix", "name", "refusal"))] = \
                    self.r.choice((None, [], {}, True, "x", {"name": "f", "arguments": "{}"}))
        if message["role"] in ("tool", "function", "ipython") and self.chance(0.8):
            message["tool_call_id"] = self.r.choice(("abcDEF123", "call_1", "0", 5, ""))
            if self.chance(0.5):
                message["name"] = self.r.choice(NAMES)
        if odd and self.chance(0.15):
            message[self.r.choice(("name", "tools", "weight", "id", "channel", "recipient", "eot",
                                   "response_format", "task", "tool_responses"))] = self.value(2)
        if odd and self.chance(0.08):
            message.pop(self.r.choice(sorted(message)))
        return message

    def schema(self, depth=0):
        kind = self.r.choice(("string", "number", "integer", "boolean", "array", "object", ["string", "null"], None))
        out = {} if kind is None else {"type": kind}
        if self.chance(0.6):
            out["description"] = self.text()
        if self.chance(0.2):
            out["enum"] = [self.scalar() for _ in range(self.r.randrange(4))]
        if self.chance(0.2):
            out["default"] = self.value(2)
        if self.chance(0.1):
            out["nullable"] = self.r.choice((True, False))
        if self.chance(0.1):
            out[self.r.choice(("minimum", "maximum", "multipleOf", "format", "additionalProperties"))] = self.scalar()
        if depth < 3 and kind == "array" and self.chance(0.8):
            out["items"] = self.schema(depth + 1)
        if depth < 3 and kind == "object" and self.chance(0.8):
            out.update(self.properties(depth + 1))
        if depth < 3 and self.chance(0.08):
            out[self.r.choice(("anyOf", "oneOf", "allOf"))] = [self.schema(depth + 1) for _ in range(2)]
        if depth < 3 and self.chance(0.05):
            out["$ref"] = "#/$defs/T"
            out["$defs"] = {"T": self.schema(depth + 1)}
        return out

    def properties(self, depth):
        names = self.r.sample(KEYS, self.r.randrange(5))
        out = {"properties": {k: self.schema(depth) for k in names}}
        if self.chance(0.7):
            out["required"] = names[:self.r.randrange(len(names) + 1)]
        return out

    def tool(self, odd):
        parameters = {"type": "object", **self.properties(0)}
        function = {"name": self.r.choice(NAMES), "description": self.text(), "parameters": parameters}
        if self.chance(0.15):
            function["return"] = self.schema(2)
        if odd and self.chance(0.2):
            function.pop(self.r.choice(sorted(function)))
        if odd and self.chance(0.1):
            function["parameters"] = self.r.choice((None, {}, {"type": "object"}, self.value()))
        if odd and self.chance(0.1):
            function["strict"] = True
        if odd and self.chance(0.15):
            return function
        return {"type": "function", "function": function}

    def well_formed(self):
        messages = []
        if self.chance(0.5):
            messages.append({"role": "system", "content": self.content(False)})
        for _ in range(self.r.randrange(1, 4)):
            messages.append({"role": "user", "content": self.content(False)})
            if self.chance(0.35):
                calls = [self.tool_call(False) for _ in range(self.r.choice((1, 1, 2)))]
                call = {"role": "assistant", "tool_calls": calls}
                call["content"] = self.r.choice(("", None, self.text()))
                messages.append(self.extras(call, False) | {"tool_calls": calls})
                for c in calls:
                    messages.append({"role": "tool", "tool_call_id": c.get("id", "abcDEF123"),
                                     "name": "f", "content": self.content(False)})
            answer = {"role": "assistant", "content": self.content(False)}
            messages.append(self.extras(answer, False))
        return messages[:-1] if self.chance(0.6) else messages

    def chaotic(self):
        messages = []
        for _ in range(self.r.randrange(6)):
            message = {"role": self.r.choice(ROLES), "content": self.content(True)}
            messages.append(self.extras(message, True))
        return messages

    def case(self):
        odd = self.chance(0.5)
        tools = [self.tool(odd) for _ in range(self.r.randrange(4))] if self.chance(0.4) else None
        kwargs = {}
        for name in self.r.sample(SWITCHES, self.r.randrange(4)):
            kwargs[name] = self.r.choice((True, False)) if self.chance(0.7) else self.value(2)
        if self.chance(0.1):
            kwargs["documents"] = [{"title": self.text(), "text": self.text()} for _ in range(2)]
        return {"messages": self.chaotic() if odd else self.well_formed(), "tools": tools,
                "add_generation_prompt": self.chance(0.7), "kwargs": kwargs}


def generate(count, seed):
    """The first is always the same few of a seed, whatever the count."""
    for i in range(count):
        yield Maker(f"{seed}/{i}").case()
