"""Seeing that a guest runs: a recorder that stamps every heartbeat line when it arrives.

A guest prints "heartbeat n=COUNT work=COUNT" every 50 ms. A thread reads what its serial file
gained every few milliseconds and stamps each complete line with the machine's monotonic clock
(`time.monotonic`, seconds). The guest's own clock plays no part, so a pause of the guest shows as
a gap. The stamps are late by at most the poll interval, plus what the machine's load adds.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

_POLL_S = 0.003
_LINE = re.compile(rb"heartbeat n=(\d+) work=(\d+)")


@dataclass(frozen=True)
class Beat:
    """One heartbeat line; `at` is when it arrived, in seconds of time.monotonic."""

    at: float
    n: int
    work: int


class Heartbeat:
    """Records one serial file from construction until `close`.

    Lines that were in the file before are read too (so a guest that is ready counts as ready), but
    are no beats: nobody knows when they arrived. Methods may be called from any thread.
    """

    def __init__(self, serial: Path) -> None:
        self._serial = serial
        self._lock = threading.Lock()
        self._beats: list[Beat] = []
        self._ready = False
        self._failure = ""
        self._rest = b""
        self._offset = 0
        self._stop = threading.Event()
        self._read(stamp=False)
        self._thread = threading.Thread(target=self._follow, name="heartbeat", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the recording; what was recorded can still be asked for."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            self._read(stamp=True)

    def _read(self, stamp: bool) -> None:
        try:
            with self._serial.open("rb") as file:
                file.seek(self._offset)
                gained = file.read()
        except FileNotFoundError:
            return
        if not gained:
            return
        at = time.monotonic()
        self._offset += len(gained)
        *lines, self._rest = (self._rest + gained).split(b"\n")
        with self._lock:
            for line in lines:
                self._take(line, at if stamp else None)

    def _take(self, line: bytes, at: float | None) -> None:
        match = _LINE.search(line)
        if match:
            self._ready = True
            if at is not None:
                self._beats.append(Beat(at, int(match[1]), int(match[2])))
        elif line.startswith(b"ready "):
            self._ready = True
        elif line.startswith(b"failed ") or b"Kernel panic" in line:
            self._failure = line.decode(errors="replace").strip()

    def beats(self) -> list[Beat]:
        """The beats so far, oldest first."""
        with self._lock:
            return list(self._beats)

    def last(self) -> Beat | None:
        with self._lock:
            return self._beats[-1] if self._beats else None

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Waits for the guest's "ready" line; LabError when it fails or does not come in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                ready, failure = self._ready, self._failure
            if failure:
                raise LabError(f"the guest failed: {failure} ({self._serial})")
            if ready:
                return
            if time.monotonic() > deadline:
                raise LabError(f"the guest is not ready after {timeout_s:g} s: see {self._serial}")
            time.sleep(_POLL_S)

    def wait_beats(self, count: int, timeout_s: float = 10.0) -> None:
        """Waits until `count` more beats have arrived; LabError when they do not in time."""
        wanted = len(self.beats()) + count
        deadline = time.monotonic() + timeout_s
        while len(self.beats()) < wanted:
            if time.monotonic() > deadline:
                raise LabError(f"no {count} heartbeats within {timeout_s:g} s: see {self._serial}")
            time.sleep(_POLL_S)

    def alive(self, within_s: float = 2.0) -> bool:
        """Whether the count advances within that time, seen now and not remembered."""
        try:
            self.wait_beats(1, within_s)
        except LabError:
            return False
        return True

    def gap_ms_max(self, since: float, until: float | None = None) -> float:
        """The longest time without a beat between two moments of time.monotonic, in ms.

        A gap that began before `since` or goes on after `until` (now, if not given) counts with
        its part in between, so a guest that fell silent has a gap that grows. An undisturbed
        guest has about 50 ms.
        """
        until = time.monotonic() if until is None else until
        marks = [since, *(beat.at for beat in self.beats() if since <= beat.at <= until), until]
        return 1000.0 * max(later - former for former, later in zip(marks, marks[1:]))
