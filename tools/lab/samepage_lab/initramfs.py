"""What lab guests boot: Debian's kernel, and an initramfs that holds one static program.

The initramfs is made from guest/init.c and kept in the cache folder under a name that is the hash
of its source and compiler flags, so it is built once, never stale, and has the same path on every
host, as migration needs. No archive program is used: cpio's newc format is a few lines.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from .errors import LabError, LabUnavailable

_GUEST = Path(__file__).parent.parent / "guest"
_SOURCES = ("init.c", "workload.c", "workload.h")
_FLAGS = ["-static", "-O2", "-s"]
_FORMAT = "1"  # changes whenever the archive's layout below does


def cache_folder() -> Path:
    return Path(os.environ.get("SAMEPAGE_CACHE") or "/var/cache/samepage")


def kernel() -> Path:
    """The guests' kernel; LabUnavailable when tools/setup has not fetched it."""
    path = cache_folder() / "vmlinuz"
    if not path.is_file() or path.stat().st_size == 0:
        raise LabUnavailable(f"no guest kernel at {path}: run tools/setup as root")
    return path


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One member of a newc archive: a header of 13 hexadecimal fields, name, data, padded to 4."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    header += b"\0" * (-len(header) % 4)
    return header + data + b"\0" * (-len(data) % 4)


def archive(program: bytes) -> bytes:
    """A newc archive with /init and /dev/console, all that a kernel needs to start."""
    return (
        _entry("dev", 0o040755)
        + _entry("dev/console", 0o020600, device=(5, 1))
        + _entry("init", 0o100755, program)
        + _entry("TRAILER!!!", 0)
    )


def initramfs() -> Path:
    """The path of the initramfs, built now if it is not in the cache."""
    recipe = _FORMAT.encode() + " ".join(_FLAGS).encode()
    recipe += b"".join((_GUEST / source).read_bytes() for source in _SOURCES)
    path = cache_folder() / f"lab-initramfs-{hashlib.sha256(recipe).hexdigest()[:16]}.cpio"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as work:
        program = Path(work) / "init"
        compiled = [str(_GUEST / source) for source in _SOURCES if source.endswith(".c")]
        command = ["gcc", *_FLAGS, "-o", str(program), *compiled]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode != 0:
            raise LabError(f"cannot compile init.c: {done.stderr.strip()}")
        complete = Path(work) / "initramfs"
        complete.write_bytes(archive(program.read_bytes()))
        complete.rename(path)
    return path
