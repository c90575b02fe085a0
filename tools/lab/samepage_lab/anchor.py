#!/usr/bin/python3
"""The anchor: PID 1 of a lab node, the one process that keeps the node's namespaces alive.

Run as a program, it makes new network, mount, PID, UTS and IPC namespaces, forks the anchor into
them, prints the anchor's pid (as the machine sees it) and ends. The anchor then waits on stdin for
one line of JSON {"hostname", "binds": [[source, target], ...]}; end of file before that line means
that its starter died, and it ends too, so a half-made node never stays behind unrecorded. It
mounts, prints "ready" or "failed ...", and from then on only reaps.

Invariant: everything in the node is a descendant in its PID namespace, so killing the anchor ends
all of it, and all mounts and links of the node go with its namespaces. It stands alone (standard
library only, nothing imported from the package) to start fast and stay small.
"""

import ctypes
import json
import os
import signal
import socket
import sys

_CLONE_NEW = 0x40000000 | 0x00020000 | 0x20000000 | 0x04000000 | 0x08000000
#            net          mount        pid          uts          ipc
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(
    source: str, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    kind_bytes = kind.encode() if kind else None
    data = options.encode() if options else None
    _check(
        _libc.mount(source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), data),
        f"mount {source} on {target}",
    )


def _furnish(spec: dict) -> None:
    """Makes the node's own view of the machine: /proc, /sys, the bind mounts, the host name.

    /sys is mounted anew so that /sys/class/net shows the node's links. That hides the machine's
    cgroups, which is wanted: libvirt then leaves none behind. /dev/shm, where guests' RAM files
    and templates lie, is the node's own and goes with it.
    """
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", 0)
    _mount("sysfs", "/sys", "sysfs", 0)
    _mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777")
    for source, target in spec["binds"]:
        _mount(source, target, None, _MS_BIND)
    socket.sethostname(spec["hostname"])


def _reap_for_ever() -> None:
    awaited = {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            pass
        signal.sigwait(awaited)


def _anchor() -> None:
    os.setsid()
    os.chdir("/")
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        os._exit(1)
    try:
        spec = json.loads(line)
        _furnish(spec)
        with open("/proc/self/comm", "w") as comm:
            comm.write("samepage-anchor")
    except (OSError, ValueError, KeyError) as error:
        print(f"failed {error}", flush=True)
        os._exit(1)
    print("ready", flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 64)
    _reap_for_ever()


def main() -> None:
    try:
        _check(_libc.unshare(_CLONE_NEW), "unshare")
    except OSError as error:
        print(f"failed {error}", flush=True)
        sys.exit(1)
    pid = os.fork()
    if pid == 0:
        _anchor()
    print(pid, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
