"""What `tools/bench store` works on: Debian images built independently, and a real boot's reads.

Three images of one Debian release: the lab's "a" and "b" (other packages, another site), and "c",
which is "a" without its documentation and with other files, by a mkfs of its own. The trace is what
QEMU read from image "a" through an NBD server, from power on to the login prompt. All are kept in
the lab's cache folder.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from samepage_lab.debian_image import DebianImage, debian_image
from samepage_lab.errors import LabError
from samepage_lab.initramfs import cache_folder

_BOOT_MAX_S = 600
_READ = re.compile(r" Read id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)")


def images() -> list[Path]:
    """The raw disks of "a", "b" and "c"."""
    first, second = debian_image("a"), debian_image("b")
    third = cache_folder() / f"bench-{first.folder.name}-c.raw"
    if not third.exists():
        _build_third(first.disk, third)
    return [first.disk, second.disk, third]


def _build_third(source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="bench-") as work:
        mounted, root = Path(work) / "mounted", Path(work) / "root"
        mounted.mkdir()
        _run("mount", "-o", "loop,ro,noload", str(source), str(mounted))
        try:
            _run("cp", "-a", str(mounted), str(root))
        finally:
            _run("umount", str(mounted))
        for unwanted in ("usr/share/perl", "usr/share/zoneinfo", "var/www/html/data"):
            shutil.rmtree(root / unwanted, ignore_errors=True)
        own = root / "srv/own"
        own.mkdir(parents=True)
        for number in range(200):
            (own / f"file-{number}").write_bytes(os.urandom(20_000))
        disk = Path(work) / "disk.raw"
        with disk.open("wb") as file:
            file.truncate(source.stat().st_size)
        _run("mkfs.ext4", "-q", "-F", "-L", "root", "-d", str(root), str(disk))
        disk.rename(target)


def boot_trace() -> tuple[Path, Path]:
    """Image "a" and its trace: a text of lines "offset bytes", in the order of reading."""
    image = debian_image("a")
    trace = cache_folder() / f"bench-{image.folder.name}.trace"
    if not trace.exists():
        print("store: recording a boot, some minutes", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="samepage-boot-") as work:
            reads = _record(image, Path(work))
        partial = trace.with_suffix(".new")
        partial.write_text("".join(f"{offset} {size}\n" for offset, size in reads))
        partial.rename(trace)
    return image.disk, trace


def _record(image: DebianImage, work: Path) -> list[tuple[int, int]]:
    socket, log, overlay = work / "nbd", work / "log", work / "overlay.qcow2"
    server = subprocess.Popen(["nbdkit", "-f", "-r", "-U", str(socket), "--filter=log", "file",
                               str(image.disk), f"logfile={log}"])
    try:
        _wait_for(socket)
        url = f"nbd+unix:///?socket={socket}"
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", url, str(overlay))
        boot_to_login(f"file={overlay},if=virtio,cache=writeback")
    finally:
        server.terminate()
        server.wait()
    return [(int(offset, 16), int(count, 16)) for offset, count in _READ.findall(log.read_text())]


def boot_to_login(drive: str) -> None:
    """Runs image "a" on QEMU's `-drive` until it asks for a login, and ends it."""
    image = debian_image("a")
    guest = subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic",
         "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", str(image.kernel),
         "-initrd", str(image.initrd), "-append", "root=/dev/vda console=ttyS0 net.ifnames=0",
         "-drive", drive],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert guest.stdout is not None
    said = b""
    deadline = time.monotonic() + _BOOT_MAX_S
    try:
        while b"login:" not in said:
            ready, _, _ = select.select([guest.stdout], [], [], 1.0)
            part = os.read(guest.stdout.fileno(), 65536) if ready else b""
            said = said[-200_000:] + part
            if (ready and not part) or time.monotonic() > deadline:
                raise LabError(f"the guest does not boot: {said[-2000:]!r}")
    finally:
        guest.kill()
        guest.wait()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            raise LabError(f"{path} does not appear")
        time.sleep(0.02)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()[-800:]}")
