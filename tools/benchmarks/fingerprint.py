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
from pathlib import Path
from typing import Any

from samepage_lab import Guest, Host, Ksm, Lab, count_frames, require_lab

_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILD = _REPOSITORY / "build" / "release"
_TARGETS = ("fingerprint_estimate", "fingerprint_scan", "samepage-preload")
_PRELOAD = _BUILD / "bin" / "libsamepage-preload.so"
_PAGES_PER_MIB = 256
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
    """Pairs of synthetic page sets. The sets of 8 GiB cost much more, so there are fewer."""
    pairs = {1: 200 if quick else 10_000, 8: 20 if quick else 400}
    rows = []
    for gib, count in pairs.items():
        for kib in (8, 32, 128):
            row = run("fingerprint_estimate", str(kib << 10), str(gib), str(count), "1")
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


def work_rate(guest: Guest, seconds: float) -> float:
    """Its operations a second over some seconds."""
    with guest.heartbeat() as heartbeat:
        heartbeat.wait_beats(2)
        first = heartbeat.beats()[-1]
        time.sleep(seconds)
        last = heartbeat.beats()[-1]
    return (last.work - first.work) / (last.at - first.at)


def slowdown(host: Host, lab: Lab, quick: bool) -> dict[str, float]:
    """A guest that rewrites its memory as fast as it can, with and without rescans, in turn."""
    guest = lab.start_guest(host, "loaded", role="random", rate=1_000_000, memory_mib=512,
                            write_mib=64, preload=str(_PRELOAD))
    window_s, rounds = (8.0, 2) if quick else (12.0, 6)
    ratios = []
    for _ in range(rounds):
        before = work_rate(guest, window_s)
        scanner = subprocess.Popen(
            [_BUILD / "bin" / "fingerprint_scan", "rescan", where(guest), str(_PERIOD_S),
             str(window_s + 4)], stdout=subprocess.PIPE, text=True)
        time.sleep(1.5)  # The first pass reads everything, once for each guest's life.
        during = work_rate(guest, window_s)
        told = json.loads(scanner.communicate()[0])
        after = work_rate(guest, window_s)
        ratios.append(1 - 2 * during / (before + after))
        talk(f"work rates {before:.0f} {during:.0f} {after:.0f}, rescans {told}")
    guest.stop()
    measured = statistics.median(ratios)
    return {"at_2_s_pct": 100 * measured,
            "guest_slowdown_pct": 100 * measured * _PERIOD_S / _PERIOD_ASKED_S}


def start_guests(lab: Lab, host: Host, kind: str, quick: bool) -> list[Guest]:
    tracked = {"preload": str(_PRELOAD), "wait": False}
    guests = [
        lab.start_guest(host, f"{kind}{image}{i}", kind=kind, image=image, **tracked)
        for image in "ab" for i in (1, 2)
    ]
    for guest in guests:
        guest.wait_ready(600)
    time.sleep(5 if quick or kind == "small" else 20)  # What a boot leaves behind comes to rest.
    return guests


def ksm_row(lab: Lab, host: Host, kind: str, quick: bool) -> dict[str, Any]:
    """What four guests of two images share, predicted before KSM runs, and what KSM does."""
    guests = start_guests(lab, host, kind, quick)
    before = count_frames(host)
    predicted = run("fingerprint_scan", "predict", "10", *map(where, guests))
    with Ksm(pages_to_scan=20_000, sleep_millisecs=20) as ksm:
        ksm.wait_converged(timeout_s=240, scans_min=4)
        after = count_frames(host)
        # A huge page that is split for KSM leaves no frames behind its pages of zeros.
        given_back = after.zero_pages - before.zero_pages
        achieved = after.saved_pages + given_back
    for guest in guests:
        guest.stop()
    row = {
        "guests": f"4 {kind}",
        "predicted_mib": predicted["pages"] / _PAGES_PER_MIB,
        "low_mib": predicted["low"] / _PAGES_PER_MIB,
        "high_mib": predicted["high"] / _PAGES_PER_MIB,
        "achieved_mib": achieved / _PAGES_PER_MIB,
        "error_pct": 100 * (predicted["pages"] - achieved) / achieved,
    }
    talk(f"ksm {row} {predicted} before {before} after {after}")
    return row


def measure(quick: bool) -> dict[str, Any]:
    build()
    result = run("fingerprint_scan", "speed", "256" if quick else "1024")
    talk(f"speed {result}")
    with Lab(f"bench-fp-{os.getpid()}", hosts=1) as lab:
        host = lab.host("host1")
        result.update(slowdown(host, lab, quick))
        rows = [ksm_row(lab, host, kind, quick) for kind in ("small", "debian")]
    result["estimate"] = estimates(quick)
    result["pairs_per_s_16k"] = pairs_per_s(16)
    result["pairs_per_s_92k"] = pairs_per_s(92)
    result["ksm"] = rows[-1]
    result["ksm_small_guests"] = rows[0]
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
    args = parser.parse_args(argv)
    require_lab()
    result = measure(args.quick)
    if args.json:
        print(json.dumps(result))
    else:
        print_table(result)
    return 0
