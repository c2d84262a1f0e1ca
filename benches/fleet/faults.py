"""What goes wrong in the table of faults. Each fault takes a fleet and the seconds that it lasts, and returns when it ended."""

import time

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


# Name, fault, seconds that it lasts, what it needs.
FAULTS = [
    ("none", none, 4, ""),
    ("server paused (SIGSTOP)", paused, 4, ""),
    ("server killed, empty restart", killed, 4, ""),
    ("FLUSHALL, three times", flushall, 4, ""),
    ("SCRIPT FLUSH, three times", script_flush, 4, ""),
    ("maxmemory reached", full_memory, 4, ""),
    ("half of the replicas cut off", cut_half, 6, ""),
    ("replica added during the cut", added_during_cut, 6, ""),
    ("flapping", flapping, 7, ""),
    ("14 s of dropped packets", dropped_packets, 14, ""),
    ("server's clock 1 h forward", clock_forward, 4, "clock"),
    ("server's clock 1 h back", clock_back, 4, "clock"),
    ("Sentinel failover, old primary resumed", failover, 8, "sentinel"),
]
