"""A lab: real libvirtd hosts and real guests on one Linux machine.

Its state is one folder, /run/samepage-lab/NAME (or $SAMEPAGE_LAB_DIR/NAME), which any process may
open with `Lab.attach`. Labs of different names do not meet. Invariants: everything a lab runs,
mounts or links is held by the anchors of its nodes, whose records are in the folder; so `down`
cleans up fully whoever made the lab and however that process ended, and touches nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Iterator

from . import ksm, network
from .availability import check_available
from .errors import LabError
from .guest_spec import GuestSpec
from .guests import Guest
from .hosts import Host, own_binds
from .initramfs import cache_folder
from .namespaces import Node

HOSTS_MAX = 200


def labs_folder() -> Path:
    return Path(os.environ.get("SAMEPAGE_LAB_DIR") or "/run/samepage-lab")


def lab_names() -> list[str]:
    """The labs that are up on this machine, and those that left something behind."""
    return sorted(path.parent.name for path in labs_folder().glob("*/nodes"))


def _kept_capabilities() -> Path:
    return cache_folder() / "lab-qemu-capabilities"


def _lock_path(name: str) -> Path:
    return labs_folder() / f"{name}.lock"


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Only one process at a time brings a lab up or down. The lock's file goes with the lab."""
    path = _lock_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(f"lab {name} is just being brought up or down: try again") from None
            try:
                mine = os.fstat(lock.fileno()).st_ino == path.stat().st_ino
            except FileNotFoundError:
                mine = False
            if not mine:
                continue  # its former holder removed it after we had opened it
            try:
                yield
            finally:
                path.unlink()
            return


class Lab:
    """One lab. As a context manager it is up inside the block and gone after it.

    `hosts` are host1, host2, ... in order; `control` is the node where the placer runs. Options:
    link_mbit limits each host's link in each direction (0: no limit); memory_mib is what each
    host is said to have, for planning: nothing enforces it (0: not said).
    """

    def __init__(
        self, name: str = "lab", hosts: int = 2, link_mbit: float = 0, memory_mib: int = 0
    ) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,23}", name):
            raise LabError(f"lab name {name!r}: use 1 to 24 lower-case letters, digits and -")
        if not 1 <= hosts <= HOSTS_MAX:
            raise LabError(f"{hosts} hosts: a lab has 1 to {HOSTS_MAX}")
        self.name = name
        self.folder = labs_folder() / name
        self.link_mbit = link_mbit
        self.memory_mib = memory_mib
        self.control = Node("control", self.folder / "nodes" / "control")
        self.hosts = [
            Host(f"host{i}", self.folder / "nodes" / f"host{i}", network.host_address(i))
            for i in range(1, hosts + 1)
        ]
        self._former_handler: Any = None

    @staticmethod
    def attach(name: str = "lab") -> "Lab":
        """The lab of that name that is up; LabError when there is none."""
        try:
            options = json.loads((labs_folder() / name / "lab.json").read_text())
        except (FileNotFoundError, ValueError):
            raise LabError(f"lab {name} is not up: `lab --name {name} up --hosts 2`") from None
        return Lab(name=name, **options)

    def up(self) -> "Lab":
        """Brings the lab up; when that fails, nothing of it stays behind.

        LabUnavailable when the machine cannot run labs, LabError when this lab is up already.
        """
        check_available()
        with _locked(self.name):
            if self.folder.exists():
                if any(node.alive() for node in self._recorded_nodes()):
                    raise LabError(
                        f"lab {self.name} is up already: use it, or `lab --name {self.name} down`"
                    )
                self._remove()
            try:
                self._make()
            except BaseException:
                self._remove()
                raise
        return self

    def _make(self) -> None:
        (self.folder / "nodes").mkdir(parents=True, mode=0o700)
        options = {
            "hosts": len(self.hosts),
            "link_mbit": self.link_mbit,
            "memory_mib": self.memory_mib,
        }
        (self.folder / "lab.json").write_text(json.dumps(options))
        shared = self._write_etc()
        for node in [self.control, *self.hosts]:
            node.folder.mkdir()
            node.start_anchor(own_binds(node.folder) + shared)
        network.connect(self.control, list(self.hosts))
        if self.link_mbit > 0:
            for host in self.hosts:
                network.shape(self.control, host, self.link_mbit)
        for host in self.hosts:
            host.give_capabilities(_kept_capabilities())
            host.start_libvirtd(self.name)
        for host in self.hosts:
            host.wait_libvirtd()

    def _write_etc(self) -> list[tuple[Path, Path]]:
        """Files of /etc that all nodes see instead of the machine's, and where they belong.

        libvirtd does not start unless the user and group that Debian's libvirt-daemon-system
        would make exist, even when qemu.conf names others; here nothing runs as them.
        """
        etc = self.folder / "etc"
        etc.mkdir()
        names = ["127.0.0.1 localhost", f"{network.CONTROL_ADDRESS} control"]
        names += [f"{host.address} {host.name}" for host in self.hosts]
        (etc / "hosts").write_text("\n".join(names) + "\n")
        for file, line in (
            ("passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
            ("group", "libvirt-qemu:x:64055:"),
        ):
            text = Path("/etc", file).read_text()
            known = any(entry.startswith("libvirt-qemu:") for entry in text.splitlines())
            (etc / file).write_text(text if known else f"{text.rstrip()}\n{line}\n")
        return [(etc / file, Path("/etc", file)) for file in ("hosts", "passwd", "group")]

    def down(self) -> bool:
        """Ends everything in the lab and removes its folder; False when there was nothing.

        Also cleans up after a process that was killed while it had the lab, or KSM, on.
        """
        ksm.restore_if_abandoned()
        if not self.folder.exists() and not _lock_path(self.name).exists():
            return False
        with _locked(self.name):
            if not self.folder.exists():
                return False
            self.hosts[0].keep_capabilities(_kept_capabilities())
            self._remove()
        return True

    def _recorded_nodes(self) -> list[Node]:
        """The nodes that the folder knows, whatever this object thinks the lab looks like."""
        return [Node(path.name, path) for path in sorted(self.folder.glob("nodes/*"))]

    def _remove(self) -> None:
        for host in self.hosts:
            host.disconnect()
        for node in self._recorded_nodes():
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            raise LabError(f"cannot remove {self.folder}: something still writes there; try again")

    def __enter__(self) -> "Lab":
        """Brings the lab up, and has SIGTERM unwind the block like Ctrl-C does."""
        if threading.current_thread() is threading.main_thread():
            self._former_handler = signal.signal(signal.SIGTERM, _exit_on_signal)
        try:
            return self.up()
        except BaseException:
            self._give_signal_back()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.down()
        finally:
            self._give_signal_back()

    def _give_signal_back(self) -> None:
        if self._former_handler is not None:
            signal.signal(signal.SIGTERM, self._former_handler)
            self._former_handler = None

    def host(self, name: str) -> Host:
        """The host of that name ("host2" or "2")."""
        for host in self.hosts:
            if name in (host.name, host.name.removeprefix("host")):
                return host
        raise LabError(f"no host {name}: lab {self.name} has host1 to host{len(self.hosts)}")

    def node(self, name: str) -> Node:
        """The host of that name, or the control node for "control"."""
        return self.control if name == "control" else self.host(name)

    def start_guest(
        self, host: Host | str, name: str, wait: bool = True, **settings: Any
    ) -> Guest:
        """Boots a guest on a host and, unless wait=False, waits until it is ready.

        `settings` are the other fields of GuestSpec: kind, image, role, memory_mib, nic, ...
        """
        guest = Guest(self, GuestSpec(name=name, **settings))
        guest.start(host if isinstance(host, Host) else self.host(host))
        if wait:
            guest.wait_ready()
        return guest

    def guest(self, name: str) -> Guest:
        """A guest that was started in this lab, by this process or another."""
        return Guest.load(self, name)

    def guests(self) -> list[Guest]:
        """All guests that were ever started in this lab, also those that are off now."""
        return [self.guest(path.stem) for path in sorted(self.folder.glob("guests/*.json"))]

    def link(self, host: Host | str, mbit: float) -> None:
        """Limits a host's link in each direction; 0 takes the limit away."""
        host = host if isinstance(host, Host) else self.host(host)
        network.shape(self.control, host, mbit)

    def status(self) -> dict[str, Any]:
        """What is up, as `lab status --json` prints it."""
        return {
            "lab": self.name,
            "folder": str(self.folder),
            "control": {"address": network.CONTROL_ADDRESS, "alive": self.control.alive()},
            "hosts": [self._host_status(host) for host in self.hosts],
        }

    def _host_status(self, host: Host) -> dict[str, Any]:
        status: dict[str, Any] = {"name": host.name, "address": host.address, "alive": host.alive()}
        if self.memory_mib:
            status["memory_mib"] = self.memory_mib
        if not host.alive():
            return status
        pids = host.guest_pids()
        count = host.bytes()
        status.update(anchor_pid=host.pid, rx_bytes=count.rx, tx_bytes=count.tx, guests=[])
        for name in host.guest_names():
            guest = {"name": name, "state": "unknown", "qemu_pid": pids.get(name)}
            if (self.folder / "guests" / f"{name}.json").exists():
                known = self.guest(name)
                guest.update(state=known.state(), kind=known.spec.kind, role=known.spec.role)
                guest.update(image=known.spec.image, address=known.address)
                guest["memory_mib"] = known.spec.memory_mib
            status["guests"].append(guest)
        return status


def _exit_on_signal(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
