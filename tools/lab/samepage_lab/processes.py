"""Processes that the lab started, named so that no other process can be meant by mistake.

A pid alone may be recycled, and a lab's folder may outlive a reboot. A `ProcessRecord` therefore
holds the pid, the process's start time (clock ticks since boot, from /proc/PID/stat) and the
machine's boot id; it refers to a process only while all three agree.
"""

from __future__ import annotations

import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; empty when there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass(frozen=True)
class ProcessRecord:
    """One process for as long as it lives, and nothing after that."""

    pid: int
    start_ticks: int
    boot: str

    @staticmethod
    def of(pid: int) -> "ProcessRecord":
        """The record of a process that is running now; ProcessLookupError when it is not."""
        fields = _stat_fields(pid)
        if not fields:
            raise ProcessLookupError(f"no process {pid}")
        return ProcessRecord(pid, int(fields[19]), boot_id())

    @staticmethod
    def load(path: Path) -> "ProcessRecord | None":
        """The record in a file; None when the file is missing or was never completed."""
        try:
            return ProcessRecord(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Writes the record so that a reader sees all of it or nothing."""
        partial = path.with_name(path.name + ".new")
        partial.write_text(json.dumps(asdict(self)))
        partial.rename(path)

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        fields = _stat_fields(self.pid)
        return bool(fields) and fields[0] not in "ZX" and self._matches(fields)

    def _matches(self, fields: list[str]) -> bool:
        return int(fields[19]) == self.start_ticks and self.boot == boot_id()

    def kill(self, timeout_s: float = 20.0) -> bool:
        """Sends SIGKILL and waits for the end; False when it has not ended within timeout_s.

        The signal goes through a pidfd whose start time was checked after it was opened, so it
        cannot reach another process.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            fields = _stat_fields(self.pid)
            if not fields or not self._matches(fields):
                return True
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return True
            return bool(select.select([pidfd], [], [], timeout_s)[0])
        finally:
            os.close(pidfd)
