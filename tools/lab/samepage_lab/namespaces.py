"""A node: the namespaces of one lab host (or of the lab's control side) and commands inside them.

A node is held by its anchor (see anchor.py) and entered with nsenter by the anchor's pid; nothing
is named in /run/netns or anywhere else outside. Invariant: the record of the anchor is on disk
before the anchor does anything, so whatever kills the driver, `Node.end` can later find it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Sequence

from .errors import LabError, LabUnavailable
from .processes import ProcessRecord

_ANCHOR = Path(__file__).with_name("anchor.py")
PYTHON = "/usr/bin/python3"


class NodeProcess(subprocess.Popen):
    """A command in a node. Signals go to the command itself, not to the nsenter that waits for it.

    `wait()` and `returncode` are the command's own. The command lives on when the driver dies,
    until it ends or the node does.
    """

    @property
    def command_pid(self) -> int:
        """The command's pid as the machine sees it; 0 before it started and after it ended."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return int(children[0]) if children else 0

    def wait_though_stopped(self, timeout_s: float) -> None:
        """As wait(), also when the command was stopped before: nsenter stops with it."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None:
            super().send_signal(signal.SIGCONT)
            try:
                self.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise

    def send_signal(self, sig: int) -> None:
        deadline = time.monotonic() + 2.0
        while self.poll() is None:
            pid = self.command_pid
            if pid:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
                return
            if time.monotonic() > deadline:
                super().send_signal(sig)
                return
            time.sleep(0.005)


class Node:
    """One node of a lab. `folder` is its own folder in the lab's state folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._record: ProcessRecord | None = ProcessRecord.load(self._record_path)

    @property
    def _record_path(self) -> Path:
        return self.folder / "anchor.json"

    @property
    def pid(self) -> int:
        """The anchor's pid; LabError when the node is not running."""
        if self._record is None or not self._record.alive():
            raise LabError(f"{self.name} is not running: start the lab with `lab up`")
        return self._record.pid

    def alive(self) -> bool:
        return self._record is not None and self._record.alive()

    def start_anchor(self, binds: Sequence[tuple[Path, Path]]) -> None:
        """Makes the node's namespaces with `binds` (source, mount point) mounted inside.

        A mount point that the machine lacks is made there, and stays empty outside the node.
        """
        for source, target in binds:
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
        launcher = subprocess.Popen(
            [PYTHON, "-E", "-S", str(_ANCHOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with launcher:
            answer = launcher.stdout.readline().strip()
            if not answer.isdigit():
                raise LabUnavailable(f"cannot make namespaces for {self.name}: {answer}")
            self._record = ProcessRecord.of(int(answer))
            self._record.save(self._record_path)
            spec = {"hostname": self.name, "binds": [[str(s), str(t)] for s, t in binds]}
            launcher.stdin.write(json.dumps(spec) + "\n")
            launcher.stdin.flush()
            answer = launcher.stdout.readline().strip()
        if answer != "ready":
            raise LabUnavailable(f"cannot furnish {self.name}: {answer or 'its anchor died'}")

    def end(self) -> None:
        """Ends every process in the node; its mounts and links go with it. Safe to repeat."""
        if self._record is not None and not self._record.kill():
            raise LabError(f"{self.name}: anchor {self._record.pid} did not end; try again")

    def path(self, inside: str | Path) -> Path:
        """The path by which the machine reaches a file of the node, short enough for sockets."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def command(self, argv: Sequence[str], cwd: str = "/") -> list[str]:
        """The machine's command line that runs argv in the node."""
        entered = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", f"--wdns={cwd}"]
        return [*entered, "--", *map(str, argv)]

    def popen(self, argv: Sequence[str], cwd: str = "/", **options: Any) -> NodeProcess:
        """Starts a command in the node; options are those of subprocess.Popen."""
        return NodeProcess(self.command(argv, cwd), **options)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = 60.0,
        stdin: str | None = None,
        cwd: str = "/",
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the node to its end and returns its output as text.

        LabError with what it printed when it fails (unless check=False) or takes over timeout_s.
        """
        process = self.popen(
            argv,
            cwd,
            env=env,
            text=True,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                out, err = process.communicate(stdin, timeout=timeout_s)
            except BaseException as error:
                process.send_signal(signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    took = f"took over {timeout_s:g} s"
                    raise LabError(f"{self.name}: `{' '.join(map(str, argv))}` {took}") from None
                raise
        if check and process.returncode != 0:
            raise LabError(
                f"{self.name}: `{' '.join(map(str, argv))}` ended with {process.returncode}: "
                f"{(err or out).strip()}"
            )
        return subprocess.CompletedProcess(argv, process.returncode, out, err)
