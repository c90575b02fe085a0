"""The image store against memcached, NBD, qcow2 overlays and full copies, on a real boot's reads.

Everything runs on this machine in one go: the same image, trace, clients and clock. Peers run at the
settings that served them best of those tried here. What is compared with a peer takes turns with it
several times, and medians are compared. Rows are printed as they come; the last line of stdout is
the result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator

from samepage_lab.ceph import CephCluster
from store_images import boot_trace, images

_ROOT = Path(__file__).resolve().parents[2]
_BENCH = _ROOT / "build/release/bin/store_bench"
_PLUGIN = _ROOT / "build/release/bin/nbdkit-samepage-plugin.so"
_ROUNDS = 5
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

    def call(self, command: str, **options: Any) -> list[Row]:
        """Runs one subcommand of store_bench and keeps the rows that it prints."""
        done = subprocess.run(self._argv(command, options), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{command} {options}: {done.stderr[-2000:]}")
        return [self.add(json.loads(line)) for line in done.stdout.splitlines()]

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
    words = [f"{row['path']:<10} {row['case']:<14} clients {row['clients']:<5}"]
    for key in ("depth", "chunk_bytes", "nodes", "boots_per_s", "gb_s", "cpu_s", "server_cpu_s", "p50_us",
                "p99_us", "seconds", "dedup", "total", "moved_share", "failed"):
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


def _store_server(bench: Bench, store: Path, reads: str) -> tuple[str, subprocess.Popen[str]]:
    socket = bench.folder / f"store-{store.name}.sock"
    server = bench.start("serve", store=store, socket=socket, node_mib=_NODE_MIB)
    assert server.stdout is not None
    if server.stdout.readline().strip() != "ready":
        raise RuntimeError("the store node does not start")
    bench.call("fill", store=store, socket=socket, reads=reads)
    return str(socket), server


def _memcached(bench: Bench) -> tuple[str, subprocess.Popen[bytes]]:
    socket = bench.folder / "memcached.sock"
    server = bench.serve(["memcached", "-u", "root", "-s", str(socket), "-m", "4096", "-t", "2",
                          "-I", "2m", "-c", "2048", "-R", "200"], socket)
    return str(socket), server


def _nbdkit(bench: Bench) -> tuple[str, subprocess.Popen[bytes]]:
    socket = bench.folder / "nbd.sock"
    server = bench.serve(["nbdkit", "-f", "-r", "-t", "2", "-U", str(socket), "file",
                          str(bench.image)], socket)
    return str(socket), server


def _qcow2(bench: Bench, nbd: str, number: int,
           options: str) -> tuple[str, subprocess.Popen[bytes]]:
    overlay = bench.folder / f"overlay-{number}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-F", "raw", "-b",
                    f"nbd+unix:///?socket={nbd}", str(overlay)], check=True)
    socket = bench.folder / f"qcow2-{number}.sock"
    server = bench.serve(["qemu-nbd", "-f", "qcow2", "-t", "-k", str(socket), "-e", "600",
                          str(overlay)], socket)
    return str(socket), server


def storms(bench: Bench, store: Path) -> None:
    """The replay of a boot by N clients at once, and plain reads, on every path."""
    shm, store_server = _store_server(bench, store, "all")
    cached, memcached = _memcached(bench)
    bench.call("fill", path="memcached", socket=cached)
    nbd, nbdkit = _nbdkit(bench)
    counts = (1, 10, 100) if bench.quick else (1, 10, 50, 100, 200, 300, 400, 500)
    for clients in [*counts, *[100] * (_ROUNDS - 1)]:
        # By pages: an extent holds what was read together, so that nothing else comes along.
        bench.call("read", path="shm", store=store, socket=shm, clients=clients, chunk=4096,
                   depth=2, server=[store_server.pid])
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
    overlay, qemu = _qcow2(bench, nbd, 0, "cluster_size=64k")
    bench.call("read", path="qcow2", socket=overlay, clients=1, server=[qemu.pid, nbdkit.pid])
    _end(qemu)
    for clients in (1, 10) * 3:
        bench.call("read", path="shm", reads="all", store=store, socket=shm, clients=clients,
                   server=[store_server.pid])
        bench.call("read", path="full copy", folder=bench.folder, clients=clients, at_once=2)
        bench.call("read", path="nbd file", reads="all", socket=nbd, clients=clients,
                   server=[nbdkit.pid])
    for chunk in (4096, 32768):
        for depth in (1, 32):
            count = 2000 if bench.quick else 20000
            bench.call("read", path="shm", reads="random", store=store, socket=shm, chunk=chunk,
                       depth=depth, count=count)
            bench.call("read", path="nbd file", reads="random", socket=nbd, chunk=chunk,
                       depth=depth, count=count, server=[nbdkit.pid])
    one_sided(bench, store, shm, store_server)
    disk_writes(bench, store, nbd)


def disk_writes(bench: Bench, store: Path, nbd: str) -> None:
    """A guest's writes to a fresh disk: ours, and qcow2 overlays over NBD of both kinds."""
    for number in range(1, 4):
        disk, socket = bench.folder / f"disk-{number}", bench.folder / f"disk-{number}.sock"
        bench.call("overlay", store=store, folder=disk)
        plugin = bench.serve(["nbdkit", "-f", "-t", "16", "-U", str(socket), str(_PLUGIN),
                              f"folder={disk}", f"mirrors={bench.folder}/mirrors-{number}",
                              f"store={store}", "traces=false"], socket)
        subclusters, first = _qcow2(bench, nbd, 2 * number, "cluster_size=128k,extended_l2=on")
        clusters, second = _qcow2(bench, nbd, 2 * number + 1, "cluster_size=64k")
        for chunk, reads in ((4096, "random"), (65536, "all")):
            for path, where, server in (("disk", str(socket), plugin),
                                        ("qcow2 sub", subclusters, first),
                                        ("qcow2", clusters, second)):
                bench.call("read", path=path, writes=True, reads=reads, socket=where, chunk=chunk,
                           count=2000 if bench.quick else 20000, server=[server.pid])
        for server in (plugin, first, second):
            _end(server)
        shutil.rmtree(disk)
        shutil.rmtree(bench.folder / f"mirrors-{number}")
        for overlay in bench.folder.glob("overlay-*.qcow2"):
            overlay.unlink()


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
    for pages in (1, 8, 32) if bench.quick else (1, 2, 4, 8, 16, 32):
        store = bench.folder / f"extents-{pages}"
        bench.call("import", store=store, extent_pages=pages)
        socket, server = _store_server(bench, store, "boot")
        row = bench.call("read", path="shm", store=store, socket=socket, clients=10,
                         server=[server.pid], chunk=4096)[0]
        row["case"], row["chunk_bytes"] = "chunk size", pages * 4096
        _end(server)
        shutil.rmtree(store)
    cached = str(bench.folder / "memcached.sock")
    for chunk in (4096, 131072, 1048576) if bench.quick else (4096, 16384, 65536, 131072, 524288,
                                                             1048576):
        bench.call("fill", path="memcached", socket=cached, chunk=chunk)
        row = bench.call("read", path="memcached", socket=cached, clients=10, chunk=chunk,
                         depth=32)[0]
        row["case"] = "chunk size"


def limited_nodes(bench: Bench, store: Path) -> None:
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


def promises(rows: list[Row]) -> Iterator[tuple[str, float, float, bool]]:
    """What issue and README promise: name, measured, bound, kept."""
    def rate(path: str, clients: int, case: str = "boot") -> float:
        found = [row["boots_per_s"] for row in rows
                 if (row["path"], row["case"], row["clients"]) == (path, case, clients)]
        return float(statistics.median(found)) if found else 0.0

    def at_least(name: str, value: float, bound: float) -> tuple[str, float, float, bool]:
        return name, value, bound, value >= bound

    def at_most(name: str, value: float, bound: float) -> tuple[str, float, float, bool]:
        return name, value, bound, value <= bound

    shm = rate("shm", 100)
    for peer, clients, bound in (("memcached", 100, 3), ("nbd file", 100, 8),
                                 ("full copy", 10, 300), ("disk copy", 10, 300)):
        yield at_least(f"storm of 100 over {peer}", shm / max(rate(peer, clients), 1e-9), bound)
    storm = [row for row in rows if row["path"] == "shm" and row["case"] == "boot"]
    yield at_most("wrong or failed reads", sum(row["failed"] for row in rows if "failed" in row), 0)
    yield at_least("time linear in clients, R2",
                   r_squared([(row["clients"], row["seconds"]) for row in storm]), 0.99)
    by_case = {row["case"]: row for row in rows}
    yield at_most("server CPU s of one-sided reads", by_case["one-sided"]["server_cpu_s"], 0)
    yield at_most("failed reads, server stopped", by_case["server stopped"].get("failed", 0), 0)
    limited = {row["nodes"]: row["gb_s"] for row in rows if row["case"] == "nodes"}
    yield at_least("8 limited nodes over 1", limited[8] / limited[1], 7.5)
    change = by_case["join and leave"]
    yield at_most("moved by a change, x n", change["moved_share"] * change["nodes"], 1.1)
    for row in rows:
        if row["case"] == "commit":
            yield at_most(f"150 commits on {row['path']}, s", row["seconds"],
                          1.0 if row["path"] == "dir:" else 4.0)
        if row["case"] == "clone" and row["path"] == "dir:":
            yield at_most("clone p99, us", row["p99_us"], 2000)
    for clients, bound in ((1, 1), (10, 5)):
        yield at_least(f"full read over full copy, {clients}",
                       rate("shm", clients, "all") / max(rate("full copy", clients), 1e-9), bound)
    for case in ("write random", "write all"):
        best = max(rate("qcow2", 1, case), rate("qcow2 sub", 1, case), 1e-9)
        yield at_least(f"{case} over qcow2 over NBD", rate("disk", 1, case) / best, 2)
    yield at_least("dedup without zeros", by_case["import"]["dedup"], 2.5)


def r_squared(points: list[tuple[float, float]]) -> float:
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    sxx = sum((x - mean_x) ** 2 for x, _ in points)
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    syy = sum((y - mean_y) ** 2 for _, y in points)
    return sxy * sxy / (sxx * syy) if sxx * syy > 0 else 0.0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench store")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer clients and shorter runs")
    parser.add_argument("--only", help="one part: storms, chunk_sizes, limited_nodes or writes")
    options = parser.parse_args(argv)
    for step in (["cmake", "--preset", "release"],
                 ["cmake", "--build", "--preset", "release", "--target", "store_bench",
                  "nbdkit_plugin"]):
        subprocess.run(step, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        stack.enter_context(huge_pages(_NODE_MIB + 16))
        bench = Bench(stack, options.quick, options.json)
        store = bench.folder / "store"
        bench.call("import", store=store)
        parts = {"storms": lambda: storms(bench, store), "chunk_sizes": lambda: chunk_sizes(bench),
                 "limited_nodes": lambda: limited_nodes(bench, store),
                 "writes": lambda: writes(bench)}
        for name, part in parts.items():
            if options.only in (None, name):
                part()
        kept = list(promises(bench.rows)) if options.only is None else []
    if options.json:
        print(json.dumps({"rows": bench.rows, "promises": [
            {"name": name, "value": value, "bound": bound, "kept": good}
            for name, value, bound, good in kept]}))
    else:
        for name, value, bound, good in kept:
            print(f"{'kept  ' if good else 'MISSED'} {name}: {value:.4g} (bound {bound:g})")
    return 0
