#!/usr/bin/python3
"""Several guests move with one command: twins cost what one costs, and a little; one that is
cancelled in the middle stays where it is, and says so.

Real libvirtd, QEMU and network bytes.
"""

from __future__ import annotations

import json
import signal
import unittest

from fleet_case import SLOW_MBIT, FleetCase

TWINS = ["twin1", "twin2", "twin3", "twin4"]


class Gang(FleetCase):
    """Four guests of one image on host1; host2 is empty."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.twins = [cls.boot("host1", name, memory_mib=160) for name in TWINS]
        cls.ready(*cls.twins)

    def setUp(self) -> None:
        self.host1, self.host2 = self.lab.hosts

    def test_a_cancelled_gang_leaves_every_guest_in_one_place(self) -> None:
        for host in self.lab.hosts:
            self.lab.link(host, SLOW_MBIT)
            self.addCleanup(self.lab.link, host, 0)
        command = self.fleet.popen_cli("migrate", *TWINS, "--to", "host2")
        self.addCleanup(command.kill)
        self.wait_for_progress(self.twins[0])
        self.fleet.cli("migrate", "--cancel", "twin1")
        out, said = self.end_of(command)

        self.assertEqual(command.returncode, 1, said)
        plan = json.loads(out)
        self.assertEqual(plan["state"], "cancelled")
        self.assertEqual([move["state"] for move in plan["moves"]], ["failed"] + 3 * ["skipped"])
        self.assertIn("goes on running on host1", plan["moves"][0]["error"])
        for twin in self.twins:
            self.assert_runs_once(twin, self.host1)

    def test_ctrl_c_gives_the_running_move_up(self) -> None:
        for host in self.lab.hosts:
            self.lab.link(host, SLOW_MBIT)
            self.addCleanup(self.lab.link, host, 0)
        command = self.fleet.popen_cli("migrate", "twin1", "--to", "host2")
        self.addCleanup(command.kill)
        self.wait_for_progress(self.twins[0])
        command.send_signal(signal.SIGINT)
        out, said = self.end_of(command)

        self.assertEqual(command.returncode, 1, said)
        self.assertEqual(json.loads(out)["state"], "cancelled")
        self.assertIn("cancelled", json.loads(out)["moves"][0]["error"])
        self.assert_runs_once(self.twins[0], self.host1)

    def test_twins_cost_what_one_costs_and_a_little(self) -> None:
        before = self.host1.bytes()
        plan = self.fleet.cli("migrate", *TWINS, "--to", "host2")
        count = self.host1.bytes() - before

        self.assertEqual([move["state"] for move in plan["moves"]], 4 * ["done"])
        for twin in self.twins:
            self.assert_runs_once(twin, self.host2)
        first, *others = [move["wire_bytes"] for move in plan["moves"]]
        stream = [move["stream_bytes"] for move in plan["moves"]]
        print(f"wire {first} + {others} of {stream} stream bytes; on the link {count.rx + count.tx}")
        for one, whole in zip(others, stream[1:]):
            self.assertLess(one, 0.5 * first)
            self.assertLess(one, 0.12 * whole)

        # Nothing is left at home but what was kept of those that left.
        home = self.fleet.cli("migrate", "twin1", "--to", "host1")["moves"][0]
        print(f"home: wire {home['wire_bytes']} of {home['stream_bytes']} stream bytes,"
              f" {home['page_refs']} refs, {home['page_literals']} literals")
        self.assert_runs_once(self.twins[0], self.host1)
        self.assertGreater(home["page_refs"], 10 * home["page_literals"])
        self.assertLess(home["wire_bytes"], 0.05 * home["stream_bytes"])


if __name__ == "__main__":
    unittest.main()
