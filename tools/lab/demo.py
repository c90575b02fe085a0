#!/usr/bin/python3
"""The main job, end to end, on real hosts and guests: see tools/demo.

Every figure printed is measured in this run: sharing and memory by physical frames (frames.py),
moves by the relay and the guests' heartbeats, bytes on the wire also by the hosts' links.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from samepage_lab import Frames, Guest, Heartbeat, Ksm, Lab, LabError, count_frames
from samepage_lab.fleet import Fleet

_MIB_PAGES = 256
_HOST_MEMORY_MIB = 1024
_GUESTS = [
    ("host1", "web1", "a", "web"),
    ("host1", "web2", "a", "web"),
    ("host1", "db1", "b", "idle"),
    ("host2", "web3", "a", "web"),
    ("host2", "db2", "b", "idle"),
    ("host2", "db3", "b", "idle"),
]


def say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


class Stages:
    """A progress line for every stage, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def begin(self, text: str) -> None:
        say(f"[{time.monotonic() - self._start:6.1f} s] {text}")


@dataclass(frozen=True)
class Memory:
    """What the guests of all hosts occupy, counted per host by physical frames; MiB."""

    occupied_mib: float
    shared_mib: float


def measure(lab: Lab) -> Memory:
    counts: list[Frames] = [count_frames(host) for host in lab.hosts]
    return Memory(
        occupied_mib=sum(count.distinct_frames for count in counts) / _MIB_PAGES,
        shared_mib=sum(count.saved_pages for count in counts) / _MIB_PAGES,
    )


def wire_mib(lab: Lab) -> float:
    """What has crossed host1's link so far, both ways; with two hosts, all there is."""
    count = lab.hosts[0].bytes()
    return (count.rx + count.tx) / 2**20


def start_guests(lab: Lab) -> dict[str, Guest]:
    guests = {}
    for host, name, image, role in _GUESTS:
        guests[name] = lab.start_guest(host, name, wait=False, image=image, role=role)
    for guest in guests.values():
        guest.wait_ready()
    return guests


def show(fleet: Fleet, *argv: str) -> None:
    """Prints a command of the CLI and what it says, as an administrator would see it."""
    say(f"\n$ samepage {' '.join(argv)}")
    done = fleet.run_cli(*argv)
    say(done.stdout.rstrip() + "\n")
    if done.returncode != 0:
        raise LabError(f"samepage {' '.join(argv)} failed: {done.stderr.strip()}")


@dataclass
class Carried:
    moves: list[dict[str, Any]]
    wire_bytes: int
    link_mib: float


def apply(lab: Lab, fleet: Fleet, guests: dict[str, Guest], plan: dict[str, Any]) -> Carried:
    """Carries the plan out while the heartbeats of the guests that move are recorded."""
    recorders = {move["vm"]: Heartbeat(guests[move["vm"]].serial) for move in plan["moves"]}
    try:
        for recorder in recorders.values():
            recorder.wait_beats(2)
        link_before, began = wire_mib(lab), time.monotonic()
        done = fleet.cli("apply", str(plan["id"]), timeout_s=900)
        ended, link_after = time.monotonic(), wire_mib(lab)
        moves = []
        for move in done["moves"]:
            recorder = recorders[move["vm"]]
            alive = move["state"] == "done" and recorder.alive()
            moves.append({
                key: move[key] for key in ("vm", "source", "target", "stream_bytes", "wire_bytes",
                                           "page_refs", "downtime_ms", "total_ms")
            } | {
                "heartbeat_gap_ms": round(recorder.gap_ms_max(began, ended), 1),
                "guest_alive": alive,
            })
    finally:
        for recorder in recorders.values():
            recorder.close()
    wire = sum(move["wire_bytes"] for move in moves)
    return Carried(moves, wire, link_after - link_before)


def check_wire(carried: Carried) -> None:
    """The relay's own count against the links': Ethernet, IP and TCP add a few per cent."""
    relay_mib = carried.wire_bytes / 2**20
    say(f"on the wire: {relay_mib:.2f} MiB by the relay's count, {carried.link_mib:.2f} MiB by "
        "the link's counters (with frame headers, acknowledgements and the bus)")
    if not relay_mib <= carried.link_mib <= 1.15 * relay_mib + 1.0:
        raise LabError("the relay's count of bytes does not agree with the link's counters")


def report_moves(moves: list[dict[str, Any]]) -> None:
    for move in moves:
        share = 100.0 * move["wire_bytes"] / max(1, move["stream_bytes"])
        say(f"  {move['vm']}: {move['source']} -> {move['target']}: "
            f"stream {move['stream_bytes'] / 2**20:.1f} MiB, wire {move['wire_bytes'] / 2**20:.1f} "
            f"MiB ({share:.1f} %), {move['page_refs']} references, downtime "
            f"{move['downtime_ms']:.0f} ms, total {move['total_ms']:.0f} ms, longest heartbeat gap "
            f"{move['heartbeat_gap_ms']:.0f} ms, "
            f"{'alive' if move['guest_alive'] else 'NOT ALIVE'}")


def converge(lab: Lab, ksm: Ksm, fleet: Fleet) -> Memory:
    """Until KSM has merged what it can. The second scan tells the pages that do not hold still."""
    fleet.cli("scan")
    ksm.wait_converged(timeout_s=180)
    fleet.cli("scan")
    return measure(lab)


def run(lab: Lab, stages: Stages) -> dict[str, Any]:
    stages.begin("starting the placer and two agents, enrolling their keys")
    fleet = Fleet(lab, host_memory_mib=_HOST_MEMORY_MIB).start()
    stages.begin("booting six guests of two kinds, mixed over both hosts")
    guests = start_guests(lab)
    # Zero pages go to the kernel's zero page and count as no memory at all.
    with Ksm(use_zero_pages=1, pages_to_scan=20000, sleep_millisecs=10) as ksm:
        stages.begin("letting KSM merge what the hosts share now; agents fingerprint the guests")
        before = converge(lab, ksm, fleet)
        for argv in (["hosts"], ["vms"], ["sharing"]):
            show(fleet, *argv)
        stages.begin("planning")
        plan = fleet.cli("plan")
        show(fleet, "plan", "show", str(plan["id"]))
        stages.begin(f"carrying out {len(plan['moves'])} moves by live migration")
        carried = apply(lab, fleet, guests, plan)
        report_moves(carried.moves)
        check_wire(carried)
        stages.begin("letting KSM merge what the hosts share after the moves")
        after = converge(lab, ksm, fleet)
        show(fleet, "sharing")
    return summarize(plan, carried, before, after)


def summarize(
    plan: dict[str, Any], carried: Carried, before: Memory, after: Memory
) -> dict[str, Any]:
    predicted = plan["predicted_shared_after_mib"]
    error = 100.0 * abs(predicted - after.shared_mib) / after.shared_mib
    say(f"shared: {before.shared_mib:.1f} MiB before, {predicted:.1f} predicted, "
        f"{after.shared_mib:.1f} achieved by KSM ({error:.1f} % off)")
    say(f"memory of all guests: {before.occupied_mib:.1f} MiB before, "
        f"{after.occupied_mib:.1f} MiB after")
    return {
        "hosts": 2,
        "vms": len(_GUESTS),
        "predicted_shared_mib": round(predicted, 2),
        "achieved_shared_mib": round(after.shared_mib, 2),
        "prediction_error_pct": round(error, 2),
        "memory_before_mib": round(before.occupied_mib, 2),
        "memory_after_mib": round(after.occupied_mib, 2),
        "moves": carried.moves,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    options = parser.parse_args()
    stages = Stages()
    try:
        stages.begin("bringing up two lab hosts")
        with Lab("demo", hosts=2) as lab:
            result = run(lab, stages)
            stages.begin("stopping and removing everything")
    except LabError as error:
        say(f"demo: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo: interrupted; everything that it started is stopped and removed")
        return 130
    stages.begin("done")
    if options.json:
        print(json.dumps(result))
    return 0 if all(move["guest_alive"] for move in result["moves"]) and result["moves"] else 1


if __name__ == "__main__":
    sys.exit(main())
