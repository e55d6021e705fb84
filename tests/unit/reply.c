/* The output of a model taken apart, format by format, cut at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/reply_print.h"

#define TOOLS                                                                                      \
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"properties\": "  \
    "{\"s\": {\"type\": \"string\"}, \"n\": {\"type\": \"integer\"}, \"b\": {\"type\": "           \
    "\"boolean\"}, \"l\": {\"type\": \"array\"}, \"o\": {\"type\": \"object\"}, \"z\": "           \
    "{\"type\": [\"number\", \"null\"]}, \"sz\": {\"type\": [\"string\", \"null\"]}, \"u\": "      \
    "{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"boolean\"}]}, \"e\": {\"enum\": [1, "      \
    "2]}, \"a\": {}}}}}, {\"name\": \"now\"}]"

struct reply_case {
    enum reply_format format;
    const char *prompt, *text, *parts;
};

/* Parts as reply_print.h writes them: C content, R reasoning, F name, I id, A arguments, E end of a
 * whole call, X end of a broken one. */
static const struct reply_case plain[] = {
    {REPLY_NONE, "", "Hello.\n", "C<Hello.\n>"},
    {REPLY_NONE, "", "", ""},
    {REPLY_NONE, "", " \n a <tool_call> {;[ \n ", "C< \n a <tool_call> {;[ \n >"},
    {REPLY_HERMES, "", "a < b, <tool> <tool_cal> <<tool_", "C<a < b, <tool> <tool_cal> <<tool_>"},
    {REPLY_HERMES, "", "\n\n  two \n\n", "C<\n\n  two \n\n>"},
    {REPLY_MISTRAL, "", "[1] [TOOL] [[TOOL_CALL", "C<[1] [TOOL] [[TOOL_CALL>"},
    {REPLY_LLAMA3, "", "{} {\"name\": \"f\"}", "C<{} {\"name\": \"f\"}>"},
    {REPLY_LLAMA3, "", "say {\"name\": \"f\", \"parameters\": {}}",
     "C<say {\"name\": \"f\", \"parameters\": {}}>"},
    {REPLY_GEMMA4, "", "<|tool|> <|\"|> <channel|>", "C<<|tool|> <|\"|> <channel|>>"},
};

static const struct reply_case thinking[] = {
    {REPLY_NONE, "", "<think>\nWell.\n</think>\n\nYes.", "R<Well.>C<Yes.>"},
    {REPLY_NONE, "", "\n<think>Well.</think>Yes.", "R<Well.>C<Yes.>"},
    {REPLY_NONE, "", "<think>\n\n</think>\n\nYes.", "C<Yes.>"},
    {REPLY_NONE, "", "<think>\n a\n\n b \n</think>\n c", "R< a\n\n b >C< c>"},
    {REPLY_NONE, "", "<think>cut off\n", "R<cut off\n>"},
    {REPLY_NONE, "", "<think>cut off</thin", "R<cut off</thin>"},
    {REPLY_NONE, "", "It is <think>no tag</think> here", "C<It is <think>no tag</think> here>"},
    {REPLY_NONE, "", "</think>stray", "C<</think>stray>"},
    {REPLY_NONE, "", "<think>a<think>b</think>c", "R<a<think>b>C<c>"},
    {REPLY_NONE, "", "<think>a</think><think>b</think>c", "R<ab>C<c>"},
    {REPLY_HERMES, "x<think>\n", "Well.\n</think>\n\nYes.", "R<Well.>C<Yes.>"},
    {REPLY_HERMES, "x<think>\n", "\nWell.</think>Yes.</think>", "R<Well.>C<Yes.</think>>"},
    {REPLY_HERMES, "x<think>\n\n</think>\n\n", "Yes.", "C<Yes.>"},
    {REPLY_HERMES, "x<think>\n\n</think>\n\n", "<think>\nAll the same.\n</think>\n\nYes.",
     "R<All the same.>C<Yes.>"},
    {REPLY_HERMES, "ends in <think> not", "Yes.", "C<Yes.>"},
    {REPLY_QWEN_XML, "<think>", "a <tool_call> b</think>c", "R<a <tool_call> b>C<c>"},
    {REPLY_MISTRAL, "", "[THINK]17*23 = 391.[/THINK]391", "R<17*23 = 391.>C<391>"},
    {REPLY_MISTRAL, "", "One.[THINK]Two.[/THINK]Three.", "C<One.>R<Two.>C<Three.>"},
    {REPLY_MISTRAL, "x[THINK]", "Two.[/THINK]Three.", "R<Two.>C<Three.>"},
    {REPLY_GEMMA4, "", "<|channel>thought\nHm.\n<channel|>Yes.", "R<Hm.>C<Yes.>"},
    {REPLY_GEMMA4, "", "<|channel>thought\n<channel|>Yes.", "C<Yes.>"},
    {REPLY_GEMMA4, "", "<|channel>thoughts\n<channel|>Yes.", "R<s>C<Yes.>"},
    {REPLY_GEMMA4, "", "<|channel>other\n<channel|>", "C<<|channel>other\n<channel|>>"},
    {REPLY_GEMMA4, "<|turn>model\n<|channel>thought\n", "Hm.<channel|>Yes.", "R<Hm.>C<Yes.>"},
    {REPLY_GEMMA4, "<|channel>thought\n<channel|>", "Yes.", "C<Yes.>"},
};

#define F_ARGS "{\"s\": \"a \\\"b\\\" \\u00e9\", \"n\": [1, {}]}"

static const struct reply_case hermes[] = {
    {REPLY_HERMES, "", "<tool_call>\n{\"name\": \"f\", \"arguments\": " F_ARGS "}\n</tool_call>",
     "F<f>A<" F_ARGS ">E<>"},
    {REPLY_HERMES, "",
     "Let me look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
     "{\"name\": \"g\", \"arguments\": {\"a\": 1}}\n</tool_call>\n",
     "C<Let me look.>F<f>A<{}>E<>F<g>A<{\"a\": 1}>E<>"},
    {REPLY_HERMES, "<think>\n",
     "Hm.\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
     "R<Hm.>F<f>A<{}>E<>"},
    {REPLY_HERMES, "", "<tool_call>{\"arguments\":{\"a\":\"\\n\"},\"name\":\"f\"}</tool_call>",
     "F<f>A<{\"a\":\"\\n\"}>E<>"},
    {REPLY_HERMES, "",
     "<tool_call>{\"type\": \"function\", \"x\": [1, -2.5e3], \"id\": \"c1\", \"name\": \"f\", "
     "\"n\": 12, \"parameters\": {}}</tool_call>",
     "F<f>I<c1>A<{}>E<>"},
    {REPLY_HERMES, "",
     "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
     "F<f>A<{\"a\": 1}>E<>"},
    {REPLY_HERMES, "",
     "<tool_call>{\"name\": \"f\", \"arguments\": \" {\\\"a\\\": \\\"x\\ny\\\"}\"}",
     "F<f>A<{\"a\": \"x\\ny\"}>E<>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>",
     "F<f>A<{}>E<>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\"}</tool_call>", "F<f>A<{}>E<>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"\\u0066\\ud83d\\ude00\", \"arguments\": {}}",
     "F<f\xF0\x9F\x98\x80>A<{}>E<>"},
    /* what models get wrong and what it meant */
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x\ny\tz\"}}",
     "F<f>A<{\"a\": \"x\\ny\\tz\"}>E<>"},
    {REPLY_HERMES, "",
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>after",
     "F<f>A<{\"a\": 1}>E<>C<after>"},
    {REPLY_HERMES, "", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n\n and so",
     "F<f>A<{}>E<>C<\n\n and so>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n\nSo: <b>",
     "F<f>A<{}>E<>C<\n\nSo: <b>>"},
    /* none, or cut off before it began */
    {REPLY_HERMES, "", "x <tool_call> is a tag", "C<x <tool_call> is a tag>"},
    {REPLY_HERMES, "", "<tool_call>\n{\"name\": 5}", "C<<tool_call>\n{\"name\": 5}>"},
    {REPLY_HERMES, "", "<tool_call>\n{\"na", "C<<tool_call>\n{\"na>"},
    {REPLY_HERMES, "", "<tool_call>\n{\"name\": \"f\", \"arguments\": [", /* no object */
     "C<<tool_call>\n{\"name\": \"f\", \"arguments\": [>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
     "C<<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>>"},
    {REPLY_HERMES, "", "<tool_call>{\"arguments\": {}}</tool_call>",
     "C<<tool_call>{\"arguments\": {}}</tool_call>>"},
    {REPLY_HERMES, "", "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
     "C<<tool_call>>F<f>A<{}>E<>"},
    {REPLY_HERMES, "", "<tool_call>\n<tool_call>{\"name\": \"f\", \"arguments\": {}}",
     "C<<tool_call>\n>F<f>A<{}>E<>"},
    /* broken after it began */
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1,",
     "F<f>A<{\"a\": [1,>X<>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": oops}}</tool_call>",
     "F<f>A<{\"a\": >X<>C<oops}}</tool_call>>"},
    {REPLY_HERMES, "", "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"arguments\": {}}",
     "F<f>A<{}>X<>C<{}}>"},
    /* the other Qwen's way, as it comes */
    {REPLY_HERMES, "",
     "<tool_call>\n<function=f>\n<parameter=s>\nx\n</parameter>\n</function>\n"
     "</tool_call>",
     "F<f>A<{\"s\": \"x\"}>E<>"},
};

#define XML(body)      "<tool_call>\n<function=f>\n" body "</function>\n</tool_call>"
#define P(name, value) "<parameter=" name ">\n" value "\n</parameter>\n"

static const struct reply_case qwen_xml[] = {
    {REPLY_QWEN_XML, "", XML(""), "F<f>A<{}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("s", "Paris")), "F<f>A<{\"s\": \"Paris\"}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("s", "12") P("n", "12") P("b", "True") P("z", "None")),
     "F<f>A<{\"s\": \"12\", \"n\": 12, \"b\": true, \"z\": null}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("l", "[{\"a\": 1}, \"x\ny\"]") P("o", "{ }")),
     "F<f>A<{\"l\": [{\"a\": 1}, \"x\\ny\"], \"o\": { }}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("n", "012") P("b", "yes") P("l", "{}") P("o", "{\"a\": b}")),
     "F<f>A<{\"n\": \"012\", \"b\": \"yes\", \"l\": \"{}\", \"o\": \"{\\\"a\\\": b}\"}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("l", "[{'a': \"it's\", 'b': 'say \"x\"\\n\\''}, None, True, -1.5]")),
     "F<f>A<{\"l\": [{\"a\": \"it's\", \"b\": \"say \\\"x\\\"\\n'\"}, null, true, -1.5]}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("l", "['a']x") P("l", "['a") P("l", "[Nones]")),
     "F<f>A<{\"l\": \"['a']x\", \"l\": \"['a\", \"l\": \"[Nones]\"}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("sz", "null") P("sz", "3") P("u", "3") P("u", "false") P("e", "2")),
     "F<f>A<{\"sz\": null, \"sz\": \"3\", \"u\": 3, \"u\": false, \"e\": 2}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("a", "x y") P("a", "[1]") P("unknown", "1")),
     "F<f>A<{\"a\": \"x y\", \"a\": [1], \"unknown\": \"1\"}>E<>"},
    {REPLY_QWEN_XML, "", XML(P("s", "\n\n  a\n\n</param>\n<b>\n\"\\\x01\n")),
     "F<f>A<{\"s\": \"\\n\\n  a\\n\\n</param>\\n<b>\\n\\\"\\\\\\u0001\\n\"}>E<>"},
    {REPLY_QWEN_XML, "", XML("<parameter=s></parameter>" P("s", "")),
     "F<f>A<{\"s\": \"\", \"s\": \"\"}>E<>"},
    {REPLY_QWEN_XML, "", XML("<parameter=s>one line</parameter>"),
     "F<f>A<{\"s\": \"one line\"}>E<>"},
    {REPLY_QWEN_XML, "", "Look:\n\n" XML(P("s", "a")) "\n" XML("") "\n",
     "C<Look:>F<f>A<{\"s\": \"a\"}>E<>F<f>A<{}>E<>"},
    {REPLY_QWEN_XML, "<think>\n", "Hm.\n</think>\n\n" XML(""), "R<Hm.>F<f>A<{}>E<>"},
    {REPLY_QWEN_XML, "", "<function=f>\n" P("s", "a") "</function>\n</tool_call>",
     "F<f>A<{\"s\": \"a\"}>E<>"},
    {REPLY_QWEN_XML, "", "<tool_call>\n<function=f>\n" P("s", "a") "</tool_call>x",
     "F<f>A<{\"s\": \"a\"}>E<>C<x>"},
    {REPLY_QWEN_XML, "", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
     "F<f>A<{}>E<>"},
    {REPLY_QWEN_XML, "", "<tool_call>\n<function=f", "C<<tool_call>\n<function=f>"},
    {REPLY_QWEN_XML, "", "<tool_call>\n<func", "C<<tool_call>\n<func>"},
    {REPLY_QWEN_XML, "", "<tool_call>\n<functor>", "C<<tool_call>\n<functor>>"},
    {REPLY_QWEN_XML, "", "<function=a b>", "C<<function=a b>>"},
    {REPLY_QWEN_XML, "", "<function=f>text", "F<f>A<{>X<>C<text>"},
    {REPLY_QWEN_XML, "", "<function=f><para><tool_call>", "F<f>A<{>X<>C<<para><tool_call>>"},
    {REPLY_QWEN_XML, "", "<function=f><parameter=s>\nabc\n</para", "F<f>A<{\"s\": \"abc>X<>"},
    {REPLY_QWEN_XML, "", "<function=f><parameter=n>\n12", "F<f>A<{\"n\": 12>X<>"},
};

static const struct reply_case mistral[] = {
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[ARGS]{\"a\": 1}", "F<f>A<{\"a\": 1}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[ARGS]{\"a\": \"]}\"}[TOOL_CALLS]g[ARGS]{}",
     "F<f>A<{\"a\": \"]}\"}>E<>F<g>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[CALL_ID]call00001[ARGS]{\"a\": 1}",
     "F<f>I<call00001>A<{\"a\": 1}>E<>"},
    {REPLY_MISTRAL, "", "Let me see.[TOOL_CALLS]f[CALL_ID]x[ARGS] {}",
     "C<Let me see.>F<f>I<x>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[THINK]Hm.[/THINK][TOOL_CALLS]f[ARGS]{}", "R<Hm.>F<f>A<{}>E<>"},
    {REPLY_MISTRAL, "",
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"call00001\"}, {\"name\": "
     "\"g\", \"arguments\": {}}]",
     "F<f>A<{\"a\": 1}>I<call00001>E<>F<g>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS] [{\"id\": \"x\", \"arguments\": {}, \"name\": \"f\"}]\n",
     "F<f>I<x>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]{\"name\": \"f\", \"arguments\": {}}", "F<f>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}", "F<f>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, x]",
     "F<f>A<{}>E<>C<, x]>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS][]", "C<[TOOL_CALLS][]>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[ARGS]no", "C<[TOOL_CALLS]f[ARGS]no>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[ARG", "C<[TOOL_CALLS]f[ARG>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[CALL_ID]a[CALL_ID]b[ARGS]{}",
     "C<[TOOL_CALLS]f[CALL_ID]a[CALL_ID]b[ARGS]{}>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[TOOL_CALLS]g[ARGS]{}", "C<[TOOL_CALLS]f>F<g>A<{}>E<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]a tool", "C<[TOOL_CALLS]a tool>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[ARGS]{\"a\"", "F<f>A<{\"a\">X<>"},
    {REPLY_MISTRAL, "", "[TOOL_CALLS]f[ARGS]{\"a\"[TOOL_CALLS]g[ARGS]{}",
     "F<f>A<{\"a\">X<>F<g>A<{}>E<>"},
};

static const struct reply_case llama3[] = {
    {REPLY_LLAMA3, "", "{\"name\": \"f\", \"parameters\": {\"s\": \"x\"}}",
     "F<f>A<{\"s\": \"x\"}>E<>"},
    {REPLY_LLAMA3, "", "\n\n{\"name\": \"now\", \"parameters\": {}}\n", "F<now>A<{}>E<>"},
    {REPLY_LLAMA3, "", "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "F<f>A<{}>E<>"},
    {REPLY_LLAMA3, "",
     "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"now\", \"parameters\": {\"a\": 1}}",
     "F<f>A<{}>E<>F<now>A<{\"a\": 1}>E<>"},
    {REPLY_LLAMA3, "", "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
     "F<f>A<{}>E<>"},
    {REPLY_LLAMA3, "", "{\"name\": \"Bob\", \"age\": 3}", "C<{\"name\": \"Bob\", \"age\": 3}>"},
    {REPLY_LLAMA3, "", "{\"a\": [1, 2], \"b\": {}}", "C<{\"a\": [1, 2], \"b\": {}}>"},
    {REPLY_LLAMA3, "", "{\"name\": \"f\"}", "C<{\"name\": \"f\"}>"},
    {REPLY_LLAMA3, "", "{\"name\": \"f\", \"par", "C<{\"name\": \"f\", \"par>"},
    {REPLY_LLAMA3, "", "<|python_tag|>print(1); x", "C<<|python_tag|>print(1); x>"},
    {REPLY_LLAMA3, "", "{\"name\": \"f\", \"parameters\": {\"s\"", "F<f>A<{\"s\">X<>"},
};

#define Q "<|\"|>"
static const struct reply_case gemma4[] = {
    {REPLY_GEMMA4, "", "<|tool_call>call:f{}<tool_call|>", "F<f>A<{}>E<>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{city:" Q "Paris" Q ",n:3}<tool_call|>",
     "F<f>A<{\"city\": \"Paris\", \"n\": 3}>E<>"},
    {REPLY_GEMMA4, "",
     "<|tool_call>call:f{a:true,b:None,c:[{age:30,name:" Q "Zo\xC3\xAB \"Z\"\n" Q
     "},{}],d:-1.5e3,e:[]}"
     "<tool_call|>",
     "F<f>A<{\"a\": true, \"b\": null, \"c\": [{\"age\": 30, \"name\": \"Zo\xC3\xAB "
     "\\\"Z\\\"\\n\"}, {}], "
     "\"d\": -1.5e3, \"e\": []}>E<>"},
    {REPLY_GEMMA4, "",
     "<|tool_call>call:f{a:" Q "x" Q "}<tool_call|><|tool_call>call:g{b:1}<tool_call|>",
     "F<f>A<{\"a\": \"x\"}>E<>F<g>A<{\"b\": 1}>E<>"},
    {REPLY_GEMMA4, "", "<|channel>thought\nHm.\n<channel|><|tool_call>call:f{}<tool_call|>",
     "R<Hm.>F<f>A<{}>E<>"},
    {REPLY_GEMMA4, "", "Look. <|tool_call>call:f{" Q "a b" Q ":" Q "<|<|\"" Q "}<tool_call|>",
     "C<Look.>F<f>A<{\"a b\": \"<|<|\\\"\"}>E<>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{ a : \"x\\\"\" , b: red , c:[ 1 , 2 ] }<tool_call|>",
     "F<f>A<{\"a \": \"x\\\"\", \"b\": \"red\", \"c\": [1, 2]}>E<>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{a:True,b:01,c:1.}<tool_call|>!",
     "F<f>A<{\"a\": true, \"b\": \"01\", \"c\": \"1.\"}>E<>C<!>"},
    {REPLY_GEMMA4, "", "<|tool_call>f{}", "C<<|tool_call>f{}>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:{}", "C<<|tool_call>call:{}>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f", "C<<|tool_call>call:f>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{a:" Q "x", "F<f>A<{\"a\": \"x>X<>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{a:12", "F<f>A<{\"a\": 12>X<>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{a:,}<tool_call|>",
     "F<f>A<{\"a\": >X<>C<,}<tool_call|>>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{a:[1}", "F<f>A<{\"a\": [1>X<>C<}>"},
    {REPLY_GEMMA4, "", "<|tool_call>call:f{a:1<|tool_call>call:g{}<tool_call|>",
     "F<f>A<{\"a\": 1>X<>F<g>A<{}>E<>"},
};

#define ANALYSIS "<|channel|>analysis<|message|>"
#define FINAL    "<|channel|>final<|message|>"
#define START    "<|start|>assistant"
static const struct reply_case harmony[] = {
    {REPLY_HARMONY, START, FINAL "391", "C<391>"},
    {REPLY_HARMONY, START, ANALYSIS "17*23.<|end|>" START FINAL "391<|return|>", "R<17*23.>C<391>"},
    {REPLY_HARMONY, START,
     ANALYSIS "Hm.<|end|>" START "<|channel|>commentary to=functions.f "
              "<|constrain|>json<|message|>{\"a\": 1}<|call|>",
     "R<Hm.>F<f>A<{\"a\": 1}>E<>"},
    {REPLY_HARMONY, START,
     " to=functions.f<|channel|>commentary json<|message|>{\"a\": \"<|call|>\"}",
     "F<f>A<{\"a\": \"<|call|>\"}>E<>"},
    {REPLY_HARMONY, START,
     "<|channel|>commentary<|message|>I will look.<|end|>" START
     " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
     "C<I will look.>F<f>A<{}>E<>"},
    {REPLY_HARMONY, START,
     ANALYSIS "One.<|end|>" START ANALYSIS "Two.<|end|>" START FINAL "\n a \n\n",
     "R<One.\nTwo.>C<\n a \n\n>"},
    {REPLY_HARMONY, START ANALYSIS, "Hm.<|end|>" START FINAL "Yes.", "R<Hm.>C<Yes.>"},
    {REPLY_HARMONY, START, "No header.", "C<No header.>"},
    {REPLY_HARMONY, START, "<|channel|>anal", ""},
    {REPLY_HARMONY, START, FINAL "a <|x|> <| b", "C<a <|x|> <| b>"},
    {REPLY_HARMONY, START, FINAL "Yes.<|end|>" START "<|chan", "C<Yes.>"},
    {REPLY_HARMONY, START, ANALYSIS "Hm." FINAL "Yes.", "R<Hm.>C<Yes.>"},
    {REPLY_HARMONY, START, "<|channel|>commentary to=functions.f json<|message|>{\"a\"",
     "F<f>A<{\"a\">X<>"},
    {REPLY_HARMONY, START, "<|channel|>commentary to=python code<|message|>print(1)<|call|>",
     "C<<|channel|>commentary to=python code<|message|>print(1)>"},
    {REPLY_HARMONY, START, "<|channel|>commentary to=browser.search json<|message|>{}<|call|>",
     "F<browser.search>A<{}>E<>"},
    {REPLY_HARMONY, "", "bare", "C<bare>"},
};

static void check_case(const struct reply_case *c) {
    const size_t n = strlen(c->text);
    struct reply_style style = {c->format, c->format <= REPLY_QWEN_XML};
    struct slice tools = c->format == REPLY_QWEN_XML || c->format == REPLY_LLAMA3
                             ? slice_of(TOOLS)
                             : (struct slice){NULL, 0};
    for (size_t cut = 0; cut <= n; cut++) { /* 0: byte by byte */
        struct str got = {0};
        reply_print(style, slice_of(c->prompt), tools, (struct slice){c->text, n}, cut, &got);
        const char *text = got.data ? got.data : "";
        if (strcmp(text, c->parts) != 0)
            fail_msg("cut at %zu of \"%s\":\n  got    %s\n  wanted %s", cut, c->text, text,
                     c->parts);
        str_free(&got);
    }
}

#define CHECK_ALL(cases)                                                                           \
    static void cases##_cut_at_every_byte(void **state) {                                          \
        (void)state;                                                                               \
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i]);         \
    }
CHECK_ALL(plain)
CHECK_ALL(thinking)
CHECK_ALL(hermes)
CHECK_ALL(qwen_xml)
CHECK_ALL(mistral)
CHECK_ALL(llama3)
CHECK_ALL(gemma4)
CHECK_ALL(harmony)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_cut_at_every_byte),   cmocka_unit_test(thinking_cut_at_every_byte),
        cmocka_unit_test(hermes_cut_at_every_byte),  cmocka_unit_test(qwen_xml_cut_at_every_byte),
        cmocka_unit_test(mistral_cut_at_every_byte), cmocka_unit_test(llama3_cut_at_every_byte),
        cmocka_unit_test(gemma4_cut_at_every_byte),  cmocka_unit_test(harmony_cut_at_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
