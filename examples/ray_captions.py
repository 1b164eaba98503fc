"""Captions of many pictures with Ray: every worker is one process of `fovea batch`, and answers its share of the lines.

    pip install ray
    python examples/ray_captions.py requests.jsonl answers.jsonl --workers 2 [--fovea PATH] [-- --model DIR --device cpu ...]

`requests.jsonl` is the input of `fovea batch` (docs/cli.md). Without a cluster Ray starts on this machine. On a cluster all
machines need the program, the pictures, the input and the folder of the answers at the same paths, such as a shared file
system. A worker that is killed, or whose machine is lost, is started again, and continues after its last complete line. The
same command also continues a stopped run. Arguments after `--` go to `fovea batch`.
"""

import argparse
import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ray

# Exit codes of `fovea batch` that another try does not change: usage, checkpoint, questions, device, memory.
FINAL = {2, 3, 4, 5, 6}


class Stopped(Exception):
    """A worker ended before its last line; Ray starts it again."""


def die_with_parent():
    """Linux: a killed worker of Ray leaves no process behind, which would keep the file of the answers locked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@ray.remote(max_retries=20, retry_exceptions=[Stopped])
def answer(command, threads):
    """Runs one share to its end. Returns what `fovea batch` prints, and the seconds of this try."""
    begin = time.monotonic()
    # Processes on one machine share its cores, instead of each using them all.
    settings = {"RAYON_NUM_THREADS": str(threads)} if threads else {}
    run = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | settings, preexec_fn=die_with_parent, check=False
    )
    if run.returncode in FINAL:
        raise RuntimeError(f"{' '.join(command)}: exit code {run.returncode}: {run.stderr[-2000:]}")
    if run.returncode != 0:
        time.sleep(1)
        raise Stopped(f"exit code {run.returncode}: {run.stderr[-2000:]}")
    return run.stderr.strip().splitlines()[-1], time.monotonic() - begin


def join(shares, out):
    """Writes the lines of all shares in the order of the input. Returns their number and that of the errors."""
    count = errors = 0
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        opened = [share.open("rb") for share in shares]
        # Share I has the lines I, I + N, I + 2N and so on.
        for line in (line for row in itertools.zip_longest(*opened) for line in row if line is not None):
            of = json.loads(line)
            count += 1
            assert of["line"] == count, f"expected line {count}, got {of['line']}"
            errors += of.get("error") is not None
            file.write(line)
        for share in opened:
            share.close()
    partial.replace(out)
    return count, errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requests", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--workers", type=int, default=2, help="number of shares, each with a model in memory (default: 2)")
    parser.add_argument("--fovea", default="fovea", help="the program (default: fovea)")
    parser.add_argument("--cpus", type=float, default=1, help="cores per worker, as Ray counts them (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs per worker, as Ray counts them (default: 0)")
    parser.add_argument("--threads", type=int, default=0, help="threads per worker (default: one per core of its machine)")
    own = sys.argv[1:]
    at = own.index("--") if "--" in own else len(own)
    options, more = parser.parse_args(own[:at]), own[at + 1 :]

    ray.init(ignore_reinit_error=True, log_to_driver=False)
    begin = time.monotonic()
    source, out, workers = options.requests.resolve(), options.answers.resolve(), options.workers
    shares = [out.with_name(f"{out.stem}-{i}-of-{workers}{out.suffix}") for i in range(1, workers + 1)]
    remote = answer.options(num_cpus=options.cpus, num_gpus=options.gpus)
    running = []
    for i, share in enumerate(shares, 1):
        command = [options.fovea, "batch", "--shard", f"{i}/{workers}", str(source), str(share), *more]
        running.append(remote.remote(command, options.threads))
    for share, (words, seconds) in zip(shares, ray.get(running)):
        print(f"{share.name}: {words}; last try {seconds:.1f} s", file=sys.stderr)
    count, errors = join(shares, out)
    seconds = time.monotonic() - begin
    print(f"{count} lines, {errors} errors, {seconds:.1f} s, {count / seconds:.1f} lines/s", file=sys.stderr)


if __name__ == "__main__":
    main()
