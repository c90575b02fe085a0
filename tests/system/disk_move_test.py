#!/usr/bin/python3
"""A Debian guest takes its disk from the image store along: it moves while it writes, and comes back,
and on both hosts its files are what it wrote."""

from __future__ import annotations

import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet_case import FleetCase, Host  # noqa: E402
from samepage_lab import Guest, LabError, debian_image  # noqa: E402

LINK_MBIT = 1_000
SLOW_LINK_MBIT = 100
DATA_MIB = 48

# Writes a file of its own over and over, each time with what the file's sum must be, until it is
# told to stop; a file is done only when it is on the disk.
WRITER = r"""
i=0
while ! test -e /root/stop; do
  i=$((i + 1)); n=$((i % 8))
  dd if=/dev/urandom of=/root/w$n.new bs=64k count=8 conv=fsync status=none || touch /root/failed
  (cd /root && sha256sum w$n.new | sed "s/w$n.new/w$n/" > s$n.new && mv w$n.new w$n && mv s$n.new s$n)
  sync; echo $i > /root/count
done
touch /root/stopped
"""


class DiskMove(FleetCase):
    checkpoint_mib = 0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.host1, cls.host2 = cls.lab.hosts
        program = str(cls.fleet.programs / "samepage")
        cls.host1.run([program, "image", "import", str(debian_image("a").disk), "--name", "debian",
                       "--store", str(cls.fleet.store)], timeout_s=600)
        cls.link(LINK_MBIT)
        disk = cls.fleet.cli("disk", "create", "web", "--host", "host1", "--image", "debian",
                             "--vm", "web")
        xml = (
            "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' "
            "discard='unmap' error_policy='stop' rerror_policy='stop'/><source protocol='nbd'>"
            f"<host transport='unix' socket='{disk['socket']}'/></source>"
            "<target dev='vda' bus='virtio'/></disk>"
        )
        cls.guest = cls.lab.start_guest("host1", "web", kind="debian", disk_xml=xml, wait=False)
        cls.guest.wait_ready()
        cls.guest.run(f"dd if=/dev/urandom of=/root/data bs=1M count={DATA_MIB} conv=fsync "
                      "status=none && sha256sum /root/data > /root/data.sum && sync")
        cls.fleet.cli("scan")

    @classmethod
    def link(cls, mbit: int) -> None:
        for host in cls.lab.hosts:
            cls.lab.link(host, mbit)

    def setUp(self) -> None:
        self.link(LINK_MBIT)
        if self.guest.host.name != "host1":
            self.fleet.cli("migrate", "web", "--to", "host1")
        self.assertEqual(self.disks(), {"host1": "here"})

    def tearDown(self) -> None:
        for host in self.lab.hosts:
            for log in sorted(host.path("/run/samepage/disks").glob("*.log")):
                if text := log.read_text(errors="replace"):
                    print(f"--- {host.name} {log.name}\n{text[-4000:]}")

    def disks(self) -> dict[str, str]:
        """Which hosts have the disk, and in what phase."""
        return {disk["host"]: disk["phase"] for disk in self.fleet.cli("disk", "list")["disks"]}

    def wait_for_disks(self, wanted: dict[str, str]) -> None:
        self.wait_until(f"the disks are {wanted}", lambda: self.disks() == wanted, 30)

    def tell_about(self, host: Host) -> None:
        """What libvirt says of a guest that does not answer."""
        for words in (["domstate", "web", "--reason"], ["domblkerror", "web"],
                      ["domblkstat", "web"], ["qemu-monitor-command", "web", "--hmp", "info status"],
                      ["qemu-monitor-command", "web", "--hmp", "info chardev"],
                      ["qemu-monitor-command", "web", "--hmp", "info block"]):
            said = host.run(["virsh", *words], check=False)
            print(f"--- virsh {' '.join(words)}\n{said.stdout}{said.stderr}")

    def run_in(self, host: Host, command: str) -> str:
        """As guest.run(), for a guest that has just moved: libvirt needs a moment to find its agent."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.guest.run(command)
            except LabError:
                if time.monotonic() > deadline:
                    self.tell_about(host)
                    raise
                time.sleep(0.2)

    def start_writer(self) -> None:
        self.guest.run("rm -f /root/stop /root/stopped /root/failed; cat > /root/writer.sh <<'EOF'\n"
                       + WRITER + "EOF\nnohup sh /root/writer.sh > /dev/null 2>&1 &")

    def count(self, host: Host) -> int:
        return int(self.run_in(host, "cat /root/count 2> /dev/null || echo 0"))

    def stop_writer(self, host: Host) -> None:
        self.run_in(host, "touch /root/stop")
        self.wait_until("the writer stopped", lambda: self.run_in(
            host, "test -e /root/stopped && echo yes || true").strip() == "yes", 60)

    def assert_files_are_right(self, host: Host) -> None:
        self.run_in(host, "sync; echo 3 > /proc/sys/vm/drop_caches; test ! -e /root/failed && "
                    "sha256sum -c --quiet /root/data.sum && cd /root && cat s? | sha256sum -c --quiet")
        said = self.run_in(host, "dmesg | grep -ciE 'I/O error|EXT4-fs error|remount.*read-only' || true")
        self.assertEqual(said.strip(), "0", self.run_in(host, "dmesg | tail -n 30"))

    def move_while_it_writes(self, source: Host, target: Host) -> dict:
        self.start_writer()
        self.wait_until("the guest writes", lambda: self.count(source) > 0)
        move = self.fleet.cli("migrate", "web", "--to", target.name)["moves"][0]
        self.assertEqual(move["state"], "done")
        print(f"to {target.name}: downtime {move['downtime_ms']:.0f} ms of {move['total_ms']:.0f}, "
              f"disk {move['disk_bytes'] >> 20} MiB, wire {move['wire_bytes'] >> 20} MiB")
        self.assertEqual(target.domain("web").isActive(), 1)
        self.wait_for_disks({target.name: "here"})
        before = self.count(target)
        self.wait_until("the guest writes on", lambda: self.count(target) > before)
        self.stop_writer(target)
        self.assert_files_are_right(target)
        return move

    def assert_stays(self, sentence: str, *options: str) -> None:
        done = self.fleet.run_cli("migrate", "web", "--to", "host2", *options)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(sentence, done.stderr)
        self.assertEqual(self.host1.domain("web").isActive(), 1)

    def test_a_guest_that_writes_moves_and_comes_back_with_its_disk(self) -> None:
        there = self.move_while_it_writes(self.host1, self.host2)
        self.assertGreater(there["disk_bytes"], DATA_MIB << 20)
        self.assertEqual(list(self.host1.path("/var/lib/samepage/disks").iterdir()), [])
        self.move_while_it_writes(self.host2, self.host1)
        self.assertEqual(list(self.host2.path("/var/lib/samepage/disks").iterdir()), [])

    def test_a_guest_that_writes_faster_than_the_link_is_held_until_it_has_moved(self) -> None:
        self.guest.run("rm -f /root/stop /root/stopped; nohup sh -c 'while ! test -e /root/stop; do "
                       "dd if=/root/data of=/root/again bs=1M oflag=direct conv=notrunc status=none; "
                       "done; touch /root/stopped' > /dev/null 2>&1 &")
        self.link(SLOW_LINK_MBIT)
        move = self.fleet.cli("migrate", "web", "--to", "host2")["moves"][0]
        print(f"held: downtime {move['downtime_ms']:.0f} ms of {move['total_ms']:.0f}, "
              f"disk {move['disk_bytes'] >> 20} MiB, wire {move['wire_bytes'] >> 20} MiB")
        self.assertIn("is held disk=web", self.fleet.log("host1"))
        self.wait_for_disks({"host2": "here"})
        self.stop_writer(self.host2)
        self.run_in(self.host2, "sync; echo 3 > /proc/sys/vm/drop_caches; "
                    "sha256sum -c --quiet /root/data.sum && cmp /root/data /root/again")

    def test_what_was_committed_is_not_sent_again(self) -> None:
        self.fleet.cli("disk", "commit", "web", "--image", "golden")
        move = self.fleet.cli("migrate", "web", "--to", "host2")["moves"][0]
        self.assertLess(move["disk_bytes"], DATA_MIB << 20)
        self.assert_files_are_right(self.host2)
        committed = self.fleet.cli("disk", "commit", "web", "--image", "golden")
        self.assertGreater(committed["number"], 1)

    def test_a_host_that_has_such_a_disk_is_refused_and_so_is_postcopy(self) -> None:
        self.assert_stays("migrate it without --postcopy", "--postcopy")
        self.fleet.cli("disk", "create", "web", "--host", "host2", "--image", "debian")
        try:
            self.assert_stays("there is a disk web on that host already")
        finally:
            self.host2.run([str(self.fleet.programs / "samepage"), "--socket",
                            str(self.fleet.socket), "disk", "rm", "web", "--host", "host2"])
        self.wait_for_disks({"host1": "here"})
        self.assert_files_are_right(self.host1)


if __name__ == "__main__":
    unittest.main()
