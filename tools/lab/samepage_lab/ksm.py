"""The kernel's page merging (KSM), switched on for a while and put back as it was.

KSM is one per machine, so at most one `Ksm` is active at a time: the others wait for a lock. The
former settings are on disk while it is active; when its process was killed, the next `Ksm`, or
`lab down`, puts them back.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Callable

from .errors import LabError, LabUnavailable

_KSM = Path("/sys/kernel/mm/ksm")
# One place for all labs of the machine, whatever $SAMEPAGE_LAB_DIR says.
_SAVED = Path("/run/samepage-lab/ksm-former.json")
_LOCK = Path("/run/samepage-lab/ksm.lock")
_POLL_S = 0.1
# The kernel gives its thread 5, with which it gets next to nothing beside builds and other tests.
_NICE = -10


def _get(name: str) -> int:
    return int((_KSM / name).read_text())


def _put(name: str, value: int) -> None:
    try:
        (_KSM / name).write_text(str(value))
    except OSError as error:
        raise LabError(f"cannot set {_KSM / name} to {value}: {error.strerror}") from None


def _thread() -> int:
    """The PID of the kernel's thread."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            if name.read_text() == "ksmd\n":
                return int(name.parent.name)
        except OSError:  # A process that has ended.
            continue
    raise LabUnavailable("this kernel shows no thread ksmd")


def _restore() -> None:
    """Puts former settings back; when KSM had been off and unused, unmerges what was merged."""
    try:
        former = json.loads(_SAVED.read_text())
    except (FileNotFoundError, ValueError):
        return
    os.setpriority(os.PRIO_PROCESS, _thread(), former.pop("nice", 5))
    if former.pop("pages_shared", 1) == 0 and former["run"] == 0:
        _put("run", 2)
    for name, value in sorted(former.items()):
        _put(name, value)
    _SAVED.unlink()


def restore_if_abandoned() -> None:
    """Puts KSM back when the process that had switched it on is gone; otherwise does nothing."""
    if not _SAVED.exists():
        return
    with _LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _restore()


class Ksm:
    """KSM running with the given settings, as a context manager.

    Its thread has precedence meanwhile. Keywords are names of files in /sys/kernel/mm/ksm. `smart_scan` is off unless asked for: it
    skips pages that did not merge before, so full scans would no longer see all pages.
    """

    def __init__(self, lock_timeout_s: float = 120.0, **settings: int) -> None:
        usual = {"run": 1, "pages_to_scan": 10000, "sleep_millisecs": 20}
        if (_KSM / "smart_scan").exists():
            usual["smart_scan"] = 0
        self._settings = {**usual, **settings}
        self._lock_timeout_s = lock_timeout_s

    def __enter__(self) -> "Ksm":
        if not _KSM.is_dir():
            raise LabUnavailable("this kernel has no KSM (CONFIG_KSM)")
        if not os.access(_KSM / "run", os.W_OK):
            raise LabUnavailable(f"{_KSM} is read-only: switching KSM on needs root")
        _LOCK.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _LOCK.open("a")
        self._take_lock()
        _restore()
        names = {*self._settings, "run", "pages_shared"}
        nice = os.getpriority(os.PRIO_PROCESS, _thread())
        _SAVED.write_text(json.dumps({"nice": nice, **{name: _get(name) for name in names}}))
        try:
            os.setpriority(os.PRIO_PROCESS, _thread(), _NICE)
            for name, value in self._settings.items():
                if name != "run":
                    _put(name, value)
            _put("run", self._settings["run"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def _take_lock(self) -> None:
        deadline = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._lock.close()
                    raise LabError("another lab uses KSM; wait for it or end it") from None
                time.sleep(_POLL_S)

    def __exit__(self, *_: object) -> None:
        try:
            _restore()
        finally:
            self._lock.close()

    def pace(self, pages_to_scan: int, sleep_millisecs: int) -> None:
        """Has it scan at another speed from now on."""
        _put("pages_to_scan", pages_to_scan)
        _put("sleep_millisecs", sleep_millisecs)

    def unmerge(self) -> None:
        """Takes apart what was merged, in the whole machine, and stops."""
        _put("run", 2)

    def cpu_seconds(self) -> float:
        """What the kernel's thread has used since the machine was started."""
        fields = Path(f"/proc/{_thread()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def merge(self) -> None:
        """Starts merging in a Ksm that was made with run=0 (stopped) or run=2 (unmerged)."""
        _put("run", 1)

    def counters(self) -> dict[str, int]:
        """The kernel's counters now: pages_shared, pages_sharing, pages_unshared, full_scans."""
        names = ("pages_shared", "pages_sharing", "pages_unshared", "full_scans")
        return {name: _get(name) for name in names}

    def wait_converged(self, timeout_s: float = 60.0, scans_min: int = 3,
                       gain: Callable[[], int] = lambda: _get("pages_sharing")) -> int:
        """Waits until KSM has nothing more to merge; returns its gain, pages_sharing.

        That is: scans_min full scans began and ended since the call (a page merges in the second
        scan that sees it unchanged), and in the last one the gain moved by under 0.2 %. Another
        `gain` than the whole machine's says what guests of other labs do not disturb.
        """
        deadline = time.monotonic() + timeout_s
        scan, before = _get("full_scans"), -1
        first = scan
        while True:
            now = _get("full_scans")
            if now != scan:
                sharing = gain()
                enough = now - first > scans_min
                if enough and abs(sharing - before) <= max(8, sharing // 500):
                    return sharing
                scan, before = now, sharing
            if time.monotonic() > deadline:
                raise LabError(
                    f"KSM did not converge within {timeout_s:g} s: {self.counters()}; "
                    "scan faster (pages_to_scan=) or wait longer"
                )
            time.sleep(_POLL_S)
