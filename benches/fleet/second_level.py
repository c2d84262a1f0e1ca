"""The second level of the cache: fetches per question, the age of what is served, and the start of a replica with an empty cache."""

import http.client
import queue
import random
import threading
import time

import servers
from load import Arrivals, percentile
from processes import EXECUTIONS, Processes, credentials

# Seconds for which an answer is fresh under load.
LIFETIME = 4
# Questions a second, by how many clients, whatever the number of replicas.
ASKED, CLIENTS = 400, 16
# Distinct questions of a load, and of a start.
QUESTIONS, START_QUESTIONS = 120, 200
# Seconds after which the load counts.
WARM = 2 * LIFETIME


class Fleet(servers.Fleet):
    """A fleet with a given budget at Refold, whose answers stay fresh for some seconds and are then served stale."""

    def __init__(self, processes, refold, replicas, rate, lifetime, most=None):
        self.upstream_limits = f'{self.upstream_limits}\nper_second = {rate}\nburst = {max(5, rate // 4)}'
        classes = "\n".join(f'{name} = "{lifetime}s"' for name in ("live", "recent", "closed"))
        stale = '[cache.stale]\nwhile_revalidate = "10m"\nif_error = "10m"'
        self.cache = f'derive = "off"\n[cache.freshness]\n{classes}\n{stale}'
        super().__init__(processes, refold, servers.Redis(processes), replicas, most)


def start_refold(processes, rate):
    """The simulated Refold has the published limit, 20 a second, or none."""
    return processes.start_simulator(*([] if rate == 20 else ["--unlimited"]))


class Client:
    """One connection to a replica."""

    def __init__(self, gateway):
        self.connection = http.client.HTTPConnection(gateway.address, timeout=90)

    def ask(self, question):
        """Asks a question and returns the status and the age of the answer."""
        headers = credentials(f"account-{question % 40}")
        try:
            self.connection.request("GET", f"{EXECUTIONS}?page={1 + question // 40}", headers=headers)
            answer = self.connection.getresponse()
            answer.read()
        except OSError:
            self.connection.close()
            return 0, 0
        return answer.status, int(answer.getheader("age") or 0)


class Load:
    """Clients that ask random questions at a steady pace; `answers` has the time, status and age of each answer."""

    def __init__(self, gateways, end):
        self.answers, self.end = [], end
        threads = [threading.Thread(target=self._run, args=(number, gateways[number % len(gateways)])) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, number, gateway):
        client, dice = Client(gateway), random.Random(number)
        due = time.monotonic() + dice.random() * CLIENTS / ASKED
        while due < self.end:
            time.sleep(max(0, due - time.monotonic()))
            due += CLIENTS / ASKED
            status, age = client.ask(dice.randrange(QUESTIONS))
            self.answers.append((time.monotonic(), status, age))


def under_load(processes, replicas, rate, seconds):
    """Returns the cells of a row: answers, failures, fetches per question, the 50th and 99th percentile of ages."""
    refold = start_refold(processes, rate)
    fleet = Fleet(processes, refold, replicas, rate, LIFETIME)
    # Each replica has each page before the load begins: clients that wait for first answers would ask the rest in a burst.
    for gateway in fleet.gateways:
        _ask_all(gateway, QUESTIONS)
    begin = time.monotonic() + WARM
    load = Load(fleet.gateways, begin + seconds)
    answers = [answer for answer in load.answers if answer[0] >= begin]
    ages = [age for _, status, age in answers if status == 200]
    return {
        "asked": len(answers) / seconds,
        "failed": sum(status != 200 for _, status, _ in answers),
        "fetches": Arrivals(refold).count(begin, begin + seconds) / QUESTIONS,
        "p50": age_percentile(ages, 0.5),
        "p99": age_percentile(ages, 0.99),
    }


def age_percentile(ages, share):
    """Returns a percentile of ages that are given in whole seconds, rounded down: within its second it is interpolated."""
    whole = percentile(ages, share)
    below, within = sum(age < whole for age in ages), ages.count(whole)
    return whole + (share * len(ages) - below) / within if within else 0


def cold_start(processes, replicas, rate, has_second_level):
    """Returns the seconds until a replica that has just started has answered all questions that the others hold, and its fetches."""
    fleet = Fleet(processes, start_refold(processes, rate), replicas - 1, rate, 3600, most=replicas)
    _ask_all(fleet.gateways[0], START_QUESTIONS)
    before = len(Arrivals(fleet.refold).times)
    if not has_second_level:
        fleet.redis.query("EVAL", "return redis.call('DEL', unpack(redis.call('KEYS', 'pst:e1:*')))", "0")
    fleet.add()
    begin = time.monotonic()
    failed = _ask_all(fleet.gateways[-1], START_QUESTIONS)
    return {"seconds": time.monotonic() - begin, "failed": failed, "fetches": len(Arrivals(fleet.refold).times) - before}


def _ask_all(gateway, questions):
    """Asks a replica all questions, and returns how many were not answered."""
    left, failed = queue.SimpleQueue(), []
    for question in range(questions):
        left.put(question)

    def run():
        client = Client(gateway)
        while True:
            try:
                status, _ = client.ask(left.get_nowait())
            except queue.Empty:
                return
            if status != 200:
                failed.append(status)

    threads = [threading.Thread(target=run) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failed)


def fetches_table(replicas, seconds, promise):
    for rate in (400, 20):
        print(f"\nSecond level, budget of {rate} requests a second: {QUESTIONS} questions, fresh for {LIFETIME} s, asked {ASKED} times a second\n")
        print(f"{'replicas':>8} {'asked':>8} {'failed':>6} {'fetches/question':>16} {'of one':>7} {'age p50':>8} {'age p99':>8} {'of one':>7}")
        one = None
        for count in replicas:
            with Processes() as processes:
                row = under_load(processes, count, rate, seconds)
            one = one or row
            fetches, age = row["fetches"] / max(one["fetches"], 1e-9), row["p99"] / max(one["p99"], 1)
            print(f"{count:>8} {row['asked']:>6.1f}/s {row['failed']:>6} {row['fetches']:>16.2f} {fetches:>7.3f} {row['p50']:>6.1f} s {row['p99']:>6.1f} s {age:>7.2f}", flush=True)
            promise(not row["failed"], f"second level, {count} replicas at {rate}/s: requests failed")
            promise(rate == 20 or fetches <= 1.05, f"second level, {count} replicas at {rate}/s: more fetches than one replica's")
            promise(rate == 400 or age <= 1.15, f"second level, {count} replicas at {rate}/s: older answers than one replica's")


def start_table(replicas, promise):
    print(f"\nStart of a replica beside {replicas - 1}: until it has answered {START_QUESTIONS} questions that the others hold\n")
    print(f"{'budget':>8} {'second level':>12} {'time':>9} {'fetches':>8} {'failed':>6}")
    for rate in (20, 400):
        for has_second_level in (True, False):
            with Processes() as processes:
                row = cold_start(processes, replicas, rate, has_second_level)
            print(f"{rate:>6}/s {'with' if has_second_level else 'without':>12} {row['seconds']:>7.2f} s {row['fetches']:>8} {row['failed']:>6}", flush=True)
            promise(not row["failed"], f"start at {rate}/s: requests failed")
            promise(not has_second_level or not row["fetches"], f"start at {rate}/s: Refold was asked again")
