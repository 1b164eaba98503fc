"""Attacks `fovea serve`, while a normal client keeps asking. Standard library only.

    python hostile.py http://127.0.0.1:8080 [--key KEY] [--pid PID] [--quick]

The server has the default limits. With --pid its memory is measured (Linux). --quick opens fewer connections. Every
check reports how the server refuses an attack, and the longest time that the normal client waited meanwhile.
"""

import http.client
import json
import os
import random
import resource
import socket
import threading
import time
import zlib
from contextlib import contextmanager

import common
from common import QUESTIONS, Checks, Server, about, data_url, is_error, picture, png

parser = common.arguments(__doc__.splitlines()[0], connections=10_000)
parser.add_argument("--quick", action="store_true", help="about 50 s: 2000 connections, 64 MB instead of 1 GB")
options = parser.parse_args()
server = Server(options)
GIGABYTE = 64_000_000 if options.quick else 1_000_000_000
CONNECTIONS = min(options.connections, 2000) if options.quick else options.connections
NAME, QUESTION, _ = QUESTIONS[1]
GOOD = about(data_url(picture(NAME)), QUESTION)
CHAT = "/v1/chat/completions"
AUTH = f"Authorization: Bearer {server.key}\r\n" if server.key else ""
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: {server.host}\r\n{AUTH}Content-Type: application/json\r\n"
# Longest time of one question of the normal client, seconds.
PATIENCE = 10


class Normal(threading.Thread):
    """A client that asks all the time, over one connection."""

    def __init__(self, patience):
        super().__init__(daemon=True)
        self.slowest, self.answers, self.problem, self.going = 0, 0, None, True
        self.line = server.open(patience)
        self.ask()
        self.start()

    def ask(self):
        # A separate client: those that attack have the same address.
        status, _, answer = server.ask(GOOD | {"user": "normal"}, over=self.line)
        assert status == 200 and answer["choices"], (status, answer)

    def run(self):
        while self.going and not self.problem:
            begin = time.monotonic()
            try:
                self.ask()
                self.answers += 1
            except Exception as why:  # noqa: BLE001: reported by `end`
                self.problem = f"{type(why).__name__}: {why}"
            self.slowest = max(self.slowest, time.monotonic() - begin)
            time.sleep(0.05)

    def end(self):
        self.going = False
        self.join()
        self.line.close()
        assert not self.problem, f"the normal client got no answer: {self.problem}"
        assert self.answers, "the normal client did not ask"
        return f"normal client: {self.answers} answers, slowest {self.slowest * 1e3:.0f} ms"


@contextmanager
def meanwhile(words, patience=PATIENCE):
    """Runs a normal client during a block. `words` gets a line about it."""
    normal = Normal(patience)
    yield
    words.append(normal.end())


def connect(timeout=20, narrow=False):
    line = socket.socket()
    if narrow:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    line.settimeout(timeout)
    line.connect((server.host, server.port))
    return line


def rest(line, most=1 << 20):
    """All bytes until the server closes, or None if it does not close in time."""
    data = b""
    try:
        while len(data) < most and (part := line.recv(65536)):
            data += part
    except ConnectionError:
        pass
    except TimeoutError:
        return None
    return data


def status_of(data):
    return int(data.split(b" ", 2)[1]) if data.startswith(b"HTTP/") else 0


def raw(data, timeout=45):
    """Sends bytes; returns the status, or 0 if the server closes without a reply."""
    with connect(timeout) as line:
        try:
            line.sendall(data)
        except OSError:
            pass
        reply = rest(line, most=1)
        assert reply is not None, f"neither a reply nor an end within {timeout} s for {data[:60]!r}"
        return status_of(reply)


def slow():
    """Clients that send their request byte by byte, that stop in the middle of a body, and that never read."""
    words, ends = [], {}
    with meanwhile(words):
        begin = time.monotonic()
        kinds = {
            "no header": (b"", b""),
            "header byte by byte": (b"", HEAD.encode()),
            "body that stalls": (HEAD.encode() + b"Content-Length: 1000\r\n\r\n{", b""),
            "chunk that stalls": (HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n{", b""),
        }
        lines = []
        for kind, (first, later) in kinds.items():
            for _ in range(25):
                line = connect()
                line.sendall(first)
                line.setblocking(False)
                lines.append((kind, later, line))
        at = 0
        while lines and time.monotonic() - begin < 60:
            time.sleep(1)
            for entry in list(lines):
                kind, later, line = entry
                try:
                    if at < len(later):
                        line.send(later[at : at + 1])
                    over = True
                    while line.recv(4096):
                        pass
                except BlockingIOError:
                    over = False
                except OSError:
                    pass
                if over:
                    ends[kind] = time.monotonic() - begin
                    line.close()
                    lines.remove(entry)
            at += 1
    left = {kind for kind, _, line in lines if not line.close()}
    assert not left, f"still open after 60 s: {left}"
    return "; ".join([f"{kind}: closed after {seconds:.0f} s" for kind, seconds in ends.items()] + words)


def deaf():
    """More clients than the queue has room for, which ask for long streams and never read them, or go at once."""
    words = []
    body = json.dumps(GOOD | {"stream": True, "temperature": 100, "max_tokens": 512}).encode()
    request = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with meanwhile(words):
        lines = []
        for _ in range(150):
            line = connect(narrow=True)
            line.sendall(request)
            lines.append(line)
        time.sleep(1)
        for line in lines[::2]:
            line.close()
        for _ in range(150):
            with connect() as line:
                line.sendall(request)
        time.sleep(2)
    for line in lines[1::2]:
        line.close()
    return f"idle {server.idle(30):.1f} s after the last one has gone; {words[0]}"


def many_connections():
    """More connections than the server accepts, which send nothing."""
    words, lines = [], []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    count = min(CONNECTIONS, limit - 200)
    with meanwhile(words):
        begin, refused = time.monotonic(), 0
        for _ in range(count):
            try:
                lines.append(connect(5))
            except OSError:
                refused += 1
        opened = time.monotonic() - begin
        time.sleep(1)
        found = {"open": 0, "answered 503": 0, "closed": 0, "refused": refused}
        for line in lines:
            line.setblocking(False)
            try:
                found["answered 503" if line.recv(64).startswith(b"HTTP/1.1 503") else "closed"] += 1
            except BlockingIOError:
                found["open"] += 1
            except OSError:
                found["closed"] += 1
        # The header's time limit ends those that were accepted; then there is room for others, while all still wait.
        served, since = None, time.monotonic()
        while time.monotonic() - since < 30:
            try:
                if server.ask(GOOD, timeout=5)[0] == 200:
                    served = time.monotonic() - since
                    break
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.5)
    for line in lines:
        line.close()
    assert served is not None, "a new client was not served within 30 s"
    kinds = ", ".join(f"{number} {kind}" for kind, number in found.items() if number)
    return f"{count} in {opened:.1f} s: {kinds}; a new client was served {served:.1f} s later; {words[0]}"


def large_bodies():
    """A body of 1 GB, announced and in chunks of unknown number. The server may read and drop some of it before it closes."""
    words, found = [], []
    before = server.memory()
    most = before or 0
    with meanwhile(words):
        for kind in "Content-Length", "chunked":
            length = f"Content-Length: {GIGABYTE}" if kind == "Content-Length" else "Transfer-Encoding: chunked"
            sent, block = 0, b" " * (1 << 20)
            reply, closed = b"", False
            with connect() as line:
                line.sendall(f"{HEAD}{length}\r\n\r\n".encode())
                try:
                    while sent < GIGABYTE and not closed:
                        line.sendall(block if kind == "Content-Length" else b"100000\r\n" + block + b"\r\n")
                        sent += len(block)
                        most = max(most, server.memory() or 0)
                        line.setblocking(False)
                        try:
                            part = line.recv(65536)
                            reply, closed = reply + part, not part
                        except BlockingIOError:
                            pass
                        line.settimeout(20)
                except OSError:
                    closed = True
                if not closed:
                    if kind == "chunked":
                        line.sendall(b"0\r\n\r\n")
                    reply += rest(line) or b""
            status = status_of(reply)
            assert status in (413, 0), f"{kind}: status {status}"
            found.append(f"{kind}: {status or 'closed'} after {sent / 1e6:.0f} MB")
    if before:
        assert most - before < 300e6, f"memory rose by {(most - before) / 1e6:.0f} MB"
        found.append(f"memory +{(most - before) / 1e6:.0f} MB")
    return "; ".join(found + words)


def no_json():
    bodies = [
        b"", b"{", b"[]", b"null", b"1", b'"text"', b"{}", b"\xff\xfe\x00", b'{"messages": "\xff"}', b"\xef\xbb\xbf{}",
        b'{"messages": [}', b'{"a": NaN}', b'{"a": 1e999}', b"[" * 1_000_000, b'{"a":' * 500_000, b'{"messages": "\\ud800"}',
        b"{'messages': []}", b'{"messages": []} x', b"\0" * 1000, bytes(range(256)) * 4, b'{"max_tokens": ' + b"9" * 100_000 + b"}",
    ]  # fmt: skip
    words = []
    with meanwhile(words):
        for body in bodies:
            status, _, data = server.call("POST", CHAT, body)
            assert status == 400, (status, body[:40], data[:200])
            is_error(data, status)
    return f"{len(bodies)} bodies; {words[0]}"


def wrong_requests():
    text = {"role": "user", "content": "x"}
    image = GOOD["messages"][0]["content"][0]
    messages = [
        None, [], {}, "x", 5, [None], [1], ["x"], [[]], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}],
        [{"role": 1, "content": "x"}], [{"role": "user", "content": 1}], [{"role": "user", "content": []}],
        [{"role": "user", "content": [1]}], [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}], [{"role": "assistant", "content": "x"}],
        [{"role": "system", "content": [image]}, text], [text, {"role": "assistant", "content": "x"}], [text] * 3000,
        [{"role": "user", "content": [image] * 100 + [{"type": "text", "text": "x"}]}], [{"role": "user", "content": "x" * 5_000_000}],
    ]  # fmt: skip
    bodies = [{"messages": m} for m in messages]
    for key, values in {
        "model": [1, [], "no-such-model", "../../etc/passwd", "x" * 100_000],
        "temperature": [-1, "a", [], -1e308], "top_p": [-1, 2, "a"], "top_k": [-1, 1.5, "a"],
        "seed": [-1, 1.5, "a", 2**64], "max_tokens": [-1, 1.5, "a", 2**63, 10**30], "n": [2, "a"], "stop": [5, [5], ["x" * 257], ["x"] * 17],
        "stream": [1, "yes"], "stream_options": [1, {"x": 1}], "compression": [1, "nothing", "focus:gamma=9", "x" * 100_000, "+" * 10_000],
        "repetition_penalty": [0, -1, "a"], "tools": [[{"type": "function"}]], "response_format": [{"type": "json_object"}, 1],
        "logprobs": [True], "unknown": [1],
    }.items():  # fmt: skip
        bodies += [GOOD | {key: value} for value in values]
    words, seen = [], {}
    with meanwhile(words):
        for body in bodies:
            status, _, data = server.call("POST", CHAT, body)
            short = json.dumps({k: v for k, v in body.items() if k != "messages"} or body)[:100]
            assert status in (400, 404, 413), (status, short, data[:200])
            assert is_error(data, status)["message"].isprintable(), (short, data[:200])
            assert len(data) < 10_000, f"an error of {len(data)} bytes for {short}"
            seen[status] = seen.get(status, 0) + 1
    return f"{len(bodies)} requests, {seen}; {words[0]}"


def bad_pictures():
    """Pictures that can't be read, are too large once decoded, or are addresses of the server's own network."""
    jpeg, good = picture(NAME), png(64, 64)
    cuts = [jpeg[: len(jpeg) // 8], jpeg[:3], good[: len(good) // 2], good[:33]]
    noise = random.Random(7)
    data = {
        "empty": b"", "text": b"hello" * 100, "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "pdf": b"%PDF-1.7\n" * 50,
        "tiff": b"II*\0" + b"\0" * 100, "icon": b"\0\0\1\0\1\0" + b"\0" * 100, "zip": b"PK\3\4" + b"\0" * 100, "noise": noise.randbytes(5000),
        "gzip": zlib.compress(good), "png head": b"\x89PNG\r\n\x1a\n", "no pixels": png(0, 0), "one row missing": png(64, 64, rows=1),
        "wide": png(70_000, 1), "tall": png(1, 70_000), "bomb": png(20_000, 20_000, rows=2000), "bomb by its header": png(2**31 - 1, 2**31 - 1, rows=0),
        "gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;", "webp": b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0" + b"\0" * 24,
        "bmp": b"BM" + b"\xff" * 12 + b"\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + b"\1\0\x18\0" + b"\0" * 24,
    }  # fmt: skip
    data |= {f"cut {at}": cut for at, cut in enumerate(cuts)}
    urls = {name: data_url(bytes_, "image/png") for name, bytes_ in data.items()}
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    hosts = [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "user@127.0.0.1", "127.0.0.1.", "localhost.",
    ]  # fmt: skip
    urls |= {host: f"http://{host}:{port}/picture.png" for host in hosts}
    others = [
        "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/x", "http://192.168.0.1/x", "http://[fe80::1]/x", "http://[fc00::1]/x",
        "http://100.64.0.1/x", "http://224.0.0.1/x", "http://", "http:///x", "http://\0/", "https://:443/", "ftp://127.0.0.1/x", "file:///etc/passwd",
        "/etc/passwd", "../../etc/passwd", "picture.jpg", "", " ", "data:", "data:,", "data:image/png;base64", "data:image/png;base64,???",
        "data:image/png,abc", "javascript:1", "x" * 1_000_000, "data:" + ";" * 100_000 + ",", "DATA:IMAGE/PNG;BASE64,AAAA",
    ]  # fmt: skip
    urls |= {url[:60]: url for url in others}
    words, before = [], server.memory()
    with meanwhile(words):
        for name, url in urls.items():
            status, _, of = server.ask(about(url, QUESTION), timeout=30)
            assert status in (400, 413), (name, status, str(of)[:200])
            is_error(of, status)
            try:
                listener.accept()
                raise AssertionError(f"{name}: the server connected to itself")
            except BlockingIOError:
                pass
        # Every byte of a picture may be wrong. Some changes leave it readable; none is a failure of the server.
        for _ in range(50):
            broken = bytearray(jpeg)
            for _ in range(20):
                broken[noise.randrange(len(broken))] = noise.randrange(256)
            status, _, of = server.ask(about(data_url(bytes(broken)), QUESTION, max_tokens=1))
            assert status in (200, 400), (status, str(of)[:200])
    listener.close()
    if before:
        grown = (server.memory() - before) / 1e6
        assert grown < 700, f"memory rose by {grown:.0f} MB"
        words.append(f"memory +{grown:.0f} MB")
    return f"{len(urls)} pictures and 50 broken ones; {'; '.join(words)}"


def huge_pictures():
    """Small files of the largest pictures that are accepted, eight in one request."""
    url = data_url(png(8000, 16_000), "image/png")
    part = {"type": "image_url", "image_url": {"url": url}}
    content = [part] * 8 + [{"type": "text", "text": QUESTION}]
    words, before = [], server.memory()
    most = [before or 0]
    watch = threading.Event()

    def measure():
        while not watch.wait(0.05):
            most[0] = max(most[0], server.memory() or 0)

    with meanwhile(words, 60):
        thread = threading.Thread(target=measure)
        thread.start()
        status, _, of = server.ask({"messages": [{"role": "user", "content": content}]}, timeout=120)
        watch.set()
        thread.join()
    assert status in (200, 400, 413, 507), (status, str(of)[:200])
    if before:
        grown = (most[0] - before) / 1e6
        assert grown < 4500, f"memory rose by {grown:.0f} MB"
        words.append(f"memory +{grown:.0f} MB")
    return f"8 files of {len(url) / 1e3:.0f} kB: status {status}; {'; '.join(words)}"


def bad_headers():
    body = json.dumps(GOOD).encode()
    size = f"Content-Length: {len(body)}\r\n"
    get = f"GET /v1/models HTTP/1.1\r\nHost: {server.host}\r\n{AUTH}"
    cases = {
        "a header of 1 MB": get + f"X: {'x' * 1_000_000}\r\n\r\n", "10000 headers": get + "X: y\r\n" * 10_000 + "\r\n",
        "a path of 1 MB": f"GET /{'x' * 1_000_000} HTTP/1.1\r\nHost: {server.host}\r\n\r\n", "no HTTP": "hello\r\n\r\n", "only lines": "\r\n" * 1000,
        "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "x" * 500, "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0" * 30, "HTTP/9": get.replace("1.1", "9.9") + "\r\n",
        "NUL": get + "X: a\0b\r\n\r\n", "a space before the colon": get + "X : a\r\n\r\n", "a folded header": get + "X: a\r\n b\r\n\r\n",
        "no Host": "GET /v1/models HTTP/1.1\r\n" + AUTH + "\r\n", "another Host": f"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n{AUTH}\r\n",
        "two Hosts": get + "Host: evil.example\r\n\r\n", "another Host in the path": f"GET http://evil.example/v1/models HTTP/1.1\r\nHost: {server.host}\r\n{AUTH}\r\n",
        "two lengths": HEAD + size + "Content-Length: 5\r\n\r\n", "negative length": HEAD + "Content-Length: -1\r\n\r\n", "length of 2^70": HEAD + f"Content-Length: {2**70}\r\n\r\n",
        "length that is no number": HEAD + "Content-Length: x\r\n\r\n", "both lengths": HEAD + size + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "wrong chunk": HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "huge chunk": HEAD + "Transfer-Encoding: chunked\r\n\r\n" + "f" * 16 + "\r\n",
        "wrong coding": HEAD + "Transfer-Encoding: gzip\r\n\r\n", "gzip body": HEAD + "Content-Encoding: gzip\r\n" + size + "\r\n" + "x" * len(body),
        "no content type": f"POST {CHAT} HTTP/1.1\r\nHost: {server.host}\r\n{AUTH}{size}\r\n" + body.decode(), "no length": HEAD + "\r\n",
        "TRACE": get.replace("GET", "TRACE") + "\r\n", "CONNECT": "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "a method": get.replace("GET", "X" * 10_000) + "\r\n",
    }  # fmt: skip
    for path in "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/overlay/..%2f..%2fetc%2fpasswd", "/v1/models/%00", "/v1/models/%ff", "//", "/%", "/v1/models/../../x":
        cases[path] = f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n{AUTH}Connection: close\r\n\r\n"
    words, seen = [], {}
    # Only these may be accepted: unusual, not wrong.
    harmless = {"a space before the colon", "a folded header", "HTTP/9", "both lengths", "/v1/models/../../x", "//", "/"}
    with meanwhile(words):
        for name, data in cases.items():
            status = raw(data.encode("latin-1"))
            assert status < 500 or status in (501, 505), (name, status)
            assert status >= 400 or status == 0 or name in harmless, (name, status)
            seen[status] = seen.get(status, 0) + 1
        # Many requests in one write are answered one by one, in their order.
        replies = raw_many(get + "\r\n", 200)
        assert replies == 200, f"{replies} of 200 requests in one write were answered"
    return f"{len(cases)} requests, {dict(sorted(seen.items()))} (0: closed); {words[0]}"


def raw_many(request, count):
    with connect() as line:
        line.sendall((request * (count - 1) + request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).encode())
        return (rest(line, 1 << 24) or b"").count(b"HTTP/1.1 200")


def afterwards(first, memory):
    assert server.call("GET", "/health")[0] == 200 and server.call("GET", "/ready")[0] == 200
    server.idle(30)
    status, _, answer = server.ask(GOOD)
    assert status == 200 and answer["choices"] == first["choices"], "another answer than before the attacks"
    if memory:
        return f"memory {memory / 1e6:.0f} -> {server.memory() / 1e6:.0f} MB"


if __name__ == "__main__":
    if options.pid:
        os.kill(options.pid, 0)
    status, _, first = server.ask(GOOD)
    assert status == 200, first
    memory = server.memory()
    check = Checks()
    check("JSON that is none", no_json)
    check("requests with wrong values", wrong_requests)
    check("bad pictures and addresses", bad_pictures)
    check("huge pictures", huge_pictures)
    check("bad headers", bad_headers)
    check("large bodies", large_bodies)
    check("clients that never read, or leave", deaf)
    check("slow clients", slow)
    check("many connections", many_connections)
    check("afterwards", lambda: afterwards(first, memory))
    check.end()
