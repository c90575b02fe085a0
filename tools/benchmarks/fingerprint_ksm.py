"""Predictions against what KSM does, and what the agent's way of driving KSM gains.

Achieved sharing is counted by the physical frames of the host's own guests (frames.py), so guests of
other labs on this machine are in no figure; ksmd's processor time is the machine's, and is honest
only where nobody else's memory is merged.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from samepage_lab import Frames, Guest, Host, Ksm, Lab, count_frames
from samepage_lab.fleet import Fleet

_PAGES_PER_MIB = 256
_SAMPLE_S = 4.0
_KSM = Path("/sys/kernel/mm/ksm")


def start_guests(lab: Lab, kind: str, preload: str, settle_s: float) -> list[Guest]:
    """Four guests of two images on the lab's first host, at rest after their boot."""
    host = lab.host("host1")
    guests = [
        lab.start_guest(host, f"{kind}{image}{i}", kind=kind, image=image, preload=preload,
                        wait=False)
        for image in "ab" for i in (1, 2)
    ]
    for guest in guests:
        guest.wait_ready(600)
    time.sleep(settle_s)
    return guests


def _gain(before: Frames, now: Frames) -> int:
    """Pages. A huge page that is split for KSM leaves no frames behind its pages of zeros."""
    return now.saved_pages + now.zero_pages - before.zero_pages


def ksm_row(guests: list[Guest], predict: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What these guests share, predicted before KSM runs, and what KSM does."""
    host = guests[0].host
    before = count_frames(host)
    predicted = predict()
    with Ksm(pages_to_scan=20_000, sleep_millisecs=10) as ksm:
        began = time.monotonic()
        achieved = ksm.wait_converged(timeout_s=480, scans_min=4,
                                      gain=lambda: _gain(before, count_frames(host)))
        seconds = time.monotonic() - began
    return {
        "guests": f"{len(guests)} {guests[0].spec.kind}",
        "predicted_mib": predicted["pages"] / _PAGES_PER_MIB,
        "low_mib": predicted["low"] / _PAGES_PER_MIB,
        "high_mib": predicted["high"] / _PAGES_PER_MIB,
        "unsettled_mib": predicted["unsettled"] / _PAGES_PER_MIB,
        "achieved_mib": achieved / _PAGES_PER_MIB,
        "error_pct": 100 * (predicted["pages"] - achieved) / achieved,
        "converged_s": seconds,
    }


def _kernel_defaults(ksm: Ksm) -> Iterator[None]:
    ksm.pace(pages_to_scan=100, sleep_millisecs=20)
    ksm.merge()
    while True:
        yield


def _ksmtuned(ksm: Ksm) -> Iterator[None]:
    """Debian's ksmtuned 4.20150326 on a host that is short of memory: with memory to spare it
    leaves KSM off."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sleep_ms = max(10, 10 * (16 << 30) // total)
    began, boosts = time.monotonic(), 0
    while True:
        if time.monotonic() >= began + 60 * boosts:
            boosts += 1
            ksm.pace(pages_to_scan=min(1250, 300 * boosts), sleep_millisecs=sleep_ms)
            ksm.merge()
        yield


def _agent(lab: Lab, programs: Path) -> Iterator[None]:
    """The agent at its defaults: it looks once a minute."""
    os.environ["SAMEPAGE_BIN"] = str(programs)
    fleet = Fleet(lab, report_interval_s=60, ksm="manage").start()
    try:
        while True:
            yield
    finally:
        for name in ("host1", "placer"):
            fleet.kill(name, signal.SIGTERM)


def policies_row(lab: Lab, programs: Path, window_s: float) -> list[dict[str, Any]]:
    """The same guests, unmerged, under each way of driving KSM for a while."""
    host = lab.host("host1")
    smart = {"smart_scan": 1} if (_KSM / "smart_scan").exists() else {}
    rows = []
    with Ksm(**smart) as ksm:
        # Huge pages are split once for all.
        ksm.wait_converged(timeout_s=240, gain=lambda: count_frames(host).saved_pages)
        for name, driver in (("kernel_defaults", _kernel_defaults(ksm)),
                             ("ksmtuned", _ksmtuned(ksm)),
                             ("samepaged", _agent(lab, programs))):
            ksm.unmerge()
            rows.append({"policy": name, **_drive(host, ksm, driver, window_s)})
            driver.close()
    return rows


def _drive(host: Host, ksm: Ksm, driver: Iterator[None], window_s: float) -> dict[str, Any]:
    before, cpu_before, began = count_frames(host), ksm.cpu_seconds(), time.monotonic()
    samples: list[tuple[float, int]] = [(0.0, 0)]
    while samples[-1][0] < window_s:
        next(driver)
        time.sleep(_SAMPLE_S)
        samples.append((time.monotonic() - began, _gain(before, count_frames(host))))
    cpu_s = ksm.cpu_seconds() - cpu_before
    area = sum((t1 - t0) * (g0 + g1) / 2
               for (t0, g0), (t1, g1) in zip(samples, samples[1:]))
    return {
        "seconds": samples[-1][0],
        "mean_mib": area / samples[-1][0] / _PAGES_PER_MIB,
        "last_mib": samples[-1][1] / _PAGES_PER_MIB,
        "half_of_last_s": next(t for t, gain in samples if gain >= samples[-1][1] / 2),
        "ksmd_cpu_s": cpu_s,
    }
