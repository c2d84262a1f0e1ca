"""Redis servers, the network in front of them, and the gateways of a fleet."""

import asyncio
import hashlib
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from processes import CLIENT_KEY, ORG_KEY, POSTERN, Gateway, Processes, free_address, status_of, wait_until

SECRET = "a-secret-of-a-fleet-that-is-long-enough"
OTHER_KEY = "pst_other"


class Redis:
    """A Redis server that can be stopped, killed and asked."""

    def __init__(self, processes, *arguments, has_own_clock=False, namespace=None):
        self.processes = processes
        self.namespace = namespace
        self.address = free_address()
        if namespace:
            self.address = f"{namespace.address}:{self.port}"
        # As docs/fleet.md recommends.
        self.arguments = ("--maxmemory-policy", "volatile-lru", *arguments)
        self.clock = processes.folder / f"clock-{self.port}"
        self.environment = {}
        if has_own_clock:
            self.clock.write_text("+0\n")
            library = processes.folder / "clock.so"
            source = pathlib.Path(__file__).with_name("clock.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
            self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(self.clock)}
        self.start()

    @property
    def port(self):
        return self.address.rpartition(":")[2]

    def start(self):
        folder = self.processes.folder / f"redis-{self.port}"
        folder.mkdir(exist_ok=True)
        host = self.address.partition(":")[0]
        command = ["redis-server", "--port", self.port, "--bind", host, "--save", "", "--dir", folder, *self.arguments]
        if self.namespace:
            command = [*self.namespace.prefix, *command, "--protected-mode", "no"]
        self.process = self.processes.start(*command, **self.environment)
        wait_until("redis-server answers", self.answers)

    def answers(self):
        try:
            return self.query("PING") == "+PONG"
        except OSError:
            return False

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def set_clock(self, offset):
        """Sets the clock, by an offset in seconds."""
        self.clock.with_suffix(".new").write_text(f"{offset:+d}\n")
        self.clock.with_suffix(".new").rename(self.clock)

    def query(self, *words):
        """Returns the first line of the answer to a command."""
        host, _, port = self.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            lines = [f"*{len(words)}"] + [line for word in words for line in (f"${len(word)}", word)]
            connection.sendall(("\r\n".join(lines) + "\r\n").encode())
            return connection.makefile().readline().strip()


class Namespace:
    """A network namespace with an address of its own, whose packets can be dropped."""

    NUMBERS = itertools.count(1)

    def __init__(self, processes):
        number = next(self.NUMBERS)
        self.name = f"postern-{os.getpid()}-{number}"
        self.prefix = ["ip", "netns", "exec", self.name]
        # The range for benchmarks of networks (RFC 2544), which nothing else uses.
        network = f"198.18.{os.getpid() % 256}"
        here, self.address = f"{network}.{4 * number + 1}", f"{network}.{4 * number + 2}"
        near, far = f"pst{os.getpid()}n{number}"[:15], f"pst{os.getpid()}f{number}"[:15]
        run("ip", "netns", "add", self.name)
        # The pair of devices ends with the namespace.
        processes.callback(lambda: run("ip", "netns", "delete", self.name))
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        run("ip", "address", "add", f"{here}/30", "dev", near)
        run("ip", "link", "set", near, "up")
        run(*self.prefix, "ip", "address", "add", f"{self.address}/30", "dev", far)
        for device in ("lo", far):
            run(*self.prefix, "ip", "link", "set", device, "up")
        run(*self.prefix, "nft", "add table inet drop_all")

    def drop_packets(self):
        run(*self.prefix, "nft", "add chain inet drop_all in { type filter hook input priority 0; policy drop; }")
        run(*self.prefix, "nft", "add chain inet drop_all out { type filter hook output priority 0; policy drop; }")

    def pass_packets(self):
        run(*self.prefix, "nft", "flush ruleset")
        run(*self.prefix, "nft", "add table inet drop_all")

    @classmethod
    def is_permitted(cls):
        """Returns whether namespaces and rules for packets can be made here."""
        try:
            with Processes() as processes:
                cls(processes)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


def run(*command):
    subprocess.run(command, check=True, timeout=30, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Link:
    """A TCP proxy between one replica and the server: it passes, drops packets, or refuses connections."""

    def __init__(self, loop, upstream):
        self.loop, self.upstream = loop, upstream
        self.address = free_address()
        self.passes = asyncio.Event()
        self.writers, self.refuses = set(), False
        asyncio.run_coroutine_threadsafe(self._listen(), loop).result()

    async def _listen(self):
        self.passes.set()
        host, _, port = self.address.partition(":")
        self.server = await asyncio.start_server(self._serve, host, int(port))

    async def _serve(self, reader, writer):
        if self.refuses:
            writer.transport.abort()
            return
        host, _, port = self.upstream.partition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self.writers |= ends
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self.writers -= ends

    async def _pump(self, reader, writer):
        try:
            while data := await reader.read(65536):
                # A packet that is dropped is sent again later: nothing is lost, it is late.
                await self.passes.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()

    def end(self):
        """Closes all connections, on the loop's thread."""
        self.server.close()
        self.passes.set()
        for writer in list(self.writers):
            writer.transport.abort()

    def _set(self, change):
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (change(), done.set()))
        if not done.wait(30):
            raise TimeoutError("the proxy stands still")

    def heal(self):
        self.refuses = False
        self._set(self.passes.set)

    def drop(self):
        self._set(self.passes.clear)

    def cut(self):
        self.refuses = True
        self._set(lambda: [writer.transport.abort() for writer in list(self.writers)])


class Fleet:
    """Gateways in front of one Refold, each with its own link to the server."""

    # Settings of [limits.upstream], and of [cache] and the tables below it.
    upstream_limits = 'max_wait = "60s"'
    cache = 'derive = "off"\n[cache.freshness]\nrecent = "10m"'

    def __init__(self, processes, refold, redis, replicas, most=None, url=None, client=(50, 100), binary=POSTERN):
        self.processes, self.refold, self.redis, self.url = processes, refold, redis, url
        self.most, self.client, self.binary = most or replicas, client, binary
        # Called with the number of a replica that was added.
        self.when_added = None
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        processes.callback(self._close)
        self.links, self.gateways, self.children = [], [], []
        for _ in range(replicas):
            self.add()
        wait_until("the replicas know each other", self.is_complete)

    def _close(self):
        async def end():
            for link in self.links:
                link.end()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if tasks:
                await asyncio.wait(tasks, timeout=5)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)

    def is_complete(self):
        return self.redis.query("ZCARD", "pst:b1:{postern}:m") == f":{len(self.gateways)}"

    def add(self):
        """Starts one more replica."""
        gateway, child, link = self._start_replica()
        self.gateways.append(gateway)
        self.children.append(child)
        self.links.append(link)
        if self.when_added:
            self.when_added(len(self.gateways) - 1)

    def replace(self, number, binary):
        """Replaces a replica by one of another program, as a rolling update does: starts it, moves the clients, ends the old one."""
        self.binary = binary
        gateway, child, link = self._start_replica()
        before, self.gateways[number] = self.gateways[number], gateway
        old, self.children[number] = self.children[number], child
        self.links.append(link)
        # Clients that have just looked up the address send their request first.
        time.sleep(0.5)
        old.terminate()
        try:
            old.wait(90)
        except subprocess.TimeoutExpired:
            sys.exit(f"the replica {before.address} does not end")

    def _start_replica(self):
        link = Link(self.loop, self.redis.address)
        settings = f"""
[fleet]
url = "{self.url or f'redis://{link.address}'}"
secret = {{ env = "FLEET_SECRET" }}
replicas = {self.most}
[limits.client]
per_second = {self.client[0]}
burst = {self.client[1]}
[limits.upstream]
{self.upstream_limits}
[cache]
{self.cache}
"""
        other = f"""[[tenants.client_keys]]
name = "other"
sha256 = "{hashlib.sha256(OTHER_KEY.encode()).hexdigest()}"
linked_accounts = ["*"]
"""
        return *self._start(settings, other), link

    def _start(self, settings, tenant_keys):
        address, admin = free_address(), free_address()
        config = self.processes.folder / f"replica-{address.rpartition(':')[2]}.toml"
        config.write_text(f"""{settings}
[[listeners]]
address = "{address}"
[admin]
address = "{admin}"
[server]
workers = 1
[upstream]
base_url = "http://{self.refold}"
total_timeout = "70s"
verify_key = "off"
[[tenants]]
id = "acme"
mode = "inject"
org_key = {{ env = "REFOLD_ORG_KEY" }}
[[tenants.client_keys]]
name = "full"
sha256 = "{hashlib.sha256(CLIENT_KEY.encode()).hexdigest()}"
linked_accounts = ["*"]
{tenant_keys}""")
        log = config.with_suffix(".log")
        command = [self.binary, "serve", "--config", config]
        child = self.processes.start(*command, log=log, REFOLD_ORG_KEY=ORG_KEY, FLEET_SECRET=SECRET)

        def is_ready():
            if child.poll() is not None:
                sys.exit(f"the replica ended:\n{log.read_text()}")
            return status_of(admin, "/readyz") == 200

        wait_until("the replica is ready", is_ready)
        return Gateway(address, admin), child


def start_sentinels(processes, primary, count=3):
    """Starts Sentinels that watch a primary, and returns the URL for `[fleet]`."""
    addresses = []
    for _ in range(count):
        address = free_address()
        port = address.rpartition(":")[2]
        config = processes.folder / f"sentinel-{port}.conf"
        config.write_text(f"""port {port}
bind 127.0.0.1
sentinel monitor fleet 127.0.0.1 {primary.port} 2
sentinel down-after-milliseconds fleet 1000
sentinel failover-timeout fleet 4000
""")
        processes.start("redis-sentinel", config)
        addresses.append(address)
    wait_until("the Sentinels answer", lambda: all(_answers(address) for address in addresses))
    return f"redis+sentinel://{','.join(addresses)}/fleet"


def _answers(address):
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT
