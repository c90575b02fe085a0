#!/usr/bin/python3
"""Somebody else moves guests too: plans are made anew, explained, compared with what came of them."""

from __future__ import annotations

import json
import signal
import threading
import unittest
from typing import Any

from fleet_case import FleetCase


class Drift(FleetCase):
    """Two guests of image a on host1 and one on host2, beside two of image b."""

    report_interval_s = 1

    def test_a_plan_follows_what_others_do_and_its_history_says_what_it_gained(self) -> None:
        host1, host2 = self.lab.hosts
        a3 = self.boot("host2", "a3")
        self.ready(self.boot("host1", "a1"), self.boot("host1", "a2"), a3,
                   self.boot("host2", "b1", image="b"), self.boot("host2", "b2", image="b"))
        self.fleet.cli("policy", "--mode", "shadow", "--goal", "sharing", "--every", "1")
        shown = self.watch()
        self.wait_until("the watch shows the move",
                        lambda: shown and self.moves(shown[-1]) == ["a3"])
        self.wait_until("a shadow plan is kept", lambda: self.plans("shadow"))
        stale = self.fleet.cli("plan")
        explained = self.fleet.run_cli("plan", "show", stale["id"], "--explain").stdout
        self.assertRegex(explained, "SHARING +HOSTS +MOVEMENT +BALANCE")
        self.assertRegex(explained, "a3 shares .* MiB with a[12] and a[12] on host1")

        a3.migrate_stock(host1)
        self.wait_until("the watch shows that nothing is left to do",
                        lambda: self.moves(shown[-1]) == [])
        refused = self.fleet.run_cli("apply", stale["id"])
        self.assertEqual(refused.returncode, 1)
        self.assertIn("a3 is on host1 now); make a new plan", refused.stderr)
        self.wait_until("somebody else's move is told", lambda: "vm_moved_by_others" in
                        self.fleet.run_cli("events", json_output=True).stdout)
        self.fleet.cli("policy", "--mode", "manual")

        a3.migrate_stock(host2)
        # The fingerprint of a guest that has just arrived is of what had come by then.
        self.wait_until("the watch shows the move anew, of a whole fingerprint",
                        lambda: self.moves(shown[-1]) == ["a3"] and shown[-1]["gain_mib"] > 20)
        again = self.fleet.cli("plan")
        self.assertEqual(self.fleet.cli("apply", again["id"])["state"], "done")
        self.assert_runs_once(a3, host1)
        self.wait_until("what the plan gained is known", lambda: self.done()["achieved_shared"])
        applied = self.done()
        self.assertGreater(applied["gain_mib"], 20)
        self.assertIsNotNone(applied["moves"][0]["cost_mib"])
        self.assertRegex(self.fleet.run_cli("plan", "history").stdout,
                         f"{again['id']} +asked +done +1/1 ")

        self.fleet.kill("host2")
        self.wait_until("host2 is down",
                        lambda: self.fleet.cli("hosts")["hosts"][1]["state"] == "down")
        self.assertIn("host2 is down; its 2 VMs are left out of account",
                      self.fleet.cli("plan")["notes"])

    def watch(self) -> list[dict[str, Any]]:
        """The plans that `samepage plan --watch` shows from now on, while they come."""
        command = self.fleet.popen_cli("plan", "--watch", "--every", "0.5")
        shown: list[dict[str, Any]] = []

        def read() -> None:
            assert command.stdout
            for line in command.stdout:
                shown.append(json.loads(line))

        reader = threading.Thread(target=read, daemon=True)

        def end() -> None:
            command.send_signal(signal.SIGINT)
            self.assertEqual(command.wait(30), 0, command.stderr.read() if command.stderr else "")
            reader.join(30)

        self.addCleanup(end)
        reader.start()
        return shown

    def done(self) -> dict[str, Any]:
        [applied] = [plan for plan in self.plans("asked") if plan["state"] == "done"]
        return applied

    def plans(self, kind: str) -> list[dict[str, Any]]:
        return [plan for plan in self.fleet.cli("plan", "history")["plans"] if plan["kind"] == kind]

    @staticmethod
    def moves(plan: dict[str, Any]) -> list[str]:
        return [move["vm"] for move in plan["moves"]]


if __name__ == "__main__":
    unittest.main()
