"""The budget of one linked account, asked for evenly or through one replica: what the fleet lets through."""

import http.client
import threading
import time

from load import excess_of
from processes import CLIENT_KEY, EXECUTIONS, send

RATE, BURST = 50, 100
# How many times the rate is asked for, and by how many clients.
DEMAND, CLIENTS = 3, 12
# Seconds after which the burst is spent.
SPENT = 3


class Asking:
    """Clients that ask for one cached page of one account at a steady pace; `granted` and `refused` have the times of answers."""

    def __init__(self, gateways, seconds):
        self.granted, self.refused, self.failed = [], [], 0
        self.end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._run, args=(gateways[number % len(gateways)],)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, gateway):
        connection = http.client.HTTPConnection(gateway.address, timeout=30)
        due = time.monotonic()
        while due < self.end:
            time.sleep(max(0, due - time.monotonic()))
            due += CLIENTS / (DEMAND * RATE)
            connection.request("GET", EXECUTIONS, headers={"x-api-key": CLIENT_KEY, "linked_account_id": "busy"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                self.granted.append(time.monotonic())
            elif answer.status == 429:
                self.refused.append(time.monotonic())
            else:
                self.failed += 1
        connection.close()


def waits_of(gateway):
    """Requests that waited for the server so far."""
    for line in send(gateway.admin, "GET", "/metrics").body.decode().splitlines():
        if line.startswith("postern_fleet_client_waits_total "):
            return float(line.split()[1])
    return 0


def measure(gateways, seconds):
    """Returns the cells of a row."""
    time.sleep(BURST / RATE)
    before, begin = sum(map(waits_of, gateways)), time.monotonic()
    asking = Asking(gateways, seconds)
    waits = sum(map(waits_of, gateways)) - before
    steady = sum(begin + SPENT <= moment < begin + seconds for moment in asking.granted)
    answers = len(asking.granted) + len(asking.refused)
    return {
        "asked": answers / seconds,
        "rate": steady / (seconds - SPENT),
        "excess": excess_of(asking.granted, RATE, BURST),
        "waited": 100 * waits / max(1, len(asking.granted)),
        "failed": asking.failed,
    }
