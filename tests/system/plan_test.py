#!/usr/bin/python3
"""A plan survives the placer's death, and what cannot be done is refused in one clear sentence."""

from __future__ import annotations

import unittest

from fleet_case import SLOW_MBIT, SLOW_OWN_MIB, FleetCase


class KilledPlacer(FleetCase):
    """Two kinds of guests, mixed over both hosts, so that a plan has two moves."""

    def test_a_plan_goes_on_after_the_placer_was_killed_in_its_middle(self) -> None:
        guests = [
            self.boot("host1", "a1"), self.boot("host1", "a2"),
            self.boot("host1", "b1", image="b", own_mib=SLOW_OWN_MIB),
            self.boot("host2", "b2", image="b"), self.boot("host2", "b3", image="b"),
            self.boot("host2", "a3", own_mib=SLOW_OWN_MIB),
        ]
        self.ready(*guests)
        plan = self.fleet.cli("plan")
        self.assertEqual(sorted(move["vm"] for move in plan["moves"]), ["a3", "b1"])
        for host in self.lab.hosts:
            self.lab.link(host, SLOW_MBIT)
        first = self.lab.guest(plan["moves"][0]["vm"])

        command = self.fleet.popen_cli("apply", plan["id"])
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)
        self.wait_for_progress(first)
        self.fleet.kill("placer")
        self.fleet.start_placer()
        ended = self.wait_until(
            "the plan ends",
            lambda: self.ended(plan["id"]), timeout_s=120,
        )

        self.assertEqual(ended["state"], "done", ended)
        self.assertEqual([move["state"] for move in ended["moves"]], ["done", "done"])
        host1, host2 = self.lab.hosts
        for guest in guests:
            # The plan brings each kind together; it may choose either host for it.
            self.assert_runs_once(guest, host1 if guest.spec.name[0] == "a" else host2)

    def ended(self, plan_id: str):
        plan = self.fleet.cli("plan", "show", plan_id)
        return plan if plan["state"] not in ("proposed", "running") else None


class Refusals(FleetCase):
    """One small guest on host1; host2 offers too little memory for another of its size."""

    host_memory_mib = 256

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.guest = cls.boot("host1", "web1")
        cls.filler = cls.boot("host2", "filler", image="b", own_mib=120, memory_mib=256)
        cls.ready(cls.guest, cls.filler)

    def test_an_unknown_vm_or_host_is_named(self) -> None:
        self.assert_refused(1, "web9.*samepage vms", "migrate", "web9", "--to", "host2")
        self.assert_refused(1, "host9", "migrate", "web1", "--to", "host9")

    def test_a_vm_that_is_there_already_is_left_alone(self) -> None:
        self.assert_refused(1, "already", "migrate", "web1", "--to", "host1")

    def test_a_host_without_room_is_refused(self) -> None:
        self.assert_refused(1, "room|memory", "migrate", "web1", "--to", "host2")
        self.assert_runs_once(self.guest, self.lab.hosts[0])

    def test_wrong_usage_has_an_exit_code_of_its_own(self) -> None:
        done = self.fleet.run_cli("migrate", "web1")
        self.assertEqual(done.returncode, 2)

    def test_a_lost_agent_is_seen_and_its_host_is_not_used(self) -> None:
        self.fleet.kill("host2")
        self.wait_until("host2 is down", lambda: self.state("host2") == "down")
        self.assert_refused(1, "host2.*down", "migrate", "web1", "--to", "host2")
        self.fleet.start_agent(self.lab.hosts[1])
        self.wait_until("host2 is up", lambda: self.state("host2") == "up")
        self.assert_runs_once(self.guest, self.lab.hosts[0])

    def test_a_wrong_key_is_not_let_in(self) -> None:
        host = self.lab.hosts[1]
        self.fleet.kill("host2")
        key = host.path("/etc/samepage/agent.key")
        kept = key.read_text()
        key.unlink()
        host.run([str(self.fleet.programs / "samepaged"), "--init"])
        self.fleet.start_agent(host)
        self.wait_until("the agent says why", lambda: "enrol" in self.fleet.log("host2"))
        self.assertEqual(self.state("host2"), "down")
        self.fleet.kill("host2")
        key.write_text(kept)
        self.fleet.start_agent(host)
        self.wait_until("host2 is up", lambda: self.state("host2") == "up")

    def state(self, host: str) -> str:
        hosts = self.fleet.cli("hosts")["hosts"]
        return next(one["state"] for one in hosts if one["name"] == host)


if __name__ == "__main__":
    unittest.main()
