"""A real one-node Ceph: one monitor and one OSD in memory, for tests and benchmarks.

    with CephCluster.start() as ceph:
        run([...], env=os.environ | {"SAMEPAGE_CEPH_CONF": str(ceph.conf)})

Everything is on loopback, on ports that were free, in a folder of its own, and ends with the block.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from .errors import LabError, LabUnavailable

_READY_MAX_S = 60


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _conf(folder: Path, fsid: str, port: int, memory_mib: int) -> str:
    return f"""[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}
public_addr = 127.0.0.1
mon_initial_members = a
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_data_avail_crit = 0
osd_objectstore = memstore
memstore_device_bytes = {memory_mib << 20}
mon_data = {folder}/mon
osd_data = {folder}/osd
keyring = {folder}/keyring
log_file = {folder}/$name.log
pid_file = {folder}/$name.pid
admin_socket = {folder}/$name.$pid.asok
run_dir = {folder}
"""


class CephCluster:
    """One cluster. `conf` is what clients read; `pool` is there when start() returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "ceph.conf"
        self.pool = "chunks"
        self._daemons: list[subprocess.Popen[bytes]] = []

    @classmethod
    def start(cls, memory_mib: int = 2048) -> "CephCluster":
        """LabUnavailable: Ceph is not installed. LabError: it does not come up."""
        for program in ("ceph-mon", "ceph-osd", "ceph"):
            if shutil.which(program) is None:
                raise LabUnavailable(f"{program} is not installed; tools/setup installs it")
        cluster = cls(Path(tempfile.mkdtemp(prefix="samepage-ceph-")))
        try:
            cluster._start(memory_mib)
        except BaseException:
            cluster.end()
            raise
        return cluster

    def __enter__(self) -> "CephCluster":
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()

    def end(self) -> None:
        for daemon in reversed(self._daemons):  # Nobody needs what they remember.
            daemon.kill()
            daemon.wait()
        self._daemons = []
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def osd(self) -> subprocess.Popen[bytes]:
        return self._daemons[1]

    def ceph(self, *args: str) -> str:
        """What the `ceph` command says."""
        return self._run("ceph", "-c", str(self.conf), *args)

    def _start(self, memory_mib: int) -> None:
        fsid = str(uuid.uuid4())
        port = _free_port()
        self.conf.write_text(_conf(self.folder, fsid, port, memory_mib))
        keyring, monmap = str(self.folder / "keyring"), str(self.folder / "monmap")
        conf = ("-c", str(self.conf))
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.",
                  "--cap", "mon", "allow *")
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin",
                  "--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a",
                  f"[v2:127.0.0.1:{port}]", monmap)
        self._run("ceph-mon", "-i", "a", *conf, "--mkfs", "--monmap", monmap, "--keyring", keyring)
        self._spawn("ceph-mon", "-i", "a", *conf, "-f")
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd)
        (self.folder / "osd").mkdir()
        self._run("ceph-osd", "-i", "0", *conf, "--mkfs", "--osd-uuid", osd, "--mkkey")
        self._spawn("ceph-osd", "-i", "0", *conf, "-f")
        self.ceph("osd", "pool", "create", self.pool, "8")
        self._wait_for_osd()

    def _wait_for_osd(self) -> None:
        deadline = time.monotonic() + _READY_MAX_S
        while "1 up" not in self.ceph("osd", "stat"):
            if self.osd.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the OSD does not come up:\n{self._log('osd.0')}")
            time.sleep(0.2)

    def _log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _spawn(self, *command: str) -> None:
        self._daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                              stdout=subprocess.DEVNULL,
                                              stderr=subprocess.DEVNULL, cwd=self.folder))

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder,
                                  timeout=_READY_MAX_S, env=os.environ | {"TERM": "dumb"})
        except subprocess.TimeoutExpired:
            raise LabError(f"{command[0]} takes too long\n{self._log('mon.a')}") from None
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
        return done.stdout
