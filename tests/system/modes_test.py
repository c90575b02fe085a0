#!/usr/bin/python3
"""A guest moves through several connections and by post-copy, whole and without running twice.

Real libvirtd, QEMU and network bytes.
"""

from __future__ import annotations

import json
import unittest

from fleet_case import FleetCase


class Modes(FleetCase):
    """`mover` starts on host1, its twin runs on host2."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.mover = cls.boot("host1", "mover", role="sparse", own_mib=16, write_mib=4, rate=200)
        cls.twin = cls.boot("host2", "twin")
        cls.ready(cls.mover, cls.twin)

    def setUp(self) -> None:
        self.host1, self.host2 = self.lab.hosts
        if self.mover.host.name != "host1":
            self.fleet.cli("migrate", "mover", "--to", "host1")
        self.fleet.cli("scan")

    def test_pages_of_every_connection_are_deduplicated(self) -> None:
        move = self.fleet.cli("migrate", "mover", "--to", "host2", "--parallel", "3")["moves"][0]
        print(f"parallel: wire {move['wire_bytes']} of {move['stream_bytes']} stream bytes,"
              f" {move['page_refs']} refs, {move['page_literals']} literals")

        self.assertEqual(move["state"], "done")
        self.assert_runs_once(self.mover, self.host2)
        self.assertGreater(move["page_refs"], 5_000)
        self.assertLess(move["wire_bytes"], 0.5 * move["stream_bytes"])

    def test_a_guest_pulls_its_memory_after_the_switch(self) -> None:
        self.lab.link(self.host1, 100)
        self.addCleanup(self.lab.link, self.host1, 0)
        done = self.fleet.run_cli("migrate", "mover", "--to", "host2", "--postcopy",
                                  json_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("lost if the link or one of the hosts fails", done.stderr)
        # Without a switch it would not have moved at all.
        move = json.loads(done.stdout)["moves"][0]
        self.assertTrue(move["postcopy"])
        self.assertEqual(move["downtime_ms"], 0, "it is not known, and no figure may say otherwise")
        self.assert_runs_once(self.mover, self.host2)

    def test_a_guest_that_misses_its_deadline_stays(self) -> None:
        self.lab.link(self.host1, 1)  # Slow even for the little that a guest costs that comes home.
        self.addCleanup(self.lab.link, self.host1, 0)
        late = self.fleet.run_cli("migrate", "mover", "--to", "host2", "--deadline", "1",
                                  json_output=True)
        self.assertEqual(late.returncode, 1, late.stderr)
        move = json.loads(late.stdout)["moves"][0]
        self.assertEqual(move["deadline_s"], 1)
        self.assertRegex(move["error"], "goes on running on host1: .*not across after 1 s")
        self.assert_runs_once(self.mover, self.host1)

    def test_tls_inside_qemu_is_refused_up_front_with_what_to_do(self) -> None:
        conf = self.host1.path("/etc/libvirt/qemu.conf")
        before = conf.read_text()
        self.addCleanup(conf.write_text, before)
        conf.write_text(before + "\nmigrate_tls_force = 1\n")
        done = self.fleet.run_cli("migrate", "mover", "--to", "host2", json_output=True)

        self.assertEqual(done.returncode, 1, done.stderr)
        move = json.loads(done.stdout)["moves"][0]
        self.assertRegex(move["error"], "goes on running on host1.*set migrate_tls_force = 0")
        self.assert_runs_once(self.mover, self.host1)

    def test_post_copy_and_parallel_exclude_each_other(self) -> None:
        done = self.fleet.run_cli("migrate", "mover", "--to", "host2", "--postcopy",
                                  "--parallel", "2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("post-copy takes one connection", done.stderr)


if __name__ == "__main__":
    unittest.main()
