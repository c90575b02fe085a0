"""What the system tests share: one lab with Samepage running on it, and how to look at a guest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "lab"))
sys.dont_write_bytecode = True

from samepage_lab import Guest, Host, Lab, require_lab  # noqa: E402
from samepage_lab.fleet import CliError, Fleet  # noqa: E402
from samepage_lab.frames import ram_mapping  # noqa: E402

IMAGE_MIB = 32
MEMORY_MIB = 192
SLOW_MBIT = 40
SLOW_OWN_MIB = 24  # A guest with so much of its own is on such a link for some seconds.
_LOG_TAIL = 6_000
_SERIAL_TAIL = 2_000


class FleetCase(unittest.TestCase):
    """A lab for all tests of the class, of two hosts unless it says otherwise, with Samepage."""

    lab: Lab
    fleet: Fleet
    hosts = 2
    host_memory_mib = 0
    report_interval_s = 3600
    checkpoint_mib = 4096

    @classmethod
    def fence_command(cls) -> str:
        """Of the placer, made in the lab's folder; none unless a test has one."""
        return ""

    @classmethod
    def setUpClass(cls) -> None:
        require_lab()
        name = f"test-{os.getpid()}-{cls.__name__.lower()[:12]}"
        cls.lab = cls.enterClassContext(Lab(name, hosts=cls.hosts))
        cls.fleet = Fleet(cls.lab, host_memory_mib=cls.host_memory_mib,
                          fence_command=cls.fence_command(),
                          report_interval_s=cls.report_interval_s,
                          checkpoint_mib=cls.checkpoint_mib).start()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Shows why a test failed, at once, and what the daemons said."""
        failed = len(result.failures) if result else 0
        erred = len(result.errors) if result else 0
        ended = super().run(result)
        whys = [*result.failures[failed:], *result.errors[erred:]] if result else []
        for _, why in whys:
            print(why)
        if whys:
            self._tell_all()
        return ended

    def _tell_all(self) -> None:
        for name in ("placer", *(host.name for host in self.lab.hosts)):
            print(f"--- {name}, after {self.id()}\n{self.fleet.log(name)[-_LOG_TAIL:]}")
        for host in self.lab.hosts:
            print(f"--- where the threads of {host.name} wait\n{host.threads()}")

    def end_of(self, command: subprocess.Popen[str], timeout_s: float = 120.0) -> tuple[str, str]:
        """What a command said until its end, which must come in time."""
        try:
            return command.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            command.kill()
            _, said = command.communicate()
            self.fail(f"no end within {timeout_s:g} s; it said: {said}")

    @classmethod
    def boot(cls, host: str, name: str, **settings: Any) -> Guest:
        """Boots a guest of image a, unless settings say otherwise, and does not wait for it."""
        usual = {"image": "a", "image_mib": IMAGE_MIB, "memory_mib": MEMORY_MIB}
        return cls.lab.start_guest(host, name, wait=False, **{**usual, **settings})

    @classmethod
    def ready(cls, *guests: Guest) -> None:
        """Waits for guests and has the placer know them."""
        for guest in guests:
            guest.wait_ready()
        cls.fleet.cli("scan")

    def wait_until(self, what: str, seen: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            found = seen()
            if found:
                return found
            if time.monotonic() > deadline:
                self.fail(f"not within {timeout_s:g} s: {what}")
            time.sleep(0.02)

    def wait_for_progress(self, guest: Guest) -> None:
        """Waits until the migration of a guest goes on, however far it is."""
        self.wait_until(f"{guest.spec.name} is being moved",
                        lambda: self.fleet.last_progress(guest.spec.name) is not None)

    def wait_for_references(self, guest: Guest) -> None:
        """Waits until the running migration of a guest has sent references to pages."""
        def referred() -> bool:
            move = self.fleet.last_progress(guest.spec.name)
            return bool(move and move["page_refs"] > 0)
        self.wait_until(f"{guest.spec.name} is being moved", referred)

    def restart_agent(self, host: Host) -> None:
        """Kills a host's agent and starts it again."""
        self.fleet.kill(host.name)
        self.fleet.start_agent(host)

    def wait_for_one_host(self, name: str, trace: str, timeout_s: float) -> Host:
        """The host that has the guest, as soon as it is only one."""
        def having() -> list[Host]:
            return [host for host in self.lab.hosts if name in host.guest_names()]
        self.wait_until(f"one host has {name} ({trace})", lambda: len(having()) == 1, timeout_s)
        return having()[0]

    def assert_runs_once(self, guest: Guest, host: Host) -> None:
        """The guest beats, on this host, and no other host has a copy."""
        with guest.heartbeat() as heartbeat:
            if not heartbeat.alive(5.0):
                said = guest.serial.read_text(errors="replace")[-_SERIAL_TAIL:]
                self.fail(f"{guest.spec.name} does not beat:\n{said}")
        having = [one.name for one in self.lab.hosts if guest.spec.name in one.guest_names()]
        self.assertEqual(having, [host.name])
        self.assertEqual(host.domain(guest.spec.name).isActive(), 1)

    def assert_refused(self, code: int, sentence: str, *argv: str) -> None:
        """The command ends with this exit code, and its one line on stderr has the words."""
        done = self.fleet.run_cli(*argv)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, sentence)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)


def ram(guest: Guest, host: Host) -> bytes:
    """The guest's RAM as its QEMU process on this host holds it."""
    pid = host.guest_pids()[guest.spec.name]
    start, end = ram_mapping(pid, guest.spec.memory_mib << 20)
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(end - start)


def overwrite_ram(guest: Guest, host: Host) -> None:
    """Makes every page that a paused guest holds another one, behind its back and everyone's."""
    pid = host.guest_pids()[guest.spec.name]
    start, end = ram_mapping(pid, guest.spec.memory_mib << 20)
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for page in range(start, end, 4096):
            memory.seek(page)
            memory.write(b"changed!")


__all__ = ["CliError", "Fleet", "FleetCase", "Guest", "Host", "Lab", "SLOW_MBIT", "SLOW_OWN_MIB",
           "overwrite_ram", "ram"]
