"""What the checks of the server share: its address, requests over plain sockets, pictures, and metrics."""

import argparse
import base64
import http.client
import json
import re
import struct
import time
import traceback
import zlib
from pathlib import Path
from urllib.parse import urlsplit

PICTURES = Path(__file__).parents[2] / "pictures"
# (picture, question, answer of the demo checkpoint)
QUESTIONS = [
    (line["image"], line["question"], line["answer"])
    for line in map(json.loads, (PICTURES / "questions.jsonl").read_text().splitlines())
]


def arguments(about, **defaults):
    """The parser that all checks have; `defaults` adds options."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("address", help="http://HOST:PORT, as `fovea serve` prints it")
    parser.add_argument("--key", help="the API key")
    parser.add_argument("--pid", type=int, help="the process of the server, for its memory (Linux)")
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, help=f"default: {value}")
    return parser


def picture(name):
    return (PICTURES / name).read_bytes()


def data_url(data, kind="image/jpeg"):
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def png(width, height, rows=None):
    """A grey PNG. With `rows` it has fewer rows than its header says."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    lines = zlib.compress((b"\0" + bytes([127]) * width) * (height if rows is None else rows), 9)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def about(url, question, **more):
    """The body of a request: one question about one picture."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}], **more}


class Server:
    """An address and a key."""

    def __init__(self, options):
        parts = urlsplit(options.address)
        self.host, self.port = parts.hostname, parts.port or 80
        self.base = f"http://{self.host}:{self.port}"
        self.key, self.pid = options.key, options.pid

    def headers(self, **more):
        auth = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {**auth, **{name.replace("_", "-"): value for name, value in more.items()}}

    def open(self, timeout=60):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def call(self, method, path, body=None, headers=None, over=None, timeout=60):
        """(status, headers, bytes). A body that is not bytes is sent as JSON. `over`: a connection that is kept."""
        line = over or self.open(timeout)
        head = self.headers() | (headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            head.setdefault("Content-Type", "application/json")
        line.request(method, path, body, head)
        reply = line.getresponse()
        data = reply.read()
        if over is None:
            line.close()
        return reply.status, reply.headers, data

    def ask(self, body, **more):
        status, headers, data = self.call("POST", "/v1/chat/completions", body, **more)
        return status, headers, json.loads(data)

    def metrics(self):
        """The samples of /metrics: name with labels -> value. Fails on a line that Prometheus does not accept."""
        status, headers, data = self.call("GET", "/metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain"), (status, dict(headers))
        samples = {}
        for line in data.decode().splitlines():
            if not line or line.startswith("#"):
                assert re.fullmatch(r"(# (HELP|TYPE|EOF).*)?", line), line
                continue
            found = re.fullmatch(r'([a-zA-Z_:][\w:]*(?:\{(?:\w+="(?:[^"\\]|\\.)*",?)*\})?) (\S+)(?: \d+)?', line)
            assert found, f"not a sample: {line}"
            assert found[1] not in samples, f"twice: {line}"
            samples[found[1]] = float(found[2].replace("Inf", "inf"))
        return samples

    def metric(self, name, samples=None):
        """The sum of the samples whose name and labels begin with `name`. Fails if there are none."""
        found = [value for own, value in (samples or self.metrics()).items() if own.startswith(name)]
        assert found, f"no metric {name}"
        return sum(found)

    def idle(self, seconds=10):
        """Waits until nothing runs and nothing is queued. Returns the time."""
        begin = time.monotonic()
        while True:
            samples = self.metrics()
            if self.metric(RUNNING, samples) == 0 and self.metric(QUEUED, samples) == 0:
                return time.monotonic() - begin
            assert time.monotonic() - begin < seconds, f"still busy after {seconds} s"
            time.sleep(0.05)

    def memory(self):
        """Resident memory of the server in bytes, or None."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024
        except (OSError, TypeError):
            return None


RUNNING, QUEUED, RESPONSES = "fovea_running", "fovea_queue_length", "fovea_responses_total"
HITS, MISSES = 'fovea_cache_requests_total{result="hit"}', 'fovea_cache_requests_total{result="miss"}'


def is_error(data, status):
    """Asserts that a reply is an error of OpenAI's form, and returns it."""
    of = json.loads(data) if isinstance(data, bytes) else data
    assert set(of) == {"error"} and set(of["error"]) == {"message", "type", "param", "code"}, (status, of)
    assert of["error"]["message"] and of["error"]["type"] and of["error"]["code"], of
    assert of["error"]["param"] is None or isinstance(of["error"]["param"], str), of
    return of["error"]


class Checks:
    """Runs checks one after the other, one line each."""

    def __init__(self):
        self.failed = 0

    def __call__(self, name, check):
        begin = time.monotonic()
        try:
            words = check()
        except Exception as why:  # noqa: BLE001: every failure of a check is one line
            self.failed += 1
            line = traceback.extract_tb(why.__traceback__)[-1]
            where = f"{Path(line.filename).name}:{line.lineno}: {line.line}"
            print(f"FAIL {name}: {type(why).__name__}: {str(why) or where}", flush=True)
        else:
            print(f"ok   {name}{': ' + words if words else ''} ({time.monotonic() - begin:.1f} s)", flush=True)

    def end(self):
        print(f"{self.failed} failed" if self.failed else "all passed")
        raise SystemExit(bool(self.failed))
