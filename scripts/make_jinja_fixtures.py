#!/usr/bin/env python3
"""Writes tests/data/jinja/programs.jsonl: small Jinja programs and what jinja2 makes of them.

Needs PyPI's jinja2 (3.1.6 made the committed file). Programs come from lists of hand-written pieces
and from a seeded generator over the grammar; all read the same variables (VARS). Usage:
    make_jinja_fixtures.py OUT.jsonl [COUNT] [SEED]
Settings are those of Hugging Face's chat templates: the immutable sandbox, trim_blocks,
lstrip_blocks, loop controls, a tojson that is json.dumps, a tag `generation`.
Programs whose output depends on addresses or on the running interpreter are left out."""
import datetime
import json
import random
import re
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARS = {
    "s": "Hello, World", "t": "  padded\ttext\n", "e": "", "u": "Größe ß 日本語 😀 İΣΑΣ", "h": "<a href=\"x\">T&amp;C's</a>",
    "i": 7, "neg": -3, "z": 0, "big": 9007199254740993, "f": 2.5, "g": 0.1, "large": 1e22, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2], "m": ["b", "A", "c", "a"], "n": [[1, 2], [3], []], "o": [],
    "d": {"b": 2, "a": 1, "items": "x"}, "k": {"x": {"y": [10, 20, {"z": "deep"}]}, "名": "v"},
    "p": [{"role": "user", "content": "hi", "n": 2}, {"role": "assistant", "content": None, "n": 1}, {"role": "User", "n": 3}],
    "text": "one two  three\nfour-five\n\nsix", "num": "42", "fl": "3.75", "bad": "x1",
}


def environment():
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

        def _run(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: datetime.datetime(2026, 1, 2, 3, 4, 5).strftime(fmt)
    return env


def run(env, source):
    try:
        out = env.from_string(source).render(**json.loads(json.dumps(VARS)))
        out.encode()
        return out
    except Exception:
        return None


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *choices):
        return self.r.choice(choices)

    def atom(self):
        return self.r.choice(self.atoms())

    def atoms(self):
        return (
            "s", "t", "e", "u", "i", "neg", "z", "big", "f", "g", "large", "yes", "no", "nil", "l", "m", "n", "o", "d", "k", "p",
            "text", "num", "fl", "missing", "1", "0", "-1", "2.0", "1e3", "0.1", "10 ** 20", "0x1f", "1_000", "'a'", "\"it's\"",
            "'\\n\\t'", "'é'", "true", "False", "none", "[1, 2, 3]", "[]", "()", "(1,)", "('a', 1.5)", "{}", "{'a': 1, 2: 'b'}",
            "range(4)", "d.a", "d['b']", "k.x.y[2].z", "p[0].content", "p[1].content", "l[0]", "l[-1]", "s[1:4]", "s[::-1]",
            "m[1:]", "l[:2]", "u[2:9:2]", "k.x", "k.nope", "d.items()|list", "d.keys()|list", "d.values()|list", "loop", "h")

    FILTERS = """abs capitalize upper lower title trim length count string list first last sort sort(reverse=true) unique|list
        reverse|list reverse join join(',') join('-',attribute='n') int int(-1) int(0,16) float float(9.5) round round(1) round(2,'floor')
        round(-1) round(1,'ceil') default('D') default('D',true) d tojson tojson(indent=2) tojson(sort_keys=true)
        tojson(ensure_ascii=true) tojson(separators=(',',':')) replace('l','L') replace('a','',1) replace('','-') items|list dictsort
        dictsort(true) dictsort(by='value') dictsort(reverse=true) map('upper')|list map(attribute='role')|list
        map(attribute='nope',default='-')|list map('int')|list map('length')|list select|list select('odd')|list
        select('>',1)|list reject('none')|list selectattr('content')|list selectattr('role','equalto','user')|list
        selectattr('n','gt',1)|map(attribute='n')|list rejectattr('content')|list rejectattr('role','==','user')|list
        batch(2)|list batch(2,'x')|list slice(2)|list slice(3,0)|list sum sum(attribute='n') sum(start=10) min max min(attribute='n')
        max(case_sensitive=true) indent indent(2,true) indent(width=1,blank=true) truncate(8) truncate(5,true,'') truncate(7,end='~',leeway=0)
        center(20) center wordcount escape e forceescape safe striptags urlencode xmlattr filesizeformat filesizeformat(true)
        groupby('role')|list groupby('n')|map('first')|list format(1) attr('upper')() attr('nope') nofilter
        string|length list|length trim('H') trim|upper map('string')|join(' ') sort(attribute='n')|map(attribute='role')|join
        sort(case_sensitive=true) last|default('none') first|tojson""".split()

    TESTS = """defined undefined none string number integer float boolean true false mapping sequence iterable callable odd even
        divisibleby(3) eq(1) ==(2) ne(1) gt(1) lessthan(3) ge(2) le(2) in([1,2,'a']) in('Hello') sameas(none) upper lower escaped filter
        test equalto('a')""".split()

    METHODS = """split() split(',') split('l',1) rsplit(None,1) rsplit('l') strip() strip('H ') lstrip() rstrip() startswith('He')
        startswith(('x','H')) endswith('d') endswith('o',0,5) replace('l','_',1) upper() lower() title() capitalize() swapcase() find('o')
        find('o',5) rfind('o') index('W') index('zz') count('l') count('') join(['a','b']) join(m) format() isdigit() isalpha() isalnum()
        isspace() isupper() islower() istitle() zfill(6) splitlines() splitlines(true) removeprefix('Hel') removesuffix('ld') partition(',')
        rpartition('o') partition('zz') ljust(15,'.') rjust(15) center(15,'*') expandtabs() encode keys() values() items() get('a')
        get('zz') get('zz',5) pop() append(1) update({}) clear() copy() index(1) count(1) insert(0,1) casefold() isascii() isidentifier()
        __class__ _x is_integer() bit_length()""".split()

    OPERATORS = "+ - * / // % ** ~ == != < <= > >= in and or".split() + ["not in"]

    def expr(self, depth=0):
        r = self.r.random()
        if depth > 2 or r < 0.22:
            return self.atom()
        a = self.expr(depth + 1)
        if r < 0.44:
            return f"{self.wrap(a)}|{self.r.choice(self.FILTERS)}"
        if r < 0.54:
            return f"{self.wrap(a)}.{self.r.choice(self.METHODS)}"
        if r < 0.61:
            return f"{self.wrap(a)} is {self.pick('', 'not ')}{self.r.choice(self.TESTS)}"
        b = self.expr(depth + 1)
        if r < 0.76:
            return f"{self.wrap(a)} {self.pick('+', '-', '*', '/', '//', '%', '**', '~', '~', '+')} {self.wrap(b)}"
        if r < 0.86:
            op = self.pick("==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or")
            return f"{self.wrap(a)} {op} {self.wrap(b)}"
        if r < 0.9:
            return f"not {self.wrap(a)}"
        if r < 0.94:
            return f"{self.wrap(a)} if {self.wrap(b)} else {self.atom()}"
        if r < 0.97:
            return f"{self.wrap(a)}[{self.pick(self.atom(), ':2', '-2:', '::2', '::-1', '1:-1', '5:1:-2')}]"
        return f"[{a}, {b}]"

    def wrap(self, text):
        return text if re.fullmatch(r"[\w.\[\]'\-]+", text) and not text.startswith("-") else f"({text})"

    def statement(self, depth=0):
        body = self.body(depth + 1) if depth < 2 else "{{ i }}"
        x = self.expr(1)
        kind = self.r.randrange(16)
        tag = self.pick("{% ", "{%- ", "{%+ ")
        end = self.pick(" %}", " -%}", " %}\n")
        if kind < 3:
            other = self.pick("", "{% else %}no", "{% elif " + self.expr(2) + " %}elif{% else %}no")
            return f"{tag}if {x}{end}{body}{other}{{% endif %}}"
        if kind < 7:
            extra = self.pick("", "", " if " + self.expr(2), " recursive")
            target = self.pick("q", "q", "q, w", "(q, w)")
            inside = self.pick("{{ loop.index }}", "{{ q }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.revindex0 }}",
                               "{{ loop.cycle('a','b') }}", "{{ loop.changed(q) }}", "{{ loop.previtem }}/{{ loop.nextitem }}",
                               "{% if loop.index > 2 %}{% break %}{% endif %}", "{% if q == 1 %}{% continue %}{% endif %}",
                               "{% if q is iterable and q is not string %}{{ loop(q) }}{% endif %}", "{{ loop.length }}", "{{ loop.depth }}")
            tail = self.pick("", "", "{% else %}empty")
            return f"{tag}for {target} in {x}{extra}{end}{inside}{body}{tail}{{% endfor %}}"
        if kind < 9:
            return f"{tag}set {self.pick('v', 'i', 'v, w', 'ns.a')} = {x}{end}" + "{{ v }}{{ i }}"
        if kind == 9:
            return f"{tag}set v{self.pick('', ' | upper', ' | trim | length')}{end}{body}{{% endset %}}[{{{{ v }}}}]"
        if kind == 10:
            call = self.pick("", "1", "1, 2", "b=3", "1, b=s", "1, 2, 3", "*l", "**{'a': 1}", "zz=1")
            extra = self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller else '' }}", "{{ i }}")
            return f"{tag}macro f(a, b={self.atom()}){end}{{{{ a }}}}:{{{{ b }}}}{extra}{{% endmacro %}}{{{{ f({call}) }}}}"
        if kind == 11:
            return "{% macro g(a) %}<{{ caller(a) }}>{% endmacro %}" + f"{{% call(x) g({self.atom()}) %}}{{{{ x }}}}{body}{{% endcall %}}"
        if kind == 12:
            return f"{tag}filter {self.pick('upper', 'trim', 'replace(0,1)', 'indent', 'length')}{end}{body}{{% endfilter %}}"
        if kind == 13:
            return f"{tag}with a={x}, b={self.atom()}{end}{{{{ a }}}}{{{{ b }}}}{body}{{% endwith %}}{{{{ a }}}}"
        if kind == 14:
            return self.pick("{# comment #}", "{#- c -#}", "{% raw %}{{ x }}{% endraw %}", "{%- raw -%} {% x %} {%- endraw -%}",
                             "{% generation %}" + body + "{% endgeneration %}")
        return "{% set ns = namespace(a=1) %}{% for q in l %}{% set ns.a = ns.a + q %}{% endfor %}{{ ns.a }}" + body

    def body(self, depth=0):
        parts = []
        for _ in range(self.r.randrange(1, 4)):
            parts.append(self.pick("text", " ", "\n", "  \n  ", "x\n\n", ""))
            parts.append(self.statement(depth) if self.r.random() < 0.4 else
                         self.pick("{{ ", "{{- ") + self.expr() + self.pick(" }}", " -}}"))
        return "".join(parts)

    def program(self):
        r = self.r.random()
        if r < 0.5:
            return "{{ " + self.expr() + " }}"
        return self.statement() if r < 0.75 else self.body()


def matrix(count, seed):
    """Every filter, test, method and operator over every value; `count` of them drawn at random."""
    values = sorted(set(Generator(0).atoms()))
    programs = [f"{{{{ ({v})|{f} }}}}" for v in values for f in Generator.FILTERS]
    programs += [f"{{{{ ({v}) is {t} }}}}" for v in values for t in Generator.TESTS]
    programs += [f"{{{{ ({v}).{m} }}}}" for v in values for m in Generator.METHODS]
    programs += [f"{{{{ ({a}) {op} ({b}) }}}}" for a in values for b in values for op in Generator.OPERATORS]
    programs += [f"{{{{ {v} }}}}" for v in values]
    return random.Random(seed).sample(programs, min(count, len(programs)))


HAND = r"""
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }}
{{ 2 ** 64 }} {{ 2 ** 100 }} {{ -(2 ** 63) }} {{ 2 ** 63 - 1 }} {{ (2 ** 64) // 3 }} {{ (2 ** 64) % 1000 }} {{ -(2 ** 70) // 7 }} {{ -(2**70) % 7 }}
{{ 123456789012345678901234567890 * 987654321098765432109876543210 }} {{ 10 ** 30 - 10 ** 29 }} {{ 10 ** 18 * 10 }} {{ 2**64 / 2**62 }}
{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.123 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1.0 }} {{ 1e100 }} {{ 5e-324 }} {{ -0.0 }} {{ 3.0 * 2 }} {{ 1e22 }} {{ 1e23 }}
{{ 1 / 3 }} {{ 10 / 5 }} {{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.0 // 0 }}
{{ true + true }} {{ true ~ none ~ 1.0 }} {{ [true, none, 1.5, 'a', "it's", 'q"q', "b'\"", '\n\\'] }}
{{ {'a': [1, (2,), {}], 1: none, none: 2, true: 3, 1.5: ()} }} {{ (1, 2) + (3,) }} {{ [1] * 3 }} {{ 'ab' * 3 }} {{ 3 * 'x' }} {{ 'a' 'b' "c" }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ '1' == 1 }} {{ [1, 2] < [1, 3] }} {{ 'a' < 'b' }} {{ none == none }} {{ true == 1 }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ [] < () }}
{{ not true or true and false }} {{ 1 or 2 }} {{ 0 or '' or [] }} {{ 1 and 2 }} {{ none and x.y }} {{ not [] }}
{{ 'lo' in s }} {{ 3 in l }} {{ 'a' in d }} {{ 'zz' not in d }} {{ 1 in 'a' }}
{{ s[0] }}{{ s[-1] }}{{ s[100] }}{{ s[1:3] }}{{ s[:-3] }}{{ s[::2] }}{{ s[5:2] }}{{ s[5:2:-1] }}{{ s[-100:100] }}{{ l[1:] }}{{ l[::-1] }}{{ (1,2,3)[1:] }}
{{ s[::0] }}
{{ s['a':] }}
{{ d[1:2] }}
{{ u[0] }}{{ u[-1] }}{{ u[::-1] }}{{ u|length }}{{ u.upper() }}{{ u.lower() }}{{ u|title }}{{ u.find('日') }}{{ u.split() }}
{{ missing }}|{{ missing.x }}
{{ missing is defined }}{{ d.zz is defined }}{{ d.zz.yy is defined }}
{{ missing|default('x') }}{{ missing|length }}{{ missing|list }}{{ missing ~ 'a' }}{{ missing == missing2 }}{{ missing|string }}{{ missing or 'q' }}
{{ missing + 1 }}
{{ missing() }}
{{ -missing }}
{{ missing[0] }}
{{ missing|tojson }}
{{ [missing] }}
{% for x in missing %}a{% else %}none{% endfor %}
{{ d.items }}{{ d['items'] }}{{ d|items|list }}{{ d.items()|list }}{{ d.get('items') }}
{{ d.items() }}{{ d.keys() }}{{ d.values() }}{{ range(3) }}{{ range(1, 10, 3) }}{{ range(3)|list }}{{ range(5, 0, -2)|list }}{{ range(3)[1] }}{{ range(5)[1:3] }}
{{ range(100001) }}
{{ range(1, 2, 0) }}
{{ range('a') }}
{{ l.append(4) }}
{{ d.update({'x': 1}) }}
{{ l.append is defined }}{{ s.upper is defined }}{{ d.pop is defined }}{{ l.count is callable }}
{{ ''.__class__ }}
{{ ''.__class__.__mro__ }}
{{ s.__len__ is defined }}
{{ '%s is %d and %.2f %5d|%-5d|%05d %x %X %o %e %g %r %% %c' % ('a', 3, 2.5, 4, 4, 4, 255, 255, 8, 12345.678, 0.0001, 'q', 'z') }}
{{ '%(a)s-%(b)03d' % {'a': 1, 'b': 2} }}{{ '%s' % 1 }}{{ '%s' % none }}{{ '%+d % d' % (1, 2) }}{{ '%*d' % (5, 3) }}{{ '%.3s' % 'abcdef' }}{{ '%#x' % 255 }}
{{ '%d' % 'a' }}
{{ '%s %s' % (1,) }}
{{ '%s' % (1, 2) }}
{{ 'x' % 1 }}
{{ '{} {1}'.format(1, 2) }}
{{ '{} {} {a}'.format(1, 'b', a=2.5) }}{{ '{0:>5}|{0:<5}|{0:^5}|{0:*^7}'.format('ab') }}{{ '{:05d} {:,} {:_} {:+} {:x} {:#x} {:b} {:e} {:.2f} {:.1%} {:g}'.format(42, 1234567, 1234567, 5, 255, 255, 5, 12345.678, 3.14159, 0.256, 1e10) }}
{{ '{a.x} {a[x]} {b[0]} {!r} {{}}'.format('q', a={'x': 1}, b=[5]) }}
{{ '{:10.3f}|{:<10}|{:>+10.1f}|{:010.2f}'.format(3.14159, 2.5, 3.0, -2.5) }}{{ '{:s}'.format('a') }}
{{ '{:d}'.format('a') }}
{{ '{}'.format() }}
{{ [1,2,3]|sum }}{{ ['a']|sum }}
{{ [[1],[2]]|sum(start=[]) }}{{ [0.1]*3|sum }}{{ ([0.1]*3)|sum }}
{{ [3,1,2]|sort }}{{ ['b','A','c']|sort }}{{ ['b','A','c']|sort(case_sensitive=true) }}{{ [1,'a']|sort }}
{{ p|sort(attribute='n')|map(attribute='n')|list }}{{ p|sort(attribute='role,n')|map(attribute='n')|list }}
{{ p|groupby('role') }}
{% for g in p|groupby('role') %}{{ g.grouper }}:{{ g.list|length }} {% endfor %}{% for a, b in p|groupby('n') %}{{ a }}{{ b }}{% endfor %}
{{ p|selectattr('role','equalto','user')|list|length }}{% if p|selectattr('role','equalto','zz') %}yes{% endif %}
{{ (p|selectattr('n'))|length }}
{{ p|map(attribute='role')|join(', ') }}{{ p|map('upper')|join }}
{{ p|map('nofilter')|list }}
{{ 3.7|int }}{{ '3.7'|int }}{{ 'a'|int }}{{ '0x1f'|int(0,16) }}{{ '12'|int(base=8) }}{{ none|int }}{{ ' 5 '|int }}{{ '1_000'|int }}{{ '9'*25|int }}{{ ('9'*25)|int }}
{{ 2.5|round }}{{ 3.5|round }}{{ 2.675|round(2) }}{{ 1234|round(-2) }}{{ 7|round }}{{ 2.1|round(method='ceil') }}{{ 2.55|round(1,'floor') }}{{ 1e300|round(2) }}
{{ {'b':1,'a':{'c':[1,2]}}|tojson }}{{ {'b':1,'a':{'c':[1,2],'e':{},'f':[]}}|tojson(indent=2) }}{{ u|tojson }}{{ u|tojson(ensure_ascii=true) }}{{ h|tojson }}
{{ [1.0, 1e20, true, none, 'a\u2028b\x7f']|tojson }}{{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}{{ (1, 2)|tojson }}{{ d|tojson(sort_keys=true) }}{{ l|tojson(separators=(',', ':')) }}
{{ d|tojson(indent='\t') }}{{ d|tojson(indent=0) }}{{ [1]|tojson(4) }}
{{ {(1,2): 3}|tojson }}
{{ range(3)|tojson }}
{{ {[1]: 2} }}
{{ 'ab'|tojson|length }}{{ '"\\\n\r\t\b\f/'|tojson }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% for i in [1] %}{% set x = 3 %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.zz }}{{ ns }}
{% set d.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, e) = 'xy' %}{{ c }}{{ e }}{% set a, b = b, a %}{{ a }}{{ b }}
{% set a, b = [1] %}
{% set a, b = [1, 2, 3] %}
{% set x %}a{{ i }}b{% endset %}{{ x|length }}{{ x }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}
{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}{{ loop.cycle('x', 'y') }}{{ loop.changed(i > 1) }} {% endfor %}{{ loop }}
{% for i in l recursive %}{{ i }}{{ loop(n[2]) }}{% endfor %}
{% for x in n recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}d{{ loop.depth }}{% endif %}{% endfor %}
{% for x in l %}{{ loop([]) }}{% endfor %}
{% for i in l if i > 1 %}{{ i }}{{ loop.length }}{% else %}none{% endfor %}{% for i in [] %}{% else %}else{% endfor %}
{% for i in [1,2,3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% else %}E{% endfor %}|{% for i in [1] %}{% break %}{% else %}E{% endfor %}|{% for i in [1,2] %}{% continue %}{% else %}E{% endfor %}
{% break %}
{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'abc' %}{{ c }}{% endfor %}{% for (a, b) in [[1,2],[3,4]] %}{{ a }}{{ b }}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=5) }}{{ m(1, 2, 3) }}{{ m.name }}{{ m.arguments }}{{ m }}
{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}{{ m() }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(zz=2) }}
{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(4) }}
{% macro f(n) %}{% if n > 1 %}{{ n * f(n - 1)|int }}{% else %}1{% endif %}{% endmacro %}{{ f(10) }} {{ f(30) }}
{% macro outer() %}{{ z2 }}{% endmacro %}{% set z2 = 'late' %}{{ outer() }}{% for i in [1] %}{% set z2 = 'inner' %}{{ outer() }}{% endfor %}
{% macro w() %}({{ caller() }}){% endmacro %}{% call w() %}in{{ i }}{% endcall %}{% macro w2() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b) w2() %}{{ a }}{{ b }}{% endcall %}
{% macro w() %}{{ caller is defined }}{{ caller() }}{% endmacro %}{{ w() }}
{% call s.upper() %}x{% endcall %}
{% filter upper %}abc{{ s }}{% endfilter %}{% filter replace('a', 'b')|trim %} aa {% endfilter %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}
{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}{{ dict(d, z=1) }}{{ dict() }}
{{ raise_exception('boom') }}
{{ strftime_now('%Y-%m-%d %H:%M:%S %B %b %a %A %j %y %p %I %d %e %%') }}
{{ h|escape }}{{ h|e|e }}{{ h|safe|escape }}{{ h|striptags }}{{ h|forceescape }}{{ ('<'|safe) + '<' }}{{ ('<'|e) ~ '<' }}{{ h|urlencode }}{{ {'a b': 'c&d', 'e': 1}|urlencode }}{{ {'class': 'x', 'n': none, 'id': 1}|xmlattr }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a'|indent('> ', true) }}
{{ text|truncate(10) }}{{ text|truncate(10, true) }}{{ text|wordcount }}{{ s|center(20) }}|{{ 'abc'|truncate(3) }}{{ 'foo bar baz qux'|truncate(9, leeway=0) }}
{{ 1234567|filesizeformat }}{{ 1|filesizeformat }}{{ 1500|filesizeformat(true) }}{{ 10**30|filesizeformat }}{{ (10**30)|filesizeformat }}
{{ [1,2,3,4,5]|batch(2)|list }}{{ [1,2,3,4,5]|batch(2, 0)|list }}{{ [1,2,3,4,5]|slice(3)|list }}{{ [1,2,3,4,5]|slice(3, 0)|list }}
{{ [1,1,2,'a','A']|unique|list }}{{ [1,2]|first }}{{ []|first }}{{ [1,2]|last }}{{ {}|last }}{{ 'abc'|first }}{{ 'abc'|last }}{{ [3,1]|min }}{{ []|max }}{{ ['b','A']|min }}
{{ ' a '.strip() }}|{{ 'xaxx'.strip('x') }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ ' a  b '.split(' ') }}|{{ 'a b c'.split(None, 1) }}|{{ 'a b c'.rsplit(' ', 1) }}|{{ ''.split() }}|{{ ''.split(',') }}
{{ 'a'.split('') }}
{{ 'abc'.startswith('ab') }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('bc') }}{{ 'abc'.startswith('b', 1) }}{{ 'abc'.find('c') }}{{ 'abc'.find('z') }}{{ 'abcabc'.rfind('b') }}{{ 'abcabc'.count('bc') }}
{{ '\x41\u00e9\U0001F600\101\q' }}{{ "a\
b" }}
{{ 'a\
b' }}
{{ 1if 2else 3 }}{{ 'a' if false }}{{ ('a' if false) is defined }}{{ 1 if 0 else 2 if 0 else 3 }}
{{ x.y.z if false else 'ok' }}{{ 1|nofilter if false else 2 }}
{% if false %}{{ 1|nofilter }}{% endif %}ok
{% if true %}{{ 1|nofilter }}{% endif %}
{{ 1|nofilter }}
{{ 1 is notest }}
{% include 'x' %}
{% if false %}{% include 'x' %}{% endif %}ok
{% unknown %}
{% if %}
{% if 1 %}
{% endif %}
{{ }}
{{ 1 + }}
{{ (1 }}
{{ 'a }}
{{ a b }}
{{ 1 2 }}
{{ [1, }}
{{ f(a=1, 2) }}
{{ f(a=1, a=2) }}
{{ 5 is divisibleby 5 }}{{ 5 is odd }}{{ 5 is not even }}{{ 'a' is in ['a'] }}{{ 5 is sameas 5 }}{{ none is none }}{{ [] is sequence }}{{ {} is mapping }}{{ 1.0 is float }}{{ true is number }}{{ true is integer }}
{{ 5 is odd is even }}
{% print 1, 2 %}{% block a %}b{{ s }}{% endblock %}{% block c scoped %}x{% endblock c %}
{{ l.0 }}{{ d.a.real }}{{ (1).real }}{{ 1.5.is_integer() }}{{ d['a'] }}{{ d[missing] }}{{ l['0'] }}{{ l[1.0] }}{{ l[true] }}
{{ s|attr('upper')() }}{{ d|attr('a') }}{{ d|attr('get')('a') }}
{{ 10000000000000000 * 3 }} {{ 3 * 0.1 }} {{ 1e308 * 10 }} {{ -(1e308 * 10) }} {{ (1e308*10) - (1e308*10) }} {{ 0.1|string }} {{ 100000000000000000000.0 }}
{{ "\t\r\x00\x1b\x7f\xa0\xad\u200b\ue000"|list }}
{{ ['a'] == ['a'] }}{{ {'a': 1} == {'a': 1.0} }}{{ (1,) == [1] }}{{ range(3) == range(0, 3) }}
{{ 'ß'.upper() }}{{ 'ﬁ'|upper }}{{ 'ǆ'.title() }}{{ 'İ'.lower()|length }}{{ 'ΑΣ'.lower() }}{{ "they're bill's"|title }}{{ "they're".title() }}{{ 'hELLO wORLD'|capitalize }}{{ 'a-b (c) [d'|title }}
{{ '1' + 1 }}
{{ [1] + (2,) }}
{{ none + none }}
{{ {} + {} }}
{{ 'a' - 'b' }}
{{ -'a' }}
{{ 5() }}
{{ none.x }}{{ none.x is defined }}{{ (1).x }}{{ 'a'.nope }}{{ 'a'.nope.x is defined }}
{{ 1 in none }}
{{ 'abc'|replace('b', 'X') }}{{ 'aaa'|replace('a', 'b', 2) }}{{ 123|replace(2, 'x') }}{{ 'ab'.replace('', '-') }}{{ 'aXbX'.replace('X', '', 1) }}
{{ ['x', 1, none, 2.5]|join('-') }}{{ ','.join(['a', 'b']) }}{{ 'abc'|join('.') }}{{ {'a': 1}|join }}
{{ ','.join([1]) }}
""".strip("\n").split("\n")

# Generators, letter case, formats, ints beyond 64 bits, slices of constants.
MORE = r"""
{% set x = l|map('nofilter') %}ok
{{ l|map('nofilter')|list }}
{{ []|map('nofilter')|list }}
{{ l|select('nofilter')|first }}
{{ ([1,'a']|map('abs'))|first }}
{{ [1,'a']|map('abs')|list }}
{% set it = l|map('string') %}{% for a in it %}{{ a }}{% break %}{% endfor %}|{{ it|list }}|{{ it|list }}
{% set it = l|map('string') %}{{ it|first }}{{ it|first }}{{ it|first }}{{ it|first }}
{% set it = l|select %}{{ 1 in it }}{{ it|list }}
{% set it = l|map('string') %}{% for a in it %}{{ a }}{{ loop.last }}{% break %}{% endfor %}|{{ it|list }}
{% set it = l|map('string') %}{% for a in it %}{{ a }}{{ loop.length }}{% break %}{% endfor %}|{{ it|list }}
{% set it = l|map('string') %}{% for a in it %}{{ a }}{{ loop.nextitem }}{{ loop.previtem }}{{ loop.revindex }} {% endfor %}
{% set ns = namespace(f=false) %}{% for q in [1,2,3,4] if not ns.f %}{{ q }}{% if q == 2 %}{% set ns.f = true %}{% endif %}{% endfor %}
{% set ns = namespace(f=false) %}{% for q in [1,2,3,4] if not ns.f %}{{ q }}{{ loop.last }}{% if q == 2 %}{% set ns.f = true %}{% endif %}{% endfor %}
{% set ns = namespace(f=false) %}{% for q in [1,2,3,4] if not ns.f %}{{ q }}{{ loop.length }}{% if q == 2 %}{% set ns.f = true %}{% endif %}{% endfor %}
{% set ns = namespace(f=false) %}{% for q in [1,2,3,4] if not ns.f %}{{ q }}{{ loop.index }}{% if q == 2 %}{% set ns.f = true %}{% endif %}{% endfor %}
{% set ns = namespace(n=0) %}{% for q in [1,2,3,4] if q > ns.n %}{{ q }}{% set ns.n = q + 1 %}{% endfor %}
{% for q in [1,'a',3] if q|abs %}{{ q }}{% break %}{% endfor %}
{% for q in [1,'a',3] if q|abs %}{{ q }}{{ loop.last }}{% break %}{% endfor %}
{% for q in [1,'a',3]|map('abs') %}{{ q }}{% if loop.first %}{% break %}{% endif %}{% endfor %}
{% set g = l|batch(2) %}{{ g|list }}{{ g|list }}
{% set g = 5|batch(2) %}ok
{% set g = 5|items %}ok
{{ 5|items|list }}
{% set g = [{}]|unique %}ok
{% set g = l|slice('a') %}ok
{% set g = l|map %}ok
{{ l|map|list }}
{{ []|map|list }}{{ 0|map|list }}{{ ''|select|list }}{{ 5|default(0)|select|list }}
{% set g = 5|select %}ok
{% set g = 5|reverse %}ok
{{ l|reverse|first }}{% set r = l|reverse %}{{ r|list }}{{ r|list }}
{% set g = l|map('string') %}{{ g|map('int')|first }}{{ g|list }}
{% set g = l|map('string') %}{% set a, b = g %}
{% set g = l|map('string') %}{% set a, b, c = g %}{{ a }}{{ b }}{{ c }}{{ g|list }}
{% set g = l|map('string') %}{{ dict(g|batch(2)) }}
{% macro m() %}{{ varargs }}{% endmacro %}{% set g = l|map('string') %}{{ m(*g) }}{{ m(*g) }}
{% set g = l|map('string') %}{{ g|length }}
{% set g = l|map('string') %}{{ g is iterable }}{{ g is sequence }}{{ g is string }}{{ g is mapping }}{{ g|min }}{{ g|max }}
{% set g = l|map('string') %}{{ 'yes' if g else 'no' }}{{ g|join }}{{ g|join }}
{% set g = l|map('string') %}{{ g[0] is defined }}
{% set g = l|map('string') %}{{ g[0] }}
{% set g = l|map('string') %}{{ g[1:] }}
{% set g = l|map('string') %}{{ g|last }}
{% set g = l|map('string') %}{{ g|tojson }}
{% set g = l|map('string') %}{{ g + [1] }}
{% set g = l|map('string') %}{{ g == g }}{{ g|sort }}{{ g|sum(start=0) }}
{% set ns = namespace() %}{% set ns.g = [ns]|map(attribute='g')|map('list') %}{{ ns.g|list }}
{{ l|selectattr('x')|list }}{{ p|selectattr('role', 'nofilter')|list }}
{% set g = p|selectattr %}ok
{{ p|rejectattr|list }}
{{ p|map(attribute='role', foo=1)|list }}
{% set z = p|map(attribute='role', foo=1) %}ok
{{ p|map('upper', attribute='role')|list }}
{{ p|map(attribute='n', default=none)|list }}{{ p|map(attribute='zz', default=none)|list }}{{ p|map(attribute='content.x', default=3)|list }}
{{ p|map(attribute=0)|list }}{{ n|map(attribute=0)|list }}{{ n|map(attribute='0')|list }}
{% for x in l|map('string') recursive %}{{ x }}{% if loop.first %}{{ loop(l|map('string')) }}{% endif %}{% endfor %}
{% for a in l %}{% for b in loop %}{{ b[0] }}{% endfor %}{{ a }}{% endfor %}
{% for a in l|map('string') %}{{ loop }}{% endfor %}
{% for a in l|map('string') %}{{ loop.changed(a) }}{{ loop.cycle(1,2) }}{% else %}E{% endfor %}
{% for a in l|select('gt', 5) %}x{% else %}none{% endfor %}
{{ 'Straße ΑΣ ﬁ İ ŉ ᾳ ǰ'.casefold() }}|{{ 'ᾳ ᾂ ᾼ ΐ ΰ և ẖ ẞ ﬀ ﬆ ﬓ ᾶ ῼ'.upper() }}|{{ 'ᾳ ᾂ ᾼ ΐ ΰ և ẖ ß ﬀ ﬆ ﬓ ᾶ ῼ ǆ Ǆ'.title() }}|{{ 'ᾳß ﬁ'.capitalize() }}{{ 'ß ᾳ ǅ'.swapcase() }}
{{ 'ΑΣ ΑΣΑ Σ ΑΣ. ΑΣ\u0301 ΑΣ\u0301Α A\u00adΣ'.lower() }}{{ 'ΑΣ'|capitalize }}{{ 'ΑΣ ΑΣ'|title }}{{ 'ΑΣ ΣΑ'.title() }}{{ 'ΑΣ'.swapcase() }}
{{ '%a' % 'é日😀\n' }}{{ '%a' % ['é'] }}{{ '{!a}'.format('é') }}{{ '%r' % 'é' }}{{ '%5a|%-6a|%.2a' % ('é', 'b', 'cd') }}
{{ '%5.1f|%+.3e|%G|%#.3g|%g|%e' % (2.25, 12345.678, 1e-10, 1, 100000, 0) }}{{ '%g' % 1e6 }}{{ '%.0f %.0f %.0f' % (0.5, 1.5, 2.5) }}{{ '%.10g' % 0.1 }}{{ '%.17g' % 0.1 }}
{{ '%d %i %u' % (3.99, -3.99, 10**20) }}{{ '%x' % -255 }}{{ '%o' % 8 }}{{ '%#o %#X %#b' % (8, 255, 1) }}
{{ '%#o %#X' % (8, 255) }}{{ '%08.3f|%+08d|% 08d|%-8d|' % (3.14159, 42, 42, 42) }}{{ '%.5d|%8.5d|%-8.5d|%08.5d' % (42, 42, 42, 42) }}
{{ '%c%c' % (65, '日') }}{{ '%%' % () }}{{ '%s' % (none,) }}{{ '%s' % [1] }}{{ '%s' % {} }}{{ '%(a)s' % {'a': {}} }}
{{ '%x' % 3.5 }}
{{ '%c' % 'ab' }}
{{ '%d' % none }}
{{ '%d' % '5' }}
{{ '%s %s' % 'a' }}
{{ '%y' % 1 }}
{{ '%' % 1 }}
{{ '{:a}'.format(1) }}
{{ '{:n} {:n}'.format(1234567, 1234.5) }}{{ '{:%} {:.0%}'.format(0.5, 0.125) }}{{ '{:,.2f} {:_d} {:_x} {:,}'.format(1234567.891, 1234567, 305419896, 1234.5) }}{{ '{:c}'.format(65) }}
{{ '{:08,d} {:+,} {: d} {:<8}| {:^8}| {:=+8}|{:*=8}'.format(1234, 1234, 5, 5, 5, 5, -5) }}{{ '{:e} {:E} {:G} {:F}'.format(1.5, 1.5, 1e-7, 1.5) }}
{{ '{:#.3g} {:.3} {:.10} {:5.1} {:.0f} {:#.0f}'.format(1.0, 1234.5678, 0.1, 2.0, 2.5, 2.5) }}{{ '{:z.1f}'.format(-0.01) }}{{ '{:.1f}'.format(-0.01) }}
{{ '{:s}'.format(1) }}
{{ '{:5}|{:<5}|{:05}|{:d}|{:.1f}|{}'.format(true, true, true, true, true, true) }}
{{ '{:5}'.format(none) }}
{{ '{}{}'.format(none, [1]) }}{{ '{!r:>5}|{!s:<5}|'.format('a', 1) }}{{ '{:{}}|{:{w}.{p}f}'.format('a', 5, 2.345, w=8, p=1) }}
{{ '{0[a]} {0[b][1]} {1.real}'.format({'a': 1, 'b': [2, 3]}, 5) }}
{{ '{:10}'.format([1]) }}
{{ '{:.2}'.format('abc') }}{{ '{:.2s}'.format('abc') }}{{ '{:>{w}}'.format('a', w=4) }}{{ '{:é>4}'.format('a') }}
{{ '{:.2d}'.format(5) }}
{{ '{:,s}'.format('a') }}
{{ '{:x}'.format(1.5) }}
{{ '{:_}'.format(10**25) }}{{ '{:e}'.format(10**25) }}{{ '{:.3f}'.format(10**25) }}{{ '{:b}'.format(-5) }}{{ '{:#b} {:#o} {:#X}'.format(5, 8, 255) }}
{{ 10**25 }} {{ (10**25)|string|length }} {{ 10**25 == 1e25 }} {{ 10**25 > 1e25 }} {{ (10**25)|float }} {{ (10**25)|int }} {{ (2**64)|tojson }} {{ -(2**64) }} {{ 2**64 is integer }} {{ 2**64 is number }} {{ (2**64)|abs }} {{ (2**64)|round }} {{ 2**64 // 3 }} {{ (2**64)|filesizeformat }}
{{ (2**64)|round(-3) }} {{ [2**64, 1, 2**65]|sort }} {{ [2**64, 1]|sum }} {{ [2**64, 2**64]|unique|list }} {{ {2**64: 1}[2**64] }} {{ 2**64 in [2**64] }} {{ '%d' % 2**64 }} {{ '%x' % (2**64) }} {{ (2**64) % 7 }} {{ (2**70) // (2**64) }} {{ -(2**70) // 3 }} {{ 2**64 * 1.0 }} {{ 2**64 + 0.5 }}
{{ 'a'[2**70:] }}{{ 'abc'[:2**70] }}{{ 'a' * 2**70 }}
{{ [1][2**70] is defined }}
{{ 1.0|tojson }} {{ 1e22|tojson }} {{ 1e16 }} {{ 123456789012345680.0 }} {{ 1.5e300*1e10 }} {{ 0.1+0.2 }} {{ 1e-7 }} {{ 4.35 }} {{ 2.0**-1074 }} {{ 1.7976931348623157e308 }} {{ -0.0|tojson }} {{ 100000.0 }} {{ 1e5|int }} {{ 3.0|string }} {{ 1e400 }}
{{ 2.5|round }} {{ 0.5|round }} {{ 1.5|round }} {{ 2.675|round(2) }} {{ 1e16|round(2) }} {{ -2.5|round }} {{ 25|round(-1) }} {{ 35|round(-1) }} {{ 1234.5678|round(-2) }} {{ 1.005|round(2) }} {{ 5e-324|round(323) }} {{ 1e308|round(-308) }} {{ 15.0|round(-1) }} {{ 0.15|round(1) }} {{ 2.5|round(0, 'ceil') }}{{ 2.45|round(1, 'floor') }}
{{ lipsum is defined }}
{{ lipsum is callable }}{{ range is callable }}{{ dict is callable }}
{{ {'b': 1, 'a': [1,2]}|pprint }}{{ 'a'|pprint }}{{ [1]|pprint }}{{ 5|pprint }}{{ none|pprint }}
{{ (1, 2)[0:1] }}{{ 'abc'[1] }}{{ 5[1:] }}
{{ {'a': 1}[1:] }}
{{ none[1:] }}
{{ x[1:] }}
{{ 'abc'['a':] }}
{{ [1,2,3][none:2] }}{{ [1,2,3][true:] }}{{ 'abc'[1.0:] }}
{% set a = 5[1:] %}{{ a }}
{% if 5[1:] %}x{% endif %}
{% for x in 5[1:] %}{% endfor %}
{{ (5)[1:] is defined }}
{{ [5[1:]] }}
{{ range(5)[1:3] }}{{ range(5)[-1] }}{{ range(10)[::3]|list }}{{ range(5)[7] is defined }}
{{ '' if 1 else 5[1:] }}
{{ [('<'|safe)|reverse, ('ab'|safe)[::-1], ('ab'|safe)[0], ('ab'|safe)[0:1], 'ab'|safe|upper, ('a b'|safe).split(), ('a'|safe) * 2, ('a'|safe)|trim, ('a'|safe)|string, ('a'|safe)|replace('a','<'), ('a'|safe).replace('a','<'), ('%s'|safe) % '<', ('{}'|safe).format('<'), ('a'|safe).join(['<','b']), ('a'|safe)|title, ('a'|safe)|center(3), ('a'|safe)|indent, ('a'|safe)|truncate(1), ('a b'|safe)|wordwrap(1), ('ab'|safe)|list, ('a'|safe) ~ '<', '<' ~ ('a'|safe), '<' + ('a'|safe), ['<', 'a'|safe]|join, ['<','b']|join('a'|safe)] }}
{{ {'a'|safe: 1} }}{{ ('a'|safe) == 'a' }}{{ 'a'|safe in ['a'] }}{{ {'a': 1}['a'|safe] }}{{ ('a'|safe)|tojson }}
{% macro m() %}<b>{% endmacro %}{{ [m()] }}{% set x %}<i>{% endset %}{{ [x] }}{% set x | upper %}<i>{% endset %}{{ [x] }}{% macro w() %}{{ [caller()] }}{% endmacro %}{% call w() %}a{% endcall %}
{{ ['%s' % ('a'|safe), '{}'.format('a'|safe), 'a'|format('b'|safe)] }}
{{ 'x' % range(3) }}{{ 'x' % missing }}{{ 'x' % [1] }}{{ 'x' % {'a': 1} }}
{{ 'x' % namespace(a=1) }}
{{ 'x' % d.items() }}
{{ 'x' % ('a'|safe) }}
{{ '%s' % ('a', ) }}{{ '%s' % d.items() }}
{{ 7 / 9007199254740993 }} {{ 9007199254740993 / 7 }} {{ 9007199254740993 / 3 }} {{ -(2**70) / 3 }} {{ 2**64 / 2**62 }} {{ 1 / 2**100 }} {{ 10**400 / 10**399 }} {{ 10**300 / 3 }} {{ (2**1023 * 2 - 1) / 1 }} {{ 1 / 3 }} {{ 0 / 2**70 }} {{ 123456789012345678901 / 987654321 }} {{ 9223372036854775807 / 9223372036854775806 }} {{ -9223372036854775807 / 3 }} {{ true / 2**60 }}
{{ 10**400 / 3 }}
{{ 1 / 0 }}
{{ 2**70 / 0 }}
{{ ((() is not true)[1:-1]) == t }}
{{ 5[1:] == 6 }}
{{ [5[1:], x] }}
{{ [5[1:], 1] }}
{{ ({})[:1] ~ 'a' }}{{ 5[1:]|default('d') }}
{% for q in [1] if 5[1:] %}{% endfor %}
{% set a = 5[1:]|default('d') %}{{ a }}
{% set a = [5[1:]] %}{{ a }}
{{ l|map('string')|list ~ 5[1:] }}
{{ ('a b'|safe).partition(' ') }}{{ [('a'|safe).center(3), ('a'|safe).zfill(3), ('a\t'|safe).expandtabs()] }}
{{ [('a'|safe).strip(), ('a'|safe).partition('a'), ('a\nb'|safe).splitlines(), ('a'|safe).zfill(3), ('a'|safe).ljust(3), ('a'|safe).title(), ('a'|safe).removeprefix('a'), ('a'|safe)|lower, ('a'|safe)|capitalize, ('a'|safe)|first, ('a'|safe)|escape, ('a'|safe)|striptags, ('a'|safe)|urlencode, ('a'|safe)|forceescape, ('a'|safe)|default('x'), ''|default('x'|safe, true)] }}
""".strip("\n").split("\n")

SPACE = ["a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}\n  b\n  {% endif %}\n  c\n\n", "a {%- if true -%} b {%- endif -%} c",
         "  {%+ if true %} x {% endif +%}\n y", "x\n{# c #}\ny\n  {# d #}  \nz", "{{ s }}\n\n", "{{ s -}}\n\n  x", "a  {{- s }}", "  {{ s }}\n  {% set a = 1 %}\n\n{{ a }}\n",
         "a\r\nb\rc\n", "{% raw %}\n  {{ x }}\n{% endraw %}\ny", "  {%- raw -%}\n a {%- endraw -%}\n b", "{% for i in l %}\n{{ i }}\n{% endfor %}\n", "{% for i in l -%}\n  {{ i }},\n{%- endfor %}",
         "\n\n{% if true %}\n\nx{% endif %}", "{#- a -#}\n  b", "a\n\t{#- b #}\n\tc", "{% set x = 1 -%}\n\n  y", "x {# a\nb #} y", "{{ '{{' }}{{ '%}' }}{{ \"}}\" }}", "{{ {'a': {'b': 1}} }}", "{{{'a':1}}}",
         "{% if true %}a{% else %}b{% endif %}\n", "{# unclosed", "{% raw %}x", "{%", "{{", "a {% if true %} {% endif %} b", "\xa0{%- if true %}x{% endif %}", "{% if true -%}\n{% endif %}", "a{% if true +%}\nb{% endif %}",
         "{% set x %}\n a\n{% endset %}\n[{{ x }}]", "line\n    {{ s }}\n    {%- if true %}\n    z\n    {%- endif %}\n"]


def main():
    out, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1800
    env, seen = environment(), set()
    gen = Generator(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    with open(out, "w") as f:
        f.write(json.dumps({"vars": VARS}, ensure_ascii=False) + "\n")
        hand = HAND + SPACE + MORE
        while len(seen) < count:
            source = hand.pop(0) if hand else gen.program()
            if source in seen or len(source) > 400:
                continue
            got = run(env, source)
            if got is not None and (len(got) > 600 or re.search(r" at 0x[0-9a-f]{6,}", got, re.I)):
                continue
            if got is None and not hand and gen.r.random() > 0.15:
                continue
            row = {"source": source}
            row.update({"text": got} if got is not None else {"error": True})
            seen.add(source)
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
