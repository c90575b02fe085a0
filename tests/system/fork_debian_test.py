#!/usr/bin/python3
"""Debian VMs with disks, forked from one that booted from the image store: each has a disk, a card, a
name and random numbers of its own, and nginx answers in each.

Not part of tools/test: a Debian leader takes one to three minutes. SAMEPAGE_FORKS sets how many forks.
"""

from __future__ import annotations

import os
import time
import unittest
from pathlib import Path

from fleet_case import FleetCase, Host
from samepage_lab.fork_image import fork_image
from samepage_lab.guest_spec import GuestSpec, domain_xml

FORKS = int(os.environ.get("SAMEPAGE_FORKS", "6"))
MEMORY_MIB = 320
ANSWER_S_MAX = 240


class DebianForks(FleetCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        image = fork_image()
        cls.lab.host("host1").run(
            [str(cls.fleet.programs / "samepage"), "image", "import", str(image.disk), "--name",
             "debian", "--store", str(cls.fleet.store)], timeout_s=600)
        spec = GuestSpec(name="leader", kind="debian", memory_mib=MEMORY_MIB, nic=True,
                         kernel_options="samepage.beat_ms=1000")
        (cls.lab.folder / "serial").mkdir(exist_ok=True)
        serial = cls.lab.folder / "serial" / "leader.log"
        domain = cls.lab.folder / "leader.xml"
        # Its disk is a place-holder: --image has one of the store take its place.
        domain.write_text(domain_xml(spec, cls.lab.name, serial, Path("/no/disk"), ""))
        cls.made = cls.fleet.cli("template", "create", "web", "--image", "debian", "--domain",
                                 str(domain), "--ready-when", "ready role=", "--on", "host1")

    def tearDown(self) -> None:
        for host in self.lab.hosts:
            for name in host.guest_names():
                host.domain(name).destroy()
        for disk in self.fleet.cli("disk", "list")["disks"]:
            self.fleet.cli("disk", "rm", disk["name"], "--host", disk["host"])

    def ask(self, host: Host, name: str, what: str) -> str:
        """What the VM's nginx serves; it may take a while until it has its address."""
        url = f"http://10.98.0.{name.rpartition('-')[2]}/{what}"
        script = f"until curl -sf -m 5 {url}; do sleep 0.2; done"
        return host.run(["timeout", str(ANSWER_S_MAX), "sh", "-c", script],
                        timeout_s=ANSWER_S_MAX + 10).stdout.strip()

    def test_each_is_somebody_of_its_own(self) -> None:
        began = time.monotonic()
        storm = self.fleet.cli("boot", "web", "--count", str(FORKS), "--name", "web-%")
        running_s = time.monotonic() - began
        self.assertEqual({vm["state"] for vm in storm["vms"]}, {"running"}, storm)
        names = {vm["name"]: self.ask(self.lab.host(vm["host"]), vm["name"], "name")
                 for vm in storm["vms"]}
        answering_s = time.monotonic() - began
        print(f"{FORKS} Debian forks on {len({vm['host'] for vm in storm['vms']})} hosts: all run "
              f"after {running_s:.1f} s, all answer after {answering_s:.1f} s; "
              f"own memory {sum(vm['own_mib'] for vm in storm['vms']) / FORKS:.1f} MiB each; "
              f"leader ready after {self.made['leader_ready_s']:.1f} s")
        self.assertEqual(names, {name: name for name in names})
        randoms = set()
        for vm in storm["vms"]:
            host = self.lab.host(vm["host"])
            randoms.add(self.ask(host, vm["name"], "random"))
        self.assertEqual(len(randoms), FORKS)
        disks = self.fleet.cli("disk", "list")["disks"]
        self.assertEqual({disk["name"] for disk in disks}, set(names))
        self.assertEqual({disk["image"] for disk in disks}, {"web.disk"})

    def test_a_disk_that_an_earlier_vm_left_is_neither_used_nor_lost(self) -> None:
        self.fleet.cli("boot", "web", "--name", "web-9", "--on", "host1")
        host = self.lab.host("host1")
        host.domain("web-9").destroy()
        again = self.fleet.run_cli("boot", "web", "--name", "web-9", "--on", "host1")
        self.assertEqual(again.returncode, 1)
        self.assertIn("--replace-disks", again.stdout.replace("\n", " "))
        self.assertEqual([disk["name"] for disk in self.fleet.cli("disk", "list")["disks"]],
                         ["web-9"])
        self.fleet.cli("boot", "web", "--name", "web-9", "--on", "host1", "--replace-disks")
        self.assertEqual(self.ask(host, "web-9", "name"), "web-9")
        with self.assertRaisesRegex(Exception, "web-9"):
            self.fleet.cli("template", "rm", "web")


if __name__ == "__main__":
    unittest.main()
