"""Clients that keep a fleet busy, and what Refold saw of them."""

import contextlib
import dataclasses
import http.client
import itertools
import threading
import time

from processes import CLIENT_KEY, EXECUTIONS, send

RATE, BURST = 20, 5
# Requests in a second from which on the rate counts as full.
FULL = 18
NUMBERS = itertools.count(1)
# Seconds after which a request counts as failed; the gateway gives up earlier.
LONGEST_WAIT = 80


@dataclasses.dataclass
class Wait:
    """One request: when it was sent and answered, for which account, and the status of the answer."""

    account: str
    sent: float
    ended: float
    status: int


class Clients:
    """Clients in threads of their own; `waits` has their requests."""

    def __init__(self):
        self.waits, self.threads, self.ends = [], [], threading.Event()

    def add(self, gateway, account, key=CLIENT_KEY, pause=0, is_cached=False):
        """Asks one replica for pages of an account, one after the other: for new ones, or always for the same one. `gateway` and
        `account` may be functions."""
        thread = threading.Thread(target=self._run, args=(gateway, account, key, pause, is_cached), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, gateway, account, key, pause, is_cached):
        connection = None
        while not self.ends.is_set():
            name = account() if callable(account) else account
            address = (gateway() if callable(gateway) else gateway).address
            if connection is None or f"{connection.host}:{connection.port}" != address:
                connection = http.client.HTTPConnection(address, timeout=LONGEST_WAIT)
            sent, status = time.monotonic(), 0
            try:
                headers = {"x-api-key": key, "linked_account_id": name}
                target = EXECUTIONS if is_cached else f"{EXECUTIONS}?page={next(NUMBERS)}"
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
            self.waits.append(Wait(name, sent, time.monotonic(), status))
            if pause:
                self.ends.wait(pause)
            elif status != 200:
                self.ends.wait(0.05)
        if connection:
            connection.close()

    def stop(self):
        """Ends the clients after the requests that are under way."""
        self.ends.set()
        deadline = time.monotonic() + LONGEST_WAIT + 5
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))

    def failed(self):
        return sum(wait.status != 200 for wait in self.waits)

    def longest(self):
        return max((wait.ended - wait.sent for wait in self.waits), default=0)


class Arrivals:
    """The arrivals at the simulated Refold, in seconds on this process's clock."""

    def __init__(self, refold):
        text = send(refold, "GET", "/simulate/arrivals").body.decode().splitlines()
        now = time.monotonic()
        then = int(text[0].split()[0])
        rows = [line.split(" ", 2) for line in text[1:]]
        self.times = [now - (then - int(micros)) / 1e6 for micros, _, _ in rows]
        self.limited = sum(status == "429" for _, status, _ in rows)

    def excess(self, until=float("inf")):
        """Returns the most requests of a window beyond the burst and the rate, of those windows that end before a moment."""
        return excess_of([moment for moment in self.times if moment < until], RATE, BURST)

    def last(self):
        return max(self.times, default=float("-inf"))

    def count(self, begin, end):
        return sum(begin <= moment < end for moment in self.times)

    def full_rate_after(self, moment):
        """Returns the time from a moment until a second with the full rate begins; None if there is none."""
        for begin in [moment] + [other for other in self.times if other > moment]:
            if self.count(begin, begin + 1) >= FULL:
                return begin - moment
        return None


def excess_of(times, rate, burst):
    """Returns the most moments of a window w beyond burst + rate * w."""
    worst, lowest = -burst, None
    # count(i..j) - rate * (t_j - t_i), the largest over all i <= j, in one pass.
    for index, moment in enumerate(sorted(times)):
        value = index - rate * moment
        lowest = value if lowest is None else min(lowest, value)
        worst = max(worst, value - lowest + 1 - burst)
    return worst


@contextlib.contextmanager
def busy(fleet, clients_each=3):
    """Clients on all replicas that together always have more requests than the budget allows."""
    clients = Clients()

    def keep_busy(replica):
        for number in range(clients_each):
            clients.add(lambda: fleet.gateways[replica], f"account-{replica}-{number}")

    for replica in range(len(fleet.gateways)):
        keep_busy(replica)
    fleet.when_added = keep_busy
    try:
        yield clients
    finally:
        fleet.when_added = None
        clients.stop()


@contextlib.contextmanager
def cached(fleet):
    """Clients that each ask one replica for a page that it has in its cache."""
    clients = Clients()
    for replica, gateway in enumerate(fleet.gateways):
        account = f"cached-{replica}"
        send(gateway.address, "GET", EXECUTIONS, {"x-api-key": CLIENT_KEY, "linked_account_id": account})
        clients.add(lambda replica=replica: fleet.gateways[replica], account, pause=0.25, is_cached=True)
    try:
        yield clients
    finally:
        clients.stop()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0
