"""What goes wrong in the table of faults. Each fault takes a fleet and the seconds that it lasts, and returns when it ended."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable

import servers


def none(fleet, seconds):
    time.sleep(seconds)


def paused(fleet, seconds):
    fleet.redis.signal(servers.STOP)
    time.sleep(seconds)
    fleet.redis.signal(servers.CONTINUE)


def killed(fleet, seconds):
    fleet.redis.kill()
    time.sleep(seconds)
    fleet.redis.start()


def flushall(fleet, seconds):
    for _ in range(3):
        fleet.redis.query("FLUSHALL")
        time.sleep(seconds / 3)


def script_flush(fleet, seconds):
    for _ in range(3):
        fleet.redis.query("SCRIPT", "FLUSH")
        time.sleep(seconds / 3)


def full_memory(fleet, seconds):
    fleet.redis.query("CONFIG", "SET", "maxmemory", "1")
    time.sleep(seconds)
    fleet.redis.query("CONFIG", "SET", "maxmemory", "0")


def _half(fleet):
    return fleet.links[: max(1, len(fleet.links) // 2)]


def cut_half(fleet, seconds):
    for link in _half(fleet):
        link.cut()
    time.sleep(seconds)
    for link in fleet.links:
        link.heal()


def added_during_cut(fleet, seconds):
    for link in _half(fleet):
        link.cut()
    time.sleep(seconds / 2)
    fleet.add()
    time.sleep(seconds / 2)
    for link in fleet.links:
        link.heal()


def flapping(fleet, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for link in fleet.links:
            link.cut()
        time.sleep(0.3)
        for link in fleet.links:
            link.heal()
        time.sleep(0.4)


def dropped_packets(fleet, seconds):
    fleet.redis.namespace.drop_packets()
    time.sleep(seconds)
    fleet.redis.namespace.pass_packets()


def delayed_packets(fleet, seconds):
    """What comes closest to dropped packets without a network namespace."""
    for link in fleet.links:
        link.drop()
    time.sleep(seconds)
    for link in fleet.links:
        link.heal()


def clock_forward(fleet, seconds):
    fleet.redis.set_clock(3600)
    time.sleep(seconds)


def clock_back(fleet, seconds):
    fleet.redis.set_clock(-3600)
    time.sleep(seconds)


def failover(fleet, seconds):
    """The primary stops, the other server takes over, and the old primary goes on."""
    fleet.redis.signal(servers.STOP)
    time.sleep(seconds)
    fleet.redis.signal(servers.CONTINUE)


def rolling_update(fleet, seconds):
    """Replaces all replicas, one by one."""
    for number in range(len(fleet.gateways)):
        fleet.replace(number, os.environ["POSTERN"])


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    inject: Callable
    # Seconds that it lasts, and with `--quick`.
    seconds: float
    quick_seconds: float
    # What start_fleet sets up: "clock", "sentinel", "network", "proxy" where there is no network, or "old".
    needs: str = ""

    def lasts(self, is_quick):
        return self.quick_seconds if is_quick else self.seconds

    def missing(self, network_is_permitted):
        """Returns what this machine lacks for it; None if nothing."""
        if self.needs == "clock" and not shutil.which("cc"):
            return "a C compiler"
        if self.needs == "sentinel" and not shutil.which("redis-sentinel"):
            return "redis-sentinel"
        if self.needs == "network" and not network_is_permitted:
            return "the permission to make network namespaces, and nft"
        return None


# A cut outlasts the minute for which the server leaves their share to replicas that it does not hear.
FAULTS = [
    Fault("none", none, 4, 4),
    Fault("server paused (SIGSTOP)", paused, 4, 4),
    Fault("server killed, empty restart", killed, 4, 4),
    Fault("FLUSHALL, three times", flushall, 4, 4),
    Fault("SCRIPT FLUSH, three times", script_flush, 4, 4),
    Fault("maxmemory reached", full_memory, 4, 4),
    Fault("half of the replicas cut off", cut_half, 75, 6),
    Fault("half cut off, a replica added meanwhile", added_during_cut, 75, 6),
    Fault("flapping", flapping, 7, 7),
    Fault("14 s of dropped packets (nft)", dropped_packets, 14, 14, "network"),
    Fault("14 s of late packets (TCP proxy)", delayed_packets, 14, 14, "proxy"),
    Fault("server's clock 1 h forward", clock_forward, 4, 4, "clock"),
    Fault("server's clock 1 h back", clock_back, 4, 4, "clock"),
    Fault("Sentinel failover, old primary resumed", failover, 8, 8, "sentinel"),
    Fault("rolling update", rolling_update, 0, 0, "old"),
]
