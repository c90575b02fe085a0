#!/usr/bin/python3
"""A fork that moves to a host with its template carries only what differs, and shares again there.

Real libvirtd, QEMU and network bytes. The same guest is moved by stock libvirt too, and the two are
compared in one run.
"""

from __future__ import annotations

import shutil
import unittest

from fleet_case import CliError, FleetCase, Guest, Host, ram
from samepage_lab.frames import ram_mapping
from samepage_lab.guest_spec import GuestSpec, domain_xml
from samepage_lab.migration import migrate_stock

MEMORY_MIB = 192
SHELF = "/dev/shm/samepage/samepage"
OF_PRECOPY_MAX = 0.03
OWN_MIB_MAX = MEMORY_MIB / 4
GROWN_MIB_MAX = 8.0  # What a guest writes while it moves.


class TemplateMoves(FleetCase):
    """Two hosts, both with the template `small`."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        (cls.lab.folder / "serial").mkdir(exist_ok=True)
        cls.host1, cls.host2 = cls.lab.hosts
        spec = GuestSpec(name="small", memory_mib=MEMORY_MIB, image_mib=32)
        file = cls.lab.folder / "small.xml"
        file.write_text(domain_xml(spec, cls.lab.name, cls.serial_file("small"), None, ""))
        cls.fleet.cli("template", "create", "small", "--domain", str(file),
                      "--ready-when", "ready role=", "--on", "host1")
        cls.fork("warm", "host2")
        cls.host2.domain("warm").destroy()

    @classmethod
    def serial_file(cls, name: str):
        return cls.lab.folder / "serial" / f"{name}.log"

    @classmethod
    def fork(cls, name: str, host: str) -> Guest:
        cls.fleet.cli("boot", "small", "--name", name, "--on", host)
        return Guest(cls.lab, GuestSpec(name=name, memory_mib=MEMORY_MIB, image_mib=32))

    def tearDown(self) -> None:
        for host in self.lab.hosts:
            for name in host.guest_names():
                host.domain(name).destroy()
            left = [path for part in ("forks", "pending", "work")
                    for path in host.path(f"{SHELF}/{part}").glob("*")]
            left += host.path("/dev/shm/samepage/libvirt/qemu").glob("*")
            self.assertEqual(left, [])
        self.fleet.cli("template", "verify", "small")

    def move(self, guest: Guest, host: Host, *options: str) -> dict:
        move = self.fleet.cli("migrate", guest.name, "--to", host.name, *options)["moves"][0]
        self.assertEqual(move["state"], "done", move)
        return move

    def move_counted(self, guest: Guest, host: Host) -> tuple[dict, int]:
        """The move, and what went over the link of its source."""
        source = guest.host
        before = source.bytes()
        move = self.move(guest, host)
        count = source.bytes() - before
        return move, count.rx + count.tx

    @staticmethod
    def memory(guest: Guest, host: Host) -> dict[str, float]:
        """The kernel's account of a guest's RAM on a host, in MiB."""
        pid = host.guest_pids()[guest.name]
        start, end = ram_mapping(pid, MEMORY_MIB << 20)
        account: dict[str, float] = {}
        inside = False
        with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                word, _, rest = line.partition(" ")
                if "-" in word and not word.endswith(":"):
                    first = int(word.split("-")[0], 16)
                    inside = start <= first < end
                elif inside and rest.strip().endswith("kB"):
                    key = word.rstrip(":")
                    account[key] = account.get(key, 0.0) + int(rest.split()[0]) / 1024
        return account

    def test_a_fresh_fork_moves_into_its_template_and_back(self) -> None:
        plain = self.fork("plain", "host1")
        precopy = migrate_stock(plain, self.host2).wire_bytes
        self.host2.domain("plain").destroy()

        fork = self.fork("f", "host1")
        source = self.host1
        for target in (self.host2, self.host1, self.host2):
            before = self.memory(fork, source)
            move, wire = self.move_counted(fork, target)
            after = self.memory(fork, target)
            print(f"to {target.name}: wire={wire} of precopy={precopy}"
                  f" ({100 * wire / precopy:.2f} %), own MiB {before['Anonymous']:.1f} ->"
                  f" {after['Anonymous']:.1f}, pss {before['Pss']:.1f} -> {after['Pss']:.1f},"
                  f" template_pages={move['template_pages']} refs={move['page_refs']}"
                  f" literals={move['page_literals']} downtime_ms={move['downtime_ms']}")
            self.assert_runs_once(fork, target)
            self.assertLessEqual(wire, OF_PRECOPY_MAX * precopy)
            self.assertLess(after["Anonymous"], OWN_MIB_MAX)
            self.assertLess(after["Anonymous"], before["Anonymous"] + GROWN_MIB_MAX)
            self.assertGreater(move["template_pages"], (MEMORY_MIB << 8) / 2)
            source = target

    def test_a_paused_forks_memory_arrives_byte_for_byte(self) -> None:
        fork = self.fork("p", "host1")
        with fork.heartbeat() as heartbeat:
            self.assertTrue(heartbeat.alive(10.0))
        fork.pause()
        for target in (self.host2, self.host1):
            sent = ram(fork, fork.host)
            move = self.move(fork, target)
            self.assertGreater(move["template_pages"], 0)
            self.assertEqual(fork.state(), "paused")
            got = ram(fork, target)
            self.assertEqual(len(got), len(sent))
            differing = [at // 4096 for at in range(0, len(sent), 4096)
                         if got[at:at + 4096] != sent[at:at + 4096]]
            self.assertEqual(differing, [], "pages that differ")
        fork.resume()
        self.assert_runs_once(fork, self.host1)

    def test_without_its_template_a_fork_moves_as_any_and_shares_where_it_is_again(self) -> None:
        fork = self.fork("w", "host1")
        shelf = self.host2.path(f"{SHELF}/templates")
        self.fleet.kill("host2")
        self.wait_until("host2 is down",
                        lambda: self.fleet.cli("hosts")["hosts"][1]["state"] == "down")
        for left in shelf.glob("*"):
            shutil.rmtree(left)
        self.fleet.start_agent(self.host2)
        self.fleet.wait_hosts()

        move = self.move(fork, self.host2)
        self.assertEqual(move["template_pages"], 0)
        self.assert_runs_once(fork, self.host2)
        move = self.move(fork, self.host1)
        self.assertGreater(move["template_pages"], (MEMORY_MIB << 8) / 2)
        self.assert_runs_once(fork, self.host1)
        self.assertLess(self.memory(fork, self.host1)["Anonymous"], OWN_MIB_MAX)
        self.fork("warm", "host2")

    def test_in_several_streams_and_by_postcopy_it_comes_without_its_template(self) -> None:
        fork = self.fork("m", "host1")
        move = self.move(fork, self.host2, "--parallel", "2")
        self.assertEqual(move["template_pages"], 0)
        self.assert_runs_once(fork, self.host2)
        target = self.host1
        try:
            move = self.move(fork, target, "--postcopy")
            self.assertEqual(move["template_pages"], 0)
        except CliError as error:  # It has so little to carry that this may come too late.
            self.assertIn("across before post-copy could begin", error.said)
            target = self.host2
        self.assert_runs_once(fork, target)


if __name__ == "__main__":
    unittest.main()
