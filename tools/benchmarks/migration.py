"""Live migration: Samepage against QEMU's own modes.

Two lab hosts joined by a link of known speed; the modes of one case move the same guest one after
the other, interleaved, and each time the guest is brought back. Bytes are those of the source's
veth in both directions, downtime is what QEMU says and the gap in the guest's heartbeat, processor
time is that of every process on both hosts without the guest's own work (QEMU's vCPU threads).
The peers' control connection does not cross the link, Samepage's does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from migration_modes import MODES, Outcome, move_back, move_with
from migration_plot import plot
from migration_report import report
from samepage_lab import Guest, Lab, debian_image, require_lab
from samepage_lab.fleet import Fleet
from samepage_lab.frames import ram_mapping

_SETTLE_S = 4.0
_TICKS = os.sysconf("SC_CLK_TCK")
LINKS = {"unlimited": 0, "1gbit": 1000, "200mbit": 200}


@dataclass(frozen=True)
class Case:
    """What moves: settings of the moving guest, and what the target knows of it."""

    name: str
    mover: dict[str, Any] = field(default_factory=dict)
    target: str = "warm"  # a twin runs there; "cold": nothing; "gang"; "return-home"
    modes: tuple[str, ...] = MODES
    rest_s: float = 0.0  # return-home: how long the guest is away
    twin: dict[str, Any] = field(default_factory=dict)  # Settings of the target's twin.

    def label(self, mode: str) -> str:
        return f"samepage-{self.target}" if mode == "samepage" else mode


_WITHOUT_POSTCOPY = tuple(mode for mode in MODES if mode != "postcopy")

CASES = (
    Case("idle-twin"),
    Case("own-data", {"own_mib": 32}),
    Case("sparse", {"role": "sparse", "write_mib": 64, "rate": 40_000}, modes=_WITHOUT_POSTCOPY),
    Case("random", {"role": "random", "write_mib": 64, "rate": 2_000}, modes=_WITHOUT_POSTCOPY),
    Case("cold", {"own_mib": 32}, target="cold"),
    Case("debian", {"kind": "debian", "role": "redis"}, twin={"kind": "debian"},
         modes=_WITHOUT_POSTCOPY),
    Case("return-home", target="return-home", modes=("precopy", "multifd-zstd", "samepage"),
         rest_s=120.0),
    Case("gang-4", target="gang", modes=("precopy", "multifd-zstd", "samepage")),
)


@dataclass
class Measured:
    wire_bytes: int
    stream_bytes: int
    total_ms: float
    downtime_ms: float | None
    heartbeat_gap_ms: float
    cpu_s: float
    agents_cpu_s: float  # Of it, the agents': the relays, and what else they do meanwhile.


class Cpu:
    """Processor time of the processes on some hosts, those that end meanwhile included."""

    def __init__(self, lab: Lab) -> None:
        self._namespaces = {os.readlink(f"/proc/{host.pid}/ns/pid") for host in lab.hosts}
        self._first: dict[tuple[int, int], int] = {}
        self._last: dict[tuple[int, int], int] = {}
        self._pids: set[int] = set()
        self._agents: set[int] = set()
        self.sample(find=True)
        self._first = dict(self._last)

    def sample(self, find: bool = False) -> None:
        if find:
            self._pids = set(self._find())
            self._agents |= {pid for pid in self._pids if _command(pid) == "samepaged"}
        for pid in self._pids:
            for task in _tasks(pid):
                ticks = _ticks(pid, task)
                if ticks is not None:
                    self._last[pid, task] = ticks

    def seconds(self) -> tuple[float, float]:
        """Of all processes, and of the agents."""
        self.sample(find=True)
        gained = {task: ticks - self._first.get(task, 0) for task, ticks in self._last.items()}
        agents = sum(ticks for (pid, _), ticks in gained.items() if pid in self._agents)
        return sum(gained.values()) / _TICKS, agents / _TICKS

    def _find(self) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") in self._namespaces:
                    found.append(int(entry))
            except OSError:
                continue
        return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _tasks(pid: int) -> list[int]:
    try:
        return [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _ticks(pid: int, task: int) -> int | None:
    """A thread's processor time so far; None for a guest's vCPU, or when it ended."""
    try:
        text = Path(f"/proc/{pid}/task/{task}/stat").read_text()
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    if name.startswith("CPU "):
        return None
    fields = rest.split()
    return int(fields[11]) + int(fields[12])


class Bench:
    def __init__(self, lab: Lab, fleet: Fleet, options: argparse.Namespace) -> None:
        self.lab, self.fleet, self.options = lab, fleet, options
        self.host1, self.host2 = lab.hosts

    def run_case(self, case: Case, link: str) -> list[dict[str, Any]]:
        names = ["mover"] if case.name != "gang-4" else [f"mover{i}" for i in range(1, 5)]
        guests = [self._boot(self.host1, name, case.mover) for name in names]
        twin = self._boot(self.host2, "twin", case.twin) if case.target == "warm" else None
        for guest in [*guests, *([twin] if twin else [])]:
            guest.wait_ready(300)
        modes = [mode for mode in case.modes if mode in self.options.modes]
        runs: dict[str, list[Measured]] = {mode: [] for mode in modes}
        same: dict[str, bool | None] = {mode: None for mode in modes}
        try:
            for repeat in range(self.options.repeats):
                for mode in modes:
                    runs[mode].append(self._measure(case, guests, mode, LINKS[link]))
                    talk(f"{case.name} {link} {mode} {repeat + 1}: {runs[mode][-1]}")
            for mode in modes if not self.options.no_compare else []:
                same[mode] = self._memory_identical(guests[0], mode)
                talk(f"{case.name} {link} {mode}: memory identical {same[mode]}")
        finally:
            for guest in [*guests, *([twin] if twin else [])]:
                guest.stop()
        return [result(case, link, mode, runs[mode], same[mode]) for mode in modes]

    def _boot(self, host: Any, name: str, settings: dict[str, Any]) -> Guest:
        usual = {"image": "a", "image_mib": self.options.image_mib, "multifd_zstd": True,
                 "memory_mib": self.options.memory_mib}
        if settings.get("kind") == "debian":
            usual = {"image": "a", "multifd_zstd": True, "disk_xml": self._network_disk(name)}
        return self.lab.start_guest(host, name, wait=False, **{**usual, **settings})

    def _network_disk(self, name: str) -> str:
        """A disk of its own for a Debian guest, which every host serves at the same path."""
        disk = self.lab.folder / f"{name}.raw"
        subprocess.run(["cp", "--sparse=always", debian_image("a").disk, disk], check=True)
        for host in self.lab.hosts:
            # It lives as long as the host.
            host.popen(["nbdkit", "--foreground", "--unix", f"/run/samepage/{name}.nbd", "file",
                        str(disk)])
        return ("<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>"
                f"<source protocol='nbd'><host transport='unix' socket='/run/samepage/{name}.nbd'/>"
                "</source><target dev='vda' bus='virtio'/></disk>")

    def _measure(self, case: Case, guests: list[Guest], mode: str, mbit: float) -> Measured:
        if case.rest_s:
            move_with(mode, guests, self.host2, self.fleet)
            away = mode == "samepage"  # to the others it is all the same
            time.sleep(case.rest_s if away and not self.options.quick else 5.0)
        source = guests[0].host
        target = self.host1 if source is self.host2 else self.host2
        self.fleet.cli("scan")
        # A virtual machine gives memory that it has freed back to its own host. What it gets from
        # there again costs more, and no mode may find more of that than another.
        time.sleep(_SETTLE_S)
        self._link(mbit)
        measured = self._watch(guests, mode, source, target)
        self._link(0)
        if not case.rest_s:
            for guest in guests:
                move_back(guest, self.host1)
        return measured

    def _watch(self, guests: list[Guest], mode: str, source: Any, target: Any) -> Measured:
        before = source.bytes()
        cpu = Cpu(self.lab)
        with guests[0].heartbeat() as heartbeat:
            heartbeat.wait_beats(2)
            began = time.monotonic()
            outcome: Outcome = move_with(mode, guests, target, self.fleet, cpu.sample)
            seconds = time.monotonic() - began
            heartbeat.wait_beats(3, 30.0)
            gap = heartbeat.gap_ms_max(began)
        count = source.bytes() - before
        cpu_s, agents_cpu_s = cpu.seconds()
        return Measured(wire_bytes=count.rx + count.tx, stream_bytes=outcome.stream_bytes,
                        total_ms=round(1000 * seconds, 1), downtime_ms=outcome.downtime_ms,
                        heartbeat_gap_ms=round(gap, 1), cpu_s=round(cpu_s, 2),
                        agents_cpu_s=round(agents_cpu_s, 2))

    def _memory_identical(self, guest: Guest, mode: str) -> bool | None:
        """Whether a paused guest's RAM is the same on both hosts; None where a mode needs it running."""
        if mode == "postcopy":
            return None
        source = guest.host
        target = self.host1 if source is self.host2 else self.host2
        guest.pause()
        sent = _ram(guest, source)
        move_with(mode, [guest], target, self.fleet)
        same = _ram(guest, target) == sent
        guest.resume()
        move_back(guest, self.host1)
        return same

    def _link(self, mbit: float) -> None:
        for host in self.lab.hosts:
            self.lab.link(host, mbit)


def _ram(guest: Guest, host: Any) -> bytes:
    pid = host.guest_pids()[guest.name]
    start, end = ram_mapping(pid, guest.spec.memory_mib << 20)
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(end - start)


def result(case: Case, link: str, mode: str, runs: list[Measured], same: bool | None
           ) -> dict[str, Any]:
    """Medians, and the spread of each figure as [least, most]."""
    columns = {name: [asdict(run)[name] for run in runs if asdict(run)[name] is not None]
               for name in Measured.__dataclass_fields__}
    medians = {name: statistics.median(values) if values else None
               for name, values in columns.items()}
    spread = {name: [min(values), max(values)] for name, values in columns.items() if values}
    return {"case": case.name, "link": link, "mode": case.label(mode), **medians, "memory_identical": same,
            "repeats": len(runs), "spread": spread}


def talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'case':12} {'link':10} {'mode':20} {'wire MB':>9} {'stream MB':>9} {'time s':>7} "
             f"{'gap ms':>7} {'down ms':>7} {'cpu s':>6} {'agents':>6}  same"]
    for one in results:
        down = "" if one["downtime_ms"] is None else f"{one['downtime_ms']:.0f}"
        lines.append(
            f"{one['case']:12} {one['link']:10} {one['mode']:20} {one['wire_bytes'] / 1e6:9.2f} "
            f"{one['stream_bytes'] / 1e6:9.1f} {one['total_ms'] / 1e3:7.2f} "
            f"{one['heartbeat_gap_ms']:7.0f} {down:>7} {one['cpu_s']:6.2f} "
            f"{one['agents_cpu_s']:6.2f}  "
            f"{one['memory_identical']}")
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench migration", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small guests, once, one link")
    parser.add_argument("--cases", default=None, help="comma-separated")
    parser.add_argument("--links", default=None, help=", ".join(LINKS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--memory-mib", type=int, default=None)
    parser.add_argument("--image-mib", type=int, default=None)
    parser.add_argument("--no-compare", action="store_true", help="do not compare memory")
    parser.add_argument("--plot", type=Path, help="also draw the results into this SVG file")
    parser.add_argument("--markdown", action="store_true",
                        help="the tables of docs/benchmarks.md, with what was wanted")
    parser.add_argument("--from", dest="earlier", type=Path, action="append", default=[],
                        metavar="FILE", help="earlier --json output: show that, measure nothing")
    options = parser.parse_args(argv)
    quick = options.quick
    options.cases = (options.cases or "idle-twin,sparse,cold" if quick else
                     options.cases or ",".join(case.name for case in CASES)).split(",")
    options.links = (options.links or ("200mbit" if quick else ",".join(LINKS))).split(",")
    options.modes = options.modes.split(",")
    options.repeats = options.repeats or (1 if quick else 3)
    options.memory_mib = options.memory_mib or (288 if quick else 512)
    options.image_mib = options.image_mib or (48 if quick else 144)
    return options


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    require_lab()
    results: list[dict[str, Any]] = []
    with Lab(f"bench-{os.getpid()}", hosts=2) as lab:
        bench = Bench(lab, Fleet(lab).start(), options)
        for case in (case for case in CASES if case.name in options.cases):
            for link in options.links:
                results += bench.run_case(case, link)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                            text=True, cwd=Path(__file__).parent).stdout.strip()
    talk(f"commit {commit}, {os.cpu_count()} processors, {options.memory_mib} MiB guests, TCG")
    return results


def main(argv: list[str]) -> int:
    options = parse(argv)
    results = [one for file in options.earlier for one in json.loads(file.read_text())]
    if not options.earlier:
        results = measure(options)
    if options.plot:
        options.plot.write_text(plot(results))
    print(json.dumps(results) if options.json else
          report(results) if options.markdown else table(results))
    return 0
