#!/usr/bin/python3
"""Disks that go along when a host is drained, and when an agent is killed at whatever moment of the
move: the guest runs once, with a disk on its own host and its files as it wrote them.

SAMEPAGE_FAULTS=N strikes N times each; SAMEPAGE_SEED=N repeats a run's moments.
"""

from __future__ import annotations

import os
import random
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from disk_case import DiskCase  # noqa: E402
from fleet_case import Host  # noqa: E402

ENDS_S = 240.0
AFTER_ALL = 1.1  # Some moments come when the guest is across.


class DiskFaults(DiskCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        began = time.monotonic()
        cls.fleet.cli("migrate", "web", "--to", "host2")
        cls.move_s = time.monotonic() - began
        cls.seed = int(os.environ.get("SAMEPAGE_SEED", random.SystemRandom().randrange(1 << 32)))
        cls.random = random.Random(cls.seed)
        print(f"SAMEPAGE_SEED={cls.seed}, a move takes {cls.move_s:.1f} s")

    def strike(self, of_source: bool) -> None:
        for point in range(int(os.environ.get("SAMEPAGE_FAULTS", "1"))):
            with self.subTest(point=point, seed=self.seed):
                began = time.monotonic()
                end = self.strike_once(of_source)
                print(f"{self._testMethodName} {point + 1}: {end},"
                      f" {time.monotonic() - began:.1f} s", flush=True)

    def strike_once(self, of_source: bool) -> str:
        source = self.guest.host
        target = next(host for host in self.lab.hosts if host is not source)
        self.start_writer()
        self.wait_until("the guest writes", lambda: self.count(source) > 0)
        delay = self.random.uniform(0.0, AFTER_ALL * self.move_s)
        command = self.fleet.popen_cli("migrate", "web", "--to", target.name)
        self.addCleanup(command.kill)
        time.sleep(delay)  # The moment is what is tried, not what is waited for.
        victim = source if of_source else target
        self.restart_agent(victim)
        _, said = self.end_of(command, ENDS_S)
        where = self.wait_for_one_host("web", f"{delay:.2f} s, {said}", ENDS_S)
        self.assert_runs_once(self.guest, where)
        self.fleet.wait_hosts()
        self.wait_until(f"the disk is on {where.name} ({said})", lambda: self.is_settled(
            where, may_be_in_doubt=of_source and where is target), 30)
        before = self.count(where)
        self.wait_until("the guest writes on", lambda: self.count(where) > before)
        self.stop_writer(where)
        self.assert_files_are_right(where)
        return "moved" if where is target else "stayed"

    def is_settled(self, where: Host, may_be_in_doubt: bool) -> bool:
        """A source's agent that is lost after the release keeps its copy until the VM is back."""
        disks = self.disks()
        others = {phase for host, phase in disks.items() if host != where.name}
        allowed = {"leaving"} if may_be_in_doubt else set()
        return disks.get(where.name) == "here" and others <= allowed

    def test_kill_source_agent(self) -> None:
        self.strike(of_source=True)

    def test_kill_target_agent(self) -> None:
        self.strike(of_source=False)

    def test_a_drain_takes_disks_along(self) -> None:
        other = self.start_with_disk("db")
        other.run("dd if=/dev/urandom of=/root/data bs=1M count=16 conv=fsync status=none && "
                  "sha256sum /root/data > /root/data.sum && sync")
        self.fleet.cli("scan")
        self.start_writer()
        self.wait_until("the guest writes", lambda: self.count(self.host1) > 0)
        self.fleet.cli("drain", "host1")
        try:
            self.assertEqual(self.host1.guest_names(), [])
            self.wait_for_disks({"host2": "here"})
            self.assertEqual(self.disks("db"), {"host2": "here"})
            self.stop_writer(self.host2)
            self.assert_files_are_right(self.host2)
            other.run("echo 3 > /proc/sys/vm/drop_caches; sha256sum -c --quiet /root/data.sum")
        finally:
            self.fleet.cli("undrain", "host1")
            other.stop()
            self.fleet.cli("disk", "rm", "db", "--host", "host2")


if __name__ == "__main__":
    unittest.main()
