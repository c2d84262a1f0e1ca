"""Load generators: wrk for HTTP/1.1 and h2load for HTTP/2 send as fast as they can, oha sends at a fixed rate."""

import contextlib
import dataclasses
import json
import math
import os
import random
import re
import sqlite3
import subprocess

from jobs import ACCOUNTS, PAGES, headers, target
from servers import ROOT

OHA = "1.16.0"
# Requests that are sent at once.
CONNECTIONS = 64
# Streams of each connection of HTTP/2.
STREAMS = 4
# Time in seconds until all connections are open. Latencies of requests that are due before it do not count.
SETTLING = 0.3
# The caller of the load generators that send the headers of one caller only.
CALLER = 3
# More than one run sends of requests that miss the cache.
MOST_MISSES_A_SECOND = 60_000


@dataclasses.dataclass(frozen=True)
class Load:
    """Requests that were answered, in how many seconds, and the share of them without success."""

    requests: int
    seconds: float
    failed: float


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latencies at a fixed rate, in microseconds, and the rate that was reached."""

    rate: float
    p50: float
    p99: float
    failed: float
    # All requests that were answered.
    requests: int


def install_oha():
    """Returns the path of oha. It is built with optimisation, unlike the programs of .ci/cargo-tools."""
    root = ROOT / "target" / "bench-tools"
    done = root / f".oha@{OHA}"
    if not done.exists():
        environment = {**os.environ, "CARGO_TARGET_DIR": str(root / "build")}
        install = ["cargo", "install", "--quiet", "--locked", "--root", str(root), f"oha@{OHA}"]
        subprocess.run(install, check=True, env=environment)
        done.touch()
    return str(root / "bin" / "oha")


def wrk_script(row):
    """A script for all callers in turn; each thread asks for pages of its own if they are to miss the cache."""
    callers = ", ".join(
        "{ " + ", ".join(f'["{name}"] = "{value}"' for name, value in headers(row, n).items()) + " }" for n in range(ACCOUNTS)
    )
    page = "first + n" if row.is_miss else f"1 + n % {PAGES}"
    before, after = target("|").split("|")
    return f"""local callers = {{ {callers} }}
local n, threads = 0, 0
setup = function(thread)
  thread:set("number", threads)
  threads = threads + 1
end
init = function(arguments)
  first = tonumber(arguments[1]) + number * 10000000
end
request = function()
  n = n + 1
  return wrk.format("GET", "{before}" .. ({page}) .. "{after}", callers[n % {ACCOUNTS} + 1])
end
"""


class Generators:
    """Sends requests from the given cores."""

    def __init__(self, folder, cores, oha):
        self.folder, self.cores, self.oha_program = folder, cores, oha

    def saturate(self, protocol, row, port, seconds):
        """Sends as many requests as the server answers."""
        return (self.h2load if protocol.is_http2 else self.wrk)(protocol, row, port, seconds)

    def run(self, *command):
        return subprocess.run(["taskset", "-c", self.cores, *command], capture_output=True, text=True, check=True).stdout

    def wrk(self, protocol, row, port, seconds):
        script = self.folder / f"{row.name}.lua"
        if not script.exists():
            script.write_text(wrk_script(row))
        threads = str(min(4, len(self.cores.split(","))))
        options = ["-t", threads, "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", str(script)]
        output = self.run("wrk", *options, url(protocol, port), "--", str(random.randrange(1, 10**9)))
        requests, taken = re.search(r"(\d+) requests in ([\d.]+)s", output).groups()
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        return Load(int(requests), float(taken), (int(failed[1]) if failed else 0) / max(1, int(requests)))

    def h2load(self, protocol, row, port, seconds):
        # Every connection sends the same targets in the same order. So that each misses the cache, there is only one.
        connections, streams = (1, CONNECTIONS) if row.is_miss else (CONNECTIONS // STREAMS, STREAMS)
        first = random.randrange(1, 10**9)
        pages = range(first, first + MOST_MISSES_A_SECOND * seconds) if row.is_miss else range(1, PAGES + 1)
        targets = self.folder / "targets"
        targets.write_text("".join(f"{url(protocol, port)}{target(page)}\n" for page in pages))
        options = ["-t", "1", "-c", str(connections), "-m", str(streams), "-D", str(seconds), "-i", str(targets)]
        output = self.run("h2load", *options, *header_options(row))
        requests = int(re.search(r"requests: .* (\d+) done", output)[1])
        succeeded = int(re.search(r"status codes: (\d+) 2xx", output)[1])
        return Load(requests, seconds, max(0, 1 - succeeded / max(1, requests)))

    def at_rate(self, protocol, row, port, rate, seconds):
        """Sends requests at a fixed rate. A request's latency counts from the moment at which it was due."""
        database = self.folder / "latencies.db"
        database.unlink(missing_ok=True)
        options = ["--latency-correction", "-q", str(round(rate)), "-z", f"{seconds + SETTLING}s", "--db-url", str(database)]
        result = self.oha(protocol, row, port, options)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT duration * 1e6, status FROM oha WHERE start_latency_correction >= ? ORDER BY duration", (SETTLING,)
            ).fetchall()
        # What was under way at the end is no failure.
        failed = sum(count for error, count in result["errorDistribution"].items() if "deadline" not in error)
        failed = min(1, (failed + sum(status != 200 for _, status in rows)) / max(1, len(rows)))
        percentile = lambda share: rows[int(share * len(rows))][0] if rows else math.inf
        return Latency(len(rows) / seconds, percentile(0.5), percentile(0.99), failed, sum(result["statusCodeDistribution"].values()))

    def capacity(self, protocol, row, port, seconds):
        """Returns the rate at which oha can send to a server."""
        return self.oha(protocol, row, port, ["-z", f"{seconds}s"])["summary"]["requestsPerSec"]

    def oha(self, protocol, row, port, options):
        common = ["--no-tui", "--output-format", "json", "--insecure", "--disable-compression"]
        if protocol.is_http2:
            common += ["--http2", "-c", str(CONNECTIONS // STREAMS), "-p", str(STREAMS)]
        else:
            common += ["-c", str(CONNECTIONS)]
        if row.is_miss:
            # Dots stand for themselves.
            where = ["--rand-regex-url", url(protocol, port) + target("[1-9][0-9]{8}").replace("?", r"\?")]
        else:
            targets = self.folder / "targets"
            targets.write_text("".join(f"{url(protocol, port)}{target(page)}\n" for page in range(1, PAGES + 1)))
            where = ["--urls-from-file", str(targets)]
        return json.loads(self.run(self.oha_program, *common, *options, *header_options(row), *where))


def url(protocol, port):
    return f"{'https' if protocol.has_tls else 'http'}://127.0.0.1:{port}"


def header_options(row):
    return [option for name, value in headers(row, CALLER).items() for option in ("-H", f"{name}: {value}")]
