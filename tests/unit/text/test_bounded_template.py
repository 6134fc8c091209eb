"""Chat templates with limits: what twenty families write stays the same, and what takes too much is refused.

Every template here is harmless without limits too: the limits are lowered for the test.
"""

# ruff: noqa: E501 (templates are kept as they would stand in a file)

import threading
import time
from typing import Any

import jinja2
import pytest
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from lazygguf.text import template_limits
from lazygguf.text.bounded_template import BoundedTemplate
from lazygguf.text.said_text import said, said_turn
from lazygguf.text.template_limits import TemplateLimitError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Says <how> "it" is, é',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "where"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {
    "id": "abc123def",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Rome", "days": 2}},
}
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi <b>&é\n"}],
    [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>hm</think>\nTwo."},
        {"role": "user", "content": "  Three?  "},
    ],
    [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "reasoning_content": "ask", "tool_calls": [CALL]},
        {"role": "tool", "name": "weather", "tool_call_id": "abc123def", "content": "sunny"},
    ],
    [{"role": "user", "content": [{"type": "text", "text": "a part"}, {"type": "text", "text": "another"}]}],
]

# Written for this test, each with what templates of its family use.
FAMILIES = {
    "chatml": """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You help.<|im_end|>
' }}{% endif %}{{ '<|im_start|>' ~ message['role'] ~ '\n' ~ message['content'] ~ '<|im_end|>' ~ '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "llama-2": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content %}
{%- else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for m in rest %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if loop.index0 == 0 and system is not false %}{% set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m.content %}
{%- else %}{% set text = m.content %}{% endif %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama-3": """{{- bos_token }}{%- set date = '26 Jul 2024' %}{%- if strftime_now is defined %}
{%- set year = strftime_now('%Y')|int > 2000 %}{%- endif %}{% for m in messages %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}
{%- if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }}{{ '\n\n' }}{% endfor %}{% endif %}{{ date }} {{ year }}""",
    "mistral": """{%- set ns = namespace(i=0, last=-1) %}{%- for m in messages if m.role != 'system' %}{%- if m.role == 'user' %}
{%- set ns.last = loop.index0 %}{%- endif %}{%- set ns.i = ns.i + 1 %}{%- endfor %}
{%- for m in messages | rejectattr('role', 'equalto', 'tool') %}{% if loop.last and tools %}{{ '[AVAILABLE_TOOLS] [' }}
{%- for tool in tools %}{{ '{"type": "function"' }}{% for key, val in tool.function.items() if key != 'return' %}
{%- if val is string %}{{ ', "' + key + '": "' + val + '"' }}{% else %}{{ ', "' + key + '": ' + val|tojson }}{% endif %}{% endfor %}
{{- '}' }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ']' }}{% endif %}{{ m.content }}|{{ ns.i }} {{ ns.last }}{% endfor %}""",
    "qwen-2.5": """{%- for message in messages %}{%- if message.role == 'tool' and (loop.first or messages[loop.index0 - 1].role != 'tool') %}
{{- '<|im_start|>user' }}{%- elif message.tool_calls %}{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}{{- '{"name": "' }}{{- tool_call.name }}
{{- '", "arguments": ' }}{{- tool_call.arguments | tojson }}{{- '}\n' }}{%- endfor %}{%- else %}{{- message.content }}{%- endif %}{%- endfor %}""",
    "qwen-3": """{%- set ns = namespace(last=messages|length - 1, open=true) %}{%- for message in messages[::-1] %}
{%- set index = (messages|length - 1) - loop.index0 %}{%- if ns.open and message.role == 'user' and message.content is string
 and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}{%- set ns.open = false %}{%- set ns.last = index %}
{%- endif %}{%- endfor %}{%- for message in messages %}{%- if message.content is string and '</think>' in message.content %}
{{- message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}|{{ message.content.split('</think>')[-1].lstrip('\n') }}
{%- endif %}{%- endfor %}{{ ns.last }}""",
    "gemma": """{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}
{%- set prefix = messages[0]['content'] + '\n\n' -%}{%- else -%}{%- set prefix = messages[0]['content'][0]['text'] -%}{%- endif -%}
{%- else -%}{%- set prefix = '' -%}{%- endif -%}{%- for m in messages -%}{%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}
{{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') }}{%- if m['content'] is iterable and m['content'] is not string -%}
{%- for item in m['content'] -%}{%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- else -%}
{{ m['content'] | trim }}{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}""",
    "phi-3": """{% for m in messages %}{% if m.role == 'system' and m.content %}{{ '<|system|>\n' + m.content + '<|end|>\n' }}
{%- elif m.role in ['user', 'assistant'] %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endif %}{% endfor %}{{ '<|assistant|>\n' }}""",
    "command-r": """{% macro turn(role, text='') %}<|START|><|{{ role|upper }}|>{{ text }}{{ caller() if caller else '' }}<|END|>{% endmacro %}
{%- for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}{% call turn('system') %}{{ tools|length if tools else 0 }}{% endcall %}""",
    "deepseek-v3": """{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(is_first=false, system='', is_tool=false) %}{%- for m in messages %}{%- if m['role'] == 'system' %}
{%- set ns.system = ns.system + m['content'] + '\n\n' %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for m in messages %}
{%- if m['role'] == 'assistant' and m['tool_calls'] is defined and m['tool_calls'] is not none %}{%- for tool in m['tool_calls'] %}
{{- tool['type'] + tool['function']['name'] + '\n```json\n' + tool['function']['arguments']|tojson + '\n```' }}{%- endfor %}
{%- elif m['role'] == 'user' %}{{ '<|User|>' ~ m['content'] }}{%- endif %}{%- endfor %}""",
    "granite": """{%- for m in messages %}{%- if loop.first and m.role != 'system' %}
{{- '<|system|>\nDate: ' + '{:0>2}'.format(7) + '.\n' }}{%- endif %}{%- set ns = namespace(parts=[]) %}{%- if m.content is string %}
{%- set ns.parts = ns.parts + [m.content] %}{%- else %}{%- for part in m.content %}{%- set ns.parts = ns.parts + [part.text] %}{%- endfor %}
{%- endif %}{{ '<|%s|>%s' % (m.role, ns.parts | join('\n')) }}{%- endfor %}""",
    "smollm-3": """{%- generation %}{{ 'kept' }}{%- endgeneration %}{%- for m in messages %}{%- if m.role == 'assistant' %}{% generation %}
{{- m.content | replace('\n', ' ') }}{% endgeneration %}{%- else %}{{ m.content | default('', true) | string }}{%- endif %}{%- endfor %}""",
    "hermes": """{%- macro type_of(p) %}{%- set map = {'string': 'str', 'integer': 'int'} %}{%- if map[p.type] is defined %}{{ map[p.type] }}
{%- elif p.type == 'array' and p.get('items') %}{{ 'list[' + type_of(p['items']) + ']' }}{%- else %}{{ 'Any' }}{%- endif %}{%- endmacro %}
{%- for tool in tools or [] %}{%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}{{ tool.name + '(' }}
{%- for name, p in tool.parameters.properties | dictsort %}{{ name + ': ' + type_of(p) }}{{ ', ' if not loop.last }}{%- endfor %}{{ ')' }}
{%- endfor %}{{ messages[-1].content }}""",
    "gpt-oss": """{%- macro render(name, text) -%}{{- '// ' + text if text else '' }}{{ name|lower }}{%- endmacro -%}
{%- set dev = namespace(text='') %}{%- for m in messages %}{%- if m.role == 'assistant' and 'tool_calls' in m %}{%- continue %}{%- endif %}
{%- if m.role == 'tool' %}{%- break %}{%- endif %}{%- set dev.text = dev.text ~ render(m.role, m.name) %}{%- endfor %}{{ dev.text }}
{{- strftime_now('%Y')[:2] }}""",
    "kimi": """{%- set render -%}{%- for m in messages -%}{%- filter upper -%}{{ m.role }}{%- endfilter -%}
{%- set content = m.get('content') -%}{%- if content is mapping -%}{{ content | tojson }}{%- elif content is string -%}{{ content }}
{%- endif -%}{%- endfor -%}{%- endset -%}{{ render }}""",
    "glm-4": """[gMASK]<sop>{%- for m in messages %}{%- set thought = m.reasoning_content if m.reasoning_content is string else '' %}
{{- '<|' ~ m.role ~ '|>' }}{% if thought %}{{ '\n<think>' ~ thought.strip() ~ '</think>' }}{% endif %}{%- if m.tool_calls %}
{%- for tc in m.tool_calls %}{%- set args = tc.function.arguments %}{% for k, v in args.items() %}{{ k }}={{ v | tojson(ensure_ascii=False) if v is not string else v }};
{%- endfor %}{%- endfor %}{%- endif %}{%- endfor %}""",
    "olmo": """{{ bos_token }}{% for m in messages %}{% if loop.previtem is defined and loop.previtem.role == m.role %}{{ 'again' }}
{%- endif %}{{ '<|' + m.role + '|>' + loop.cycle('a', 'b') }}{% if loop.nextitem is undefined %}{{ eos_token }}{% endif %}{% endfor %}""",
    "nemotron": """{%- set roles = messages | map(attribute='role') | list %}{{ roles | join(', ') }} {{ roles | unique | sort | first }}
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}{{ users | length }}{{ users[-1].content[-3:] if users }}
{{- roles.index('user') }}{{ range(3) | sum }}{{ (7 // 2) * 3 % 5 ** 2 }}{{ -3 | abs }}""",
    "minicpm": """{%- macro visible(content) -%}{%- if content is string -%}{{- content }}{%- elif content is iterable and content is not mapping -%}
{%- for item in content -%}{%- if item is mapping and item.type == 'text' -%}{{- item.text }}{%- elif item is string -%}{{- item }}{%- endif -%}
{%- endfor -%}{%- else -%}{{- content }}{%- endif -%}{%- endmacro -%}{%- for m in messages -%}{{ visible(m.content) | indent(2, true) }}
{%- endfor -%}{{ {'b': 1, 'a': [1, 2.5, none, true]} | tojson(separators=(',', ':'), sort_keys=true) }}""",
    "lfm": """{{- bos_token -}}{%- set keep = keep_past | default(false) -%}{%- for m in messages -%}{%- set text = m.content if m.content is string
 else m.content | tojson -%}{%- if not keep and '</think>' in text -%}{%- set text = text.split('</think>')[-1] | trim -%}{%- endif -%}
{{- text.title() if loop.first else text | capitalize -}}{{ {'role': m.role} }}{{ [true, none, 1.0] }}{%- endfor -%}""",
}


def values(messages: Any, tools: Any = None) -> dict[str, Any]:
    def raise_exception(message: str) -> None:
        raise ValueError(message)

    return {
        **dict.fromkeys(("functions", "function_call", "tool_choice")),
        "messages": messages,
        "tools": tools,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_generation_prompt": True,
        "raise_exception": raise_exception,
        "strftime_now": Jinja2ChatFormatter.strftime_now,
    }


def outcome(render: Any) -> str:
    try:
        return str(render())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_writes_what_it_writes_without_limits(family: str) -> None:
    plain = Jinja2ChatFormatter(FAMILIES[family], eos_token="</s>", bos_token="<s>")
    bounded = BoundedTemplate(FAMILIES[family])
    texts = []
    for messages in CHATS:
        for tools in (None, TOOLS):
            expected = outcome(lambda m=messages, t=tools: plain(messages=m, tools=t).prompt)
            assert outcome(lambda m=messages, t=tools: bounded.render(values(m, t))) == expected
            marked = values([said_turn(message) for message in messages], said(tools))
            assert outcome(lambda v=marked: bounded.render(v)) == expected
            texts.append(expected)
    assert not any(text.startswith("Template") for text in texts), "a template of this test has a mistake"
    assert sum("Error" not in text for text in texts) >= 4


def test_a_long_conversation_is_within_the_limits() -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"message {i} " * 1000} for i in range(501)]
    text = BoundedTemplate(FAMILIES["chatml"]).render(values(messages))
    assert text.count("<|im_start|>user") == 251 and len(text) > 5_000_000


LIMITS = {"MAX_STEPS": 2000, "MAX_OUTPUT": 5000, "MAX_VALUE": 3000, "MAX_MADE": 20_000, "MAX_NUMBER": 100}
LOOP = "{% for a in range(60) %}{% for b in range(60) %}"
NOTHING = "{% endfor %}{% endfor %}"
LISTS = "{% set n = namespace(v=[1]) %}{% for i in range(15) %}{% set n.v = [n.v, n.v] %}{% endfor %}"
TEXT = "{% set n = namespace(v='ab') %}{% for i in range(14) %}"
REFUSED = {
    "empty loops": (LOOP + NOTHING, "steps"),
    "filtered loops": ("{% for a in range(60) %}{% for b in range(60) if false %}" + NOTHING, "steps"),
    "recursive loop": ("{% for a in range(3000) recursive %}{{ loop([]) }}{% endfor %}", "steps"),
    "calls": ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(12) }}", "steps"),
    "lazy filters": (
        "{% for a in range(60) %}{{ range(60) | map('abs') | select | list | length }}{% endfor %}",
        "steps",
    ),
    "chain of filters": (
        "{% set n = namespace(v=range(3)) %}{% for i in range(30) %}{% set n.v = n.v | map('abs') %}{% endfor %}",
        "lazy filters",
    ),
    "output": ("{% for a in range(200) %}{{ 'x' * 60 }}{% endfor %}", "writes more than"),
    "output of a macro": (
        "{% macro f() %}{% for a in range(200) %}{{ 'x' * 60 }}{% endfor %}{% endmacro %}{{ f() | length }}",
        "writes",
    ),
    "product": ("{{ 'the ' * 3000 }}", "value of more than"),
    "product of a list": ("{{ ([1] * 9000) | length }}", "value of more than"),
    "doubled by +": (TEXT + "{% set n.v = n.v + n.v %}{% endfor %}", "value of more than"),
    "doubled by ~": (TEXT + "{% set n.v = n.v ~ n.v %}{% endfor %}", "value of more than"),
    "doubled by a filter": (TEXT + "{% set n.v = n.v | replace('a', 'aa') ~ n.v %}{% endfor %}", "value of more than"),
    "many values": ("{% for a in range(90) %}{% set b = 'x' * 1000 %}{% endfor %}", "makes more than"),
    "slices": ("{% set x = 'x' * 900 %}{% for a in range(90) %}{% set b = x[1:] %}{% endfor %}", "makes more than"),
    "written list": (LISTS + "{{ n.v }}", "value of more than"),
    "joined list": (LISTS + "{{ (n.v ~ '') | length }}", "value of more than"),
    "compared lists": (LISTS + "{{ n.v == [n.v] }}", "value of more than"),
    "list as a key": (
        LISTS.replace("[", "(").replace("]", ")").replace("(1)", "(1, 1)") + "{{ {}[n.v] }}",
        "value of more than",
    ),
    "key of a dict": (
        LISTS.replace("[", "(").replace("]", ")").replace("(1)", "(1, 1)") + "{{ {n.v: 1} }}",
        "value of more than",
    ),
    "namespace in itself": ("{% set n = namespace() %}{% set n.v = [n] %}{{ n.v }}", "namespace that holds itself"),
    "written namespace": (LISTS + "{{ n }}", "value of more than"),
    "join": ("{{ range(90) | join('x' * 90) | length }}", "value of more than"),
    "join of a text": ("{{ ('x' * 60).join('y' * 60) | length }}", "value of more than"),
    "replace": ("{{ ('x' * 90).replace('x', 'y' * 90) | length }}", "value of more than"),
    "replace by a filter": ("{{ ('x' * 90) | replace('', 'y' * 90) | length }}", "value of more than"),
    "width of a method": ("{{ 'x'.center(200) }}", "width or count of 200"),
    "width of a filter": ("{{ 'x' | center(200) }}", "width or count of 200"),
    "precision": ("{{ 1.5 | round(200) }}", "width or count of 200"),
    "indent": ("{{ ('\\n' * 90) | indent(90) | length }}", "value of more than"),
    "width of %": ("{{ '%1000d' % 1 }}", "width of 4"),
    "computed width of %": ("{{ '%*d' % (10, 1) }}", "computed"),
    "width of format": ("{{ '{:>1000}'.format(1) }}", "width of 4"),
    "computed width of format": ("{{ '{:>{}}'.format(1, 10) }}", "computed"),
    "format that repeats": ("{{ ('{0}' * 90).format('x' * 60) | length }}", "value of more than"),
    "% that repeats": ("{{ ('%(a)s' * 90) % {'a': 'x' * 60} }}", "value of more than"),
    "power": ("{{ 10 ** 2000 }}", "bits"),
    "large product": (
        "{% set n = namespace(v=3) %}{% for i in range(20) %}{% set n.v = n.v * n.v %}{% endfor %}",
        "bits",
    ),
    "bytes": ("{{ (1).to_bytes(3, 'big') }}", "int.to_bytes"),
    "encoding": ("{{ 'x'.encode() }}", "str.encode"),
    "sum of lists": ("{{ [[1], [2]] | sum(start=[]) }}", "sums"),
    "json indent": ("{{ [1] | tojson(indent=200) }}", "width or count of 200"),
    "json": (LISTS + "{{ n.v | tojson | length }}", "value of more than"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_that_takes_too_much_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template, said = REFUSED[case]
    Jinja2ChatFormatter(template, eos_token="", bos_token="")(messages=[])  # harmless, and a template
    for name, limit in LIMITS.items():
        monkeypatch.setattr(template_limits, name, limit)
    with pytest.raises(TemplateLimitError, match=said):
        BoundedTemplate(template).render(values([]))


def test_the_clock_ends_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.0)
    with pytest.raises(TemplateLimitError, match="more than 0 seconds"):
        BoundedTemplate(LOOP + NOTHING).render(values([]))


def test_the_limits_as_shipped_end_a_template_within_seconds() -> None:
    begin = time.thread_time()
    with pytest.raises(TemplateLimitError, match=r"more than 10000\d+ steps"):
        BoundedTemplate("{% for a in range(1500) %}{% for b in range(1500) %}" + NOTHING).render({"messages": [""]})
    with pytest.raises(TemplateLimitError, match="value of more than"):
        BoundedTemplate("{{ 'the ' * 1500000 }}").render(values([]))
    assert time.thread_time() - begin < template_limits.MAX_SECONDS


def test_a_filter_that_no_chat_template_needs_is_refused_by_name() -> None:
    with pytest.raises(jinja2.TemplateError, match="urlize"):
        BoundedTemplate("{{ 'x' | urlize }}")


def test_a_namespace_that_stands_twice_in_a_value_is_no_loop() -> None:
    source = "{% set n = namespace(v=1) %}{% set m = namespace(a=n, b=[n, n]) %}{{ [m, n, m] | length }}{{ m == n }}"
    assert BoundedTemplate(source).render(values([])) == "3False"


def test_escaping_for_html_is_refused() -> None:
    with pytest.raises(TemplateLimitError, match="autoescape"):
        BoundedTemplate("{% autoescape true %}{{ messages }}{% endautoescape %}")


def test_two_threads_render_one_template() -> None:
    template = BoundedTemplate(FAMILIES["chatml"])
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(template.render(values(CHATS[1])))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 4 and len(set(texts)) == 1
