#!/usr/bin/python3
"""LibvirtHypervisor keeps its promises between two real hosts.

A VM migrates with nothing but two UNIX sockets between the hosts, arrives paused, and runs on only
when it is told to; a broken stream or control connection leaves it running at its source; a
restarted libvirtd is found again. Needs root; skips with the reason elsewhere.

    hypervisor_test.py PROBE [unittest's arguments]     PROBE is the built hypervisor_probe
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "lab"))
sys.dont_write_bytecode = True

from samepage_lab import Lab, require_lab  # noqa: E402

PROBE = ""
UNAVAILABLE = 1
INVALID = 4
FINISH3_PARAMS = 306
CALL, REPLY = 0, 1
STREAM = "/run/samepage/stream.sock"
CONTROL = "/run/samepage/control.sock"


class Forward(threading.Thread):
    """Carries bytes from a UNIX socket of one host to one of another; notes when RPCs passed."""

    def __init__(self, listen: Path, connect: Path, bytes_max: int | None = None) -> None:
        super().__init__(daemon=True)
        self.carried = 0
        self.seen: dict[tuple[int, int], float] = {}
        self.on_call: Callable[[int], None] = lambda procedure: None
        self._connect = connect
        self._bytes_max = bytes_max
        self._connections: list[socket.socket] = []
        listen.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        self._listener.listen()
        self.start()

    def run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._connect))
            self._connections += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        """Ends every connection, and lets none in any more."""
        for connection in [self._listener, *self._connections]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
            connection.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        waiting = b""
        try:
            while data := source.recv(1 << 18):
                if self._bytes_max is not None and self.carried + len(data) > self._bytes_max:
                    return self.cut()
                waiting = self._note(waiting + data)
                sink.sendall(data)
                self.carried += len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other end is gone, and with it this connection

    def _note(self, data: bytes) -> bytes:
        """Notes the complete libvirt messages in data and returns the rest."""
        while len(data) >= 28:
            size, _, _, procedure, kind = struct.unpack_from(">IIIII", data)
            if size < 28 or size > 1 << 25:
                return b""  # QEMU's stream, not libvirt's protocol
            if len(data) < size:
                return data
            self.seen[(procedure, kind)] = time.monotonic()
            if kind == CALL:
                self.on_call(procedure)
            data = data[size:]
        return data


class Probe:
    """hypervisor_probe running in a host."""

    def __init__(self, host: Any, *words: str) -> None:
        self._process = host.popen(
            [PROBE, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> dict[str, Any]:
        text = self._process.stdout.readline()
        assert text, "the probe ended"
        return json.loads(text)

    def lines(self) -> list[dict[str, Any]]:
        """All it prints until it ends."""
        return [json.loads(text) for text in self._process.communicate(timeout=60)[0].splitlines()]

    def ask(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def event(self, kind: str) -> dict[str, Any]:
        while True:
            line = self.line()
            if line.get("event") == kind:
                return line

    def end(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)


def probe(host: Any, *words: str) -> list[dict[str, Any]]:
    return Probe(host, *words).lines()


def only_vm(host: Any) -> dict[str, Any] | None:
    vms = probe(host, "vms")[0]["vms"]
    return vms[0] if vms else None


class HypervisorInTheLab(unittest.TestCase):
    lab: Lab

    @classmethod
    def setUpClass(cls) -> None:
        require_lab()
        cls.lab = cls.enterClassContext(Lab(f"hypervisor-{os.getpid()}", hosts=2))
        cls.host1, cls.host2 = cls.lab.hosts

    def setUp(self) -> None:
        self.guest = self.lab.start_guest(
            "host1", "web1", image="a", role="web", image_mib=32, memory_mib=192
        )
        self.addCleanup(self.guest.stop)
        self.uuid = only_vm(self.host1)["uuid"]
        libvirt = self.host2.path("/run/libvirt/libvirt-sock")
        self.control = Forward(self.host1.path(CONTROL), libvirt)
        self.addCleanup(self.control.cut)

    def forward_stream(self, bytes_max: int | None = None) -> Forward:
        stream = Forward(self.host1.path(STREAM), self.host2.path(STREAM), bytes_max)
        self.addCleanup(stream.cut)
        return stream

    def migrate(self) -> list[dict[str, Any]]:
        return probe(self.host1, "migrate", self.uuid, STREAM, CONTROL)

    def test_describes_a_real_vm(self) -> None:
        vm = only_vm(self.host1)

        self.assertEqual(vm["name"], "web1")
        self.assertEqual(vm["state"], "running")
        self.assertEqual(vm["memory_bytes"], 192 << 20)
        self.assertEqual(vm["sharing_domain"], "default")
        self.assertGreater(vm["cpu_seconds"], 0)
        # The host's pid file and the probe speak of the host's own PID namespace.
        pid = self.host1.run(["cat", "/run/libvirt/qemu/web1.pid"]).stdout.strip()
        self.assertEqual(vm["pid"], int(pid))

    def test_a_vm_arrives_paused_and_runs_on_when_told(self) -> None:
        stream = self.forward_stream()
        with self.guest.heartbeat() as heartbeat:
            since = time.monotonic()
            lines = self.migrate()

            # An event may still be told after the answer.
            self.assertTrue(any(line.get("done") for line in lines), lines)
            self.assertIsNone(only_vm(self.host1))
            self.assertEqual(only_vm(self.host2)["state"], "paused")
            self.assertGreater(stream.carried, 32 << 20)

            self.assertEqual(probe(self.host2, "resume", self.uuid)[-1]["done"], True)
            heartbeat.wait_beats(5)
            gap_ms = heartbeat.gap_ms_max(since)
        events = [line["event"] for line in lines if "event" in line]
        # The last event may come when the probe has gone.
        self.assertIn(events, (["paused_for_migration", "stopped"], ["paused_for_migration"]))
        progress = probe(self.host2, "progress", self.uuid)[0]
        self.assertGreater(progress["bytes_processed"], 32 << 20)
        self.assertGreater(progress["downtime_ms"], 0)
        self.assertLess(progress["downtime_ms"], gap_ms + 50)
        self.report(lines, progress, gap_ms)

    def report(self, lines: list[dict[str, Any]], progress: dict[str, Any], gap_ms: float) -> None:
        at = {line.get("event", "returned"): line["at"] for line in lines}
        asked = self.control.seen[(FINISH3_PARAMS, CALL)]
        answered = self.control.seen[(FINISH3_PARAMS, REPLY)]
        stopped = at["paused_for_migration"]
        gone = at.get("stopped", at["returned"])
        print(
            f"guest stopped to Finish {1000 * (asked - stopped):.1f} ms,"
            f" Finish took {1000 * (answered - asked):.1f} ms,"
            f" its answer to the source's copy gone {1000 * (gone - answered):.1f} ms,"
            f" to migrate()'s return {1000 * (at['returned'] - answered):.1f} ms;"
            f" libvirt's downtime {progress['downtime_ms']} ms,"
            f" heartbeat gap {gap_ms:.0f} ms",
            file=sys.stderr,
        )

    def test_a_vm_paused_by_its_user_migrates_without_the_event_that_lets_it_resume(self) -> None:
        self.forward_stream()
        self.guest.pause()

        lines = self.migrate()

        self.assertIn(True, [line.get("done") for line in lines], lines)
        self.assertEqual([line["event"] for line in lines if "event" in line], ["stopped"])
        self.assertEqual(only_vm(self.host2)["state"], "paused")

    def test_a_broken_stream_leaves_the_vm_running_at_its_source(self) -> None:
        self.forward_stream(bytes_max=8 << 20)

        failed = self.migrate()[-1]

        self.assertEqual(failed["done"], False)
        self.assertNotIn("\n", failed["message"])
        self.assertEqual(only_vm(self.host1)["state"], "running")
        self.assertIsNone(only_vm(self.host2))

    def test_without_a_control_connection_the_vm_stays(self) -> None:
        self.control.cut()
        self.host1.path(CONTROL).unlink()

        failed = self.migrate()[-1]

        self.assertEqual((failed["done"], failed["code"]), (False, UNAVAILABLE), failed)
        self.assertEqual(only_vm(self.host1)["state"], "running")

    def test_a_control_connection_lost_before_finish_leaves_the_vm_at_its_source(self) -> None:
        self.forward_stream()

        def cut_at_finish(procedure: int) -> None:
            if procedure == FINISH3_PARAMS:
                self.control.cut()

        self.control.on_call = cut_at_finish

        failed = self.migrate()[-1]

        self.assertEqual(failed["done"], False, failed)
        self.assertEqual(only_vm(self.host1)["state"], "running")
        copy = only_vm(self.host2)
        if copy is not None:
            self.assertEqual(copy["state"], "paused")
            self.assertEqual(probe(self.host2, "discard", self.uuid)[-1]["done"], True)
        self.assertIsNone(only_vm(self.host2))

    def test_a_cancelled_migration_leaves_the_vm_running(self) -> None:
        stream = self.forward_stream()
        migration = Probe(self.host1, "migrate", self.uuid, STREAM, CONTROL)
        while stream.carried < 1 << 20:
            time.sleep(0.001)
        cancelled = probe(self.host1, "cancel", self.uuid)[-1]

        failed = migration.lines()[-1]

        self.assertEqual((cancelled["done"], failed["done"]), (True, False), failed)
        self.assertEqual(only_vm(self.host1)["state"], "running")

    def test_a_running_vm_is_not_discarded(self) -> None:
        refused = probe(self.host1, "discard", self.uuid)[-1]

        self.assertEqual((refused["done"], refused["code"]), (False, INVALID))
        self.assertEqual(only_vm(self.host1)["state"], "running")

    def test_a_restarted_libvirtd_is_found_again_with_its_events(self) -> None:
        watch = Probe(self.host1, "watch")
        self.addCleanup(watch.end)
        watch.ask()
        self.assertEqual(len(watch.line()["vms"]), 1)
        self.restart_libvirtd()

        while True:
            watch.ask()
            line = watch.line()
            if "vms" in line:
                break
            self.assertEqual(line["code"], UNAVAILABLE)
            time.sleep(0.05)

        self.assertEqual(line["vms"][0]["state"], "running")
        self.guest.pause()
        self.assertEqual(watch.event("paused")["uuid"], self.uuid)

    def restart_libvirtd(self) -> None:
        """Kills it, as a crash would, and starts it as the lab does."""
        pid_file = "/run/libvirt/libvirtd.pid"
        pid = self.host1.run(["cat", pid_file]).stdout.strip()
        self.host1.run(["kill", "-KILL", pid])
        while self.host1.run(["kill", "-0", pid], check=False).returncode == 0:
            time.sleep(0.01)
        self.host1.run(["libvirtd", "--daemon", "--pid-file", pid_file])
        self.host1.wait_libvirtd()


if __name__ == "__main__":
    PROBE = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
