"""Samepage itself, running in a lab: the placer on the control node, an agent on every host.

The programs are the ones that were built; keys are made and enrolled as the README tells an
administrator. Invariants: each program's log is a file in the lab's folder, and every program ends
with its node, so `Lab.down` leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from .errors import LabError
from .hosts import Host
from .lab import Lab
from .namespaces import NodeProcess
from .network import CONTROL_ADDRESS

_REPOSITORY = Path(__file__).resolve().parents[3]
_BUS = f"tcp://{CONTROL_ADDRESS}:7420"
_POLL_S = 0.05


def built_programs() -> Path:
    """The folder of the built programs: $SAMEPAGE_BIN, or the newest build's."""
    named = os.environ.get("SAMEPAGE_BIN")
    if named:
        return Path(named)
    built = sorted(
        _REPOSITORY.glob("build/*/bin/samepaged"), key=lambda path: path.stat().st_mtime
    )
    if not built:
        raise LabError("Samepage is not built: cmake --preset release && "
                       "cmake --build --preset release")
    return built[-1].parent


class CliError(LabError):
    """A `samepage` command that failed: its exit code and what it said on stderr."""

    def __init__(self, argv: list[str], code: int, said: str) -> None:
        super().__init__(f"`samepage {' '.join(argv)}` ended with {code}: {said.strip()}")
        self.code = code
        self.said = said.strip()


class Fleet:
    """Samepage on all nodes of a lab that is up.

    `start()` brings up everything; the parts can be killed and started again one by one.
    Options: host_memory_mib is the memory that each agent offers to guests (0: all there is);
    report_interval_s is how often agents scan by themselves; checkpoint_mib what they keep of
    guests that left; fence_command is the placer's, for hosts that are down for a second; ksm is
    what agents do with the kernel's KSM.
    """

    def __init__(self, lab: Lab, host_memory_mib: int = 0, report_interval_s: int = 3600,
                 checkpoint_mib: int = 4096, fence_command: str = "",
                 ksm: str = "observe") -> None:
        self.lab = lab
        self.programs = built_programs()
        self.socket = lab.folder / "placer.sock"
        self._state = lab.folder / "placer"
        # One image store for all hosts, as if it were on shared storage.
        self.store = lab.folder / "store"
        self._host_memory_mib = host_memory_mib
        self._report_interval_s = report_interval_s
        self._checkpoint_mib = checkpoint_mib
        self._fence_command = fence_command
        self._ksm = ksm
        self._running: dict[str, NodeProcess] = {}

    def start(self) -> "Fleet":
        self._state.mkdir(exist_ok=True)
        self.start_placer()
        for host in self.lab.hosts:
            self.enroll(host)
            self.start_agent(host)
        self.wait_hosts()
        return self

    def start_placer(self) -> None:
        """Starts the placer and waits until its API answers."""
        self._launch("placer", self.lab.control, [
            "samepage-placer", "--bind", _BUS, "--socket", str(self.socket),
            "--state-dir", str(self._state), "--report-interval-s", str(self._report_interval_s),
            *(["--fence-command", self._fence_command, "--fence-after-s", "1"]
              if self._fence_command else []),
        ])
        self._wait("the placer's API", lambda: self.try_cli("hosts") is not None, "placer")

    def enroll(self, host: Host) -> None:
        """Makes a host's key, tells it the placer's, and enrols it."""
        public_key = host.run([self._program("samepaged"), "--init"]).stdout.split()[-1]
        placer_key = (self._state / "placer.pub").read_text()
        host.path("/etc/samepage/placer.pub").write_text(placer_key)
        self.cli("hosts", "enroll", host.name, public_key)

    def start_agent(self, host: Host) -> None:
        self._launch(host.name, host, [
            "samepaged", "--placer", _BUS, "--data-address", host.address,
            "--memory-mib", str(self._host_memory_mib), "--store-dir", str(self.store),
            "--checkpoint-mib", str(self._checkpoint_mib), "--ksm", self._ksm,
            # Lab hosts share the machine's processors, and so its pressure.
            "--pressure", "none",
        ])

    def wait_hosts(self, timeout_s: float = 30.0) -> None:
        """Waits until every host is up and has reported."""
        def all_up() -> bool:
            hosts = self.cli("hosts")["hosts"]
            return len(hosts) == len(self.lab.hosts) and all(
                host["state"] == "up" and host["report_age_s"] is not None for host in hosts
            )
        self._wait("all hosts", all_up, "placer", timeout_s)

    def kill(self, name: str, sig: int = signal.SIGKILL) -> None:
        """Ends "placer" or the agent of a host, and waits for its end."""
        process = self._running.pop(name)
        process.send_signal(sig)
        process.wait_though_stopped(timeout_s=20)

    def process(self, name: str) -> NodeProcess:
        """The running "placer", or the agent of a host."""
        return self._running[name]

    def log(self, name: str) -> str:
        return self._log_path(name).read_text(errors="replace")

    def cli(self, *argv: str, timeout_s: float = 300.0) -> Any:
        """Runs `samepage --json ARGV` and returns the object that it printed.

        CliError when it fails.
        """
        done = self.run_cli(*argv, json_output=True, timeout_s=timeout_s)
        if done.returncode != 0:
            raise CliError(list(argv), done.returncode, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def run_cli(
        self, *argv: str, json_output: bool = False, timeout_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs `samepage ARGV` to its end, whatever its exit code."""
        options = ["--socket", str(self.socket), *(["--json"] if json_output else [])]
        return subprocess.run(
            [self._program("samepage"), *options, *argv],
            capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL,
        )

    def popen_cli(self, *argv: str) -> subprocess.Popen[str]:
        """Starts `samepage --json ARGV`; the caller waits for it."""
        return subprocess.Popen(
            [self._program("samepage"), "--socket", str(self.socket), "--json", *argv],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )

    def try_cli(self, *argv: str) -> Any:
        """As cli(), but None when the command fails."""
        try:
            return self.cli(*argv)
        except CliError:
            return None

    def last_progress(self, vm: str) -> dict[str, Any] | None:
        """How far the move of a VM is that goes on, as its newest progress event says."""
        done = self.run_cli("events", json_output=True)
        told = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        for event in reversed([event for event in told if event.get("vm") == vm]):
            if "progress" in event:
                return event["progress"]
            if event["kind"].startswith("move_"):
                return None
        return None

    def _program(self, name: str) -> str:
        return str(self.programs / name)

    def _log_path(self, name: str) -> Path:
        return self.lab.folder / f"{name}.log"

    def _launch(self, name: str, node: Any, argv: list[str]) -> None:
        with self._log_path(name).open("a") as log:
            self._running[name] = node.popen(
                [self._program(argv[0]), *argv[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def _wait(self, what: str, done: Any, name: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            process = self._running.get(name)
            if process is not None and process.poll() is not None:
                raise LabError(f"{name} ended with {process.returncode}: {self.log(name)[-2000:]}")
            if time.monotonic() > deadline:
                raise LabError(f"{what} did not come up within {timeout_s:g} s: "
                               f"{self.log(name)[-2000:]}")
            time.sleep(_POLL_S)
