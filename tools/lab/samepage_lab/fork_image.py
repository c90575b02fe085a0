"""A Debian image whose guests can be forked: `debian_image("a")` with the first-run step in it, as
docs/guest.md tells, and a hook that gives each fork the address 10.98.0.N for the number N at the end
of its name and has nginx serve what it is: /name, and /random from its random pool, right after the
first-run step.

Kept in the cache under the hash of what goes into it, so it is built once and never stale.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import tempfile
from pathlib import Path

from .debian_image import DebianImage, debian_image
from .fleet import built_programs
from .initramfs import cache_folder

_PACKAGING = Path(__file__).parents[3] / "packaging" / "guest"
_HOOK = """\
#!/bin/sh
read -r name </proc/sys/kernel/hostname
echo "$name" >/var/www/html/name
tries=0
until [ -e /sys/class/net/eth0 ] || [ $tries -ge 150 ]; do sleep 0.2; tries=$((tries + 1)); done
printf 'address replace 10.98.0.%s/24 dev eth0\\nlink set eth0 up\\n' "${1##*-}" | ip -batch -
read -r random </proc/sys/kernel/random/uuid
echo "$random" >/var/www/html/random
"""
# Ten timers a second in each of thirty idle guests, emulated, would keep half of this machine busy.
_REDIS = """[Service]
ExecStart=
ExecStart=/usr/bin/redis-server /etc/redis/redis.conf --supervised systemd --daemonize no --hz 1
"""
_UNIT = "/etc/systemd/system/samepage-first-run.service"
_WANTED = "/etc/systemd/system/multi-user.target.wants/samepage-first-run.service"
_FOLDERS = ("/etc/samepage", "/etc/samepage/first-run.d",
            "/etc/systemd/system/redis-server.service.d")


def fork_image() -> DebianImage:
    """Built now (some seconds) if it is not in the cache. LabUnavailable: as debian_image()."""
    base = debian_image("a")
    files = {
        "/usr/lib/samepage/first-run": (built_programs() / "samepage-first-run").read_bytes(),
        "/etc/samepage/first-run.d/50-lab": _HOOK.encode(),
        "/etc/systemd/system/redis-server.service.d/hz.conf": _REDIS.encode(),
        _UNIT: (_PACKAGING / "samepage-first-run.service").read_bytes(),
        "/etc/modules-load.d/samepage.conf": (_PACKAGING / "samepage.conf").read_bytes(),
        "/etc/udev/rules.d/60-samepage.rules": (_PACKAGING / "60-samepage.rules").read_bytes(),
    }
    recipe = hashlib.sha256(f"{base.folder.name} {sorted(files.items())}".encode())
    folder = cache_folder() / f"lab-fork-{recipe.hexdigest()[:16]}"
    with (cache_folder() / "lab-debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _build(base, files, folder)
    return DebianImage(folder)


def _build(base: DebianImage, files: dict[str, bytes], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="build-") as work:
        made = Path(work) / "complete"
        made.mkdir(mode=0o755)
        for source in (base.disk, base.kernel, base.initrd):
            subprocess.run(["cp", "--sparse=always", source, made / source.name], check=True)
        script = [f"mkdir {folder}" for folder in _FOLDERS]
        for i, (path, content) in enumerate(files.items()):
            source = Path(work) / str(i)
            source.write_bytes(content)
            executable = content.startswith((b"#!", b"\x7fELF"))
            script += [f"write {source} {path}", f"sif {path} mode 0100{755 if executable else 644}"]
        script.append(f"symlink {_WANTED} {_UNIT}")
        done = subprocess.run(["debugfs", "-w", "-f", "-", DebianImage(made).disk], check=True,
                              input="\n".join(script), text=True, capture_output=True)
        for path in files:
            stat = subprocess.run(["debugfs", "-R", f"stat {path}", DebianImage(made).disk],
                                  text=True, capture_output=True)
            if "Type: regular" not in stat.stdout:
                raise RuntimeError(f"{path} did not get into the image: {done.stderr}")
        made.rename(folder)
