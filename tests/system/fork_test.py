#!/usr/bin/python3
"""VMs forked from a template run at once, share its memory, and are ordinary libvirt domains.

Real libvirtd and QEMU: a leader is booted and frozen through the CLI, and forks of it are counted,
measured and ended, also when something goes wrong on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from fleet_case import CliError, FleetCase, Host
from samepage_lab.guest_spec import GuestSpec, domain_xml

MEMORY_MIB = 192
WRITTEN_MIB = 48
# What differs by less is not kept (placer/memory_history.h).
HISTORY_STEP_MIB = 1
SHELF = "/dev/shm/samepage/samepage"


class Forks(FleetCase):
    """Two hosts; the template `small` is made on host1 before the tests."""

    @classmethod
    def fence_command(cls) -> str:
        """Says that a host is off once a test has noted that."""
        command = cls.lab.folder / "fence"
        command.write_text(f"#!/bin/sh\ntouch {cls.lab.folder}/asked-$1\n"
                           f"[ -e {cls.lab.folder}/off-$1 ]\n")
        command.chmod(0o755)
        return str(command)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        (cls.lab.folder / "serial").mkdir(exist_ok=True)
        cls.make_template("small", "host1")

    @classmethod
    def domain(cls, name: str, **settings: object) -> Path:
        """A file with the domain of a lab guest that no start has given anything of its own."""
        spec = GuestSpec(name=name, memory_mib=MEMORY_MIB, image_mib=32, **settings)
        file = cls.lab.folder / f"{name}.xml"
        serial = cls.lab.folder / "serial" / f"{name}.log"
        file.write_text(domain_xml(spec, cls.lab.name, serial, None, ""))
        return file

    @classmethod
    def make_template(cls, name: str, host: str, ready_when: str = "ready role=",
                      *more: str, **settings: object) -> dict:
        domain = cls.domain(name, **settings)
        return cls.fleet.cli("template", "create", name, "--domain", str(domain),
                             "--ready-when", ready_when, "--on", host, *more)

    def boot(self, *argv: str) -> dict:
        return self.fleet.cli("boot", "small", *argv)

    def end_all(self) -> None:
        for host in self.lab.hosts:
            for name in host.guest_names():
                host.domain(name).destroy()

    def tearDown(self) -> None:
        self.end_all()
        for host in self.lab.hosts:
            self.assert_nothing_left(host)

    def assert_nothing_left(self, host: Host) -> None:
        """No ticket, note, save image or RAM file of a domain that is gone."""
        for part in ("forks", "pending", "work"):
            self.assertEqual(self.files(host, f"{SHELF}/{part}"), [])
        self.assertEqual(self.files(host, "/dev/shm/samepage/libvirt/qemu"), [])

    @staticmethod
    def files(host: Host, folder: str) -> list[str]:
        path = host.path(folder)
        return sorted(entry.name for entry in path.iterdir()) if path.exists() else []

    def serial(self, name: str) -> str:
        return (self.lab.folder / "serial" / f"{name}.log").read_text(errors="replace")

    def wait_beats(self, name: str) -> None:
        self.wait_until(f"{name} beats", lambda: "heartbeat" in self.serial(name))

    def test_forks_run_share_memory_and_are_virshs(self) -> None:
        storm = self.boot("--count", "4", "--name", "f-%", "--on", "host1")
        self.assertEqual([vm["state"] for vm in storm["vms"]], ["running"] * 4)
        host = self.lab.host("host1")
        self.assertEqual(host.guest_names(), ["f-1", "f-2", "f-3", "f-4"])
        listed = host.run(["virsh", "list", "--name"]).stdout.split()
        self.assertEqual(sorted(listed), ["f-1", "f-2", "f-3", "f-4"])
        uuids = {host.domain(name).UUIDString() for name in listed}
        self.assertEqual(len(uuids), 4)
        for name in listed:
            self.wait_beats(name)
        for vm in storm["vms"]:
            self.assertLess(vm["own_mib"], MEMORY_MIB / 4)
        host.run(["virsh", "suspend", "f-1"])
        host.run(["virsh", "resume", "f-1"])
        host.run(["virsh", "destroy", "f-1"])
        self.assertEqual(host.guest_names(), ["f-2", "f-3", "f-4"])

    def scanned(self, name: str) -> dict:
        """A VM as the fleet has it after a scan."""
        self.fleet.cli("scan")
        return next(vm for vm in self.fleet.cli("vms")["vms"] if vm["name"] == name)

    def metric(self, name: str, whose: str) -> float:
        """What /metrics says of a VM's memory, in MiB."""
        said = subprocess.run(["curl", "--silent", "--unix-socket", str(self.fleet.socket),
                               "http://placer/metrics"], text=True, capture_output=True,
                              check=True, timeout=60, stdin=subprocess.DEVNULL).stdout
        line = next(line for line in said.splitlines()
                    if line.startswith(f'samepage_vm_memory_bytes{{vm="{name}"')
                    and f'of="{whose}"' in line)
        return float(line.split()[-1]) / 2**20

    def test_a_forks_memory_is_its_templates_until_it_writes(self) -> None:
        self.make_template("writer", "host1", role="sparse", write_mib=WRITTEN_MIB, rate=2000)
        self.addCleanup(lambda: self.fleet.try_cli("template", "rm", "writer"))
        self.fleet.cli("boot", "writer", "--name", "w", "--on", "host1")
        early = self.scanned("w")

        def after_writing() -> dict | None:
            now = self.scanned("w")
            return now if now["own_mib"] > early["own_mib"] + WRITTEN_MIB / 2 else None
        late = self.wait_until("w has made half of its buffer its own", after_writing)
        points = self.fleet.cli("vms", "--history", "w")["points"]

        for vm in (early, late):
            print(f"own {vm['own_mib']:.1f} MiB, template {vm['template_mib']:.1f} MiB, "
                  f"ksm {vm['ksm_mib']:.1f} MiB of {MEMORY_MIB}")
        print(f"points: {[(point['own_mib'], point['template_mib']) for point in points]}")
        self.assertLess(early["own_mib"], MEMORY_MIB / 8)
        self.assertGreater(early["template_mib"], MEMORY_MIB / 2)
        self.assertLess(late["template_mib"], early["template_mib"] - WRITTEN_MIB / 2 + 8)
        kept = [(point["own_mib"], point["template_mib"]) for point in reversed(points)]
        self.assertAlmostEqual(late["own_mib"], kept[-1][0], delta=HISTORY_STEP_MIB)
        self.assertAlmostEqual(late["template_mib"], kept[-1][1], delta=HISTORY_STEP_MIB)
        self.assertLess(kept[0][0], MEMORY_MIB / 8)
        self.assertEqual(sorted(kept), kept, "own memory only grows")
        self.assertEqual({point["host"] for point in points}, {"host1"})
        self.assertGreater(self.metric("w", "own"), late["own_mib"] / 2)
        self.assertGreater(self.metric("w", "template"), late["template_mib"] / 2)

    def test_a_host_without_the_template_gets_it_from_the_store(self) -> None:
        storm = self.boot("--count", "2", "--name", "g-%", "--on", "host2")
        self.assertEqual([vm["state"] for vm in storm["vms"]], ["running"] * 2)
        self.wait_beats("g-1")
        self.wait_beats("g-2")
        listed = self.fleet.cli("template", "show", "small")
        self.assertEqual([place["host"] for place in listed["hosts"]], ["host1", "host2"])
        self.fleet.cli("template", "verify", "small")

    def test_a_second_run_completes_the_first(self) -> None:
        self.boot("--count", "1", "--name", "s-%")
        storm = self.boot("--count", "3", "--name", "s-%")
        self.assertEqual([vm["state"] for vm in storm["vms"]], ["was_there", "running", "running"])

    def test_a_dry_run_boots_nothing(self) -> None:
        storm = self.boot("--count", "6", "--dry-run")
        self.assertEqual(storm["state"], "proposed")
        self.assertLessEqual(storm["peak"], 1.05 * storm["peak_bound"] + 1e-9)
        self.assertEqual([host.guest_names() for host in self.lab.hosts], [[], []])

    def test_a_standby_sleeps_until_it_is_woken(self) -> None:
        self.boot("--name", "asleep", "--paused", "--on", "host1")
        host = self.lab.host("host1")
        self.assertEqual(host.run(["virsh", "domstate", "asleep"]).stdout.strip(), "paused")
        self.assertNotIn("heartbeat", self.serial("asleep"))
        host.run(["virsh", "resume", "asleep"])
        self.wait_beats("asleep")

    def standby(self) -> dict:
        return self.fleet.cli("standby", "list")["vms"][0]

    def test_a_standby_takes_over_only_when_the_vms_host_is_certainly_off(self) -> None:
        self.boot("--name", "v", "--on", "host1")
        self.fleet.cli("standby", "create", "v", "--template", "small")
        self.addCleanup(lambda: self.fleet.try_cli("standby", "rm", "v"))
        self.assertEqual(self.standby()["standbys"],
                         [{"name": "v.standby-1", "host": "host2", "state": "asleep"}])
        with self.assertRaisesRegex(CliError, "v runs on host1"):
            self.fleet.cli("standby", "wake", "v")

        # The agent is gone, the VM runs on: nothing may wake.
        self.fleet.kill("host1", signal.SIGKILL)
        asked = self.lab.folder / "asked-host1"
        self.wait_until("the placer has tried to fence host1", asked.exists)
        with self.assertRaisesRegex(CliError, "may run there"):
            self.fleet.cli("standby", "wake", "v")
        self.assertEqual(self.standby()["standbys"][0]["state"], "asleep")
        self.assertEqual(self.lab.host("host1").guest_names(), ["v"])

        self.lab.host("host1").domain("v").destroy()
        (self.lab.folder / "off-host1").touch()
        self.wait_until("the standby took over", lambda: self.standby()["now"] == "v.standby-1")
        self.wait_beats("v.standby-1")
        self.assertEqual(self.standby()["standbys"], [])
        self.fleet.start_agent(self.lab.host("host1"))
        self.fleet.wait_hosts()

    def test_a_leader_that_crashes_is_told_of_and_leaves_nothing(self) -> None:
        host = self.lab.host("host1")
        making = self.fleet.popen_cli("template", "create", "crash", "--domain",
                                      str(self.domain("crash")), "--ready-when", "no such words",
                                      "--on", "host1")
        serial = self.lab.folder / "serial"
        self.wait_until("the leader boots", lambda: any(
            file.stat().st_size for file in serial.glob("leader-*-crash.log")))
        for pid in host.guest_pids().values():
            os.kill(pid, signal.SIGKILL)
        _, said = self.end_of(making)
        self.assertEqual(making.returncode, 1)
        self.assertIn("ended before it was ready", said)
        self.assertIsNone(self.fleet.try_cli("template", "verify", "crash"))

    def without_template(self, host: Host) -> Path:
        """A host that must fetch the template; the folder that it will come into."""
        self.fleet.kill(host.name)
        shelf = host.path(f"{SHELF}/templates")
        for left in shelf.glob("*"):
            shutil.rmtree(left)
        self.fleet.start_agent(host)
        self.fleet.wait_hosts()
        return shelf

    def test_a_template_that_came_by_half_is_no_template(self) -> None:
        host = self.lab.host("host2")
        shelf = self.without_template(host)
        command = self.fleet.popen_cli("boot", "small", "--name", "half", "--on", "host2")
        self.wait_until("the template comes", lambda: list(shelf.glob("*/pc.ram")))
        self.fleet.process("host2").send_signal(signal.SIGSTOP)
        came_by_half = not list(shelf.glob("*/state"))
        self.fleet.kill("host2", signal.SIGKILL)
        self.end_of(command, 240.0)
        self.assertEqual(command.returncode, 1)
        self.assertTrue(came_by_half, "it was there before the agent was stopped")
        self.fleet.start_agent(host)
        self.fleet.wait_hosts()
        self.assertEqual(list(shelf.glob("*")), [])
        storm = self.boot("--name", "half", "--on", "host2")
        self.assertEqual([vm["state"] for vm in storm["vms"]], ["running"])
        self.fleet.cli("template", "verify", "small")

    def test_a_host_that_dies_in_mid_storm_fails_its_vms_and_a_second_run_completes_it(self) -> None:
        host = self.lab.host("host2")
        command = self.fleet.popen_cli("boot", "small", "--count", "16", "--name", "d-%")
        self.wait_until("host2 has begun", lambda: len(host.guest_names()) >= 2)
        self.fleet.kill("host2", signal.SIGKILL)
        for pid in host.guest_pids().values():
            os.kill(pid, signal.SIGKILL)
        out, said = self.end_of(command, 240.0)
        self.assertEqual(command.returncode, 1, said)
        vms = json.loads(out)["vms"]
        self.assertEqual({vm["state"] for vm in vms if vm["host"] == "host1"}, {"running"})
        for vm in vms:
            self.assertTrue(vm["state"] == "running" or vm["error"], vm)
        self.fleet.start_agent(host)
        self.fleet.wait_hosts()
        storm = self.boot("--count", "16", "--name", "d-%")
        self.assertLessEqual({vm["state"] for vm in storm["vms"]}, {"running", "was_there"})
        self.assertEqual(sum(len(one.guest_names()) for one in self.lab.hosts), 16)

    def test_a_host_without_the_hook_says_how_to_mend_it(self) -> None:
        hook = self.lab.host("host1").path("/etc/libvirt/hooks/qemu")
        aside = hook.with_name("aside")
        hook.rename(aside)
        self.addCleanup(lambda: aside.rename(hook))
        done = self.fleet.run_cli("boot", "small", "--name", "h", "--on", "host1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("doctor --fix", done.stdout.replace("\n", " "))
        self.assertEqual(self.lab.host("host1").guest_names(), [])

    def test_a_leader_that_never_gets_ready_leaves_nothing(self) -> None:
        with self.assertRaisesRegex(CliError, "not ready in time"):
            self.make_template("never", "host1", "no such words", "--time-max", "4")
        self.assertEqual(self.lab.host("host1").guest_names(), [])
        self.assertIsNone(self.fleet.try_cli("template", "verify", "never"))

    def test_a_full_tmpfs_is_named_and_forks_of_others_go_on(self) -> None:
        shm = self.lab.host("host2").path("/dev/shm")
        free = shutil.disk_usage(shm).free
        # The shelf of host2 may hold the template from another test; then there is no need of room.
        self.fleet.kill("host2")
        for left in shm.glob("samepage/samepage/templates/*"):
            shutil.rmtree(left)
        self.fleet.start_agent(self.lab.host("host2"))
        self.fleet.wait_hosts()
        self.lab.host("host2").run(["mount", "-o", "remount,size=64m", "/dev/shm"])
        self.addCleanup(lambda: self.lab.host("host2").run(
            ["mount", "-o", f"remount,size={free}", "/dev/shm"]))
        storm = self.fleet.run_cli("boot", "small", "--name", "t", "--on", "host2")
        self.assertEqual(storm.returncode, 1)
        self.assertIn("enlarge that tmpfs", storm.stdout.replace("\n", " "))

    def test_an_agent_killed_in_mid_storm_leaves_whole_vms_and_a_second_run_completes_it(self) -> None:
        command = self.fleet.popen_cli("boot", "small", "--count", "12", "--name", "k-%",
                                       "--on", "host1")
        host = self.lab.host("host1")
        self.wait_until("the storm has begun", lambda: len(host.guest_names()) >= 2)
        self.fleet.kill("host1", signal.SIGKILL)
        out, said = self.end_of(command, 240.0)
        self.assertEqual(command.returncode, 1, said)
        self.fleet.start_agent(host)
        self.fleet.wait_hosts()
        storm = self.boot("--count", "12", "--name", "k-%", "--on", "host1")
        self.assertLessEqual({vm["state"] for vm in storm["vms"]}, {"running", "was_there"})
        self.assertEqual(len(host.guest_names()), 12)
        for vm in storm["vms"]:
            self.wait_beats(vm["name"])


if __name__ == "__main__":
    unittest.main()
