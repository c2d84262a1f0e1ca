"""Prints what was measured, as tables and beside the bounds that Postern is to keep."""

import math
import statistics

from jobs import HIT, JWT, MISS, SESSION, ZSTD
from measure import reached

# Bounds of the CPU time per request, as ratios to other servers.
BOUNDS = {(HIT, "nginx"): 0.50, (HIT, "haproxy"): 0.70, (HIT, "hyper"): 1.30, (MISS, "nginx"): 0.60, (MISS, "haproxy"): 1.30}
# The 99th percentile of latency is no worse than theirs, in any row.
NO_WORSE_THAN = ("nginx", "haproxy")


class Report:
    def __init__(self, results, sections):
        self.results, self.sections = results, sections

    def lines(self):
        for section in self.sections:
            yield from self.table(section)
            yield ""
        yield from self.of_pairs()
        yield from self.of_bounds()
        yield ""
        yield f"log lines per request to postern: {self.results.log_lines / max(1, self.results.requests):.2f}"

    def table(self, section):
        yield f"{section.name:30}{'as many requests as it answers':>48}{'at a fixed rate':>43}"
        yield (
            f"{'':12}{'':8}{'cpu us/req':>11}{'req/s':>8}{'missed':>7}{'failed':>7}{'/nginx':>8}{'/haproxy':>9}{'/hyper':>8}"
            f"{'at req/s':>10}{'p50 us':>8}{'p99 us':>8}{'/nginx':>8}{'/haproxy':>9}"
        )
        for row in section.rows:
            for name in section.servers_of(row):
                yield self.line(section, row, name)

    def line(self, section, row, name):
        samples = self.results.samples[section, row, name]
        median = lambda field: statistics.median(getattr(sample, field) for sample in samples)
        latencies = self.results.latencies[section, row, name]
        failed = max(median("failed"), statistics.median(latency.failed for latency in latencies))
        to = lambda other: ratio_text(self.cpu_ratio(section, row, name, other))
        p99_to = lambda other: ratio_text(self.p99_ratio(section, row, name, other))
        return (
            f"{row.name:12}{name:8}{median('cpu'):11.2f}{median('rate'):8.0f}{median('missed'):7.2f}{failed:7.3f}{to('nginx'):>8}{to('haproxy'):>9}"
            f"{to('hyper'):>8}{self.latency_text(section, row, latencies)}{p99_to('nginx'):>8}{p99_to('haproxy'):>9}"
        )

    def latency_text(self, section, row, latencies):
        rate = statistics.median(latency.rate for latency in latencies)
        p50, p99 = (statistics.median(getattr(latency, name) for latency in latencies) for name in ("p50", "p99"))
        mark = "~" if (section, row) in self.results.limited else " "
        if not reached(latencies, self.results.rates[section, row]):
            mark = "!"
        return f"{rate:9.0f}{mark}{p50:8.0f}{p99:8.0f}"

    def like(self, section, row, other):
        """Returns the row with which a row is compared: other servers have a client key's hit only."""
        like = row if row.is_plain or other == "postern" else HIT
        return like if (section, like, other) in self.results.samples else None

    def cpu_ratio(self, section, row, name, other):
        """Returns the ratio of CPU times per request. It is taken within a round, because a disturbance affects all servers of one."""
        like = self.like(section, row, other)
        if like is None:
            return None
        mine, others = self.results.samples[section, row, name], self.results.samples[section, like, other]
        return median_ratio((a.cpu, b.cpu) for a, b in zip(mine, others))

    def p99_ratio(self, section, row, name, other):
        like = self.like(section, row, other)
        if like is None:
            return None
        mine, others = self.results.latencies[section, row, name], self.results.latencies[section, like, other]
        rate = self.results.rates[section, row]
        if not reached(mine, rate) and not reached(others, rate):
            return None
        return median_ratio((a.p99, b.p99) for a, b in zip(mine, others))

    def of_pairs(self):
        """The older program beside the present one."""
        if not self.results.pairs:
            return
        yield "1 worker, HTTP/1.1, an older program and the present one in turn"
        yield f"{'':12}{'cpu us/req':>11}{'req/s':>8}{'present/old':>13}{'quartiles':>14}{'range':>14}{'pairs':>7}"
        for row, pairs in self.results.pairs.items():
            ratios = sorted(ratio(present.cpu, old.cpu) for old, present in pairs)
            low, middle, high = statistics.quantiles(ratios, method="inclusive") if len(ratios) > 1 else ratios * 3
            for name, samples in zip((f"{row.name} old", row.name), zip(*pairs)):
                cpu, rate = (statistics.median(getattr(sample, field) for sample in samples) for field in ("cpu", "rate"))
                line = f"{name:12}{cpu:11.2f}{rate:8.0f}"
                if name == row.name:
                    line += f"{middle:13.3f}{f'{low:.3f}-{high:.3f}':>14}{f'{ratios[0]:.3f}-{ratios[-1]:.3f}':>14}{len(ratios):7}"
                yield line
        yield ""

    def of_bounds(self):
        for (row, other), most in BOUNDS.items():
            found = [
                (self.cpu_ratio(section, row, "postern", other), section.name)
                for section in self.sections
                if row in section.rows and self.like(section, row, other)
            ]
            if found:
                yield bound_text(f"CPU of a {row.name} / {other}", max(found), most)
        for other in NO_WORSE_THAN:
            found = [
                (value, f"{row.name}, {section.name}")
                for section in self.sections
                for row in section.rows
                if (value := self.p99_ratio(section, row, "postern", other)) is not None
            ]
            if found:
                yield bound_text(f"p99 / {other}", max(found), 1.00)
        for row, what in ((JWT, "with a JWT"), (SESSION, "with a session token"), (ZSTD, "in zstd")):
            for section in self.sections:
                if row in section.rows:
                    samples, plain = (self.results.samples[section, each, "postern"] for each in (row, HIT))
                    factor = median_ratio((a.cpu, b.cpu) for a, b in zip(samples, plain))
                    yield f"a hit {what} costs {factor:.2f} times a plain one with a client key"


def ratio(a, b):
    """Returns a / b; infinity if a run of the other server has failed."""
    return a / b if b else math.inf


def median_ratio(pairs):
    return statistics.median(ratio(a, b) for a, b in pairs)


def ratio_text(value):
    return "-" if value is None else f"{value:.2f}"


def bound_text(name, worst, most):
    value, where = worst
    return f"{name + ':':26} {value:5.2f} at worst ({where}), at most {most:.2f} is wanted{'' if value <= most else ': MISSED'}"
