"""The image store against memcached, NBD, qcow2 overlays and full copies, on a real boot's reads.

Everything runs on this machine in one go: the same image, trace, clients and clock. Peers run at
the settings that served them best of those tried here. What is compared with a peer takes turns
with it several times, and medians are compared. Rows are printed as they come; the last line of
stdout is the result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Iterator

from samepage_lab.ceph import CephCluster
from store_images import boot_to_login, boot_trace, images
from store_promises import STORM_DEPTH, promises

_ROOT = Path(__file__).resolve().parents[2]
_BENCH = _ROOT / "build/release/bin/store_bench"
_PLUGIN = _ROOT / "build/release/bin/nbdkit-samepage-plugin.so"
_ROUNDS = 5
_STORMS = 3  # Of each size but the one that has its rounds.
_TICKS = os.sysconf("SC_CLK_TCK")
_NODE_MIB = 1536
Row = dict[str, Any]


class Bench:
    """The servers of one run and the rows so far."""

    def __init__(self, stack: ExitStack, quick: bool, as_json: bool) -> None:
        self.quick = quick
        self.as_json = as_json
        self.rows: list[Row] = []
        self._stack = stack
        # In memory, so that no disk is measured where none is meant.
        self.folder = Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="samepage-bench-", dir="/dev/shm")))
        self.disk_folder = Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="samepage-bench-", dir="/var/tmp")))
        source, self.trace = boot_trace()
        self.image = self.folder / "image.raw"
        subprocess.run(["cp", "--sparse=always", str(source), str(self.image)], check=True)
        self.store = self.folder / "store"
        self.call("import", store=self.store)

    # What several parts use, started by the first.

    @cached_property
    def node(self) -> tuple[str, subprocess.Popen[str]]:
        """The socket of a store node that has the whole image, and its process."""
        return store_server(self, self.store, "all")

    def end_node(self) -> None:
        if "node" in self.__dict__:
            _end(self.node[1])
            del self.node

    @cached_property
    def memcached(self) -> tuple[str, subprocess.Popen[bytes]]:
        socket = self.folder / "memcached.sock"
        server = self.serve(["memcached", "-u", "root", "-s", str(socket), "-m", "4096", "-t", "2",
                             "-I", "2m", "-c", "2048", "-R", "200"], socket)
        return str(socket), server

    @cached_property
    def nbdkit(self) -> tuple[str, subprocess.Popen[bytes]]:
        """The image, served by nbdkit's file plugin."""
        socket = self.folder / "nbd.sock"
        server = self.serve(["nbdkit", "-f", "-r", "-t", "2", "-U", str(socket), "file",
                             str(self.image)], socket)
        return str(socket), server

    def ask(self, command: str, **options: Any) -> list[Row]:
        """Runs one subcommand of store_bench; returns the rows that it prints."""
        done = subprocess.run(self._argv(command, options), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{command} {options}: {done.stderr[-2000:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def call(self, command: str, **options: Any) -> list[Row]:
        """As ask(), and keeps the rows."""
        return [self.add(row) for row in self.ask(command, **options)]

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        print(describe(row), file=sys.stderr, flush=True)
        return row

    def _argv(self, command: str, options: dict[str, Any]) -> list[str]:
        argv = [str(_BENCH), command, "--image", str(self.image), "--trace", str(self.trace)]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                argv += [flag] if value else []
            elif isinstance(value, list):
                argv += [flag, *map(str, value)]
            else:
                argv += [flag, str(value)]
        return argv

    def start(self, command: str, **options: Any) -> subprocess.Popen[str]:
        """A subcommand that talks; ended with the run."""
        process = subprocess.Popen(self._argv(command, options), text=True, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        self._stack.callback(_end, process)
        return process

    def serve(self, argv: list[str], socket: Path) -> subprocess.Popen[bytes]:
        """A peer's server; its socket is there when this returns."""
        server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stack.callback(_end, server)
        deadline = time.monotonic() + 30
        while not socket.exists():
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"{argv[0]} does not serve {socket}")
            time.sleep(0.02)
        return server


def _end(process: subprocess.Popen[Any]) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def describe(row: Row) -> str:
    words = [f"{row['path']:<10} {row['case']:<18} clients {row['clients']:<5}"]
    for key in ("depth", "chunk_bytes", "nodes", "boots_per_s", "gb_s", "cpu_s", "server_cpu_s",
                "p50_us", "p99_us", "seconds", "share", "dedup", "total", "moved_share", "failed"):
        if key in row:
            value = row[key]
            words.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return "  ".join(words)


@contextmanager
def huge_pages(mib: int) -> Iterator[None]:
    """That many MiB in huge pages, which memory that is lent for good is best kept in."""
    setting = Path("/proc/sys/vm/nr_hugepages")
    before = setting.read_text()
    setting.write_text(str(int(before) + mib // 2))
    try:
        yield
    finally:
        setting.write_text(before)


def store_server(bench: Bench, store: Path, reads: str) -> tuple[str, subprocess.Popen[str]]:
    socket = bench.folder / f"store-{store.name}.sock"
    server = bench.start("serve", store=store, socket=socket, node_mib=_NODE_MIB)
    assert server.stdout is not None
    if server.stdout.readline().strip() != "ready":
        raise RuntimeError("the store node does not start")
    bench.call("fill", store=store, socket=socket, reads=reads)
    return str(socket), server


def _qcow2(bench: Bench, options: str) -> tuple[str, subprocess.Popen[bytes]]:
    """An overlay over NBD, fresh, itself served over NBD."""
    overlay, socket = bench.folder / "overlay.qcow2", bench.folder / "qcow2.sock"
    overlay.unlink(missing_ok=True)
    socket.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-F", "raw", "-b",
                    f"nbd+unix:///?socket={bench.nbdkit[0]}", str(overlay)], check=True)
    server = bench.serve(["qemu-nbd", "-f", "qcow2", "-t", "-k", str(socket), "-e", "600",
                          str(overlay)], socket)
    return str(socket), server


def storms(bench: Bench) -> None:
    """The replay of a boot by N clients at once on every path."""
    store = bench.store
    shm, store_node = bench.node
    cached, memcached = bench.memcached
    bench.call("fill", path="memcached", socket=cached)
    nbd, nbdkit = bench.nbdkit
    counts = (1, 10, 100) if bench.quick else (1, 10, 50, 100, 200, 300, 400, 500)
    for clients in [*counts, *[100] * (_ROUNDS - 1)]:
        # By pages: an extent holds what was read together, so that nothing else comes along.
        for _ in range(1 if clients == 100 else _STORMS):
            bench.call("read", path="shm", store=store, socket=shm, clients=clients, chunk=4096,
                       depth=STORM_DEPTH, server=[store_node.pid])
        if clients not in (1, 10, 100, 500):
            continue
        # Multigets of 16 to 64 keys are all the same to it within the noise.
        bench.call("read", path="memcached", socket=cached, clients=clients, depth=32,
                   server=[memcached.pid])
        bench.call("read", path="nbd file", socket=nbd, clients=clients, server=[nbdkit.pid])
        # The rate is the same for any number; each copy takes as much room as the image's data.
        if clients <= 10 or not bench.quick:
            bench.call("read", path="full copy", folder=bench.folder, clients=min(clients, 10),
                       at_once=2)
            bench.call("read", path="disk copy", folder=bench.disk_folder, clients=min(clients, 10),
                       at_once=2)
    overlay, qemu = _qcow2(bench, "cluster_size=64k")
    bench.call("read", path="qcow2", socket=overlay, clients=1, server=[qemu.pid, nbdkit.pid])
    _end(qemu)


def reads(bench: Bench) -> None:
    """The whole image, random places of it, and reads without a server."""
    store = bench.store
    shm, store_node = bench.node
    nbd, nbdkit = bench.nbdkit
    for clients in (1, 10) * _ROUNDS:
        # Two at a time, which the second cache holds.
        bench.call("read", path="shm", reads="all", store=store, socket=shm, clients=clients,
                   depth=2, server=[store_node.pid])
        bench.call("read", path="full copy", reads="all", folder=bench.folder, clients=clients,
                   at_once=2)
        bench.call("read", path="nbd file", reads="all", socket=nbd, clients=clients,
                   server=[nbdkit.pid])
    for chunk in (4096, 32768):
        for depth in (1, 32):
            count = 2000 if bench.quick else 20000
            bench.call("read", path="shm", reads="random", store=store, socket=shm, chunk=chunk,
                       depth=depth, count=count)
            bench.call("read", path="nbd file", reads="random", socket=nbd, chunk=chunk,
                       depth=depth, count=count, server=[nbdkit.pid])
    one_sided(bench, store, shm, store_node)


@contextmanager
def _disk(bench: Bench, name: str, host: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A fresh disk of ours on a host, served by the plugin as an agent has it served."""
    disk, socket = bench.folder / f"disk-{name}", bench.folder / f"disk-{name}.nbd"
    bench.call("overlay", store=bench.store, folder=disk)
    plugin = bench.serve(["nbdkit", "-f", "-t", "16", "-U", str(socket), str(_PLUGIN),
                          f"folder={disk}", f"mirrors={bench.folder}/mirrors-{host}",
                          f"store={bench.store}", f"control={bench.folder}/disk-{name}.control"],
                         socket)
    try:
        yield str(socket), plugin
    finally:
        _end(plugin)
        socket.unlink(missing_ok=True)
        shutil.rmtree(disk)


@contextmanager
def _overlay(bench: Bench, options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    socket, qemu = _qcow2(bench, options)
    try:
        yield socket, qemu
    finally:
        _end(qemu)


def disk_writes(bench: Bench) -> None:
    """A guest's writes to a fresh disk, and again to the same places: ours, and qcow2 overlays over
    NBD of both kinds."""
    kinds = (("disk", lambda: _disk(bench, "written", "writer")),
             ("qcow2 sub", lambda: _overlay(bench, "cluster_size=128k,extended_l2=on")),
             ("qcow2", lambda: _overlay(bench, "cluster_size=64k")))
    for _ in range(1 if bench.quick else _ROUNDS):
        for chunk, places in ((4096, "random"), (65536, "all")):
            for path, fresh in kinds:
                with fresh() as (socket, server):
                    for case in ("write", "rewrite"):
                        row = bench.ask("read", path=path, writes=True, reads=places,
                                        socket=socket, chunk=chunk, server=[server.pid],
                                        count=2000 if bench.quick else 20000)[0]
                        row["case"] = f"{case} {places}"
                        bench.add(row)


def debian_boot(bench: Bench) -> None:
    """A Debian guest boots from the store to its login, on a host that has read nothing of the
    image, and then another on the same host."""
    for host in ("cold", "warm"):
        with _disk(bench, host, "booter") as (socket, _):
            began = time.monotonic()
            boot_to_login(f"file=nbd+unix:///?socket={socket},format=raw,if=virtio,cache=none")
            seconds = time.monotonic() - began
            row = bench.ask("disk-status", socket=bench.folder / f"disk-{host}.control")[0]
        row |= {"case": f"Debian boot, {host}", "seconds": seconds,
                "share": row["bytes_fetched"] / row["size_bytes"]}
        bench.add(row)


def one_sided(bench: Bench, store: Path, socket: str, server: subprocess.Popen[str]) -> None:
    """Reads from a server that is stopped, and its processor ticks while it is not."""
    count = 10_000 if bench.quick else 100_000
    for stopped in (False, True):
        client = bench.start("one-sided", store=store, socket=socket, count=count)
        assert client.stdin is not None and client.stdout is not None
        if client.stdout.readline().strip() != "leased":
            raise RuntimeError("no lease")
        if stopped:
            server.send_signal(signal.SIGSTOP)
        before = _ticks(server.pid)
        client.stdin.write("go\n")
        client.stdin.flush()
        line = client.stdout.readline()
        row = json.loads(line) if line else {"path": "shm", "clients": 1, "failed": count}
        row["case"] = "server stopped" if stopped else "one-sided"
        row["server_cpu_s"] = (_ticks(server.pid) - before) / _TICKS
        server.send_signal(signal.SIGCONT)
        bench.add(row)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def chunk_sizes(bench: Bench) -> None:
    """The boot by extents of 4 to 128 KiB, and by memcached's chunks of 4 KiB to 1 MiB."""
    bench.end_node()  # Its huge pages serve the next.
    for pages in (1, 8, 32) if bench.quick else (1, 2, 4, 8, 16, 32):
        store = bench.folder / f"extents-{pages}"
        bench.call("import", store=store, extent_pages=pages)
        socket, server = store_server(bench, store, "boot")
        row = bench.call("read", path="shm", store=store, socket=socket, clients=10,
                         server=[server.pid], chunk=4096)[0]
        row["case"], row["chunk_bytes"] = "chunk size", pages * 4096
        _end(server)
        shutil.rmtree(store)
    cached = bench.memcached[0]
    for chunk in (4096, 131072, 1048576) if bench.quick else (4096, 16384, 65536, 131072, 524288,
                                                             1048576):
        bench.call("fill", path="memcached", socket=cached, chunk=chunk)
        row = bench.call("read", path="memcached", socket=cached, clients=10, chunk=chunk,
                         depth=32)[0]
        row["case"] = "chunk size"


def limited_nodes(bench: Bench) -> None:
    store = bench.store
    seconds = 3 if bench.quick else 9
    for nodes in (1, 8) if bench.quick else (1, 2, 4, 8):
        bench.call("limited", store=store, nodes=nodes, clients=16, bytes=40_000_000,
                   seconds=seconds)
    bench.call("limited", store=store, nodes=8, clients=16, bytes=40_000_000, seconds=seconds,
               changes=True)


def writes(bench: Bench) -> None:
    """150 commits at once and 10,000 clones, on a disk and in Ceph; three images' imports."""
    commits = bench.disk_folder / "commits"
    commits.mkdir()
    bench.call("commits", store=commits, clients=150)
    bench.call("clones", store=commits, count=1000 if bench.quick else 10_000)
    with CephCluster.start(4096) as ceph:
        place = {"origin": f"rados:{ceph.pool}", "ceph_conf": ceph.conf}
        pooled = bench.disk_folder / "pooled"
        pooled.mkdir()
        bench.call("commits", store=pooled, clients=150, **place)
        bench.call("clones", store=pooled, count=100 if bench.quick else 1000, **place)
    bench.call("imports", store=bench.folder / "three", files=images())


_PARTS = (storms, reads, disk_writes, debian_boot, chunk_sizes, limited_nodes, writes)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench store")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer clients and shorter runs")
    parser.add_argument("--only", choices=[part.__name__ for part in _PARTS], help="one part")
    options = parser.parse_args(argv)
    for step in (["cmake", "--preset", "release"],
                 ["cmake", "--build", "--preset", "release", "--target", "store_bench",
                  "nbdkit_plugin"]):
        subprocess.run(step, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        stack.enter_context(huge_pages(_NODE_MIB + 16))
        bench = Bench(stack, options.quick, options.json)
        for part in _PARTS:
            if options.only in (None, part.__name__):
                part(bench)
        kept = list(promises(bench.rows))
    if options.json:
        print(json.dumps({"rows": bench.rows, "promises": [
            {"name": name, "value": value, "bound": bound, "kept": good}
            for name, value, bound, good in kept]}))
    else:
        for name, value, bound, good in kept:
            print(f"{'kept  ' if good else 'MISSED'} {name}: {value:.4g} (bound {bound:g})")
    return 0
