"""A Debian guest with a disk from the image store, whose files say whether they are what it wrote."""

from __future__ import annotations

import time

from fleet_case import FleetCase, Host
from samepage_lab import Guest, LabError, debian_image

LINK_MBIT = 1_000
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


class DiskCase(FleetCase):
    """`web` begins on host1; `link()` sets the speed of the hosts' links."""

    checkpoint_mib = 0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.host1, cls.host2 = cls.lab.hosts
        program = str(cls.fleet.programs / "samepage")
        cls.host1.run([program, "image", "import", str(debian_image("a").disk), "--name", "debian",
                       "--store", str(cls.fleet.store)], timeout_s=600)
        cls.link(LINK_MBIT)
        cls.guest = cls.start_with_disk("web")
        cls.guest.run(f"dd if=/dev/urandom of=/root/data bs=1M count={DATA_MIB} conv=fsync "
                      "status=none && sha256sum /root/data > /root/data.sum && sync")
        cls.fleet.cli("scan")

    @classmethod
    def start_with_disk(cls, name: str) -> Guest:
        """A Debian guest on host1 whose disk is of the image store; it is ready."""
        disk = cls.fleet.cli("disk", "create", name, "--host", "host1", "--image", "debian",
                             "--vm", name)
        xml = (
            "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' "
            "discard='unmap' error_policy='stop' rerror_policy='stop'/><source protocol='nbd'>"
            f"<host transport='unix' socket='{disk['socket']}'/></source>"
            "<target dev='vda' bus='virtio'/></disk>"
        )
        guest = cls.lab.start_guest("host1", name, kind="debian", disk_xml=xml, wait=False)
        guest.wait_ready()
        return guest

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

    def disks(self, name: str = "web") -> dict[str, str]:
        """Which hosts have the disk, and in what phase."""
        return {disk["host"]: disk["phase"] for disk in self.fleet.cli("disk", "list")["disks"]
                if disk["name"] == name}

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
