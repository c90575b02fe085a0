"""A lab guest: a real QEMU virtual machine under TCG whose memory contents are known.

What runs inside is guest/init.c; its settings travel on the kernel command line. A guest has no
disk and no network card, so its memory is all of its state. It is a transient libvirt domain:
when it is stopped, or has left by migration, nothing of it stays on the host. Its serial line
appends to one file of the lab that has the same path on every host, so the record goes on after a
live migration.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .bindings import libvirt, libvirt_qemu
from .errors import LabError
from .heartbeat import Heartbeat
from .initramfs import initramfs, kernel
from .migration import Migration, migrate_stock

if TYPE_CHECKING:
    from .hosts import Host
    from .lab import Lab

ROLES = ("idle", "web", "sparse", "random")
_DEFAULT_RATES = {"idle": 0, "web": 50, "sparse": 1000, "random": 200}
# What the kernel, its page tables and init take at most, measured as MemTotal - MemFree.
_KERNEL_MIB = 96
# pmemsave addresses guest-physical memory, where RAM of machine `pc` is in one piece up to 3 GiB.
_DUMP_MIB_MAX = 3072


@dataclass(frozen=True)
class GuestSpec:
    """What a guest is. Sizes in MiB; `rate` in operations per second (see guest/init.c)."""

    name: str
    image: str = "a"
    role: str = "idle"
    memory_mib: int = 256
    image_mib: int = 48
    own_mib: int = 0
    write_mib: int = 16
    rate: int | None = None  # None: the role's usual rate
    multifd_zstd: bool = False  # QEMU's parallel migrations compress; libvirt 9.0 cannot ask for it

    def check(self) -> None:
        """LabError when no such guest can run."""
        for what, text in (("name", self.name), ("image", self.image)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", text):
                raise LabError(f"guest {what} {text!r}: use 1 to 31 letters, digits, _ and -")
        if self.role not in ROLES:
            raise LabError(f"guest role {self.role!r}: use one of {', '.join(ROLES)}")
        needed = _KERNEL_MIB + self.image_mib + self.own_mib
        needed += self.write_mib if self.role in ("sparse", "random") else 0
        if self.memory_mib < needed:
            raise LabError(f"guest {self.name} needs {needed} MiB: give it --memory {needed}")

    def command_line(self) -> str:
        rate = _DEFAULT_RATES[self.role] if self.rate is None else self.rate
        settings = {**asdict(self), "rate": rate}
        del settings["memory_mib"], settings["multifd_zstd"]
        words = ["console=ttyS0", "quiet", "nokaslr no_timer_check", "panic=-1", "random.trust_cpu=on"]
        return " ".join(words + [f"samepage.{key}={value}" for key, value in settings.items()])

    def _qemu_options(self) -> str:
        if not self.multifd_zstd:
            return ""
        options = ("-global", "migration.multifd-compression=zstd")
        words = "".join(f"<qemu:arg value='{option}'/>" for option in options)
        return f"<qemu:commandline>{words}</qemu:commandline>"

    def domain_xml(self, lab_name: str, serial: Path) -> str:
        """The libvirt domain: machine `pc`, one vCPU, private anonymous RAM that KSM may merge."""
        domain_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.guest.{lab_name}.samepage-lab")
        return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{self.name}</name>
  <uuid>{domain_uuid}</uuid>
  <memory unit='MiB'>{self.memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{escape(str(kernel()))}</kernel>
    <initrd>{escape(str(initramfs()))}</initrd>
    <cmdline>{escape(self.command_line())}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{escape(str(serial))}' append='on'/></serial>
    <memballoon model='none'/>
  </devices>
  {self._qemu_options()}
</domain>
"""


class Guest:
    """One guest of a lab, wherever it runs now: it keeps its meaning across migrations."""

    def __init__(self, lab: "Lab", spec: GuestSpec) -> None:
        self.lab = lab
        self.spec = spec
        self.name = spec.name

    @staticmethod
    def load(lab: "Lab", name: str) -> "Guest":
        """The guest of that name, as another process of the same lab started it."""
        try:
            spec = json.loads((lab.folder / "guests" / f"{name}.json").read_text())
        except FileNotFoundError:
            raise LabError(f"no guest {name} in lab {lab.name}: see `lab status`") from None
        return Guest(lab, GuestSpec(**spec))

    def start(self, host: "Host") -> None:
        """Boots the guest on a host; returns before it is ready."""
        self.spec.check()
        present = self.host_or_none()
        if present is not None:
            raise LabError(f"guest {self.name} already runs on {present.name}")
        self.serial.parent.mkdir(exist_ok=True)
        self.serial.write_bytes(b"")
        try:
            host.libvirt().createXML(self.spec.domain_xml(self.lab.name, self.serial))
        except libvirt.libvirtError as error:
            raise LabError(f"cannot start {self.name} on {host.name}: {error}") from None
        record = self.lab.folder / "guests" / f"{self.name}.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps(asdict(self.spec)))

    @property
    def serial(self) -> Path:
        """The file that the guest's serial line appends to, whatever host it is on."""
        return self.lab.folder / "serial" / f"{self.name}.log"

    def heartbeat(self) -> Heartbeat:
        """A recorder of this guest's heartbeat; use it as a context manager."""
        return Heartbeat(self.serial)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Waits until the guest's data is in place and its role works."""
        with self.heartbeat() as heartbeat:
            heartbeat.wait_ready(timeout_s)

    def host_or_none(self) -> "Host | None":
        for host in self.lab.hosts:
            if host.alive() and self.name in host.guest_names():
                return host
        return None

    @property
    def host(self) -> "Host":
        """Where the guest is now; during a migration, the first host that knows it."""
        host = self.host_or_none()
        if host is None:
            raise LabError(f"guest {self.name} is on no host: see {self.serial}")
        return host

    def domain(self) -> libvirt.virDomain:
        return self.host.domain(self.name)

    def state(self) -> str:
        """"running", "paused" or "off"."""
        host = self.host_or_none()
        if host is None:
            return "off"
        active = {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_PAUSED: "paused"}
        return active.get(host.domain(self.name).state()[0], "off")

    def pause(self) -> None:
        self.domain().suspend()

    def resume(self) -> None:
        self.domain().resume()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the guest at once, as pulling its plug would. Safe when it is off already."""
        host = self.host_or_none()
        if host is not None:
            host.domain(self.name).destroy()
        deadline = time.monotonic() + timeout_s
        while self.host_or_none() is not None:
            if time.monotonic() > deadline:
                raise LabError(f"guest {self.name} is still there after {timeout_s:g} s")
            time.sleep(0.02)

    def migrate_stock(self, target: "Host") -> Migration:
        """Moves the running guest with libvirt alone; see migration.py."""
        return migrate_stock(self, target)

    def dump(self, file: Path | str) -> None:
        """Writes the guest's RAM, byte for byte from guest-physical address 0, to a file.

        A running guest is paused meanwhile, so the dump is of one moment. Read through QEMU's
        `pmemsave`; between 640 KiB and 1 MiB that shows ROM and holes, not RAM.
        """
        if self.spec.memory_mib > _DUMP_MIB_MAX:
            raise LabError(f"dump reaches {_DUMP_MIB_MAX} MiB; {self.name} has more memory")
        domain = self.domain()
        running = domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        partial = self.lab.folder / f"dump-{self.name}-{os.getpid()}"
        if running:
            domain.suspend()
        try:
            command = f'pmemsave 0 {self.spec.memory_mib << 20} "{partial}"'
            hmp = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            answer = libvirt_qemu.qemuMonitorCommand(domain, command, hmp).strip()
        finally:
            if running:
                domain.resume()
        size = partial.stat().st_size if partial.exists() else 0
        if answer or size != self.spec.memory_mib << 20:
            partial.unlink(missing_ok=True)
            raise LabError(f"dump of {self.name} failed after {size} bytes: {answer}")
        shutil.move(partial, file)
