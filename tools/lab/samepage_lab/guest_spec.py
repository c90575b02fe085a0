"""What a lab guest is: its settings, and the libvirt domain that they make.

There are two kinds. "small" has no disk and no network card unless asked for: a kernel and
guest/init.c, so its memory is all of its state and its contents are known. "debian" boots a
Debian system with nginx and redis from a disk (debian_image.py), and runs guest/service.c in it.
Settings travel on the kernel command line.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from .debian_image import IMAGES, debian_image
from .errors import LabError
from .initramfs import initramfs, kernel
from .network import GUEST_GATEWAY

# The roles of each kind with their usual rates.
_RATES = {
    "small": {"idle": 0, "web": 50, "sparse": 1000, "random": 200},
    "debian": {"idle": 0, "web": 20, "redis": 20, "sparse": 1000, "random": 200},
}
KINDS = tuple(_RATES)
ROLES = tuple(_RATES["debian"])
_MEMORY_MIB = {"small": 256, "debian": 512}
# What the system itself takes at most, measured as MemTotal - MemFree; debian: with room to work.
_SYSTEM_MIB = {"small": 96, "debian": 256}
_BACKINGS = ("anonymous", "memfd")
_EMULATOR = Path(__file__).resolve().parents[1] / "emulator"


@dataclass(frozen=True)
class GuestSpec:
    """What a guest is. Sizes in MiB; `rate` in operations per second (see guest/*.c)."""

    name: str
    kind: str = "small"
    image: str = "a"
    role: str = "idle"
    memory_mib: int = 0  # 0: the kind's usual size
    memory_max_mib: int = 0  # RAM may be plugged in up to so much; 0: it may not
    image_mib: int = 48  # small only: a Debian image has its own contents
    own_mib: int = 0
    write_mib: int = 16
    rate: int | None = None  # None: the role's usual rate
    memory: str = "anonymous"  # which KSM may merge, or "memfd": shared, which others may map
    nic: bool = False  # a card on the host's guest network; debian: with Guest.address
    disk_xml: str = ""  # debian only: libvirt's <disk> for /dev/vda instead of an overlay
    kernel_options: str = ""  # added to the kernel command line
    preload: str = ""  # a library that QEMU is started with: by its path
    multifd_zstd: bool = False  # QEMU's parallel migrations compress; libvirt 9.0 cannot ask for it

    def __post_init__(self) -> None:
        if self.memory_mib == 0:
            object.__setattr__(self, "memory_mib", _MEMORY_MIB.get(self.kind, 0))

    def check(self) -> None:
        """LabError when no such guest can run."""
        for what, text in (("name", self.name), ("image", self.image)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", text):
                raise LabError(f"guest {what} {text!r}: use 1 to 31 letters, digits, _ and -")
        if self.kind == "debian":
            self._one_of("image", IMAGES)
        elif self.disk_xml:
            raise LabError(f"guest {self.name}: only the kind debian has a disk")
        self._one_of("kind", KINDS)
        self._one_of("role", tuple(_RATES[self.kind]))
        self._one_of("memory", _BACKINGS)
        needed = _SYSTEM_MIB[self.kind] + self.own_mib
        needed += self.image_mib if self.kind == "small" else 0
        needed += self.write_mib if self.role in ("sparse", "random") else 0
        if self.memory_mib < needed:
            raise LabError(f"guest {self.name} needs {needed} MiB: give it --memory {needed}")

    def _one_of(self, setting: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, setting)
        if value not in allowed:
            raise LabError(f"guest {setting} {value!r}: use one of {', '.join(allowed)}")

    def command_line(self, address: str) -> str:
        keys = ("name", "image", "role", "image_mib", "own_mib", "write_mib")
        settings = {key: getattr(self, key) for key in keys}
        settings["rate"] = _RATES[self.kind][self.role] if self.rate is None else self.rate
        words = ["console=ttyS0", "quiet", "no_timer_check", "panic=-1", "random.trust_cpu=on"]
        if self.kind == "small":
            words.append("nokaslr")
        else:
            words += ["root=/dev/vda rw net.ifnames=0 systemd.show_status=0 systemd.getty_auto=0"]
            words.append(f"systemd.hostname={self.name}")
        if address:
            words.append(f"ip={address}::{GUEST_GATEWAY}:255.255.255.0::eth0:none")
        words += [self.kernel_options] if self.kernel_options else []
        return " ".join(words + [f"samepage.{key}={value}" for key, value in settings.items()])


def domain_xml(
    spec: GuestSpec, lab_name: str, serial: Path, disk: Path | None, address: str
) -> str:
    """The libvirt domain: machine `pc`, one vCPU; `disk` is the overlay for /dev/vda."""
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{spec.name}.guest.{lab_name}.samepage-lab")
    if spec.kind == "debian":
        image = debian_image(spec.image)
        booted = (image.kernel, image.initrd)
    else:
        booted = (kernel(), initramfs())
    devices = [_nic_xml(identity)] if spec.nic else []
    if spec.kind == "debian":
        devices += [spec.disk_xml or _disk_xml(disk), _AGENT_XML]
    return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{spec.name}</name>
  <uuid>{identity}</uuid>
  <memory unit='MiB'>{spec.memory_mib}</memory>
  {_MEMORY_XML[spec.memory]}
  {_plug_xml(spec)}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{escape(str(booted[0]))}</kernel>
    <initrd>{escape(str(booted[1]))}</initrd>
    <cmdline>{escape(spec.command_line(address))}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{escape(str(_EMULATOR))}</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{escape(str(serial))}' append='on'/></serial>
    <memballoon model='none'/>
    {"".join(devices)}
  </devices>
  {_qemu_options(spec)}
</domain>
"""


_AGENT_XML = """\
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"""
_MEMORY_XML = {
    "anonymous": "",
    "memfd": "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
}


def _plug_xml(spec: GuestSpec) -> str:
    """QEMU plugs RAM into machines with NUMA nodes only."""
    if not spec.memory_max_mib:
        return ""
    return f"""\
<maxMemory slots='4' unit='MiB'>{spec.memory_max_mib}</maxMemory>
  <cpu><numa><cell id='0' cpus='0' memory='{spec.memory_mib}' unit='MiB'/></numa></cpu>"""


def _disk_xml(overlay: Path | None) -> str:
    """Its contents outlive neither the lab nor a crash of the machine, so nothing is synced."""
    return f"""\
<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
  <source file='{escape(str(overlay))}'/>
  <target dev='vda' bus='virtio'/>
</disk>"""


def _nic_xml(identity: uuid.UUID) -> str:
    mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in identity.bytes[:3])
    return f"""\
<interface type='bridge'>
  <mac address='{mac}'/><source bridge='guests'/><model type='virtio'/>
</interface>"""


def _qemu_options(spec: GuestSpec) -> str:
    options = ("-global", "migration.multifd-compression=zstd") if spec.multifd_zstd else ()
    words = "".join(f"<qemu:arg value='{option}'/>" for option in options)
    if spec.preload:
        words += f"<qemu:env name='LD_PRELOAD' value='{escape(spec.preload)}'/>"
    return f"<qemu:commandline>{words}</qemu:commandline>" if words else ""
