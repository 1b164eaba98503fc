#!/usr/bin/env python3
"""Write tests/fixtures/templates.json: chat templates and what Hugging Face transformers renders of them.

    make_templates.py [--check]

Needs transformers 5.24 and jinja2 3.1.6; no model and no torch. Every template renders one user turn, a picture and a question,
with the generation prompt on. `cases` has [template, expected] with the first question, and [case number, expected, question
number] for that case's template with another one; expected is null where transformers fails, or prints an address. `times` has [format, moment, expected] for strftime. `letters` has what
Python makes of awkward letters. With --check nothing is written; exit 1 if the file differs.
"""
import argparse
import datetime
import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "templates.json"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "image_token": "<image>", "extra": ["<a>", "<b>"]}
QUESTIONS = ["What is \"it\"?", "", " two  spaces\r\nand\tlines\u2028\r", "Größe e\u0301 数字 👩‍🚀 <b>&'x'</b> {{ no }} {% no %} \\n"]

LOOP = "{% for m in messages %}"
PARTS = "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
END = "{% endfor %}"

# In the style of published templates; the wording is this project's.
WHOLE = [
    # Llama 3.1 and 3.2, with a date and tools.
    """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined and false %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message, if there is one #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- Whether there is a picture #}
{%- set image_ns = namespace(has_images=false) %}
{%- for message in messages %}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
            {%- set image_ns.has_images = true %}
        {%- endif %}
    {%- endfor %}
{%- endfor %}
{%- if not image_ns.has_images or tools is not none %}
    {{- "<|system|>\\n\\n" + system_message }}
{%- endif %}
{%- if tools_in_user_message and not tools is none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' }}
        {%- if message['content'] is string %}
            {{- message['content'] }}
        {%- else %}
            {%- for content in message['content'] %}
                {%- if content['type'] == 'image' %}
                    {{- '<|image|>' }}
                {%- elif content['type'] == 'text' %}
                    {{- content['text'] }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\\n\\n' }}
{%- endif %}
""",
    # Mistral.
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{{ bos_token }}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'][1]['text'] %}{% endif %}{% if message['role'] == 'user' %}{{ ' [INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
    # Mistral v3 with tools.
    """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " }}{% for c in message["content"] %}{{ c.text if c.type == "text" else "[IMG]" }}{% endfor %}{{- "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}
    {%- endif %}
{%- endfor %}
""",
    # Qwen2.5-VL.
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}<|video_pad|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    # Qwen3, with thinking.
    """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content is string and message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    # LLaVA 1.5 and Vicuna, with the tag that training masks by.
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}{# Pictures first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}{# Then the text #}"
    "{% if message['role'] != 'assistant' %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    # Gemma 3.
    """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    # Phi-3 and Phi-4.
    "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|system|>' + '\n' + message['content'] + '<|end|>' + '\n'}}"
    "{% elif (message['role'] == 'user') %}{{'<|user|>' + '\n'}}{% for c in message['content'] %}{{ c.get('text', '<|image_' ~ loop.index ~ '|>\\n') }}{% endfor %}{{'<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
    "{% elif message['role'] == 'assistant' %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}",
    # DeepSeek.
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content'][1]['text']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}"
    "{%- if not ns.is_first %}{{'<｜call｜>' + tool['type']}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['type']}}{%- endif %}{%- endfor %}{%- endif %}"
    "{%- endfor -%}{% if ns.is_tool %}{{'<｜end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}",
    # Idefics3 and SmolVLM.
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    # Granite.
    """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
{%- else %}
    {%- set system_message = "Knowledge Cutoff Date: April 2024.\\nYou are Granite." %}
    {%- if tools and documents %}
        {%- set system_message = system_message + " Tools and documents." %}
    {%- elif tools %}
        {%- set system_message = system_message + " Tools." %}
    {%- elif documents %}
        {%- set system_message = system_message + " Documents." %}
    {%- else %}
        {%- set system_message = system_message + " You are helpful." %}
    {%- endif %}
    {%- if 'citations' in controls and documents %}{%- set system_message = system_message + ' Cite.' %}{%- endif %}
{%- endif %}
<|start_of_role|>system<|end_of_role|>{{ system_message }}<|end_of_text|>
{%- for message in messages %}
    {%- if loop.last and add_generation_prompt %}
{{ '\\n<|start_of_role|>' + message['role'] + '<|end_of_role|>' }}{% for c in message.content %}{{ c.text or '<image>' }}{% endfor %}{{ '<|end_of_text|>\\n<|start_of_role|>assistant' }}
            {%- if controls %}
                {{- ' ' + controls | tojson()}}
            {%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}
""",
    # A macro for contents, and one that calls itself.
    """{%- macro render(content, depth=0) -%}
    {%- if content is string -%}{{ content }}
    {%- elif content is mapping -%}{%- for key, value in content.items() -%}{{ key }}={{ render(value, depth + 1) }};{%- endfor -%}
    {%- elif content is iterable -%}[{%- for item in content -%}{{ render(item, depth + 1) }}{{ ',' if not loop.last }}{%- endfor -%}]
    {%- else -%}{{ content }}{%- endif -%}
{%- endmacro -%}
{{ render(messages) }}|{{ render([1, 2.5, none, true, (1, 'x')]) }}
""",
]

# One construct each.
PIECES = """
{% generation %}a{% endgeneration %}b
{%- generation -%} a {%- endgeneration -%} b
{%+ generation +%}  a  {%+ endgeneration +%}
{%generation%}a{%endgeneration%}
{%   generation	%}a{% endgeneration   %}
{% generation: %}a{% endgeneration %}
{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}
{% for i in [1, 2] %}{% generation %}{{ i }}{{ loop.last }}{% endgeneration %}{% endfor %}
{% if true %}{% generation %}{% if true %}x{% endif %}{% endgeneration %}{% else %}{% generation %}y{% endgeneration %}{% endif %}
{% generation %}{% generation %}x{% endgeneration %}{% endgeneration %}
{{ '{% generation %}' }}{# {% generation %} #}{% raw %}{% generation %}{% endraw %}
{% generation %}x
x{% endgeneration %}
{% generation x %}x{% endgeneration %}
{% for i in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{% set ns = namespace(x=1) %}{% generation %}{% set ns.x = 2 %}{% endgeneration %}{{ ns.x }}
{% macro m() %}{% generation %}m{% endgeneration %}{% endmacro %}{{ m() | upper }}
{% if tools is not none %}tools{% endif %}{% if tools is defined %}defined{% endif %}{{ tools }} {{ documents }} {{ documents is none }}
{{ add_generation_prompt }} {{ messages is defined }} {{ continue_final_message is defined }} {{ return_assistant_tokens_mask is defined }}
{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ image_token }}{{ extra }}{{ extra[1] }}
{{ raise_exception('no') }}
{% if false %}{{ raise_exception('no') }}{% endif %}ok
{{ raise_exception }}
{{ strftime_now is defined }} {{ raise_exception is callable }} {{ namespace is defined }}
{{ strftime_now('%%') }}{{ strftime_now('%n|%t') }}{{ strftime_now('x') }}{{ strftime_now(format='%%') }}
{{ strftime_now() }}
{{ messages }}
{{ messages | tojson }}
{{ messages | tojson(indent=2) }}
{{ messages[0] | tojson(indent='--', separators=(',', ':'), sort_keys=true) }}
{{ [] | tojson(indent=2) }} {{ {} | tojson }} {{ [[], {}] | tojson(indent=1) }} {{ (1, 2) | tojson }}
{{ [1, 1.0, 1e20, 1e-7, true, none, 'x"\\\\/'] | tojson }}
{{ 'é\\u2028\\x7f\\x00<>&\\'' | tojson }} {{ 'é😀\\x7f' | tojson(true) }}
{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}
{{ undefined_thing | tojson }}
{{ none }} {{ true }} {{ false }} {{ True }} {{ None }}
{{ [none, true, 'a', 1.0, "it's", 'q"', '\\n', 'é', '\\x07'] }} {{ {'z': 1, 'a': {'b': []}} }}
{{ (1, 2) }} {{ (1,) }} {{ () }} {{ 1, 2 }}
{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 1.5e-7 }} {{ 0.0001 }} {{ 1e100 }} {{ -0.0 }} {{ 1e400 }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }}
{{ 1 / 0 }}
{{ 'a' * 3 }} {{ [1] * 2 }} {{ 3 * 'b' }} {{ 'a' * -1 }}| {{ [1] + [2] }} {{ (1,) + (2,) }}
{{ 'a' + 1 }}
{{ [1] + (2,) }}
{{ none + 'x' }}
{{ 'a' ~ none ~ true ~ 1.0 ~ ['x'] ~ {'a': 1} ~ undefined_thing }} {{ 1 ~ 2 }} {{ 'x' + 'y' ~ 1 }}
{{ 'x' ~ 1 + 2 }}
{{ 1 + 2 ~ 3 }}
{{ 'a' 'b' "c" }} {{ 'a' ~ 'b' 'c' }}
{{ '\\s\\d' }} {{ '\\x41\\u00e9\\101\\t|' }} {{ '\\\\n' }} {{ 'it\\'s' }} {{ '\\é' }}
{{ '%s and %d' % ('x', 3) }} {{ '%s' % 'y' }} {{ '%05.1f|%-5s|%5s|%x' % (2.25, 'a', 'b', 255) }} {{ '%(a)s' % {'a': 1} }} {{ '100%%' % () }}
{{ '%s %s' % 'x' }}
{{ '{} {}'.format(1, 'x') }} {{ '{1}{0}{a}'.format(1, 2, a=3) }} {{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}'.format(1, 2, 3, 4, 5.126, 1234567) }} {{ '{{}}'.format() }} {{ '{0.role} {0[role]}'.format(messages[0]) }}
{{ '{} {}'.format(1) }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ 'a' == 1 }} {{ (1,) == [1] }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ 'b' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'role' in messages[0] }} {{ 'x' in undefined_thing }} {{ not 'a' in 'b' }}
{{ 1 in 'abc' }}
{{ 'x' in none }}
{{ not true }} {{ not not 1 }} {{ true and 'x' }} {{ '' or 'y' }} {{ [] and 1 }} {{ 1 or 2 and 3 }} {{ not 1 == 2 }}
{{ 'x' if false }}| {{ 'x' if true }} {{ 'a' if false else 'b' if false else 'c' }} {{ ('x' if false) is defined }}
{{ 'A' | lower ~ 'b' }} {{ -3 | abs }} {{ -3.5 | abs }} {{ +1 }} {{ - 1 }} {{ 2 - -1 }} {{ 1 - 1 | abs }}
{{ -'a' }}
{{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5E+2 }} {{ 00 }}
{{ 012 }}
{{ undefined_thing }}|{{ undefined_thing is defined }}|{{ undefined_thing | default('d') }}|{{ undefined_thing | length }}|{{ undefined_thing == other_thing }}
{{ undefined_thing.foo }}
{{ undefined_thing['foo'] }}
{{ undefined_thing() }}
{{ undefined_thing + 'x' }}
{{ undefined_thing < 1 }}
{% for x in undefined_thing %}x{% else %}none{% endfor %}
{% for x in none %}x{% endfor %}
{{ messages[5] }}| {{ messages[0].foo }}| {{ messages.foo }}| {{ messages[0]['foo'] is defined }} {{ 'abc'.foo }}| {{ 'abc'[9] }}| {{ none.x }}|
{{ messages[5].role }}
{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages.0.role }} {{ messages[-1]['content'][1].text }} {{ messages[0]['content'][0]['type'].upper() }}
{{ messages[0].items is defined }} {{ messages[0].keys() }} {{ messages[0].values() | list }} {{ messages[0].items() | list }} {{ messages[0].get('x') }} {{ messages[0].get('x', 'd') }} {{ messages[0].get('role') }}
{{ messages[0].items }}
{{ {'items': 1}['items'] }} {{ {'keys': 1}.keys() }} {{ {'a': {'b': 2}}.a.b }}
{{ messages.append(1) }}
{{ messages[0].pop('role') }}
{{ messages[0].update({}) }}
{{ messages.append is defined }} {{ [].copy() }} {{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }} {{ (1, 2).index(2) }}
{{ 'abc'.__class__ }}|{{ messages.__class__ is defined }}
{{ 'abc'.__class__.mro() }}
{{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[4:1:-1] }} {{ 'abcdef'[10:] }}| {{ [1, 2, 3][:-1] }} {{ (1, 2, 3)[1:] }} {{ 'é数字'[1] }} {{ messages[1:] }} {{ 'abc'[none:2] }}
{% set n = none %}{{ n[1:] }}
{% set n = 'a' %}{{ 'abc'[n:] }}
{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.split(none, 1) }} {{ ' a b  c '.rsplit(maxsplit=1) }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'a'.split('') }}
{{ '  x '.strip() }}| {{ '  x '.lstrip() }}| {{ '  x '.rstrip() }}| {{ 'xxaxx'.strip('x') }} {{ 'abcba'.lstrip('ab') }} {{ '\\u2003x\\x1c'.strip() }}|
{{ 'hello wORLD'.title() }} {{ "it's".title() }} {{ 'hello World'.capitalize() }} {{ 'HeLLo'.swapcase() }} {{ 'Straße ŉ ΑΣ'.upper() }} {{ 'ΑΣ Σ'.lower() }} {{ 'ß'.casefold() }} {{ 'ß'.title() }}
{{ 'abc'.find('c') }} {{ 'abc'.find('x') }} {{ 'abcabc'.rfind('b') }} {{ 'abcabc'.index('c') }} {{ 'abcabc'.count('b') }} {{ 'éab'.find('b', 1) }} {{ 'aaa'.count('a', 1) }}
{{ 'abc'.index('x') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.startswith(()) }}
{{ 'abc'.startswith(1) }}
{{ 'aXbXc'.replace('X', '-') }} {{ 'aXbXc'.replace('X', '-', 1) }} {{ 'abc'.replace('', '-') }} {{ 'aXb'.removeprefix('a') }} {{ 'aXb'.removesuffix('b') }} {{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'a'.partition('-') }}
{{ ','.join(['a', 'b']) }} {{ ''.join('ab') }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'a\\nb'.splitlines(true) }} {{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'x'.center(5, '*') }} {{ 'x'.ljust(3) }}| {{ 'x'.rjust(3) }}|
{{ ','.join([1]) }}
{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ ''.isdigit() }} {{ 'a'.isascii() }} {{ 'a_1'.isidentifier() }} {{ '1'.isnumeric() }} {{ '1'.isdecimal() }}
{{ 'abc'.upper }}
{{ 'abc'.nope() }}
{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x // 2) }};{% endfor %}
{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in range(6) if i % 2 %}{{ i }}{{ loop.index }}{{ loop.last }}{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %} {% for i in [1] if i > 1 %}x{% else %}empty{% endfor %}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %} {% for k in {'a': 1} %}{{ k }}{% endfor %} {% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% for c in 'añb' %}{{ c }}.{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for i in 1, 2 %}{{ i }}{% endfor %} {% for i in [1, 2] %}{% for j in 'ab' %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}{{ loop.depth }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}
{% for x in [1] %}{{ loop([2]) }}{% endfor %}
{% for m in messages %}{{ bos_token }}{% endfor %}{% set bos_token = 'x' %}{{ bos_token }}
{% if tools %}{% set bos_token = 'x' %}{% endif %}{{ bos_token }}
{% for i in [1, 2] %}{% continue %}{% else %}empty{% endfor %}{% for i in [1] %}{% break %}{% else %}empty{% endfor %}
{% filter length %}abc{% endfilter %}
{{ 'x' if false if true else 'y' }} {{ 'a' if true if true }} {{ '\\tx'.expandtabs(4) }} {{ 'abc' % [1] }}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }} {% with %}{% set x = 3 %}{% endwith %}{{ x }} {% with x = 4, y = x %}{{ x }}{{ y }}{% endwith %}{{ x }}
{% set ns = namespace(a=1, b='x') %}{% for x in [1, 2] %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}{{ ns.c }}{{ ns }}{{ ns['b'] }}
{% set ns = namespace({'a': 1}) %}{{ ns.a }}{% set ns._x = 1 %}
{% set d = {} %}{% set d.a = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set x %}abc{% endset %}{{ x | upper }} {% set x | upper | replace('B', '-') %}abc{% endset %}{{ x }}
{% set true = 1 %}
{% macro f(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, c=4) }}{{ f(a=5) }}{{ f() }}
{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }} {{ f.name }} {{ f }} {{ f.arguments }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, a=2) }}
{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}hi{% endcall %} {% macro w2(x) %}{{ caller(x, 2) }}{% endmacro %}{% call(a, b) w2('q') %}{{ a }}{{ b }}{% endcall %}
{% macro w() %}{{ caller is defined }}{% endmacro %}{{ w() }}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }} {% macro g() %}{{ late }}{% endmacro %}{% set late = 1 %}{{ g() }}
{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}
{% filter upper | replace('B', 'x') %}abc{% endfilter %} {% filter indent(2) %}a{{ '\\n' }}b{% endfilter %}
{% if 0 %}a{% elif '' %}b{% elif [] %}c{% elif {} %}d{% elif 0.0 %}e{% else %}f{% endif %} {% if messages | selectattr('role', 'equalto', 'x') %}always{% endif %} {% if '0' and ' ' and [0] %}g{% endif %}
{% print 1, 'a' %} {% autoescape false %}{{ '<' }}{% endautoescape %} {% block b %}x{% endblock %}
{% do messages %}
{% unknown %}
{% include 'x' %}
{% if false %}{% include 'x' %}{% endif %}ok
{% if true %}
{{ 1 + }}
{{ }}
{{ 'a }}
{{ (1 }}
{{ [1) }}
{{ a b }}
{% endif %}
{% for x in %}{% endfor %}
{% if x = 1 %}{% endif %}
{# open
{% raw %}open
{% break %}
{{ x is defined is defined }}
{{ 1 | nope }}
{{ 1 is nope }}
{{ nope(1) }}
{{ 'a' | first }}{{ 'abc' | last }} {{ [] | first }}| {{ [1, 2] | last }} {{ messages | length }} {{ 'añ' | count }} {{ {'a': 1} | length }} {{ range(3) | list }} {{ 'ab' | list }}
{{ 5 | length }}
{{ messages | map('upper') | length }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [3, 1] | sort(reverse=true) }} {{ [{'a': 2}, {'a': 1}] | sort(attribute='a') }} {{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }}
{{ [1, 'a'] | sort }}
{{ ['a', 'A', 'b'] | unique | list }} {{ [1, 2, 3] | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2, 3] | sum }} {{ [{'a': 1}] | sum(attribute='a', start=5) }} {{ [2, 1] | min }} {{ ['b', 'A'] | max }} {{ [] | min }}|
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }} {{ [1, 2, 3] | slice(2, 'x') | list }}
{{ [{'t': 'a', 'v': 1}, {'t': 'b', 'v': 2}, {'t': 'A', 'v': 3}] | groupby('t') }} {% for g in [{'t': 'a'}] | groupby('t') %}{{ g.grouper }}{{ g.list }}{% endfor %}
{{ messages[0].content | map(attribute='type') | join('-') }} {{ messages[0].content | map(attribute='text', default='none') | list }} {{ ['a', 'b'] | map('upper') | list }} {{ [1, 2] | map('string') | join }} {{ ['x'] | map('replace', 'x', 'y') | first }}
{{ messages[0].content | selectattr('type', 'equalto', 'text') | list }} {{ messages[0].content | selectattr('text', 'defined') | map(attribute='text') | first }} {{ messages[0].content | rejectattr('text') | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, none, 0] | reject | list }} {{ [1, 2] | select('in', [2]) | list }} {{ [0, 1] | select | list }}
{{ [1, 2] | select('odd') }}
{% set g = [1, 2] | select %}{{ g | list }}{{ g | list }}
{{ ['a', 1, none] | join(',') }} {{ [{'x': 1}] | join(',', attribute='x') }} {{ 'abc' | join('.') }}
{{ none | default('x') }} {{ none | default('x', true) }} {{ '' | d('y', boolean=true) }} {{ undefined_thing | d }}|
{{ '12' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '1.9' | int }} {{ 2.9 | int }} {{ '0x1f' | int(0, 16) }} {{ ' 1_0 ' | int }} {{ none | int }} {{ true | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ '1e3' | float }} {{ 'inf' | float }} {{ 3 | float }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(method='floor') }} {{ 5 | round }} {{ 1 | round(1) }}
{{ 'a b' | title }} {{ "it's a-b (c" | title }} {{ 'aBC' | capitalize }} {{ 'ab' | upper | lower }} {{ '  x ' | trim }}| {{ 'xax' | trim('x') }} {{ 'x' | center(5) }}| {{ 'a b c' | wordcount }} {{ 'abc' | replace('b', 'x') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 12 | string + 'x' }}
{{ 'a\\nb\\n\\nc' | indent }}| {{ 'a\\nb' | indent(2, true) }} {{ 'a\\n\\nb' | indent(1, blank=true) }} {{ 'a\\nb' | indent('> ') }}
{{ 'a<b>&"\\'' | e }} {{ '<' | escape ~ '<' }} {{ '<' | safe }} {{ '<' | e | e }} {{ 'a<' | forceescape }} {{ '<' | e | length }}
{{ 'hello world foo' | truncate(8) }} {{ 'hello world' | truncate(8, true) }} {{ 'hello' | truncate(4, leeway=0) }} {{ 'hello' | truncate(4, leeway=9) }} {{ 'hello world' | truncate(8, end='!', leeway=0) }}
{{ '%s-%s' | format('a', 1) }} {{ '%(x)d' | format(x=3) }} {{ 1000 | filesizeformat }} {{ 1024 | filesizeformat(true) }} {{ 'a b/c?é' | urlencode }} {{ {'a': 'b c'} | urlencode }} {{ {'a': 1, 'b': none, 'c': '<'} | xmlattr }} {{ {'b': 1, 'a': 'x'} | pprint }}
{{ messages[0] | items | list }} {{ messages[0] | attr('role') }}| {{ messages[0] | attr('keys') is defined }}
{{ [] | items }}
{{ 'a' is string }} {{ 1 is string }} {{ messages is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ messages is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ {} is mapping }} {{ [] is mapping }} {{ true is boolean }} {{ 1 is number }} {{ true is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ undefined_thing is sequence }} {{ undefined_thing is iterable }}
{{ none is none }} {{ undefined_thing is none }} {{ none is defined }} {{ 1 is true }} {{ true is true }} {{ false is false }} {{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(3) }} {{ 1 is eq 1 }} {{ 1 is equalto 2 }}
{{ 1 is sameas 1 }} {{ none is sameas none }} {{ [] is sameas [] }} {{ 'a' is in ['a'] }} {{ 1 is not in [1] }} {{ 2 is gt 1 }} {{ 1 is lessthan 2 }} {{ 'a' is ne 'b' }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ range is callable }} {{ '<' is escaped }} {{ 1 is not none }} {{ not 1 is none }}
{{ range(5) }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }} {{ range(3)[1] }} {{ range(0) | length }} {{ dict(a=1, b=2) }} {{ dict([('x', 1)], y=2) }} {{ dict() }} {{ dict({'a': 1}).a }}
{{ range(1000000) }}
{{ range(1, 2, 0) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}{{ c.current }} {% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ [1, 2, 3][1] }} {{ {'a': [1]}['a'][0] }} {{ {1: 'x'}[1] }} {{ {true: 'x'}[1] }} {{ [[1, 2], [3]] | sum(start=[]) }} {{ {'a': 1, 'a': 2} }} {{ (1, 2)[0] }} {{ ('a' if true else 'b') ~ 'c' }} {{ [1, 2,] }} {{ {'a': 1,} }}
{{ {[]: 1} }}
{{ 'x' | upper() }} {{ ['a', 'b'] | join(d='-') }} {{ dict(**{'a': 1}) }} {{ [1, 2].index(*[2]) }} {{ 'a' | replace(old='a', new='b') }}
{{ messages[0].content[1].text }}|{{ messages[0].content[1].text | trim }}|{{ messages[0].content[1]['text'] | length }}
"""

# Where white space and line ends count: escapes of Python here.
SPACES = [
    "a\n", "a\n\n", "a\r\n", "a\rb\r\nc\r", "\n", "", " ", "{{ 1 }}\n", "{{ 1 }}\n\n", "{% if 1 %}\n a\n{% endif %}\nb", "  {% if 1 %}a{% endif %}  \n b",
    "a\n  {% if 1 %}\n  b\n  {% endif %}\n  c", "a\n  {{ 1 }}\n  b", "a\n  {{- 1 -}}\n  b", "a  {%- if 1 -%}  b  {%- endif -%}  c", "a\n\t{%+ if 1 %}\n b{% endif +%}\nc",
    "a\n  {# c #}\nb", "a {#- c -#} b", "a\n  {#+ c +#}\nb", "{##}a{#-#} b", "{# a #}\n\n{# b #}\nc", "a\n  {% raw %}\n {{ x }} {% endraw %}\nb", "a {%- raw -%} b {%- endraw -%} c",
    "{%raw%}{% if %}{%endraw%}", "{% raw %}{% endraw x %}{% endraw %}", "{% raw +%}a{% endraw %}", "x \u00a0{%- if 1 %}a{% endif %}", "{{ 'a\nb' }}", "{{ 'a\r\nb' }}", "{{ 'a\\\nb' }}",
    "{{\n1\n+\n2\n}}", "{%\nif 1\n%}a{% endif %}", "{{ {'a': {}} }}", "{{ {'a': {'b': 1}}}}", "{{ '}}' }}{{ \"%}\" }}", "{{1}}{{-2}}{{- 3}}", "{ { } } {{ '{' }} %} }} #}", "{% set x = 1 %}\n{% set y = 2 %}\n{{ x }}{{ y }}",
    "{% for i in [1, 2] %}\n- {{ i }}\n{% endfor %}\nend", "{% for i in [1, 2] -%}\n- {{ i }}\n{% endfor -%}\nend", "   {%- set x = 1 %}   x", "{% if 1 %}{% endif %}\n\n  {% if 1 %}{% endif %}\n",
    "\u2028{% if 1 %}a{% endif %}\x0c\n{% if 1 %}b{% endif %}", "## a\n# b\n{{ 1 }} ## c\n", "{{ 1 +}}", "{{ 1 -}} \n a", "{% if 1 -%}\n\n a{%- endif %}\n\n b", "a {{ ' b ' -}} c", "{{ messages[0].content[1].text }}\n",
]

MOMENTS = [(2024, 7, 26, 0, 5, 9, 42), (2024, 2, 29, 12, 59, 59, 999999), (2025, 12, 31, 23, 0, 0, 0), (2021, 1, 3, 13, 1, 1, 1)]
FORMATS = [
    "%d %b %Y", "%B %d, %Y", "%A %a %b %h %B", "%Y-%m-%d %H:%M:%S", "%I:%M %p %P", "%j %U %W %V %G %g %u %w", "%y %C %e|%k|%l", "%c|%x|%X|%r|%R|%T|%D|%F", "%-d %-m %-I %-H %-j %_d %_m %0e",
    "%^a %^B %#p %#b %#Z", "%f", "[%Z][%z]", "%% %n%t|", "%Q %i %", "%5d %-5d %_5Y %05d %10a|%010a", "%Ey %Od %EC %OQ", "é %d 数", "%^c %-y %3y", "%+ %: %E", "",
]
LETTERS = "ßŉǰΐıİſµςΣẞǆǅǄﬁﬃևᾳᾼᾷῼὲάᏸꭰაႠªʰⅷⓐ𝐀𐐨ÿŸéÉ"


def render(template, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [[{"role": "user", "content": content}]], chat_template=template, add_generation_prompt=True, **SPECIAL)
        texts[0].encode()
        return None if " at 0x" in texts[0] else texts[0]
    except Exception:  # Whatever it is, the template cannot be used.
        return None


def templates():
    """Every template, and the numbers of the questions that it gets."""
    for template in WHOLE:
        yield template, range(len(QUESTIONS))
    for template in PIECES.strip("\n").split("\n"):
        yield template, range(1)
    for template in SPACES:
        yield template, range(1)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--check", action="store_true")
    cases = []
    for template, questions in templates():
        for number in questions:
            expected = render(template, QUESTIONS[number])
            if number == 0:
                first = len(cases)
            cases.append([template, expected] if number == 0 else [first, expected, number])
    times = [[text, list(moment), datetime.datetime(*moment).strftime(text)] for moment in MOMENTS for text in FORMATS]
    forms = {name: [getattr(c, name)() for c in LETTERS] for name in ("upper", "lower", "title", "casefold", "swapcase")}
    fixture = {"special": SPECIAL, "questions": QUESTIONS, "cases": cases, "times": times, "letters": LETTERS, "forms": forms}
    lines = [f'"{key}": ' + (json.dumps(value, ensure_ascii=False) if key not in ("cases", "times")
             else "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]") for key, value in fixture.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if args.parse_args().check:
        sys.exit(OUT.read_text() != text)
    OUT.write_text(text)
    print(f"{OUT}: {len(cases)} cases, {sum(case[1] is None for case in cases)} of them errors, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
