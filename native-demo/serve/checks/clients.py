"""Checks `fovea serve` with the official `openai` client, and with curl.

    pip install openai
    python clients.py http://127.0.0.1:8080 [--key KEY] [--other-model]

The server uses the demo checkpoint, or another one with --other-model: then answers are not compared.
"""

import json
import random
import subprocess
import time

import openai

import common
from common import QUESTIONS, Checks, Server, data_url, picture, png

parser = common.arguments(__doc__.splitlines()[0])
parser.add_argument("--other-model", action="store_true", help="the model is not the demo checkpoint")
options = parser.parse_args()
server = Server(options)
client = openai.OpenAI(base_url=server.base + "/v1", api_key=options.key or "none", max_retries=0, timeout=120)
create = client.chat.completions.create
MODEL = client.models.list().data[0].id
NAME, QUESTION, ANSWER = QUESTIONS[1]
SECOND = QUESTIONS[0]
PICTURE = data_url(picture(NAME))
# The most likely token ends an answer soon; random ones do not.
LONG = {"temperature": 100, "seed": 1, "max_tokens": 512}


def user(*texts, url=PICTURE):
    content = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    return {"role": "user", "content": content + [{"type": "text", "text": text} for text in texts]}


def ask(*messages, **more):
    return create(model=MODEL, messages=list(messages or [user(QUESTION)]), **more)


def text(answer):
    return answer.choices[0].message.content


def raises(kind, code=None, param=None, **more):
    """Asserts that a request fails in this way."""
    body = {"model": MODEL, "messages": [user(QUESTION)]} | more
    try:
        create(**body)
    except openai.APIStatusError as why:
        assert isinstance(why, kind), f"expected {kind.__name__}, got {type(why).__name__}: {why}"
        common.is_error({"error": why.body}, why.status_code)
        assert code is None or why.code in code, f"expected code {code}, got {why.code}: {why}"
        assert param is None or why.param == param, f"expected param {param}, got {why.param}: {why}"
        return
    raise AssertionError(f"expected {kind.__name__}, got an answer to {list(more)}")


def models():
    all_models = client.models.list().data
    assert [model.object for model in all_models] == ["model"], all_models
    assert client.models.retrieve(MODEL).id == MODEL
    try:
        client.models.retrieve("no-such-model")
        raise AssertionError("a model that does not exist")
    except openai.NotFoundError as why:
        common.is_error({"error": why.body}, 404)
    return MODEL


def one_answer():
    answer = ask()
    assert answer.object == "chat.completion" and answer.model == MODEL and answer.id and answer.created > 1.7e9
    (choice,) = answer.choices
    assert choice.index == 0 and choice.message.role == "assistant" and choice.finish_reason == "stop", choice
    assert options.other_model or text(answer).strip() == ANSWER, text(answer)
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.completion_tokens > 0
    tokens = usage.model_extra["visual_tokens"]
    assert tokens["all"] >= tokens["kept"] > 0 and usage.prompt_tokens > tokens["compressed"], tokens
    assert 0 < usage.model_extra["equivalent_share"] <= 1.1
    return f"{text(answer)!r}, visual tokens {tokens['all']} -> {tokens['compressed']} -> {tokens['kept']}"


def stream():
    whole = text(ask())
    parts, finish, usage, kept, overlay, role = [], None, None, None, None, None
    for chunk in ask(stream=True, stream_options={"include_usage": True}):
        assert chunk.object == "chat.completion.chunk" and chunk.model == MODEL
        assert usage is None, "the usage is the last chunk"
        usage = chunk.usage
        extra = (chunk.model_extra or {}).get("fovea")
        if extra:
            kept, overlay = extra["kept"], extra["overlay"]
        for choice in chunk.choices:
            role = role or choice.delta.role
            finish = choice.finish_reason or finish
            parts.append(choice.delta.content or "")
    assert role == "assistant" and finish == "stop", (role, finish)
    assert "".join(parts) == whole, (parts, whole)
    assert usage.completion_tokens > 0
    (grid,) = kept
    assert len(grid["grid"]) == 2 and len(grid["kept"]) <= grid["tokens"] and overlay, (kept, overlay)
    assert max(grid["kept"]) < grid["tokens"], grid
    assert all(chunk.usage is None for chunk in ask(stream=True)), "usage that was not asked for"
    return f"{sum(map(bool, parts))} parts, {len(grid['kept'])} of {grid['tokens']} tokens kept"


def several_turns():
    # One that no earlier run has sent.
    fresh = data_url(png(random.randrange(100, 400), random.randrange(100, 400)))
    first = ask(user(SECOND[1], url=fresh))
    assert first.usage.model_extra["picture_cached"] is False
    before = first.usage.prompt_tokens_details.cached_tokens
    assert before == 0, f"nothing is cached of a new picture, got {before}"
    history = [user(SECOND[1], url=fresh), {"role": "assistant", "content": text(first)}]
    second = ask(*history, user(QUESTION, url=None))
    assert second.usage.model_extra["picture_cached"] is True
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert 0 < cached < second.usage.prompt_tokens + second.usage.model_extra["visual_tokens"]["all"]
    # The demo's template prints the last question only.
    assert second.usage.prompt_tokens > first.usage.prompt_tokens or not options.other_model
    again = ask(*history, user(QUESTION, url=None))
    assert text(again) == text(second), "the same conversation, another answer"
    other = ask(user(QUESTION, url=fresh))
    assert other.usage.model_extra["picture_cached"] is True, "another question about the same picture"
    return f"{cached} of {second.usage.prompt_tokens} tokens of the prompt were cached"


def roles():
    # A template without a system role refuses it; that is a clear error, not a failure of the server.
    for role in "system", "developer":
        try:
            assert ask({"role": role, "content": "Answer with one word."}, user(QUESTION)).choices
        except openai.BadRequestError as why:
            common.is_error({"error": why.body}, 400)
    assert ask(user(QUESTION, url=None)).usage.model_extra["visual_tokens"]["all"] == 0, "text alone"
    two = [{"type": "image_url", "image_url": {"url": data_url(picture(name)), "detail": "high"}} for name in ("rack.jpg", "plates.jpg")]
    answer = ask({"role": "user", "content": [*two, {"type": "text", "text": QUESTION}]})
    assert answer.usage.model_extra["visual_tokens"]["all"] > 0


def long_answer(**more):
    return ask(**LONG | more)


def stop():
    whole = text(long_answer())
    end = whole[len(whole) // 2 :][:2]
    cut = long_answer(stop=[end])
    assert text(cut) == whole[: whole.index(end)] and cut.choices[0].finish_reason == "stop", (whole, end, text(cut))
    streamed = "".join(c.delta.content or "" for k in long_answer(stop=end, stream=True) for c in k.choices)
    assert streamed == text(cut), "a stream shows a part of the stop text"


def length():
    answer = long_answer(max_tokens=2)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2, answer
    answer = ask(**{**LONG, "max_tokens": None}, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3, answer


def settings():
    a, b, c = (text(long_answer(seed=seed, max_tokens=16)) for seed in (5, 5, 6))
    assert a == b and a != c, "the seed decides what is sampled"
    for spec in "none", None:
        tokens = ask(extra_body={"compression": spec}).usage.model_extra["visual_tokens"]
        assert spec is None or tokens["all"] == tokens["kept"], tokens
    ask(user=f"somebody-{time.time()}", n=1, metadata={"a": "b"}, store=False, response_format={"type": "text"}, top_p=1)


def errors():
    bad = openai.BadRequestError
    raises(openai.NotFoundError, model="no-such-model", param="model")
    raises(bad, {"option", "request"}, "temperature", temperature=-1)
    raises(bad, {"option", "request"}, "top_p", top_p=3, temperature=1)
    raises(bad, {"option"}, "max_tokens", max_tokens=100_000_000)
    raises(bad, {"option", "request"}, "n", n=2)
    raises(bad, {"option", "request"}, "stop", stop=["x" * 257])
    raises(bad, {"request"}, tools=[{"type": "function", "function": {"name": "f"}}])
    raises(bad, {"option", "request"}, "compression", extra_body={"compression": "no-such-method"})
    raises(bad, {"option", "request"}, messages=[])
    raises(bad, {"picture"}, messages=[user(QUESTION, url=data_url(b"not a picture"))])
    raises(bad, messages=[user(QUESTION, url="file:///etc/passwd")])
    raises(bad, messages=[user(QUESTION, url="http://127.0.0.1:1/picture.png")])
    raises(bad, {"context_length_exceeded"}, messages=[user("word " * 50_000)])


def keys():
    if not options.key:
        return "SKIPPED, the server has no key"
    for key in "wrong", options.key + "x", options.key[:-1]:
        other = openai.OpenAI(base_url=server.base + "/v1", api_key=key or "none", max_retries=0)
        try:
            other.chat.completions.create(model=MODEL, messages=[user(QUESTION)])
            raise AssertionError(f"accepted the key {key!r}")
        except openai.AuthenticationError as why:
            common.is_error({"error": why.body}, 401)
    for path in "/v1/models", "/metrics", "/v1/overlay/x":
        status, _, data = server.call("GET", path, headers={"Authorization": "Bearer wrong"})
        assert status == 401, (path, status)
        common.is_error(data, status)
    assert server.call("GET", "/health", headers={"Authorization": ""})[0] == 200


def cancel():
    server.idle()
    chunks = ask(stream=True, **LONG)
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    chunks.close()
    return f"nothing runs {server.idle(5):.2f} s after the client has closed the stream"


def overlay():
    path = ask().model_extra["fovea"]["overlay"]
    status, headers, data = server.call("GET", path)
    assert status == 200 and headers["Content-Type"] == "image/png" and data.startswith(b"\x89PNG"), (status, data[:80])
    status, _, data = server.call("GET", "/v1/overlay/no-such-answer")
    assert status == 404
    common.is_error(data, status)


def metrics():
    before = server.metrics()
    ask()
    counters = common.RESPONSES, common.HITS, "fovea_answers_total", "fovea_completion_tokens_total", "fovea_answer_seconds_count"
    # A response is counted when it has been sent, which may be after it is read here.
    end = time.monotonic() + 5
    while True:
        after = server.metrics()
        same = [name for name in counters if server.metric(name, after) <= server.metric(name, before)]
        if not same:
            return f"{len(after)} samples"
        assert time.monotonic() < end, f"not counted: {same}"


def routes():
    for path in "/health", "/ready":
        assert server.call("GET", path)[0] == 200, path
    openapi = json.loads(server.call("GET", "/openapi.json")[2])
    assert openapi["openapi"].startswith("3.") and "/v1/chat/completions" in openapi["paths"]
    for method, path, expected in ("GET", "/v1/none", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/v1/models", 405):
        status, _, data = server.call(method, path, b"{}" if method == "POST" else None)
        assert status == expected, (method, path, status)
        common.is_error(data, status)
    status, _, data = server.call("POST", "/v1/chat/completions", b"{}", {"Content-Type": "text/plain"})
    assert status == 415, status
    common.is_error(data, status)


def other_origins():
    for method in "GET", "OPTIONS":
        ask_for = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        _, headers, _ = server.call(method, "/v1/models", headers=ask_for)
        assert not [name for name in headers if name.lower().startswith("access-control")], dict(headers)
    status, headers, data = server.call("GET", "/v1/models", headers={"Host": "evil.example"})
    # 421 is the answer of a proxy.
    assert status in (403, 421), f"another Host header: {status}"
    if status == 403:
        common.is_error(data, status)


def curl():
    body = json.dumps({"messages": [user(QUESTION)], "stream": True})
    head = ["-H", f"Authorization: Bearer {options.key}"] if options.key else []
    command = ["curl", "-sS", "-N", "-i", *head, "--json", "@-", server.base + "/v1/chat/completions"]
    run = subprocess.run(command, input=body.encode(), capture_output=True, check=True, timeout=60)
    head, _, events = run.stdout.decode().replace("\r\n", "\n").partition("\n\n")
    assert "200 OK" in head and "content-type: text/event-stream" in head.lower(), head
    lines = [line for line in events.split("\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]", lines[-3:]
    whole = "".join(c["delta"].get("content") or "" for line in lines[:-1] for c in json.loads(line[6:])["choices"])
    assert options.other_model or whole.strip() == ANSWER, whole


check = Checks()
for name, function in [
    ("models", models),
    ("an answer", one_answer),
    ("a stream", stream),
    ("several turns", several_turns),
    ("system message, text alone, two pictures", roles),
    ("stop texts", stop),
    ("largest number of tokens", length),
    ("settings and extensions", settings),
    ("errors", errors),
    ("API keys", keys),
    ("a stream that the client closes", cancel),
    ("attention overlay", overlay),
    ("metrics", metrics),
    ("other routes", routes),
    ("no CORS, no other Host", other_origins),
    ("curl", curl),
]:
    check(name, function)
check.end()
