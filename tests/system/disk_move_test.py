#!/usr/bin/python3
"""A Debian guest takes its disk from the image store along: it moves while it writes, and comes back,
and on both hosts its files are what it wrote."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from disk_case import DATA_MIB, DiskCase  # noqa: E402
from fleet_case import Host  # noqa: E402

SLOW_LINK_MBIT = 100


class DiskMove(DiskCase):
    def move_while_it_writes(self, source: Host, target: Host) -> dict:
        self.start_writer()
        self.wait_until("the guest writes", lambda: self.count(source) > 0)
        move = self.fleet.cli("migrate", "web", "--to", target.name)["moves"][0]
        self.assertEqual(move["state"], "done")
        print(f"to {target.name}: downtime {move['downtime_ms']:.0f} ms of {move['total_ms']:.0f}, "
              f"disk {move['disk_bytes'] >> 20} MiB, wire {move['wire_bytes'] >> 20} MiB")
        self.assertEqual(target.domain("web").isActive(), 1)
        self.wait_for_disks({target.name: "here"})
        before = self.count(target)
        self.wait_until("the guest writes on", lambda: self.count(target) > before)
        self.stop_writer(target)
        self.assert_files_are_right(target)
        return move

    def assert_stays(self, sentence: str, *options: str) -> None:
        done = self.fleet.run_cli("migrate", "web", "--to", "host2", *options)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(sentence, done.stderr)
        self.assertEqual(self.host1.domain("web").isActive(), 1)

    def test_a_guest_that_writes_moves_and_comes_back_with_its_disk(self) -> None:
        there = self.move_while_it_writes(self.host1, self.host2)
        self.assertGreater(there["disk_bytes"], DATA_MIB << 20)
        self.assertEqual(list(self.host1.path("/var/lib/samepage/disks").iterdir()), [])
        self.move_while_it_writes(self.host2, self.host1)
        self.assertEqual(list(self.host2.path("/var/lib/samepage/disks").iterdir()), [])

    def test_a_guest_that_writes_faster_than_the_link_is_held_until_it_has_moved(self) -> None:
        self.guest.run("rm -f /root/stop /root/stopped; nohup sh -c 'while ! test -e /root/stop; do "
                       "dd if=/root/data of=/root/again bs=1M oflag=direct conv=notrunc status=none; "
                       "done; touch /root/stopped' > /dev/null 2>&1 &")
        self.link(SLOW_LINK_MBIT)
        move = self.fleet.cli("migrate", "web", "--to", "host2")["moves"][0]
        print(f"held: downtime {move['downtime_ms']:.0f} ms of {move['total_ms']:.0f}, "
              f"disk {move['disk_bytes'] >> 20} MiB, wire {move['wire_bytes'] >> 20} MiB")
        self.assertIn("is held disk=web", self.fleet.log("host1"))
        self.wait_for_disks({"host2": "here"})
        self.stop_writer(self.host2)
        self.run_in(self.host2, "sync; echo 3 > /proc/sys/vm/drop_caches; "
                    "sha256sum -c --quiet /root/data.sum && cmp /root/data /root/again")

    def test_what_was_committed_is_not_sent_again(self) -> None:
        self.fleet.cli("disk", "commit", "web", "--image", "golden")
        move = self.fleet.cli("migrate", "web", "--to", "host2")["moves"][0]
        self.assertLess(move["disk_bytes"], DATA_MIB << 20)
        self.assert_files_are_right(self.host2)
        committed = self.fleet.cli("disk", "commit", "web", "--image", "golden")
        self.assertGreater(committed["number"], 1)

    def test_a_host_that_has_such_a_disk_is_refused_and_so_is_postcopy(self) -> None:
        self.assert_stays("migrate it without --postcopy", "--postcopy")
        self.fleet.cli("disk", "create", "web", "--host", "host2", "--image", "debian")
        try:
            self.assert_stays("there is a disk web on that host already")
        finally:
            self.host2.run([str(self.fleet.programs / "samepage"), "--socket",
                            str(self.fleet.socket), "disk", "rm", "web", "--host", "host2"])
        self.wait_for_disks({"host1": "here"})
        self.assert_files_are_right(self.host1)


if __name__ == "__main__":
    unittest.main()
