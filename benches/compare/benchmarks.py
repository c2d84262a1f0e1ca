"""Writes BENCHMARKS.md from its template: the machine, the versions, the command, and the tables as they were printed."""

import datetime
import os
import pathlib
import platform
import re
import shlex
import string
import subprocess
import sys

from load import OHA
from servers import ROOT

# The option that prints the version of a program.
VERSIONS = {"nginx": "-v", "haproxy": "-v", "varnishd": "-V", "wrk": "-v", "h2load": "--version", "rustc": "--version"}


def write(path, programs, machine_before, lines):
    template = string.Template(pathlib.Path(__file__).with_name("benchmarks.md.in").read_text())
    text = template.substitute(
        machine=machine_before,
        commit=commit(programs.postern),
        date=datetime.date.today().isoformat(),
        versions=", ".join([*(version(*program) for program in VERSIONS.items()), f"oha {OHA}"]),
        command=" ".join(["benches/compare/run", *map(shlex.quote, sys.argv[1:])]),
        tables="\n".join(lines),
    )
    pathlib.Path(path).write_text(text)


def machine():
    """Describes this machine, with its load in the last five minutes: call it before the measurement."""
    processor = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.search(r"^MemTotal:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.MULTILINE)[1])
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    name = processor[1] if processor else platform.machine()
    load = f"{os.getloadavg()[1]:.1f}"
    return f"{name}, {os.cpu_count()} cores, {memory / (1 << 20):.0f} GiB, {system}, Linux {platform.release()}; load average before {load}"


def commit(program):
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    name = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    version_text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{version_text}, commit {name}"


def version(program, option):
    """Returns the name of a program and the first number with a dot that it prints."""
    output = subprocess.run([program, option], capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", output.stdout + output.stderr)
    return f"{program} {found[0] if found else '?'}"
