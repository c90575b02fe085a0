"""The disk images that Debian guests boot: systemd, nginx and redis from Debian's own packages.

There are two, "a" and "b": the same base, other packages and another nginx site. An image is made
by mmdebstrap from the package sources that this machine's apt uses, and kept in the cache folder
under a name that is the hash of its recipe (what this file says, the programs in guest/, the lists
of packages in tools/setup), so it is built once and never stale. Its root file system is the whole
disk, ext4; kernel and initrd lie beside it for a direct boot. Guests never write to it: see
guests.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError, LabUnavailable
from .initramfs import cache_folder

IMAGES = ("a", "b")
_SITE_MIB = 24
_DISK_GIB = 2
_GUEST = Path(__file__).parent.parent / "guest"
_SETUP = Path(__file__).parents[2] / "setup"
_PROGRAM_SOURCES = ("service.c", "workload.c", "workload.h")
_BUILD_S_MAX = 1800.0
_FORMAT = "1"  # changes whenever the code below makes something else of the same recipe

_MODULES = "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n"
# What is laid over the packages, before they are installed. The initrd needs no more than a virtio
# disk with ext4, and is packed so that emulation unpacks it quickly.
_FILES = {
    "/etc/initramfs-tools/conf.d/samepage": "MODULES=list\nCOMPRESS=gzip\n",
    "/usr/share/initramfs-tools/modules.d/samepage": _MODULES,
    "/etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
    "/etc/hostname": "debian\n",
    "/etc/hosts": "127.0.0.1 localhost debian\n",
    "/etc/systemd/system/samepage-service.service": """\
[Unit]
Description=Heartbeat and work of a lab guest
After=nginx.service redis-server.service
Wants=nginx.service redis-server.service

[Service]
ExecStart=/usr/lib/samepage/service

[Install]
WantedBy=multi-user.target
""",
}
_HOOKS = [
    'systemctl --root="$1" enable samepage-service systemd-networkd systemd-network-generator',
    'systemctl --root="$1" mask e2scrub_reap.service systemd-networkd-wait-online.service',
    'chroot "$1" passwd --delete root',
    ': >"$1/etc/machine-id"',
]
_UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class DebianImage:
    """A disk image in the cache, read-only for all guests."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Raw; the root file system without a partition table."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


def debian_image(name: str) -> DebianImage:
    """The image "a" or "b", built now (some minutes) if it is not in the cache.

    LabUnavailable when this machine cannot build it.
    """
    if name not in IMAGES:
        raise LabError(f"no Debian image {name!r}: use one of {', '.join(IMAGES)}")
    packages = _packages(name)
    folder = cache_folder() / f"lab-debian-{name}-{_recipe_hash(name, packages)}"
    if folder.is_dir():
        return DebianImage(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lab-debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _build(name, packages, folder)
    return DebianImage(folder)


def _packages(name: str) -> list[str]:
    listed = subprocess.run([_SETUP, "--guest", name], text=True, capture_output=True, check=True)
    return listed.stdout.split()


def _recipe_hash(name: str, packages: list[str]) -> str:
    said = [_FORMAT, name, packages, _FILES, _HOOKS, _UNWANTED, _SITE_MIB, _DISK_GIB, _code_name()]
    recipe = hashlib.sha256(json.dumps(said).encode())
    for source in _PROGRAM_SOURCES:
        recipe.update((_GUEST / source).read_bytes())
    return recipe.hexdigest()[:16]


def _build(name: str, packages: list[str], folder: Path) -> None:
    for program in ("mmdebstrap", "mkfs.ext4"):
        if shutil.which(program) is None:
            raise LabUnavailable(f"no {program} to build a disk with: run tools/setup as root")
    print(f"lab: building Debian image {name} in {folder}, some minutes", file=sys.stderr)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="build-") as work:
        root, complete = Path(work) / "root", Path(work) / "complete"
        complete.mkdir(mode=0o755)
        _make_root(name, packages, root, Path(work) / "overlay")
        shutil.copy(next((root / "boot").glob("vmlinuz-*")), complete / "vmlinuz")
        shutil.copy(next((root / "boot").glob("initrd.img-*")), complete / "initrd")
        image = DebianImage(complete)
        with image.disk.open("wb") as disk:
            disk.truncate(_DISK_GIB << 30)
        _run(["mkfs.ext4", "-q", "-F", "-L", "root", "-d", str(root), str(image.disk)])
        complete.rename(folder)
    print(f"lab: image {name} took {time.monotonic() - began:.0f} s", file=sys.stderr)


def _make_root(name: str, packages: list[str], root: Path, overlay: Path) -> None:
    for file, text in _FILES.items():
        path = overlay / file.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = overlay / "usr/lib/samepage/service"
    program.parent.mkdir(parents=True)
    sources = [str(_GUEST / file) for file in _PROGRAM_SOURCES if file.endswith(".c")]
    _run(["gcc", "-static", "-O2", "-s", "-o", str(program), *sources])
    site = overlay / "var/www/html/data"
    site.parent.mkdir(parents=True)
    _run([str(program), str(site), str(_SITE_MIB), f"site {name}"])
    _run(
        ["mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"]
        + [f"--include={','.join(packages)}", f"--essential-hook=sync-in '{overlay}' /"]
        + [f"--customize-hook={hook}" for hook in _HOOKS]
        + [f"--dpkgopt=path-exclude={path}" for path in _UNWANTED]
        + ["--dpkgopt=force-unsafe-io", *_apt_options(), _code_name(), str(root), *_sources()]
    )


def _code_name() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line)
    return settings.get("VERSION_CODENAME", "stable").strip('"')


def _sources() -> list[str]:
    """Debian's part of what this machine's apt knows, as lines of a sources.list."""
    for attempt in range(2):
        listed = _run(["apt-get", "indextargets", "Created-By: Packages", "Origin: Debian"])
        lines = []
        for stanza in listed.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
            if fields.get("Codename", "").split("-")[0] == _code_name():
                lines.append("deb {Repo-URI} {Release} {Component}".format(**fields))
        if lines:
            return lines
        if attempt == 0:
            _run(["apt-get", "update", "-qq"])
    raise LabUnavailable("this machine's apt has no Debian package source: see /etc/apt")


def _apt_options() -> list[str]:
    """How this machine's apt reaches its sources (a proxy, say), for the apt in the image."""
    dump = _run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    kept = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return [
        f"--aptopt={line}" for line in dump.splitlines()
        if line.startswith(kept) and not line.endswith(' "";')
    ]


def _run(argv: list[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        argv, text=True, capture_output=True, env=environment, timeout=_BUILD_S_MAX
    )
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise LabUnavailable(f"cannot build a Debian image: {argv[0]} failed: {said}")
    return done.stdout
