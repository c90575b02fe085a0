#!/usr/bin/python3
"""A migration through the relay moves a guest and its memory exactly, or leaves it where it was.

Real libvirtd, QEMU and network bytes. The links are slow, so that a test can act in the middle of
a migration; each test puts the guest back where the next one expects it.
"""

from __future__ import annotations

import json
import signal
import unittest

from fleet_case import SLOW_MBIT, CliError, FleetCase, overwrite_ram, ram


class Migration(FleetCase):
    """`twin` of the same image on host2; `mover`, with data of its own, starts on host1."""

    checkpoint_mib = 0  # A guest that comes home would be there before a test can interfere.

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.mover = cls.boot("host1", "mover", role="sparse", own_mib=24, write_mib=4, rate=500)
        cls.twin = cls.boot("host2", "twin")
        cls.ready(cls.mover, cls.twin)
        for host in cls.lab.hosts:
            cls.lab.link(host, SLOW_MBIT)

    def setUp(self) -> None:
        self.host1, self.host2 = self.lab.hosts
        if self.mover.host.name != "host1":
            self.fleet.cli("migrate", "mover", "--to", "host1")
        self.fleet.cli("scan")

    def start_moving(self):
        """Starts `samepage migrate` and waits until references flow."""
        command = self.fleet.popen_cli("migrate", "mover", "--to", "host2")
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)
        self.wait_for_references(self.mover)
        return command

    def finish(self, command) -> tuple[int, dict, str]:
        out, err = self.end_of(command)
        return command.returncode, json.loads(out) if out.strip() else {}, err

    def test_a_running_guest_arrives_with_few_bytes_on_the_wire(self) -> None:
        before = self.host1.bytes()
        plan = self.fleet.cli("migrate", "mover", "--to", "host2")
        count = self.host1.bytes() - before

        move = plan["moves"][0]
        self.assertEqual(move["state"], "done")
        self.assert_runs_once(self.mover, self.host2)
        self.assertGreater(move["page_refs"], 5_000)
        self.assertLess(move["wire_bytes"], move["stream_bytes"])
        wire = count.rx + count.tx
        self.assertLessEqual(move["wire_bytes"], wire)
        self.assertLess(wire, 1.15 * move["wire_bytes"] + (1 << 20))

    def test_a_paused_guests_memory_arrives_byte_for_byte_and_it_stays_paused(self) -> None:
        self.mover.pause()
        self.addCleanup(self.resume_mover)
        sent = ram(self.mover, self.host1)
        plan = self.fleet.cli("migrate", "mover", "--to", "host2")

        self.assertEqual(plan["moves"][0]["state"], "done")
        self.assertGreater(plan["moves"][0]["page_refs"], 5_000)
        self.assertEqual(self.mover.state(), "paused")
        self.assert_same_memory(ram(self.mover, self.host2), sent)
        self.assertNotIn("mover", self.host1.guest_names())
        self.mover.resume()
        self.assert_runs_once(self.mover, self.host2)

    def test_pages_that_change_on_the_target_after_the_filter_are_sent_again(self) -> None:
        self.mover.pause()
        self.addCleanup(self.resume_mover)
        sent = ram(self.mover, self.host1)
        command = self.start_moving()
        self.twin.pause()
        overwrite_ram(self.twin, self.host2)
        code, plan, said = self.finish(command)
        self.addCleanup(self.replace_twin)

        self.assertEqual(code, 0, said)
        self.assertGreater(plan["moves"][0]["pages_resent"], 0)
        self.assert_same_memory(ram(self.mover, self.host2), sent)
        self.mover.resume()
        self.assert_runs_once(self.mover, self.host2)

    def test_a_paused_vm_whose_disk_was_never_used_here_is_refused(self) -> None:
        """QEMU 7.2 would abort, and the VM with it."""
        sleeper = self.boot("host1", "sleeper", image_mib=8)
        self.addCleanup(sleeper.stop)
        self.ready(sleeper)
        sleeper.pause()
        self.fleet.cli("migrate", "sleeper", "--to", "host2")
        disk = self.lab.folder / "sleeper.raw"
        disk.write_bytes(bytes(1 << 20))
        self.host2.run(["virsh", "attach-disk", "sleeper", str(disk), "vda", "--targetbus",
                        "virtio", "--live"])
        with self.assertRaisesRegex(CliError, "virsh resume"):
            self.fleet.cli("migrate", "sleeper", "--to", "host1")
        self.assertEqual(sleeper.host.name, "host2")

    def resume_mover(self) -> None:
        if self.mover.state() == "paused":
            self.mover.resume()

    def assert_same_memory(self, one: bytes, other: bytes) -> None:
        """As assertEqual, without printing hundreds of megabytes."""
        self.assertEqual(len(one), len(other))
        differing = [at // 4096 for at in range(0, len(one), 4096)
                     if one[at:at + 4096] != other[at:at + 4096]]
        self.assertEqual(differing, [], "pages that differ")

    def replace_twin(self) -> None:
        self.twin.stop()
        type(self).twin = self.boot("host2", "twin2")
        self.ready(self.twin)

    def check_failed_and_stayed(self, command) -> None:
        code, plan, said = self.finish(command)
        self.assertEqual(code, 1, said)
        self.assertEqual(plan["moves"][0]["state"], "failed")
        self.assertTrue(plan["moves"][0]["error"])
        self.assert_runs_once(self.mover, self.host1)

    def test_killing_the_sources_agent_leaves_the_guest_on_the_source(self) -> None:
        command = self.start_moving()
        self.fleet.kill("host1")
        self.wait_until("the guest goes on", lambda: self.mover.state() == "running")
        self.fleet.start_agent(self.host1)

        self.check_failed_and_stayed(command)

    def test_killing_the_targets_agent_leaves_the_guest_on_the_source(self) -> None:
        command = self.start_moving()
        self.fleet.kill("host2")
        self.fleet.start_agent(self.host2)

        self.check_failed_and_stayed(command)

    def test_a_cancelled_plan_leaves_the_guest_in_one_place(self) -> None:
        command = self.start_moving()
        plan_id = self.fleet.cli("plan", "list")["plans"][0]["id"]
        command.send_signal(signal.SIGINT)
        code, plan, said = self.finish(command)

        self.assertIn(code, (0, 1), said)
        where = self.mover.host
        self.assert_runs_once(self.mover, where)
        self.assertIn(self.fleet.cli("plan", "show", plan_id)["state"], ("done", "cancelled"))


if __name__ == "__main__":
    unittest.main()
