#!/usr/bin/python3
"""Whatever is killed, cut or stalled at whatever moment of a migration, the guest runs on exactly one
host afterwards, with its memory whole, and the command says where and why.

Real libvirtd, QEMU and network. Every kind of fault strikes once, each at a random moment.
SAMEPAGE_FAULTS=N strikes N times of each kind instead; SAMEPAGE_FAULT_KINDS=agent,link restricts the
kinds to those whose names hold one of the words; SAMEPAGE_SEED=N repeats a run's moments.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
import unittest
import zlib
from typing import Callable

from fleet_case import FleetCase, Host, ram
from samepage_lab import LabError
from samepage_lab.bindings import libvirt

PAGE = 4096
LINK_MBIT = 100
ENDS_S = 240.0
AFTER_ALL = 1.1  # Some moments come when the guest is across.


def pages_of(memory: bytes) -> set[bytes]:
    """Digests of its pages."""
    return {hashlib.blake2b(memory[at:at + PAGE], digest_size=16).digest()
            for at in range(0, len(memory), PAGE)}


def kept_pages(memory: bytes) -> set[bytes]:
    """Digests of the pages that do not compress: the guests' images, which never change."""
    pages = (memory[at:at + PAGE] for at in range(0, len(memory), PAGE))
    return {hashlib.blake2b(page, digest_size=16).digest() for page in pages
            if len(zlib.compress(page[:512], 1)) > 480}


class Faults(FleetCase):
    """`mover` goes to and fro between the hosts; its twin on host2 tells which pages must stay."""

    checkpoint_mib = 0  # A guest that comes home would be there before anything strikes.

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        size = {"image_mib": 24, "memory_mib": 128}
        cls.mover = cls.boot("host1", "mover", role="sparse", write_mib=2, rate=200, **size)
        cls.twin = cls.boot("host2", "twin", **size)
        cls.ready(cls.mover, cls.twin)
        host1, host2 = cls.lab.hosts
        cls.must_stay = kept_pages(ram(cls.mover, host1)) & kept_pages(ram(cls.twin, host2))
        cls.twin.stop()
        for host in cls.lab.hosts:
            cls.lab.link(host, LINK_MBIT)
        began = time.monotonic()
        cls.fleet.cli("migrate", "mover", "--to", host2.name)
        cls.move_s = time.monotonic() - began
        cls.seed = int(os.environ.get("SAMEPAGE_SEED", random.SystemRandom().randrange(1 << 32)))
        cls.random = random.Random(cls.seed)
        cls.ends: dict[str, list[str]] = {}
        print(f"SAMEPAGE_SEED={cls.seed}, {len(cls.must_stay)} pages must stay,"
              f" a move takes {cls.move_s:.1f} s")

    @classmethod
    def tearDownClass(cls) -> None:
        for kind, ends in cls.ends.items():
            print(f"{kind}: {len(ends)} points,"
                  f" {ends.count('moved')} moved, {ends.count('stayed')} stayed")
        super().tearDownClass()

    def strike_often(self, strike: Callable[[Host, Host], None]) -> None:
        kind = self._testMethodName.removeprefix("test_")
        chosen = os.environ.get("SAMEPAGE_FAULT_KINDS", "")
        if chosen and not any(word in kind for word in chosen.split(",")):
            self.skipTest("not chosen")
        for point in range(int(os.environ.get("SAMEPAGE_FAULTS", "1"))):
            with self.subTest(kind=kind, point=point, seed=self.seed):
                began = time.monotonic()
                end, why = self.strike_once(strike)
                self.ends.setdefault(kind, []).append(end)
                print(f"{kind} {point + 1}: {end}, {time.monotonic() - began:.1f} s {why}",
                      flush=True)

    def strike_once(self, strike: Callable[[Host, Host], None]) -> tuple[str, str]:
        """Where the guest is, and what was wrong with the move."""
        source = self.mover.host
        target = next(host for host in self.lab.hosts if host is not source)
        delay = self.random.uniform(0.0, AFTER_ALL * self.move_s)
        command = self.fleet.popen_cli("migrate", "mover", "--to", target.name)
        self.addCleanup(command.kill)
        time.sleep(delay)  # The moment is what is tried, not what is waited for.
        strike(source, target)
        out, said = self.end_of(command, ENDS_S)
        move = json.loads(out)["moves"][0] if out.strip() else {}
        where = self.check_whole(f"{delay:.2f} s, {said}")
        if move.get("state") == "done":
            self.assertIs(where, target, said)
        elif move:
            self.assertRegex(move["error"], "host1|host2", "it does not say where the guest is")
        self.fleet.wait_hosts()
        return "moved" if where is target else "stayed", move.get("error") or said.strip()[-200:]

    def check_whole(self, trace: str) -> Host:
        where = self.wait_for_one_host("mover", trace, ENDS_S)
        self.assert_runs_once(self.mover, where)
        lost = self.must_stay - pages_of(ram(self.mover, where))
        self.assertEqual(len(lost), 0, f"pages that are not what they were ({trace})")
        return where

    def kill_libvirtd(self, host: Host) -> None:
        host.disconnect()
        host.run(["sh", "-c", "kill -9 $(cat /run/libvirt/libvirtd.pid)"])
        self.wait_until("libvirtd has ended", lambda: host.run(
            ["sh", "-c", "! kill -0 $(cat /run/libvirt/libvirtd.pid)"], check=False).returncode == 0)
        host.start_libvirtd(self.lab.name)
        host.wait_libvirtd()

    def link_down(self, host: Host, seconds: float) -> None:
        def set_link(state: str) -> None:
            subprocess.run(["nsenter", f"--net=/proc/{self.lab.control.pid}/ns/net", "--", "ip",
                            "link", "set", host.name, state], check=True)
        set_link("down")
        time.sleep(seconds)  # How long it is cut.
        set_link("up")

    def test_kill_source_agent(self) -> None:
        self.strike_often(lambda source, target: self.restart_agent(source))

    def test_kill_target_agent(self) -> None:
        self.strike_often(lambda source, target: self.restart_agent(target))

    def test_kill_both_agents(self) -> None:
        def strike(source: Host, target: Host) -> None:
            for host in (source, target):
                self.fleet.kill(host.name)
            for host in (source, target):
                self.fleet.start_agent(host)
        self.strike_often(strike)

    def test_kill_placer(self) -> None:
        def strike(source: Host, target: Host) -> None:
            self.fleet.kill("placer")
            self.fleet.start_placer()
        self.strike_often(strike)

    def test_kill_source_libvirtd(self) -> None:
        self.strike_often(lambda source, target: self.kill_libvirtd(source))

    def test_kill_target_libvirtd(self) -> None:
        self.strike_often(lambda source, target: self.kill_libvirtd(target))

    @staticmethod
    def runs_on(host: Host) -> bool:
        try:
            return host.domain("mover").state()[0] == libvirt.VIR_DOMAIN_RUNNING
        except (LabError, libvirt.libvirtError):
            return False

    def test_kill_target_qemu(self) -> None:
        def strike(source: Host, target: Host) -> None:
            # Once the guest has been handed over, its QEMU is the guest.
            pid = target.guest_pids().get("mover")
            if pid and self.runs_on(source):
                os.kill(pid, 9)
        self.strike_often(strike)

    def test_cut_link(self) -> None:
        self.strike_often(lambda source, target: self.link_down(self.random.choice(
            (source, target)), self.random.uniform(0.2, 3.0)))

    def test_stalled_link(self) -> None:
        def strike(source: Host, target: Host) -> None:
            self.lab.link(source, 0.02)
            time.sleep(self.random.uniform(1.0, 6.0))  # How long nothing passes.
            self.lab.link(source, LINK_MBIT)
        self.strike_often(strike)


if __name__ == "__main__":
    unittest.main()
