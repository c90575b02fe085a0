#!/usr/bin/python3
"""The lab keeps its promises: real hosts, real guests, true counts, and nothing left behind.

Promises under test are those of tools/lab/README.md. Everything is real: libvirtd, QEMU, KSM, the
kernel's own page tables. Needs root; skips with the reason elsewhere (with CI=true that fails).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from pathlib import Path

LAB_TOOL = Path(__file__).resolve().parents[2] / "tools" / "lab" / "lab"
sys.path.insert(0, str(LAB_TOOL.parent))
sys.dont_write_bytecode = True

from samepage_lab import GuestSpec, Ksm, Lab, LabError, count_frames, require_lab  # noqa: E402
from samepage_lab.guest_spec import domain_xml  # noqa: E402

PYTHON = "/usr/bin/python3"
EMULATOR_PAGES = 2  # that tools/lab/emulator adds
PAGES_PER_MIB = 256
IMAGE_MIB = 32
IMAGE_PAGES = IMAGE_MIB * PAGES_PER_MIB


def lab_name(suffix: str) -> str:
    """A lab of this run's own, so that two runs at the same time do not meet."""
    return f"test-{os.getpid()}-{suffix}"


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LAB_TOOL, "--name", name, *words], text=True, capture_output=True)


class Namespaces:
    """The namespaces of a lab, kept open: the kernel would give their numbers to another lab."""

    def __init__(self, lab: Lab) -> None:
        nodes = [lab.control, *lab.hosts]
        self._files = [
            open(f"/proc/{node.pid}/ns/{kind}")
            for node in nodes for kind in ("net", "mnt", "pid", "uts", "ipc")
        ]
        self._names = {os.readlink(f"/proc/self/fd/{file.fileno()}") for file in self._files}

    def close(self) -> None:
        for file in self._files:
            file.close()

    def processes(self) -> list[str]:
        """What living processes, but this one, have of them: as theirs, or open."""
        found = []
        for link in [*Path("/proc").glob("[0-9]*/ns/*"), *Path("/proc").glob("[0-9]*/fd/*")]:
            try:
                if link.parts[2] != str(os.getpid()) and os.readlink(link) in self._names:
                    found.append(str(link))
            except OSError:
                continue
        return found


def machine_view() -> tuple[str, str]:
    """What a lab must leave as it was: the machine's mounts and its network links."""
    links = subprocess.run(["ip", "-o", "link"], text=True, capture_output=True).stdout
    return Path("/proc/self/mountinfo").read_text(), links


class Forward(threading.Thread):
    """Carries the bytes of each connection from one UNIX socket to another, both ways."""

    def __init__(self, listen: Path, connect: Path) -> None:
        super().__init__(daemon=True)
        self.carried = 0
        self._connect = connect
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        self._listener.listen()
        self.start()

    def run(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._connect))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 18):
                sink.sendall(data)
                self.carried += len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other end is gone, and with it this connection


class RunningLab(unittest.TestCase):
    """One lab for all tests: web1 and web2 of one image on host1, other1 of another on host2."""

    lab: Lab

    @classmethod
    def setUpClass(cls) -> None:
        require_lab()
        cls.lab = cls.enterClassContext(Lab(lab_name("main"), hosts=2))
        size = {"image_mib": IMAGE_MIB, "memory_mib": 192, "wait": False}
        cls.web1 = cls.lab.start_guest("host1", "web1", image="a", role="web", **size)
        cls.web2 = cls.lab.start_guest("host1", "web2", image="a", **size)
        cls.other1 = cls.lab.start_guest("host2", "other1", image="b", own_mib=8, **size)
        for guest in (cls.web1, cls.web2, cls.other1):
            guest.wait_ready()

    def test_hosts_are_machines_of_their_own_to_libvirt(self) -> None:
        host1, host2 = self.lab.hosts
        names = [host.libvirt().getHostname() for host in self.lab.hosts]
        uuids = [
            host.run(["virsh", "capabilities"]).stdout.split("uuid>")[1] for host in (host1, host2)
        ]

        self.assertEqual(names, ["host1", "host2"])
        self.assertNotEqual(uuids[0], uuids[1])
        self.assertEqual(host1.guest_names(), ["web1", "web2"])
        self.assertEqual(sorted(host1.guest_pids()), ["web1", "web2"])

    def test_hosts_show_what_an_agent_reads_and_hide_the_machines_folders(self) -> None:
        host = self.lab.host("host1")
        host.run(["sh", "-c", "echo mine > /var/lib/samepage/file"])
        qemu = host.run(["cat", "/run/libvirt/qemu/web1.pid"]).stdout.strip()

        host.run(["test", "-r", f"/proc/{qemu}/pagemap", "-a", "-r", "/proc/kpageflags"])
        host.run(["test", "-r", "/sys/kernel/mm/ksm/run", "-a", "-e", "/sys/class/net/eth0"])
        self.assertFalse(Path("/var/lib/samepage/file").exists())
        self.assertEqual(host.path("/var/lib/samepage/file").read_text(), "mine\n")

    def test_a_command_gets_signals_and_gives_its_own_exit_code(self) -> None:
        script = "trap 'exit 5' TERM; echo on; while :; do sleep 0.02; done"
        process = self.lab.control.popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()

        process.terminate()

        self.assertEqual(process.wait(timeout=5), 5)
        process.stdout.close()

    def test_a_command_that_fails_says_what_it_printed(self) -> None:
        with self.assertRaisesRegex(LabError, "host2: .* ended with 3: alas"):
            self.lab.host("host2").run(["sh", "-c", "echo alas >&2; exit 3"])
        with self.assertRaisesRegex(LabError, "took over 0.2 s"):
            self.lab.host("host2").run(["sleep", "60"], timeout_s=0.2)

    def test_heartbeat_shows_a_pause_as_a_gap(self) -> None:
        with self.web2.heartbeat() as heartbeat:
            heartbeat.wait_beats(5)
            since = time.monotonic()
            self.web2.pause()
            paused = time.monotonic()
            self.assertFalse(heartbeat.alive(within_s=0.4))
            gap_while_paused = heartbeat.gap_ms_max(paused)
            self.web2.resume()
            heartbeat.wait_beats(3)

        self.assertGreater(gap_while_paused, 350)
        self.assertGreaterEqual(heartbeat.gap_ms_max(since), gap_while_paused)

    def test_web_guests_work(self) -> None:
        with self.web1.heartbeat() as heartbeat:
            heartbeat.wait_beats(10)
            beats = heartbeat.beats()
        self.assertGreater(beats[-1].work, beats[0].work)

    def test_stock_migration_keeps_the_guest_and_its_bytes_are_counted(self) -> None:
        host1, host2 = self.lab.hosts
        received = host2.bytes().rx
        with self.web2.heartbeat() as heartbeat:
            heartbeat.wait_beats(2)
            done = self.web2.migrate_stock(host2)
            heartbeat.wait_beats(5)
            counts = [beat.n for beat in heartbeat.beats()]

        self.assertEqual(counts, list(range(counts[0], counts[0] + len(counts))))
        self.assertEqual(self.web2.host.name, "host2")
        self.assertGreater(done.wire_bytes, IMAGE_MIB << 20)
        self.assertGreater(host2.bytes().rx - received, IMAGE_MIB << 20)
        self.web2.migrate_stock(host1)

    def test_migration_over_unix_sockets_passes_through_a_forward(self) -> None:
        host1, host2 = self.lab.hosts
        control, stream = "/run/libvirt/host2.sock", "/run/libvirt/stream.sock"
        Forward(host1.path(control), host2.path("/run/libvirt/libvirt-sock"))
        data = Forward(host1.path(stream), host2.path(stream))
        with self.web2.heartbeat() as heartbeat:
            host1.run(
                ["virsh", "migrate", "--live", "--p2p", "web2"]
                + [f"qemu+unix:///system?socket={control}", "--migrateuri", f"unix://{stream}"]
            )
            heartbeat.wait_beats(5)
            counts = [beat.n for beat in heartbeat.beats()]

        self.assertEqual(counts, list(range(counts[0], counts[0] + len(counts))))
        self.assertEqual(self.web2.host.name, "host2")
        self.assertGreater(data.carried, IMAGE_MIB << 20)
        self.web2.migrate_stock(host1)

    def test_a_link_limit_holds(self) -> None:
        host1, host2 = self.lab.hosts
        receive = "import socket;s=socket.create_server(('',7000));print(flush=True)"
        receive += ";c=s.accept()[0]\nwhile c.recv(1<<20): pass"
        send = "import socket;s=socket.create_connection(('host2',7000));s.sendall(bytes(4<<20))"
        send += ";s.shutdown(1);s.recv(1)"
        self.lab.link("host1", 40)
        self.addCleanup(self.lab.link, "host1", 0)
        receiver = host2.popen([PYTHON, "-c", receive], stdout=subprocess.PIPE)
        receiver.stdout.readline()

        sent, began = host1.bytes(), time.monotonic()
        host1.run([PYTHON, "-c", send])
        took_s, sent = time.monotonic() - began, host1.bytes() - sent

        receiver.wait(timeout=5)
        receiver.stdout.close()
        self.assertGreaterEqual(sent.tx, 4 << 20)
        self.assertLess(sent.tx, (4 << 20) * 1.1)
        self.assertGreater(took_s, 0.9 * (4 << 20) * 8 / 40e6)

    def test_dumps_show_that_an_image_is_the_same_in_every_guest(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pages = {}
            for guest in (self.web1, self.web2, self.other1):
                file = Path(folder, guest.name)
                guest.dump(file)
                data = file.read_bytes()
                self.assertEqual(len(data), guest.spec.memory_mib << 20)
                pages[guest.name] = {data[i : i + 4096] for i in range(0, len(data), 4096)}

        # Any two guests share the kernel; what guests of one image share beyond it is the image.
        of_the_kernel = pages["web1"] & pages["other1"]
        of_the_image = (pages["web1"] & pages["web2"]) - pages["other1"]
        self.assertGreaterEqual(len(of_the_image), IMAGE_PAGES)
        self.assertGreaterEqual(len(pages["other1"] - of_the_kernel), IMAGE_PAGES)
        self.assertEqual(self.web1.state(), "running")

    def test_frames_are_counted_before_and_after_merging(self) -> None:
        host1, host2 = self.lab.hosts
        with Ksm(run=2, pages_to_scan=20000, sleep_millisecs=10) as ksm:
            before = count_frames(host1)
            self.assertGreater(before.resident_pages, 2 * IMAGE_PAGES)
            self.assertEqual(before.distinct_frames, before.resident_pages)

            ksm.merge()
            ksm.wait_converged(timeout_s=60)
            after, other, kernels = count_frames(host1), count_frames(host2), ksm.counters()

        self.assertGreater(after.saved_pages, 0.98 * IMAGE_PAGES)
        self.assertLess(after.distinct_frames, before.distinct_frames - 0.98 * IMAGE_PAGES)
        self.assertGreater(other.distinct_frames, IMAGE_PAGES + 8 * PAGES_PER_MIB)
        mapped = after.ksm_mapped_pages + other.ksm_mapped_pages
        self.assertLessEqual(mapped, 1.02 * (kernels["pages_sharing"] + kernels["pages_shared"]))
        self.assertEqual(count_frames(host1, "web1").guest_pages,
                         192 * PAGES_PER_MIB + EMULATOR_PAGES)

    def test_the_tool_speaks_json_and_returns_exit_codes(self) -> None:
        name = self.lab.name
        status = json.loads(tool(name, "status", "--json").stdout)
        guests = {vm["name"]: vm for vm in status["hosts"][0]["guests"]}
        self.assertEqual(guests["web1"]["state"], "running")
        self.assertIn("resident_pages", json.loads(tool(name, "frames", "1", "--json").stdout))
        self.assertEqual(tool(name, "exec", "control", "--", "sh", "-c", "exit 9").returncode, 9)
        self.assertEqual(tool(name, "exec", "host1", "--", "hostname").stdout, "host1\n")
        self.assertTrue(tool(name, "heartbeat", "web1").stdout.startswith("alive n="))
        self.assertEqual(tool(name, "guest", "host1", "web1").returncode, 1)

    def test_a_second_up_says_that_it_is_up(self) -> None:
        again = tool(self.lab.name, "up")
        self.assertEqual(again.returncode, 1)
        self.assertIn("is up already", again.stderr)
        self.assertTrue(self.lab.control.alive())


class DebianGuest(unittest.TestCase):
    """One Debian guest with a network card and shared memory, booted once for all its promises."""

    def test_it_serves_works_migrates_and_forgets_its_disk(self) -> None:
        require_lab()
        lab = self.enterContext(Lab(lab_name("debian"), hosts=2))
        host1, host2 = lab.hosts
        guest = lab.start_guest(
            host1, "debian1", kind="debian", image="b", role="web", nic=True, memory="memfd"
        )
        site = f"http://{guest.address}/data/0003"
        get = [PYTHON, "-c", "import sys, urllib.request as r; "
               "print(len(r.urlopen(sys.argv[1], timeout=20).read()))", site]

        self.assertEqual(host1.run(get).stdout, f"{1 << 20}\n")
        with guest.heartbeat() as heartbeat:
            heartbeat.wait_beats(10)
            guest.migrate_stock(host2)
            heartbeat.wait_beats(10)
            beats = heartbeat.beats()
        self.assertEqual([beat.n for beat in beats], list(range(beats[0].n, beats[-1].n + 1)))
        self.assertGreater(beats[-1].work, beats[0].work)
        self.assertEqual(host2.run(get).stdout, f"{1 << 20}\n")
        self.assertEqual(guest.run("hostname; systemctl is-active redis-server memcached"),
                         "debian1\nactive\nactive\n")
        self.assertIn("memfd", Path(f"/proc/{host2.guest_pids()['debian1']}/maps").read_text())
        self.assertTrue(guest.disk.exists())
        guest.stop()
        self.assertFalse(guest.disk.exists())

    def test_the_disk_can_be_another(self) -> None:
        require_lab()
        spec = GuestSpec("d", kind="debian", disk_xml="<disk type='network' device='disk'/>")
        xml = domain_xml(spec, "lab", Path("serial"), None, "")
        self.assertIn("<disk type='network' device='disk'/>", xml)
        self.assertNotIn("qcow2", xml)
        for wrong in ({"image": "c"}, {"role": "none"}, {"memory": "disk"}, {"memory_mib": 64}):
            with self.assertRaises(LabError):
                GuestSpec("d", **{"kind": "debian", **wrong}).check()


class LabEnds(unittest.TestCase):
    def setUp(self) -> None:
        require_lab()
        self.name = lab_name("ends")
        self.before = machine_view()
        self.addCleanup(lambda: Lab(self.name).down())

    def namespaces_of(self, lab: Lab) -> Namespaces:
        namespaces = Namespaces(lab)
        self.addCleanup(namespaces.close)
        return namespaces

    def assert_nothing_left(self, namespaces: Namespaces) -> None:
        deadline = time.monotonic() + 5  # a zombie stays until the machine's init reaps it
        while namespaces.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(namespaces.processes(), [])
        self.assertEqual(machine_view(), self.before)
        self.assertFalse(Path("/run/samepage-lab", self.name).exists())
        self.assertFalse(Path("/run/samepage-lab", f"{self.name}.lock").exists())

    def test_down_leaves_nothing_and_does_not_touch_another_lab(self) -> None:
        with Lab(lab_name("stays"), hosts=1) as stays:
            with Lab(self.name, hosts=2) as lab:
                namespaces = self.namespaces_of(lab)
                lab.start_guest("host1", "vm", image_mib=1, wait=False)
                sleeper = lab.control.popen(["sleep", "1000"], start_new_session=True)
                self.assertTrue(namespaces.processes())
            self.assertEqual(sleeper.wait(timeout=5), -signal.SIGKILL)
            self.assert_nothing_left(namespaces)
            self.assertEqual(stays.host("host1").guest_names(), [])
        self.assertFalse(lab.down())

    def driver(self) -> subprocess.Popen[str]:
        script = f"""
            import sys, time
            sys.path.insert(0, {str(LAB_TOOL.parent)!r})
            from samepage_lab import Ksm, Lab
            with Lab({self.name!r}, hosts=1) as lab, Ksm(pages_to_scan=123):
                lab.start_guest("host1", "vm", image_mib=1, wait=False)
                print("up", flush=True)
                try:
                    time.sleep(1000)
                except KeyboardInterrupt:
                    pass
        """
        command = [PYTHON, "-c", textwrap.dedent(script)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), "up\n")
        return process

    def test_down_cleans_up_after_a_driver_that_was_killed(self) -> None:
        scan = Path("/sys/kernel/mm/ksm/pages_to_scan")
        process = self.driver()
        namespaces = self.namespaces_of(Lab.attach(self.name))
        process.kill()
        process.wait()
        self.assertEqual(scan.read_text(), "123\n")

        self.assertEqual(tool(self.name, "down").returncode, 0)

        self.assert_nothing_left(namespaces)
        self.assertNotEqual(scan.read_text(), "123\n")

    def test_sigterm_and_ctrl_c_take_the_lab_down(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            process = self.driver()
            namespaces = self.namespaces_of(Lab.attach(self.name))
            process.send_signal(signum)
            process.wait(timeout=20)
            self.assert_nothing_left(namespaces)


class WithoutRoot(unittest.TestCase):
    def test_the_reason_is_given_and_ci_makes_it_a_failure(self) -> None:
        require_lab()
        script = "from samepage_lab import require_lab; require_lab()"
        command = ["setpriv", "--reuid=65534", "--clear-groups", PYTHON, "-c", script]
        for ci, kind in (("", "SkipTest"), ("true", "AssertionError")):
            environment = {**os.environ, "CI": ci, "PYTHONPATH": str(LAB_TOOL.parent)}
            done = subprocess.run(command, text=True, capture_output=True, env=environment)
            self.assertIn(kind, done.stderr)
            self.assertIn("needs root", done.stderr)


if __name__ == "__main__":
    unittest.main()
