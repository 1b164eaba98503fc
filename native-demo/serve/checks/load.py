"""Many clients ask `fovea serve` at once: answers per second, latency, fairness between the clients, memory over time.

    python load.py http://127.0.0.1:8080 [--clients 200] [--seconds 120] [--pictures 5] [--key KEY] [--pid PID] [--json FILE]

Every client keeps one connection, asks, waits for the answer, and asks again; every second request is a stream. A client
that gets status 429 waits as `Retry-After` says. The header X-Fovea-Picture has a hash of the picture, for a proxy
(docs/scale.md); --no-hash leaves it out. --servers lists the servers behind a proxy, for their metrics. Exit code 1 if
there is a status other than 200 and 429, if a client got no answer, or if a limit below is exceeded. Standard library only.
"""

import asyncio
import hashlib
import json
import statistics
import time

import common
from common import HITS, MISSES, QUESTIONS, Server, about, data_url, picture, png

parser = common.arguments(__doc__.splitlines()[0], clients=200, seconds=120, pictures=5, json="", servers="")
parser.add_argument("--no-hash", action="store_true", help="without X-Fovea-Picture")
parser.add_argument("--fair", type=float, default=2.0, help="largest ratio of the clients' mean waits (default: 2)")
parser.add_argument("--growth", type=float, default=1.2, help="largest growth of memory after the first quarter (default: 1.2)")
options = parser.parse_args()
server = Server(options)


def requests():
    """(picture, head and body) of every question about every picture, for whole answers and for streams."""
    names = sorted({name for name, _, _ in QUESTIONS})
    own = [(data_url(picture(name)), [q for of, q, _ in QUESTIONS if of == name]) for name in names[: options.pictures]]
    # More pictures than the demo has: grey ones of different sizes.
    more = range(options.pictures - len(own))
    own += [(data_url(png(200 + at, 300), "image/png"), [q for _, q, _ in QUESTIONS[:3]]) for at in more]
    return [[(about(url, q), hashlib.sha256(url.encode()).hexdigest()[:16]) for q in questions] for url, questions in own]


class Client:
    """One connection. Times are in seconds."""

    def __init__(self, number, asked):
        self.number, self.asked = number, asked
        self.waits, self.firsts, self.statuses, self.problem = [], [], {}, None

    async def run(self, until):
        # Not all in the same moment.
        await asyncio.sleep(self.number / options.clients)
        try:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            at = self.number
            while time.monotonic() < until:
                of = self.asked[at % len(self.asked)]
                body, mark = of[at // len(self.asked) % len(of)]
                await self.ask(reader, writer, body | {"user": f"client-{self.number}", "stream": at % 2 == 1}, mark)
                at += 1
            writer.close()
        except (OSError, EOFError, ValueError, AssertionError) as why:
            self.problem = f"client {self.number}: {type(why).__name__}: {why}"

    async def ask(self, reader, writer, body, mark):
        data = json.dumps(body).encode()
        head = {"Host": f"{server.host}:{server.port}", "Content-Type": "application/json", "Content-Length": len(data)}
        head |= server.headers() | ({} if options.no_hash else {"X-Fovea-Picture": mark})
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        begin = time.monotonic()
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + data)
        await writer.drain()
        start = await reader.readuntil(b"\r\n\r\n")
        status = int(start.split(b" ", 2)[1])
        headers = dict(line.split(": ", 1) for line in start.decode().lower().split("\r\n")[1:] if ": " in line)
        whole = b""
        if "content-length" in headers:
            whole = await reader.readexactly(int(headers["content-length"]))
        else:
            assert headers.get("transfer-encoding") == "chunked", headers
            first = True
            while size := int((await reader.readline()).split(b";")[0], 16):
                part = await reader.readexactly(size + 2)
                whole += part[:-2]
                # The first event has the role, the next one text.
                if first and b'"content":"' in whole.replace(b'": "', b'":"').replace(b'"content":""', b""):
                    self.firsts.append(time.monotonic() - begin)
                    first = False
            await reader.readline()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 200:
            assert b"[DONE]" in whole if body["stream"] else b"chat.completion" in whole, whole[-200:]
            self.waits.append(time.monotonic() - begin)
        else:
            common.is_error(whole, status)
            await asyncio.sleep(min(float(headers.get("retry-after", 1)), 5))


async def measure(memory):
    while True:
        memory.append(server.memory())
        await asyncio.sleep(1)


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else None


def cache(of):
    samples = of.metrics()
    return of.metric(HITS, samples), of.metric(MISSES, samples)


async def main():
    asked, memory = requests(), []
    listed = [address for address in options.servers.split(",") if address] or [options.address]
    servers = [Server(parser.parse_args([address] + (["--key", options.key] if options.key else []))) for address in listed]
    before = [cache(of) for of in servers]
    clients = [Client(number, asked) for number in range(options.clients)]
    begin = time.monotonic()
    watching = asyncio.create_task(measure(memory))
    await asyncio.gather(*(client.run(begin + options.seconds) for client in clients))
    watching.cancel()
    seconds = time.monotonic() - begin
    waits = [wait for client in clients for wait in client.waits]
    firsts = [first for client in clients for first in client.firsts]
    means = [statistics.mean(client.waits) for client in clients if client.waits]
    statuses = {}
    for client in clients:
        for status, count in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    memory = [size for size in memory if size]
    settled = memory[len(memory) // 4 :]
    report = {
        "clients": options.clients, "seconds": round(seconds, 1), "pictures": len(asked), "statuses": statuses,
        "answers_per_second": round(len(waits) / seconds, 2),
        "seconds_p50": percentile(waits, 0.5), "seconds_p99": percentile(waits, 0.99), "seconds_max": max(waits, default=None),
        "first_token_p50": percentile(firsts, 0.5), "first_token_p99": percentile(firsts, 0.99),
        "answers_per_client": [min(len(client.waits) for client in clients), max(len(client.waits) for client in clients)],
        "mean_wait_ratio": max(means) / min(means) if means else None,
        "memory_mb": [round(size / 1e6, 1) for size in memory],
        "cache": [
            dict(zip(("address", "hits", "misses"), (of.base, *(now - then for now, then in zip(cache(of), old)))))
            for of, old in zip(servers, before)
        ],
        "problems": [client.problem for client in clients if client.problem][:10],
    }  # fmt: skip
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
    wrong = report["problems"][:]
    if set(statuses) - {200, 429}:
        wrong.append(f"expected only status 200 and 429, got {statuses}")
    if not all(client.waits for client in clients):
        wrong.append(f"{sum(not client.waits for client in clients)} clients got no answer")
    if means and report["mean_wait_ratio"] > options.fair:
        wrong.append(f"the slowest client waits {report['mean_wait_ratio']:.1f} times as long as the fastest")
    if settled and max(settled) > options.growth * settled[0]:
        wrong.append(f"memory rose from {settled[0] / 1e6:.0f} to {max(settled) / 1e6:.0f} MB after the first quarter")
    show = lambda seconds: "-" if seconds is None else f"{seconds * 1e3:.0f}"  # noqa: E731
    line = (
        f"{options.clients} clients, {seconds:.0f} s: {statuses}, {report['answers_per_second']} answers/s; ms p50 {show(report['seconds_p50'])}, "
        f"p99 {show(report['seconds_p99'])}; first token p50 {show(report['first_token_p50'])}, p99 {show(report['first_token_p99'])}; "
        f"answers per client {report['answers_per_client']}, ratio of mean waits {report['mean_wait_ratio'] or 0:.2f}"
    )
    if memory:
        line += f"; memory {memory[0] / 1e6:.0f} MB, {settled[0] / 1e6:.0f} after a quarter, {memory[-1] / 1e6:.0f} at the end"
    print(line)
    for of in report["cache"]:
        print(f"  {of['address']}: picture cached {of['hits']:.0f}, computed {of['misses']:.0f}")
    for why in wrong:
        print(f"FAIL {why}")
    raise SystemExit(bool(wrong))


asyncio.run(main())
