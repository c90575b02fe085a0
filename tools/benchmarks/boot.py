"""Boots of many VMs at once: forked from a template, and from scratch.

Lab hosts with Samepage on them; every mode boots N equal guests through `samepage boot`. A guest is
ready when its serial line shows its first heartbeat, counted from the start of the command.
Processor time is that of every process on the hosts, guests included; own memory is what the kernel
says of each guest right after it was ready; bytes fetched are those that hosts read from the image
store. Modes:

  cold            each guest boots from scratch (kernel and initramfs are local files)
  fork            the template's RAM lies on every host
  fork-neighbour  no host has the template's RAM, it comes out of the image store first
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from samepage_lab import Lab, require_lab
from samepage_lab.fleet import Fleet
from samepage_lab.frames import is_ram_size
from samepage_lab.guest_spec import GuestSpec, domain_xml

MODES = ("cold", "fork", "fork-neighbour")
SHELF = "/dev/shm/samepage/samepage/templates"
_TICKS = os.sysconf("SC_CLK_TCK")
_READY_MAX_S = 280.0
_POLL_S = 0.01


def cpu_seconds(lab: Lab) -> float:
    """Processor time so far of all processes on the lab's hosts and of children they waited for."""
    namespaces = {os.readlink(f"/proc/{host.pid}/ns/pid") for host in lab.hosts}
    ticks = 0
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") in namespaces:
                stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in stat[11:15])
        except OSError:
            continue
    return ticks / _TICKS


class Bench:
    def __init__(self, lab: Lab, fleet: Fleet, options: argparse.Namespace) -> None:
        self.lab, self.fleet, self.options = lab, fleet, options
        (lab.folder / "serial").mkdir(exist_ok=True)

    def make_template(self) -> None:
        spec = GuestSpec(name="small", memory_mib=self.options.memory_mib)
        file = self.lab.folder / "small.xml"
        file.write_text(domain_xml(spec, self.lab.name, self._serial("small"), None, ""))
        self.fleet.cli("template", "create", "small", "--domain", str(file),
                       "--ready-when", "ready role=")

    def run(self, mode: str, vms: int) -> dict[str, Any]:
        for host in self.lab.hosts:
            self._shelve(host, mode)
        names = [f"{mode}{vms}-{i}" for i in range(1, vms + 1)]
        argv = ["boot", "small", "--count", str(vms), "--name", f"{mode}{vms}-%"]
        before = cpu_seconds(self.lab)
        began = time.monotonic()
        command = self.fleet.popen_cli(*argv, *(["--cold"] if mode == "cold" else []))
        ready = self._wait_ready(names, began)
        out, err = command.communicate(timeout=60)
        cpu = cpu_seconds(self.lab) - before
        if command.returncode != 0:
            raise SystemExit(f"samepage boot failed: {err}")
        storm = json.loads(out)
        result = {
            "mode": mode, "image": "small", "hosts": len(self.lab.hosts), "vms": vms,
            "ready_s_p50": round(statistics.median(ready), 3), "ready_s_max": round(max(ready), 3),
            "running_s_p50": round(statistics.median(vm["ready_s"] for vm in storm["vms"]), 3),
            "total_s": round(storm["total_s"], 3), "host_cpu_s": round(cpu, 2),
            "own_memory_mib_per_vm": round(statistics.mean(self._own_mib(names)), 1),
            "bytes_fetched": sum(host["fetched_bytes"] for host in storm["hosts"]),
        }
        self._end(names)
        return result

    def _shelve(self, host: Any, mode: str) -> None:
        """Has the template's RAM lie on the host, or not, as the mode needs."""
        if mode == "fork":
            self.fleet.cli("boot", "small", "--name", "warm", "--on", host.name)
            host.domain("warm").destroy()
        elif mode == "fork-neighbour":
            self.fleet.kill(host.name)
            host.run(["sh", "-c", f"rm -rf {SHELF}/*"])
            self.fleet.start_agent(host)
            self.fleet.wait_hosts()

    def _serial(self, name: str) -> Path:
        return self.lab.folder / "serial" / f"{name}.log"

    def _wait_ready(self, names: list[str], began: float) -> list[float]:
        ready: dict[str, float] = {}
        while len(ready) < len(names):
            for name in names:
                serial = self._serial(name)
                if name not in ready and serial.exists() and b"heartbeat" in serial.read_bytes():
                    ready[name] = time.monotonic() - began
            if time.monotonic() - began > _READY_MAX_S:
                raise SystemExit(f"not ready: {sorted(set(names) - set(ready))}")
            time.sleep(_POLL_S)
        return list(ready.values())

    def _own_mib(self, names: list[str]) -> list[float]:
        """Anonymous memory of the guests' RAM mappings, from smaps."""
        found = []
        for host in self.lab.hosts:
            for name, pid in host.guest_pids().items():
                if name in names:
                    found.append(own_mib(pid, self.options.memory_mib))
        return found

    def _end(self, names: list[str]) -> None:
        for host in self.lab.hosts:
            for name in set(host.guest_names()) & set(names):
                host.domain(name).destroy()
        for name in names:
            self._serial(name).unlink(missing_ok=True)


def own_mib(pid: int, memory_mib: int) -> float:
    inside, kib = False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            inside = is_ram_size(end - start, memory_mib << 20)
        elif inside and words[0] == "Anonymous:":
            kib += int(words[1])
    return kib / 1024


def talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(results: list[dict[str, Any]]) -> str:
    keys = list(results[0])
    rows = [keys] + [[str(one[key]) for key in keys] for one in results]
    widths = [max(len(row[i]) for row in rows) for i in range(len(keys))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths))
                     for row in rows)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench boot", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="at most 10 guests on one host")
    parser.add_argument("--hosts", type=int, default=None)
    parser.add_argument("--vms", default=None, help="comma-separated numbers of guests")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--memory-mib", type=int, default=256)
    options = parser.parse_args(argv)
    require_lab()
    counts = [int(n) for n in (options.vms or ("1,10" if options.quick else "1,10,30")).split(",")]
    results = []
    with Lab(f"bench-boot-{os.getpid()}", hosts=options.hosts or (1 if options.quick else 2)) as lab:
        bench = Bench(lab, Fleet(lab).start(), options)
        bench.make_template()
        for vms in counts:
            for mode in options.modes.split(","):
                results.append(bench.run(mode, vms))
                talk(json.dumps(results[-1]))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                            text=True, cwd=Path(__file__).parent).stdout.strip()
    talk(f"commit {commit}, {os.cpu_count()} processors, {options.memory_mib} MiB guests, TCG")
    print(json.dumps(results) if options.json else table(results))
    return 0
