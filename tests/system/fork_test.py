#!/usr/bin/python3
"""VMs forked from a template run at once, share its memory, and are ordinary libvirt domains.

Real libvirtd and QEMU: a leader is booted and frozen through the CLI, and forks of it are counted,
measured and ended, also when something goes wrong on the way.
"""

from __future__ import annotations

import re
import time
import unittest
from pathlib import Path

from fleet_case import CliError, FleetCase, Host
from samepage_lab.guests import GuestSpec

MEMORY_MIB = 192
SHELF = "/dev/shm/samepage/samepage"


class Forks(FleetCase):
    """Two hosts; the template `small` is made on host1 before the tests."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        (cls.lab.folder / "serial").mkdir(exist_ok=True)
        cls.make_template("small", "host1")

    @classmethod
    def domain(cls, name: str) -> Path:
        """A file with the domain of a lab guest that no start has given anything of its own."""
        spec = GuestSpec(name=name, memory_mib=MEMORY_MIB, image_mib=32)
        file = cls.lab.folder / f"{name}.xml"
        file.write_text(spec.domain_xml(cls.lab.name, cls.lab.folder / "serial" / f"{name}.log"))
        return file

    @classmethod
    def make_template(cls, name: str, host: str, ready_when: str = "ready role=",
                      *more: str) -> dict:
        return cls.fleet.cli("template", "create", name, "--domain", str(cls.domain(name)),
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


if __name__ == "__main__":
    unittest.main()
