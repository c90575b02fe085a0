"""Boots of many VMs at once: forked from a template, and from scratch.

Lab hosts with Samepage on them boot N equal guests in every mode. A guest is ready when its serial
line shows its first heartbeat, counted from the start of the command. Processor time is that of
every process on the hosts, guests included; own memory is what the kernel says of each guest's RAM
when the last was ready. Modes:

  raw             libvirt alone boots each guest from scratch, on a raw file of its own where it has
                  a disk; the bytes are those of the files
  cold            `samepage boot --cold`, on hosts that hold nothing of the image
  cold-warm       the same on hosts that have booted it before
  fork            the template's RAM lies on every host
  fork-neighbour  no host has the template's RAM, it comes out of the image store first

The bytes of cold modes are those that the disks' processes read from the image store, the bytes of
forks those of the template. Images: "small", which has no disk, and "debian".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samepage_lab import Host, Lab, require_lab
from samepage_lab.fleet import Fleet
from samepage_lab.fork_image import fork_image
from samepage_lab.frames import is_ram_size
from samepage_lab.guest_spec import GuestSpec, domain_xml

_TICKS = os.sysconf("SC_CLK_TCK")
_READY_MAX_S = 420.0
_POLL_S = 0.01
# What a host has of images, beside its agent's memory.
_KEPT = ("/dev/shm/samepage/samepage/templates", "/var/lib/samepage/mirrors")


@dataclass(frozen=True)
class Image:
    """What boots. `modes` are those that make sense of it."""

    name: str
    memory_mib: int
    settings: dict[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = ("raw", "fork", "fork-neighbour")

    @property
    def disk(self) -> Path | None:
        return fork_image().disk if self.settings.get("kind") == "debian" else None


IMAGES = {image.name: image for image in (
    Image("small", 256),
    Image("debian", 320, {"kind": "debian", "nic": True},
          modes=("raw", "cold", "cold-warm", "fork", "fork-neighbour")),
)}
MODES = IMAGES["debian"].modes


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
    def __init__(self, lab: Lab, fleet: Fleet, image: Image) -> None:
        self.lab, self.fleet, self.image = lab, fleet, image
        self._serials = lab.folder / "serial"
        self._raw = lab.folder / "raw"
        self._serials.mkdir(exist_ok=True)
        self._raw.mkdir(exist_ok=True)

    def make_template(self) -> None:
        from_store = []
        if self.image.disk:
            from_store = ["--image", f"{self.image.name}-disk"]
            self.lab.hosts[0].run(
                [str(self.fleet.programs / "samepage"), "image", "import", str(self.image.disk),
                 "--name", from_store[1], "--store", str(self.fleet.store)], timeout_s=600)
        file = self.lab.folder / f"{self.image.name}.xml"
        file.write_text(self._xml("leader", Path("/no/disk")))  # The store's takes its place.
        self.fleet.cli("template", "create", self.image.name, "--domain", str(file), *from_store,
                       "--ready-when", "ready role=", timeout_s=_READY_MAX_S)

    def run(self, mode: str, vms: int) -> dict[str, Any]:
        names = [f"{mode}{vms}-{i}" for i in range(1, vms + 1)]
        for host in self.lab.hosts:
            self._prepare(host, mode)
        if mode == "raw":
            self._copy(names)
        before = cpu_seconds(self.lab)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            command = pool.submit(self._boot_raw if mode == "raw" else self._boot, mode, names)
            ready = self._wait_ready(names, began)
            storm = command.result()
        cpu = cpu_seconds(self.lab) - before
        result = {
            "mode": mode, "image": self.image.name, "hosts": len(self.lab.hosts), "vms": vms,
            "ready_s_p50": round(statistics.median(ready), 3), "ready_s_max": round(max(ready), 3),
            "running_s_p50": round(statistics.median(vm["ready_s"] for vm in storm["vms"]), 3),
            "total_s": round(storm["total_s"], 3), "host_cpu_s": round(cpu, 2),
            "own_memory_mib_per_vm": round(statistics.mean(self._own_mib(names)), 1),
            "bytes_fetched": self._fetched(mode, names, storm),
        }
        self._end(names)
        return result

    def _prepare(self, host: Host, mode: str) -> None:
        """Has on the host what the mode needs there, and nothing else."""
        if mode in ("cold", "fork-neighbour"):
            self.fleet.kill(host.name)
            for folder in _KEPT:
                host.run(["sh", "-c", f"rm -rf {folder}/*"])
            self.fleet.start_agent(host)
            self.fleet.wait_hosts()
        elif mode in ("fork", "cold-warm"):
            warm = ["boot", self.image.name, "--name", "warm-9", "--on", host.name]
            self.fleet.cli(*warm, *(["--cold"] if mode == "cold-warm" else []))
            if mode == "cold-warm":
                self._wait_ready(["warm-9"], time.monotonic())
            self._end(["warm-9"])

    def _copy(self, names: list[str]) -> None:
        for name in names if self.image.disk else []:
            subprocess.run(["cp", "--sparse=always", self.image.disk, self._raw / name], check=True)

    def _boot(self, mode: str, names: list[str]) -> dict[str, Any]:
        return self.fleet.cli("boot", self.image.name, "--count", str(len(names)), "--name",
                              f"{mode}{len(names)}-%", *(["--cold"] if "cold" in mode else []),
                              timeout_s=_READY_MAX_S)

    def _boot_raw(self, _mode: str, names: list[str]) -> dict[str, Any]:
        began = time.monotonic()

        def boot(index: int) -> dict[str, float]:
            host = self.lab.hosts[index % len(self.lab.hosts)]
            host.libvirt().createXML(self._xml(names[index], self._raw / names[index]))
            return {"ready_s": time.monotonic() - began}

        booted = [boot(index) for index in range(len(names))]
        return {"vms": booted, "total_s": time.monotonic() - began}

    def _xml(self, name: str, disk: Path) -> str:
        settings = dict(self.image.settings)
        if self.image.disk:
            settings["disk_xml"] = (
                "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
                f"<source file='{disk}'/><target dev='vda' bus='virtio'/></disk>")
        spec = GuestSpec(name=name, memory_mib=self.image.memory_mib, **settings)
        return domain_xml(spec, self.lab.name, self._serial(name), None, "")

    def _serial(self, name: str) -> Path:
        return self._serials / f"{name}.log"

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

    def _fetched(self, mode: str, names: list[str], storm: dict[str, Any]) -> int:
        if mode == "raw":
            return sum((self._raw / name).stat().st_blocks * 512 for name in names
                       if self.image.disk)
        if mode.startswith("fork"):
            return sum(host["fetched_bytes"] for host in storm["hosts"])
        return sum(disk["fetched_bytes"] for disk in self._disks(names))

    def _disks(self, names: list[str]) -> list[dict[str, Any]]:
        return [disk for disk in self.fleet.cli("disk", "list")["disks"] if disk["name"] in names]

    def _own_mib(self, names: list[str]) -> list[float]:
        """Anonymous memory of the guests' RAM mappings, from smaps."""
        return [own_mib(pid, self.image.memory_mib) for host in self.lab.hosts
                for name, pid in host.guest_pids().items() if name in names]

    def _end(self, names: list[str]) -> None:
        for host in self.lab.hosts:
            for name in set(host.guest_names()) & set(names):
                host.domain(name).destroy()
        for disk in self._disks(names):
            self.fleet.cli("disk", "rm", disk["name"], "--host", disk["host"])
        for name in names:
            self._serial(name).unlink(missing_ok=True)
            (self._raw / name).unlink(missing_ok=True)


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


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench boot", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true",
                        help="small guests, at most 10, on one host")
    parser.add_argument("--images", default=None, help=", ".join(IMAGES))
    parser.add_argument("--hosts", type=int, default=None)
    parser.add_argument("--vms", default=None, help="comma-separated numbers of guests")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--scratch-vms-max", type=int, default=10,
                        help="more guests than so many are only forked (10)")
    options = parser.parse_args(argv)
    options.images = (options.images or ("small" if options.quick else ",".join(IMAGES))).split(",")
    options.hosts = options.hosts or (1 if options.quick else 2)
    counts = options.vms or ("1,10" if options.quick else "1,10,30")
    options.vms = [int(count) for count in counts.split(",")]
    options.modes = options.modes.split(",")
    return options


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    results = []
    with Lab(f"bench-boot-{os.getpid()}", hosts=options.hosts) as lab:
        fleet = Fleet(lab).start()
        for image in (IMAGES[name] for name in options.images):
            bench = Bench(lab, fleet, image)
            bench.make_template()
            for vms in options.vms:
                for mode in (mode for mode in image.modes if mode in options.modes):
                    if vms > options.scratch_vms_max and not mode.startswith("fork"):
                        continue
                    results.append(bench.run(mode, vms))
                    talk(json.dumps(results[-1]))
    return results


def main(argv: list[str]) -> int:
    options = parse(argv)
    require_lab()
    results = measure(options)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                            text=True, cwd=Path(__file__).parent).stdout.strip()
    talk(f"commit {commit}, {os.cpu_count()} processors, TCG")
    print(json.dumps(results) if options.json else table(results))
    return 0
