"""Whether this machine can run a lab, found out before anything is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unittest

from .bindings import libvirt
from .errors import LabUnavailable
from .initramfs import kernel

_PROGRAMS = ("libvirtd", "virsh", "qemu-system-x86_64", "ip", "tc", "nsenter", "unshare", "gcc")


def check_available() -> None:
    """Returns when a lab can run here; LabUnavailable, with the reason, when it cannot."""
    if os.geteuid() != 0:
        raise LabUnavailable("a lab needs root: it makes namespaces, mounts and network links")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise LabUnavailable(f"missing programs {', '.join(missing)}: run tools/setup as root")
    if libvirt is None:
        raise LabUnavailable(
            f"{sys.executable} has no libvirt module: run tools/setup, and use /usr/bin/python3"
        )
    kernel()
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
        + ["sh", "-c", "ip link add name lan type bridge && ip link add name a1 type veth"],
        text=True,
        capture_output=True,
    )
    if tried.returncode != 0:
        raise LabUnavailable(f"this machine gives no namespaces: {tried.stderr.strip()}")


def require_lab() -> None:
    """For tests: skips with the reason where no lab can run. With CI=true a skip is a failure."""
    try:
        check_available()
    except LabUnavailable as error:
        if os.environ.get("CI") == "true":
            raise AssertionError(f"CI=true forbids to skip: {error}") from None
        raise unittest.SkipTest(str(error)) from None
