"""The ways to move a lab guest that the migration benchmark compares."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Callable

from samepage_lab import Guest
from samepage_lab.bindings import libvirt
from samepage_lab.fleet import Fleet

MODES = ("precopy", "xbzrle", "multifd-zstd", "postcopy", "samepage")
_BANDWIDTH_MAX = 100_000  # MiB/s: only the link limits
_CHANNELS = 2
_XBZRLE_CACHE = 128 << 20  # holds every writer's working set
_POLL_S = 0.02


@dataclass(frozen=True)
class Outcome:
    stream_bytes: int
    downtime_ms: float | None


def move_with(mode: str, guests: list[Guest], target: Any, fleet: Fleet,
              poll: Callable[[], None] = lambda: None) -> Outcome:
    """Moves the guests, one after the other, and calls poll() meanwhile a few times a second."""
    outcome: list[Outcome | BaseException] = []

    def run() -> None:
        try:
            outcome.append(_samepage(guests, target, fleet) if mode == "samepage" else
                           _sum([_stock(mode, guest, target) for guest in guests]))
        except BaseException as error:  # noqa: BLE001: handed to the caller's thread
            outcome.append(error)

    mover = threading.Thread(target=run)
    mover.start()
    while mover.is_alive():
        mover.join(_POLL_S)
        poll()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def move_back(guest: Guest, target: Any) -> None:
    """Moves a guest with libvirt alone, which leaves no trace of it on the host that it leaves."""
    if guest.host is not target:
        _stock("precopy", guest, target)


def _sum(outcomes: list[Outcome]) -> Outcome:
    downtimes = [one.downtime_ms for one in outcomes if one.downtime_ms is not None]
    return Outcome(sum(one.stream_bytes for one in outcomes), max(downtimes, default=None))


def _samepage(guests: list[Guest], target: Any, fleet: Fleet) -> Outcome:
    names = [guest.name for guest in guests]
    plan = fleet.cli("migrate", *names, "--to", target.name)
    moves = plan["moves"]
    return Outcome(sum(move["stream_bytes"] for move in moves),
                   max(move["downtime_ms"] for move in moves))


def _stock(mode: str, guest: Guest, target: Any) -> Outcome:
    flags = libvirt.VIR_MIGRATE_LIVE
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{target.address}",
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: _BANDWIDTH_MAX,
    }
    if mode == "xbzrle":
        flags |= libvirt.VIR_MIGRATE_COMPRESSED
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = "xbzrle"
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE] = _XBZRLE_CACHE
    if mode == "multifd-zstd":
        flags |= libvirt.VIR_MIGRATE_PARALLEL
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = _CHANNELS
    if mode == "postcopy":
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    domain = guest.domain()
    switcher = threading.Thread(target=_switch_to_postcopy, args=(domain,))
    if mode == "postcopy":
        switcher.start()
    try:
        moved = domain.migrate3(target.libvirt(), parameters, flags)
    finally:
        if mode == "postcopy":
            switcher.join()
    stats = moved.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    return Outcome(stats.get("memory_processed", 0), stats.get("downtime"))


def _switch_to_postcopy(domain: Any) -> None:
    """As `virsh migrate --postcopy-after-precopy`: after the first pass over the memory."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if domain.jobStats().get("memory_iteration", 0) >= 2:
                domain.migrateStartPostCopy()
                return
        except libvirt.libvirtError:
            return
        time.sleep(0.005)
