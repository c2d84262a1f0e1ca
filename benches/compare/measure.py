"""Measures servers in turn: rounds of all servers for the tables, and pairs of two versions of Postern."""

import collections
import dataclasses
import statistics
import sys

from jobs import HIT, HTTP1, MISS

# Time in seconds to fill the caches.
WARM_UP = 1
# The fixed rate, as a share of nginx's capacity for the same job.
SHARE = 0.7
# The fixed rate is no more than this share of what the generator can send, since latencies would be the generator's own.
GENERATOR_SHARE = 0.75
# Share of the fixed rate that has to be reached.
REACHED = 0.98


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run without a fixed rate."""

    # CPU time per request in microseconds.
    cpu: float
    # Requests per second.
    rate: float
    # The shares of requests without success, and of those that reached the origin.
    failed: float
    missed: float


@dataclasses.dataclass
class Results:
    """Samples and latencies by section, row and name of the server, one of each round; the rates by section and row."""

    samples: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    latencies: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    rates: dict = dataclasses.field(default_factory=dict)
    # Sections and rows whose rate is limited by the generator.
    limited: set = dataclasses.field(default_factory=set)
    # For each row: pairs of samples of the older and the present program.
    pairs: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    requests: int = 0
    log_lines: int = 0

    def capacity(self, section, row, server):
        return statistics.median(sample.rate for sample in self.samples[section, row, server])


class Measurement:
    """Measures the servers with so many workers."""

    def __init__(self, servers, generators, results):
        self.servers, self.generators, self.results = servers, generators, results

    def sample(self, protocol, row, name, seconds):
        server = self.servers.by_name[name]
        origin, before = self.servers.requests_of_origin(), server.cpu_seconds()
        load = self.generators.saturate(protocol, row, server.ports.of(protocol, row), seconds)
        used = server.cpu_seconds() - before
        self.count(name, load.requests)
        requests = max(1, load.requests)
        missed = (self.servers.requests_of_origin() - origin - 1) / requests
        return Sample(used / requests * 1e6, load.requests / load.seconds, load.failed, missed)

    def count(self, name, requests):
        if name in ("postern", "old"):
            self.results.requests += requests

    def section(self, section, rounds, seconds):
        """Measures all rows of a section: first CPU time, then latencies at the rate that follows from nginx's capacity."""
        self.each("warm-up", section, 1, lambda row, name: row.is_miss or self.sample(section.protocol, row, name, WARM_UP))
        take = lambda row, name: self.results.samples[section, row, name].append(self.sample(section.protocol, row, name, seconds))
        self.each("CPU time", section, rounds, take)
        for row in section.rows:
            self.choose_rate(section, row)
        self.each("latency", section, rounds, lambda row, name: self.latency(section, row, name, seconds))

    def choose_rate(self, section, row):
        # Other servers than Postern have no row for other credentials; a hit is compared with their hits.
        wanted = SHARE * self.results.capacity(section, row if row.is_plain else HIT, "nginx")
        direct = self.servers.by_name["direct"].ports.of(section.protocol, HIT)
        possible = GENERATOR_SHARE * self.generators.capacity(section.protocol, row, direct, WARM_UP)
        self.results.rates[section, row] = min(wanted, possible)
        if possible < wanted:
            self.results.limited.add((section, row))

    def latency(self, section, row, name, seconds):
        rate = self.results.rates[section, row]
        port = self.servers.by_name[name].ports.of(section.protocol, row)
        latency = self.generators.at_rate(section.protocol, row, port, rate, seconds)
        self.count(name, latency.requests)
        self.results.latencies[section, row, name].append(latency)

    def each(self, what, section, rounds, act):
        for number in range(rounds):
            print(f"{section.name}: {what}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for row in section.rows:
                for name in section.servers_of(row):
                    act(row, name)

    def pairs(self, count, seconds):
        """Measures the older and the present program in turn, and the other way round in every second pair."""
        for row in (HIT, MISS):
            for number in range(count + 1):
                order = ("old", "postern") if number % 2 else ("postern", "old")
                pair = {name: self.sample(HTTP1, row, name, seconds if number else WARM_UP) for name in order}
                if number:
                    self.results.pairs[row].append((pair["old"], pair["postern"]))


def reached(latencies, rate):
    """True if the fixed rate was reached, as a median of all rounds."""
    return statistics.median(latency.rate for latency in latencies) >= REACHED * rate
