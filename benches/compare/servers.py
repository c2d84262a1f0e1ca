"""Starts the servers that are compared, and reads their CPU time."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import jobs
import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Programs:
    """Paths of the programs of this repository, of an older Postern if there is one, and of Varnish's modules."""

    postern: str
    old: str | None
    hyper: str
    varnish_modules: str


@dataclasses.dataclass(frozen=True)
class Ports:
    """Ports for HTTP/1.1, for TLS with both versions of HTTP, for HTTP/2 without TLS, and for session tokens."""

    plain: int
    tls: int
    http2: int
    session: int

    def of(self, protocol, row):
        if row.credential == "session":
            return self.session
        return self.tls if protocol.has_tls else self.http2 if protocol.is_http2 else self.plain


@dataclasses.dataclass(frozen=True)
class Server:
    ports: Ports
    process: subprocess.Popen

    def cpu_seconds(self):
        """Returns the CPU time of the process and its descendants."""
        ticks = 0
        for process in process_tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS


def process_tree(pid):
    found = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += process_tree(int(child))
    return found


class Servers(contextlib.ExitStack):
    """The origin and the named servers, each with so many workers; they are gone at the end.

    The servers share the first cores; each has them to itself while it is asked. The load generator, the origin and the reader of
    Postern's log share the other cores, or the last one if there is no other.
    """

    def __init__(self, folder, workers, programs, names):
        super().__init__()
        self.folder, self.workers, self.programs, self.names = folder, workers, programs, names
        cores = os.cpu_count()
        self.server_cores = ",".join(str(core) for core in range(min(workers, cores)))
        self.load_cores = ",".join(str(core) for core in range(workers, cores)) or str(cores - 1)
        self.by_name = {}
        self.log_lines = None

    def __enter__(self):
        super().__enter__()
        self.log_reader = subprocess.Popen(
            ["taskset", "-c", self.load_cores, "wc", "-l"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.callback(self.end_log)
        origin = free_ports()
        self.write_and_start("origin", origin, lambda ports: peers.origin(self.folder, "origin", ports), self.load_cores)
        self.origin_port = origin.plain
        for name in self.names:
            self.start_named(name, free_ports())
        return self

    def requests_of_origin(self):
        """Returns the number of requests that the origin has received, this one included."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.origin_port}/count") as answer:
            return int(re.search(r"^ \d+ \d+ (\d+) $", answer.read().decode(), re.MULTILINE)[1])

    def start_named(self, name, ports):
        folder, workers = self.folder, self.workers
        match name:
            case "direct":
                self.write_and_start(name, ports, lambda ports: peers.origin(folder, name, ports))
            case "nginx":
                self.write_and_start(name, ports, lambda ports: peers.nginx(folder, workers, ports, self.origin_port))
            case "haproxy":
                (folder / "haproxy.cfg").write_text(peers.haproxy(folder, workers, triple(ports), self.origin_port))
                self.start(name, ports, ["haproxy", "-db", "-f", f"{folder}/haproxy.cfg"])
            case "varnish":
                self.start_varnish(ports)
            case "postern":
                self.start_postern(name, ports, self.programs.postern)
            case "old":
                self.start_postern(name, ports, self.programs.old)
            case "hyper":
                self.start(name, ports, [self.programs.hyper, f"127.0.0.1:{ports.plain}"])

    def start_varnish(self, ports):
        (self.folder / "varnish.vcl").write_text(peers.varnish(self.origin_port))
        options = {"thread_pools": self.workers, "feature": "+http2", "vmod_path": self.programs.varnish_modules}
        parameters = [part for name, value in options.items() for part in ("-p", f"{name}={value}")]
        files = ["-f", f"{self.folder}/varnish.vcl", "-n", f"{self.folder}/varnish-{self.workers}"]
        command = ["varnishd", "-F", "-a", f"127.0.0.1:{ports.plain}", *files, "-s", "malloc,256m", "-T", "none", *parameters]
        # Varnish tells the versions of HTTP apart by the first bytes.
        self.start("varnish", dataclasses.replace(ports, http2=ports.plain), command)

    def write_and_start(self, name, ports, config, cores=None):
        """Starts nginx."""
        path = self.folder / f"{name}.conf"
        path.write_text(config(triple(ports)))
        self.start(name, ports, ["nginx", "-c", path], cores)

    def start_postern(self, name, ports, program):
        # Postern tells the versions of HTTP apart by the first bytes, too.
        ports = dataclasses.replace(ports, http2=ports.plain)
        path = self.folder / f"{name}.toml"
        path.write_text(postern_config(self.folder, self.workers, ports, self.origin_port))
        self.start(name, ports, [program, "serve", "--config", path], stderr=self.log_reader.stdin)

    def start(self, name, ports, command, cores=None, stderr=None):
        output = self.enter_context(open(self.folder / f"{name}.out", "w"))
        process = subprocess.Popen(
            ["taskset", "-c", cores or self.server_cores, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=stderr or output
        )
        self.callback(lambda: (process.terminate(), process.wait()))
        self.by_name[name] = Server(ports, process)
        wait_for(name, process, ports.plain, self.folder / f"{name}.out")

    def end_log(self):
        """Counts the lines of Postern's log, after it has ended."""
        self.log_reader.stdin.close()
        self.log_lines = int(self.log_reader.stdout.read())


def triple(ports):
    return ports.plain, ports.tls, ports.http2


def free_ports():
    """Returns ports that no program listens on."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in dataclasses.fields(Ports)]
        return Ports(*(socket_.getsockname()[1] for socket_ in held))


def wait_for(name, process, port, output):
    for _ in range(400):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"{name} does not listen:\n{output.read_text()[:4000]}")


def write_files(folder):
    """Writes what the servers read, except for their configurations."""
    # The workers of nginx give up root, and still have to read the files.
    folder.chmod(0o755)
    (folder / "www").mkdir()
    (folder / "www" / "page.json").write_text(json.dumps(jobs.page(), separators=(",", ":")))
    certificate, key = (ROOT / "tests" / "data" / name for name in ("server-1.pem", "server-1.key"))
    shutil.copy(certificate, folder / "server.pem")
    shutil.copy(key, folder / "server.key")
    (folder / "haproxy.pem").write_text(certificate.read_text() + key.read_text())
    (folder / "haproxy.map").write_text(peers.haproxy_map())
    (folder / "jwt-secret").write_text(jobs.SECRET)
    for n in range(jobs.TENANTS):
        (folder / f"org-{n}").write_text(f"org-{n}")


def postern_config(folder, workers, ports, origin_port):
    text = f"""[[listeners]]
address = "127.0.0.1:{ports.plain}"
[[listeners]]
address = "127.0.0.1:{ports.tls}"
tls = {{ certificate = "{folder}/server.pem", key = "{folder}/server.key" }}
[[listeners]]
address = "127.0.0.1:{ports.session}"
session_tokens = "tenant-0"
[admin]
address = "off"
[server]
workers = {workers}
[upstream]
base_url = "http://127.0.0.1:{origin_port}"
[limits.client]
per_second = 1000000
burst = 1000000
[limits.upstream]
per_second = 1000000
burst = 1000000
[cache.freshness]
recent = "1m"
[[issuers]]
issuer = "bench"
audience = ["bench"]
keys = {{ secret = {{ file = "{folder}/jwt-secret" }} }}
tenant_claim = "tenant"
"""
    for n in range(jobs.TENANTS):
        digest = hashlib.sha256(f"key-{n}".encode()).hexdigest()
        text += f"""[[tenants]]
id = "tenant-{n}"
mode = "inject"
org_key = {{ file = "{folder}/org-{n}" }}
[[tenants.client_keys]]
name = "bench"
sha256 = "{digest}"
linked_accounts = ["*"]
"""
    return text
