#!/usr/bin/python3
"""A Debian guest on a disk from the image store: it boots to its login with little of the image
fetched, lives through kills of the disk's process and of the agent without an I/O error, and is
committed while it runs."""

import json
import os
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet_case import FleetCase  # noqa: E402
from samepage_lab import Guest, LabError, debian_image  # noqa: E402

COLD_SHARE_MAX = 0.04
WARM_SHARE_MAX = 0.001
KILLS = int(os.environ.get("SAMEPAGE_DISK_KILLS", "5"))


class DiskTest(FleetCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.host = cls.lab.host("host1")
        cls.program = str(cls.fleet.programs / "samepage")
        image = debian_image("a")
        cls.host.run([cls.program, "image", "import", str(image.disk), "--name", "debian",
                      "--store", str(cls.fleet.store)], timeout_s=600)

    def tearDown(self) -> None:
        for log in sorted(self.host.path("/run/samepage/disks").glob("*.log")):
            if text := log.read_text(errors="replace"):
                print(f"--- {log.name}\n{text[-4000:]}")

    def make(self, name: str) -> dict:
        return self.fleet.cli("disk", "create", name, "--host", "host1", "--image", "debian",
                              "--vm", name)

    def disk(self, name: str) -> dict:
        disks = self.fleet.cli("disk", "list")["disks"]
        return next(disk for disk in disks if disk["name"] == name)

    def boot_on(self, disk: dict) -> Guest:
        xml = (
            "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' "
            "discard='unmap' error_policy='stop' rerror_policy='stop'/><source protocol='nbd'>"
            f"<host transport='unix' socket='{disk['socket']}'/></source>"
            "<target dev='vda' bus='virtio'/></disk>"
        )
        guest = self.lab.start_guest("host1", disk["name"], kind="debian", disk_xml=xml, wait=False)
        guest.wait_ready()
        return guest

    def pid(self, name: str) -> int:
        """Of the disk's process, in the host's own numbering."""
        found = self.host.run(["pgrep", "-f", f"nbdkit.*disks/{name}.nbd"], check=False).stdout
        return int(found.split()[0]) if found.split() else 0

    def kill_process(self, name: str) -> None:
        before = self.wait_until("the disk's process runs", lambda: self.pid(name))
        self.host.run(["kill", "-9", str(before)])
        self.wait_until("it runs again", lambda: self.pid(name) not in (0, before))

    def has_done(self, guest: Guest) -> bool:
        try:
            return guest.run("test -e /root/done && echo yes || true").strip() == "yes"
        except LabError:
            return False  # Paused for its disk, for a moment.

    def assert_no_io_error(self, guest: Guest) -> None:
        said = guest.run("dmesg | grep -ciE 'I/O error|EXT4-fs error|remount.*read-only' || true")
        self.assertEqual(said.strip(), "0", guest.run("dmesg | tail -n 30"))

    def assert_clean(self) -> None:
        said = self.host.run([self.program, "--json", "image", "verify", "--store",
                              str(self.fleet.store)], timeout_s=600).stdout
        self.assertTrue(json.loads(said)["clean"], said)

    def test_boots_with_little_fetched_and_lives_through_kills(self) -> None:
        size = self.make("cold")["size_bytes"]
        began = time.monotonic()
        guest = self.boot_on(self.disk("cold"))
        seconds = time.monotonic() - began
        cold = self.disk("cold")
        self.make("warm")
        other = self.boot_on(self.disk("warm"))
        warm = self.disk("warm")
        other.stop()
        print(f"cold boot {seconds:.0f} s: {cold['fetched_bytes'] / size:.2%} of the image fetched, "
              f"{cold['traced_pages']} pages read; warm: {warm['fetched_bytes'] / size:.3%}")
        self.assertLessEqual(cold["fetched_bytes"] / size, COLD_SHARE_MAX)
        self.assertLessEqual(warm["fetched_bytes"] / size, WARM_SHARE_MAX)

        guest.run("nohup sh -c 'for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/root/data$i bs=64k "
                  "count=64 oflag=direct status=none && sha256sum /root/data$i >> /root/sums; done; "
                  "sync; touch /root/done' > /dev/null 2>&1 &")
        for _ in range(KILLS):
            self.kill_process("cold")
            time.sleep(0.3)
        self.fleet.kill("host1")
        self.host.run(["kill", "-9", str(self.pid("cold"))])
        self.fleet.start_agent(self.host)
        self.wait_until("the guest wrote all", lambda: self.has_done(guest), 240)
        guest.run("sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c --quiet /root/sums")
        self.assert_no_io_error(guest)

        committed = self.fleet.cli("disk", "commit", "cold", "--image", "golden")
        self.assertTrue(committed["guest_frozen"], committed)
        print(f"committed {committed['changed_pages']} pages, frozen: {committed['guest_frozen']}")
        self.assert_clean()
        guest.stop()


if __name__ == "__main__":
    unittest.main()
