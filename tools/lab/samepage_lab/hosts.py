"""A lab host: a node with its own libvirtd, to libvirt a machine of its own.

Every folder that libvirtd or Samepage's own programs write is a bind mount of the host's folder
in the lab's state; the machine's own libvirt, if it has one, is neither used nor disturbed.
libvirtd tells hosts apart by `host_uuid`, so each host has another. Its UNIX socket is the only
way in: it does not listen on TCP.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

from .bindings import libvirt
from .errors import LabError
from .namespaces import Node
from .network import LinkBytes, link_bytes

# Folders of which every host has its own. /var/run is a link to /run on Debian.
OWN_FOLDERS = [
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
    "/etc/samepage",
    "/run/samepage",
    "/var/lib/samepage",
]
_SOCKET = "/run/libvirt/libvirt-sock"
_START_S = 20.0

# virtlogd is not needed when QEMU writes its log and serial files itself. QEMU runs as root
# without cgroups, labels or namespaces: the lab isolates hosts, not guests from their host.
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
dynamic_ownership = 0
stdio_handler = "file"
memory_backing_dir = "/dev/shm/samepage"
"""
# What `samepage doctor --fix` installs on a real host.
_FORK_HOOK = Path(__file__).resolve().parents[3] / "packaging" / "libvirt" / "qemu-hook"


def _libvirtd_conf(host_uuid: uuid.UUID) -> str:
    return f"""\
host_uuid = "{host_uuid}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def own_binds(folder: Path) -> list[tuple[Path, Path]]:
    """Makes a node's own folders within `folder` and says where each belongs."""
    pairs = []
    for target in OWN_FOLDERS:
        own = folder / target.strip("/").replace("/", "-")
        own.mkdir(parents=True, exist_ok=True)
        pairs.append((own, Path(target)))
    return pairs


class Host(Node):
    """One lab host. `address` is its address on the lab's network."""

    def __init__(self, name: str, folder: Path, address: str) -> None:
        super().__init__(name, folder)
        self.address = address
        self._connection: libvirt.virConnect | None = None

    def start_libvirtd(self, lab_name: str) -> None:
        """Starts libvirtd and returns at once; `wait_libvirtd` waits for it."""
        host_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{lab_name}.samepage-lab")
        etc = self.folder / "etc-libvirt"
        (etc / "libvirtd.conf").write_text(_libvirtd_conf(host_uuid))
        (etc / "qemu.conf").write_text(_QEMU_CONF)
        (etc / "hooks").mkdir(exist_ok=True)
        shutil.copy2(_FORK_HOOK, etc / "hooks" / "qemu")
        # The pid file's usual place is /run itself, which hosts share.
        self.run(["libvirtd", "--daemon", "--pid-file", "/run/libvirt/libvirtd.pid"])

    @property
    def _capabilities(self) -> Path:
        return self.folder / "var-cache-libvirt" / "qemu" / "capabilities"

    def give_capabilities(self, kept: Path) -> None:
        """Gives libvirtd what a former lab's libvirtd found out about QEMU, which takes it 1 s.

        libvirtd itself checks whether that is still true (same QEMU, libvirt, kernel, CPU).
        """
        self._capabilities.mkdir(parents=True)
        for found in kept.glob("*.xml"):
            shutil.copy2(found, self._capabilities)

    def keep_capabilities(self, kept: Path) -> None:
        """Keeps what this host's libvirtd knows about QEMU for later labs."""
        kept.mkdir(parents=True, exist_ok=True)
        for found in self._capabilities.glob("*.xml"):
            partial = kept / f"{found.name}.{os.getpid()}"
            shutil.copy2(found, partial)
            partial.rename(kept / found.name)

    def wait_libvirtd(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.libvirt().getLibVersion()
                return
            except libvirt.libvirtError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"{self.name}: libvirtd does not answer after {_START_S:g} s ({error}); "
                        f"its log ends: {self._log_end()}"
                    ) from None
                time.sleep(0.05)

    def _log_end(self) -> str:
        log = self.folder / "var-log-libvirt" / "libvirtd.log"
        return log.read_text(errors="replace")[-800:].strip() if log.exists() else "(no log)"

    @property
    def uri(self) -> str:
        """The libvirt URI by which a program on the machine, outside the lab, reaches this host."""
        return f"qemu+unix:///system?socket={self.path(_SOCKET)}"

    def libvirt(self) -> libvirt.virConnect:
        """A connection to the host's libvirtd, opened when first needed and kept."""
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.uri)
        return self._connection

    def domain(self, vm: str) -> libvirt.virDomain:
        """The running or paused guest of that name; LabError when it is not on this host."""
        try:
            return self.libvirt().lookupByName(vm)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            raise LabError(f"no guest {vm} on {self.name}: see `lab status`") from None

    def guest_names(self) -> list[str]:
        return sorted(domain.name() for domain in self.libvirt().listAllDomains())

    def threads(self) -> str:
        """A line for each thread of this host's processes: what it is and where it waits."""
        lines = []
        for task in sorted(Path("/proc").glob("[0-9]*/task/*"), key=str):
            try:
                if os.readlink(task.parent.parent / "ns/pid") != os.readlink(
                        f"/proc/{self.pid}/ns/pid"):
                    continue
                name, wait = (task / "comm").read_text().strip(), (task / "wchan").read_text()
                lines.append(f"{task.parent.parent.name:>8} {name:16} {wait}")
            except OSError:
                continue  # it ended while we looked
        return "\n".join(lines)

    def guest_pids(self) -> dict[str, int]:
        """The QEMU processes of this host by guest name, with pids as the machine sees them.

        Found through /proc alone (same PID namespace as the anchor, QEMU's `-name guest=`), so
        that what is measured through them owes nothing to libvirt.
        """
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if os.readlink(entry / "ns/pid") != namespace:
                    continue
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended while we looked
            if b"qemu-system" in words[0] and b"-name" in words:
                for setting in words[words.index(b"-name") + 1].decode().split(","):
                    if setting.startswith("guest="):
                        found[setting[len("guest=") :]] = int(entry.name)
        return found

    def bytes(self) -> LinkBytes:
        """Bytes received and sent on this host's link so far."""
        return link_bytes(self)

    def disconnect(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except libvirt.libvirtError:
                pass
            self._connection = None
