"""Starts programs for a step of .ci/full: a gateway, an upstream, and what is to be tested with them.

    with Processes() as processes:
        refold = processes.start_simulator()
        gateway = processes.start_gateway(refold, "[limits.client]\nper_second = 100000\nburst = 100000")
        gateway.get("/api/v2/public/execution")

The program is the one that POSTERN names, which .ci/full builds.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

POSTERN = os.environ.get("POSTERN", "target/debug/postern")
ORG_KEY = "tk_simulated_org_key"
CLIENT_KEY = "pst_full"
EXECUTIONS = "/api/v2/public/execution"
# Longest wait for a program to answer, in seconds.
DEADLINE = 120


@dataclasses.dataclass(frozen=True)
class Gateway:
    """A running gateway, with the addresses of its listeners as `host:port`."""

    address: str
    admin: str

    def send(self, method, target, headers=None, body=None):
        """Sends a request with the client key for the linked account acme-1, unless `headers` has other credentials."""
        return send(self.address, method, target, headers or credentials(), body)

    def get(self, target, headers=None):
        return self.send("GET", target, headers)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response; the names of its headers are in lower case."""

    status: int
    headers: dict
    body: bytes


class Processes(contextlib.ExitStack):
    """The programs of a step and a temporary folder, `folder`; all of them are gone at its end."""

    repository = pathlib.Path(__file__).resolve().parent.parent

    def __enter__(self):
        super().__enter__()
        self.folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        return self

    def start(self, *command, log=None, **environment):
        """Starts a program; its output goes to the file `log`, or nowhere."""
        output = self.enter_context(open(log or os.devnull, "w"))
        child = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        self.callback(lambda: (child.kill(), child.wait()))
        return child

    def start_simulator(self, *arguments):
        """Starts the simulated Refold and returns its address."""
        address = free_address()
        self.start(POSTERN, "simulate", "--listen", address, "--org-key", ORG_KEY, *arguments)
        wait_until("the simulated Refold answers", lambda: status_of(address, "/") is not None)
        return address

    def start_gateway(self, upstream, settings="", in_upstream="", in_listener="", in_tenant=""):
        """Starts a gateway in front of `upstream` (`host:port`); the other arguments are lines of TOML for its tables."""
        address, admin = free_address(), free_address()
        config = self.folder / f"postern-{address.rpartition(':')[2]}.toml"
        config.write_text(f"""
{settings}
[[listeners]]
address = "{address}"
{in_listener}
[admin]
address = "{admin}"
[upstream]
base_url = "http://{upstream}"
{in_upstream}
[[tenants]]
id = "acme"
mode = "inject"
org_key = {{ env = "REFOLD_ORG_KEY" }}
{in_tenant}
[[tenants.client_keys]]
name = "full"
sha256 = "{hashlib.sha256(CLIENT_KEY.encode()).hexdigest()}"
linked_accounts = ["*"]
access = "read+write"
""")
        log = config.with_suffix(".log")
        child = self.start(POSTERN, "serve", "--config", config, log=log, REFOLD_ORG_KEY=ORG_KEY)

        def is_ready():
            if child.poll() is not None:
                sys.exit(f"the gateway ended:\n{log.read_text()}")
            return status_of(admin, "/readyz") == 200

        wait_until("the gateway is ready", is_ready)
        return Gateway(address, admin)


def credentials(account="acme-1"):
    """Returns the headers of the client key for a linked account."""
    return {"x-api-key": CLIENT_KEY, "linked_account_id": account}


def debian_program(name, package):
    """Returns the path of a program of a Debian package that starts no service; installs the package if it is missing."""
    if not shutil.which(name):
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return shutil.which(name)


def free_address():
    """Returns a loopback address that no program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"127.0.0.1:{held.getsockname()[1]}"


def send(address, method, target, headers=None, body=None):
    """Sends one request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())


def status_of(address, target):
    """Returns the status of a GET; None if there is no answer."""
    try:
        return send(address, "GET", target).status
    except OSError:
        return None


def wait_until(description, condition):
    """Waits for a condition and returns its value; ends the step if it does not hold in time."""
    deadline = time.monotonic() + DEADLINE
    while not (result := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"{description}: not within {DEADLINE} s")
        time.sleep(0.1)
    return result
