#!/usr/bin/python3
"""A guest moves between hosts whose QEMUs are of different versions, and between two newer ones.

Real libvirtd, QEMU and network. SAMEPAGE_OTHER_QEMU names a folder into which the packages of
another QEMU were unpacked (tools/lab/README.md); without it there is nothing to try.
"""

from __future__ import annotations

import os
import unittest
from pathlib import Path

from fleet_case import FleetCase, Guest, Host

OTHER_QEMU = os.environ.get("SAMEPAGE_OTHER_QEMU", "")
_PARTS = ("usr/bin/qemu-system-x86_64", "usr/share/qemu", "usr/lib/x86_64-linux-gnu/qemu")


@unittest.skipUnless(OTHER_QEMU, "SAMEPAGE_OTHER_QEMU names no other QEMU")
class Versions(FleetCase):
    """host1 keeps the QEMU of this machine, host2 has the other one; then both have it."""

    def give_other_qemu(self, host: Host) -> None:
        for part in _PARTS:
            host.run(["mount", "--bind", str(Path(OTHER_QEMU) / part), f"/{part}"])

    def assert_has_other_qemu(self, guest: Guest, host: Host) -> None:
        pid = host.guest_pids()[guest.spec.name]
        self.assertTrue(os.path.samefile(f"/proc/{pid}/exe", Path(OTHER_QEMU) / _PARTS[0]))

    def test_a_guest_moves_to_a_newer_qemu_and_between_two_of_them(self) -> None:
        host1, host2 = self.lab.hosts
        self.give_other_qemu(host2)
        mover = self.boot("host1", "mover", role="sparse", write_mib=4, rate=200)
        twin = self.boot("host2", "twin")
        self.ready(mover, twin)

        move = self.fleet.cli("migrate", "mover", "--to", "host2")["moves"][0]
        self.assertEqual(move["state"], "done")
        self.assertGreater(move["page_refs"], 5_000)
        self.assert_runs_once(mover, host2)
        self.assert_has_other_qemu(mover, host2)

        self.give_other_qemu(host1)
        move = self.fleet.cli("migrate", "twin", "--to", "host1")["moves"][0]
        self.assertEqual(move["state"], "done")
        self.assert_runs_once(twin, host1)
        self.assert_has_other_qemu(twin, host1)
        move = self.fleet.cli("migrate", "twin", "--to", "host2")["moves"][0]
        self.assertEqual(move["state"], "done")
        self.assertLess(move["wire_bytes"], 0.05 * move["stream_bytes"])
        self.assert_runs_once(twin, host2)


if __name__ == "__main__":
    unittest.main()
