"""A lab guest: a real QEMU virtual machine under TCG; guest_spec.py says what it can be.

It is a transient libvirt domain: when it is stopped, or has left by migration, nothing of it stays
on the host. Its serial line appends to one file of the lab that has the same path on every host,
so the record goes on after a live migration; so does its disk, if it has one.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bindings import libvirt, libvirt_qemu
from .debian_image import debian_image
from .errors import LabError
from .guest_spec import GuestSpec, domain_xml
from .heartbeat import Heartbeat
from .migration import Migration, migrate_stock
from .network import GUEST_NETWORK

if TYPE_CHECKING:
    from .hosts import Host
    from .lab import Lab

# pmemsave addresses guest-physical memory, where RAM of machine `pc` is in one piece up to 3 GiB.
_DUMP_MIB_MAX = 3072
_AGENT_S = 30
_READY_S = {"small": 60.0, "debian": 300.0}


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
        self._make_disk()
        if self.spec.nic and self.spec.kind == "debian":
            self._take_address()
        try:
            host.libvirt().createXML(self.xml())
        except libvirt.libvirtError as error:
            raise LabError(f"cannot start {self.name} on {host.name}: {error}") from None
        record = self.lab.folder / "guests" / f"{self.name}.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps(asdict(self.spec)))

    def xml(self) -> str:
        """The libvirt domain that `start` starts."""
        return domain_xml(self.spec, self.lab.name, self.serial, self.disk, self.address)

    @property
    def disk(self) -> Path | None:
        """The guest's own overlay of its Debian image; None when its disk is not the lab's."""
        if self.spec.kind != "debian" or self.spec.disk_xml:
            return None
        return self.lab.folder / "disks" / f"{self.name}.qcow2"

    def _make_disk(self) -> None:
        if self.disk is None:
            return
        self.disk.parent.mkdir(exist_ok=True)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
        command += ["-b", str(debian_image(self.spec.image).disk), str(self.disk)]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode != 0:
            raise LabError(f"cannot make a disk for {self.name}: {done.stderr.strip()}")

    @property
    def address(self) -> str:
        """A Debian guest's address on its host's guest network; "" without a network card."""
        for taken in (self.lab.folder / "addresses").glob("*"):
            if taken.read_text() == self.name:
                return f"{GUEST_NETWORK}.{taken.name}"
        return ""

    def _take_address(self) -> None:
        """Takes the lowest free address of the lab's guests, unless this name has one already."""
        folder = self.lab.folder / "addresses"
        folder.mkdir(exist_ok=True)
        for number in range(1, 251):
            if self.address:
                return
            try:
                with (folder / str(number)).open("x") as file:
                    file.write(self.name)
            except FileExistsError:
                continue
        if not self.address:
            raise LabError(f"lab {self.lab.name} has no more addresses for guests")

    @property
    def serial(self) -> Path:
        """The file that the guest's serial line appends to, whatever host it is on."""
        return self.lab.folder / "serial" / f"{self.name}.log"

    def heartbeat(self) -> Heartbeat:
        """A recorder of this guest's heartbeat; use it as a context manager."""
        return Heartbeat(self.serial)

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Waits until the guest's data is in place, its servers answer and its role works."""
        with self.heartbeat() as heartbeat:
            heartbeat.wait_ready(_READY_S[self.spec.kind] if timeout_s is None else timeout_s)

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

    def run(self, script: str, timeout_s: float = 60.0) -> str:
        """Runs a shell script in a Debian guest, by its guest agent, and returns what it printed.

        LabError when it fails, takes longer, or the agent does not answer.
        """
        deadline = time.monotonic() + timeout_s
        shell = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = self._ask_agent("guest-exec", shell)["pid"]
        while not (done := self._ask_agent("guest-exec-status", {"pid": pid}))["exited"]:
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: `{script}` took over {timeout_s:g} s")
            time.sleep(0.1)
        out, err = (
            base64.b64decode(done.get(key, "")).decode() for key in ("out-data", "err-data")
        )
        if done.get("exitcode") != 0:
            raise LabError(f"{self.name}: `{script}` failed: {err.strip()}")
        return out

    def _ask_agent(self, command: str, arguments: dict[str, object]) -> dict[str, Any]:
        question = json.dumps({"execute": command, "arguments": arguments})
        try:
            return json.loads(
                libvirt_qemu.qemuAgentCommand(self.domain(), question, _AGENT_S, 0)
            )["return"]
        except libvirt.libvirtError as error:
            raise LabError(f"{self.name}: its guest agent does not answer: {error}") from None

    def pause(self) -> None:
        self.domain().suspend()

    def resume(self) -> None:
        self.domain().resume()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the guest at once, as pulling its plug would, and its disk. Safe when it is off."""
        host = self.host_or_none()
        if host is not None:
            host.domain(self.name).destroy()
        deadline = time.monotonic() + timeout_s
        while self.host_or_none() is not None:
            if time.monotonic() > deadline:
                raise LabError(f"guest {self.name} is still there after {timeout_s:g} s")
            time.sleep(0.02)
        if self.disk is not None:
            self.disk.unlink(missing_ok=True)

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
