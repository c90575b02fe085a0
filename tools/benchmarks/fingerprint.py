"""Fingerprints: the speed of scans, the error of estimates, and predictions against KSM.

Speeds and errors are measured on synthetic memory; the slow-down and the KSM row on real guests
under TCG, Debian disk guests among them. Every ratio is of figures of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerprint_ksm import ksm_row, policies_row, start_guests
from samepage_lab import Guest, Lab, require_lab

_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILD = _REPOSITORY / "build" / "release"
_TARGETS = ("fingerprint_estimate", "fingerprint_scan", "samepage", "samepage-placer",
            "samepage-preload", "samepaged")
_PRELOAD = _BUILD / "bin" / "libsamepage-preload.so"
# The guest's slow-down is asked for at a rescan each 60 s. What a rescan takes from the guest is
# the same however often it comes, so it is measured where it shows: at one each 2 s.
_PERIOD_S = 2.0
_PERIOD_ASKED_S = 60.0


def talk(text: str) -> None:
    print(f"fingerprint: {text}", file=sys.stderr)


def build() -> None:
    for command in (
        ["cmake", "--preset", "release"],
        ["cmake", "--build", "--preset", "release", "--target", *_TARGETS],
    ):
        done = subprocess.run(command, cwd=_REPOSITORY, text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"fingerprint: {' '.join(command)} failed:\n{done.stdout[-3000:]}")


def run(program: str, *words: str) -> dict[str, Any]:
    done = subprocess.run([_BUILD / "bin" / program, *words], text=True, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{program}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def estimates(quick: bool) -> list[dict[str, Any]]:
    """Pairs of synthetic page sets."""
    rows = []
    for gib in (1, 8):
        pairs = 200 if quick else 10_000
        for kib in (8, 32, 128):
            row = run("fingerprint_estimate", str(kib << 10), str(gib), str(pairs), "1")
            talk(f"estimate {row}")
            keys = ("bytes", "vm_gib", "pairs", "rmse_pct", "interval_coverage_pct")
            rows.append({key: row[key] for key in keys})
    return rows


def pairs_per_s(kib: int) -> float:
    row = run("fingerprint_estimate", "pairs", str(kib << 10))
    talk(f"pairs {row}")
    return max(row[kernel] for kernel in ("avx512", "avx2", "portable") if kernel in row)


def where(guest: Guest) -> str:
    """The guest as fingerprint_scan names it."""
    return f"{guest.host.guest_pids()[guest.name]}:{guest.spec.memory_mib << 20}"


@dataclass(frozen=True)
class Rate:
    """A guest's operations a second of the clock, and of its own processor time."""

    per_s: float
    per_cpu_s: float


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work_rate(guest: Guest, seconds: float) -> Rate:
    pid = guest.host.guest_pids()[guest.name]
    with guest.heartbeat() as heartbeat:
        heartbeat.wait_beats(2)
        first, cpu = heartbeat.beats()[-1], cpu_seconds(pid)
        time.sleep(seconds)
        last = heartbeat.beats()[-1]
    work = last.work - first.work
    return Rate(work / (last.at - first.at), work / (cpu_seconds(pid) - cpu))


def slowdown(lab: Lab, quick: bool) -> dict[str, Any]:
    """A guest that rewrites its memory as fast as it can, with and without rescans, in turn."""
    guest = lab.start_guest(lab.host("host1"), "loaded", role="random", rate=1_000_000,
                            memory_mib=512, write_mib=64, preload=str(_PRELOAD))
    window_s, rounds = (8.0, 2) if quick else (12.0, 8)
    by_clock, by_cpu = [], []
    for _ in range(rounds):
        before = work_rate(guest, window_s)
        scanner = subprocess.Popen(
            [_BUILD / "bin" / "fingerprint_scan", "rescan", where(guest), str(_PERIOD_S),
             str(window_s + 4)], stdout=subprocess.PIPE, text=True)
        time.sleep(1.5)  # The first pass reads everything, once for each guest's life.
        during = work_rate(guest, window_s)
        told = json.loads(scanner.communicate()[0])
        after = work_rate(guest, window_s)
        by_clock.append(100 * (1 - 2 * during.per_s / (before.per_s + after.per_s)))
        by_cpu.append(100 * (1 - 2 * during.per_cpu_s / (before.per_cpu_s + after.per_cpu_s)))
        talk(f"work {before} {during} {after}, rescans {told}")
    guest.stop()
    measured = statistics.median(by_clock)
    return {"guest_slowdown_at_2_s_pct": measured,
            "guest_slowdown_at_2_s_by_cpu_pct": statistics.median(by_cpu),
            "guest_slowdown_pct": measured * _PERIOD_S / _PERIOD_ASKED_S}


def ksm(lab: Lab, quick: bool) -> dict[str, Any]:
    """What KSM makes of small guests, and of Debian's."""
    rows: dict[str, Any] = {}
    for kind, name in (("small", "ksm_small_guests"), ("debian", "ksm")):
        guests = start_guests(lab, kind, str(_PRELOAD), settle_s=5 if quick else 20)
        rows[name] = ksm_row(guests, lambda: run(
            "fingerprint_scan", "predict", "10", *map(where, guests)))
        talk(f"{name} {rows[name]}")
        for guest in guests:
            guest.stop()
    return rows


def policies(lab: Lab, quick: bool) -> dict[str, Any]:
    """How soon KSM merges small guests, by whose rules."""
    guests = start_guests(lab, "small", str(_PRELOAD), settle_s=5)
    rows = policies_row(lab, _BUILD / "bin", 30 if quick else 120)
    for guest in guests:
        guest.stop()
    return {"ksm_policies": rows}


def estimate(_lab: Lab, quick: bool) -> dict[str, Any]:
    return {"estimate": estimates(quick), "pairs_per_s_16k": pairs_per_s(16),
            "pairs_per_s_92k": pairs_per_s(92)}


def speed(_lab: Lab, quick: bool) -> dict[str, Any]:
    result = run("fingerprint_scan", "speed", "256" if quick else "1024")
    talk(f"speed {result}")
    return result


_PARTS = {part.__name__: part for part in (speed, slowdown, ksm, policies, estimate)}


def measure(names: list[str], quick: bool) -> dict[str, Any]:
    build()
    result: dict[str, Any] = {}
    for name in names:
        with Lab(f"bench-fp-{os.getpid()}", hosts=1) as lab:
            result.update(_PARTS[name](lab, quick))
    return result


def print_table(result: dict[str, Any]) -> None:
    for key, value in result.items():
        if isinstance(value, list):
            for row in value:
                print(f"{key:28}" + "  ".join(f"{name}={cell}" for name, cell in row.items()))
        else:
            print(f"{key:28}{value}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench fingerprint", description=__doc__)
    parser.add_argument("--json", action="store_true", help="the result as one line of JSON")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sets")
    parser.add_argument("--only", action="append", choices=list(_PARTS),
                        help="run this part only; may be repeated")
    args = parser.parse_args(argv)
    require_lab()
    result = measure([name for name in _PARTS if name in (args.only or _PARTS)], args.quick)
    if args.json:
        print(json.dumps(result))
    else:
        print_table(result)
    return 0
