#!/usr/bin/python3
"""Three hosts: a hotspot is cleared with no help, a drain empties a host, whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import json
import tempfile
import unittest
from typing import Any, Iterator, NamedTuple

from fleet_case import SLOW_MBIT, SLOW_OWN_MIB, FleetCase


class Placement(FleetCase):
    hosts = 3

    def host(self, name: str) -> dict[str, Any]:
        hosts = self.fleet.cli("hosts")["hosts"]
        return next(one for one in hosts if one["name"] == name)

    def ended(self, plan_id: str) -> dict[str, Any] | None:
        plan = self.fleet.try_cli("plan", "show", plan_id)
        return plan if plan and plan["state"] not in ("proposed", "running") else None


class Hotspot(Placement):
    """Hosts that offer 400 MiB; reports come every second."""

    host_memory_mib = 400
    report_interval_s = 1

    def test_a_memory_hotspot_is_seen_planned_moved_and_cleared_with_no_help(self) -> None:
        calm = [self.boot("host1", "a1"), self.boot("host1", "b1", image="b"),
                self.boot("host2", "b2", image="b"), self.boot("host3", "c1", image="c")]
        self.ready(*calm)
        self.fleet.cli("policy", "--mode", "automatic", "--every", "1")
        before = self.host("host1")["distinct_mib"]
        self.assertLess(before, 0.75 * self.host_memory_mib)

        # A guest that fills what is left of host1.
        wanted = int(self.host_memory_mib - before) - 70
        hog = self.boot("host1", "hog", own_mib=wanted, memory_mib=400)
        self.wait_until("an automatic plan was made", self.automatic_plans, timeout_s=120)
        self.wait_until("host1 is cool", lambda: self.is_cool("host1"), timeout_s=120)

        hog.wait_ready()
        [plan, *_] = self.automatic_plans()
        self.assertEqual(plan["state"], "done", plan)
        self.assertRegex(plan["moves"][0]["reason"], "host1 .*memory")
        moved = {move["vm"]: move["target"] for move in plan["moves"]}
        for guest in (*calm, hog):
            home = "host1" if guest.spec.name in ("a1", "b1", "hog") else guest.host.name
            host = self.lab.host(moved.get(guest.spec.name, home))
            self.assert_runs_once(guest, host)
        self.assertEqual([one["hotspot"] for one in self.fleet.cli("hosts")["hosts"]],
                         [None, None, None])

    def automatic_plans(self) -> list[dict[str, Any]]:
        """Oldest first."""
        plans = self.fleet.cli("plan", "history")["plans"]
        return [plan for plan in reversed(plans) if plan["kind"] == "automatic"]

    def is_cool(self, name: str) -> bool:
        host = self.host(name)
        plans = self.automatic_plans()
        over = all(plan["state"] not in ("proposed", "running") for plan in plans)
        return over and host["hotspot"] is None and (
            host["distinct_mib"] <= 0.9 * self.host_memory_mib)


class Rule(NamedTuple):
    name: str
    kind: str
    vms: list[str]
    hosts: list[str]


class Drain(Placement):
    """Two guests on the host that is to be empty, and one on each of the others."""

    def test_a_drain_empties_a_host_though_the_placer_is_killed_in_its_middle(self) -> None:
        leaving = [self.boot("host3", "a3", own_mib=SLOW_OWN_MIB),
                   self.boot("host3", "b3", image="b", own_mib=SLOW_OWN_MIB)]
        others = [self.boot("host1", "a1"), self.boot("host2", "b2", image="b")]
        self.ready(*leaving, *others)
        planned = self.fleet.cli("drain", "host3", "--dry-run")
        self.assertEqual({move["vm"]: move["target"] for move in planned["moves"]},
                         {"a3": "host1", "b3": "host2"})
        for host in self.lab.hosts:
            self.lab.link(host, SLOW_MBIT)
        self.fleet.cli("policy", "--moves-per-host", "2")

        command = self.fleet.popen_cli("drain", "host3")
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)
        first = self.lab.guest(planned["moves"][0]["vm"])
        self.wait_for_progress(first)
        [plan, *_] = self.fleet.cli("plan", "list")["plans"]
        self.wait_until("both moves go on", lambda: [
            move["state"] for move in self.fleet.cli("plan", "show", plan["id"])["moves"]
        ] == ["running", "running"], timeout_s=60)
        self.fleet.kill("placer")
        self.fleet.start_placer()
        ended = self.wait_until("the plan ends", lambda: self.ended(plan["id"]), timeout_s=120)

        self.assertEqual(ended["state"], "done", ended)
        self.assertEqual(self.lab.host("host3").guest_names(), [])
        self.assert_runs_once(self.lab.guest("a3"), self.lab.host("host1"))
        self.assert_runs_once(self.lab.guest("b3"), self.lab.host("host2"))
        self.assert_refused(1, "maintenance.*drain-host3", "migrate", "a1", "--to", "host3")
        self.assertEqual(self.fleet.cli("plan", "--goal", "movement")["moves"], [])

        self.fleet.cli("undrain", "host3")
        self.assertEqual(self.fleet.cli("rules")["rules"], [])

        with self.rules_file(Rule("stay", "ignore", ["a1"], [])) as path:
            self.fleet.cli("rules", "edit", "--from", path)
        self.assertEqual([rule["name"] for rule in self.fleet.cli("rules")["rules"]], ["stay"])
        with self.rules_file(Rule("on-1", "pin", ["a1"], ["host1"]),
                             Rule("off-1", "avoid", ["a1"], ["host1"])) as path:
            self.assert_refused(1, "on-1.*off-1|off-1.*on-1", "rules", "edit", "--from", path)
        self.assertEqual([rule["name"] for rule in self.fleet.cli("rules")["rules"]], ["stay"])

    @contextlib.contextmanager
    def rules_file(self, *rules: Rule) -> Iterator[str]:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"rules": [rule._asdict() for rule in rules]}, file)
            file.flush()
            yield file.name


if __name__ == "__main__":
    unittest.main()
