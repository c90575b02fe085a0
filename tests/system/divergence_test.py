#!/usr/bin/python3
"""`samepage divergence` on real guests: what it says of boots that differ by KASLR and of boots that do
not, and that it leaves nothing behind, however it ends. divergence_debian_test.py has the figures of a
whole system.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "lab"))
sys.dont_write_bytecode = True

from samepage_lab import require_lab  # noqa: E402
from samepage_lab.guest_spec import GuestSpec  # noqa: E402
from samepage_lab.initramfs import initramfs, kernel  # noqa: E402

PROGRAM = Path(os.environ.get("SAMEPAGE_BIN", "build/dev/bin")).resolve() / "samepage"
READY = "ready role="
READY_S_MAX = 240
NAMED_MIN = 0.9


def command_line(spec: GuestSpec) -> str:
    """As in the lab, but with KASLR unless the command itself takes it away."""
    return " ".join(word for word in spec.command_line("").split() if word != "nokaslr")


class Divergence(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        require_lab()
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory(dir="/var/tmp")))

    def arguments(self, *more: str) -> list[str]:
        spec = GuestSpec(name="boot", image_mib=8, memory_mib=160)
        return [str(PROGRAM), "--json", "divergence", "--kernel", str(kernel()), "--initrd",
                str(initramfs()), "--append", command_line(spec), "--memory", "160", "--accel", "tcg",
                "--time-max", str(READY_S_MAX), "--scratch", str(self.folder), *more]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.arguments(*more), stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def qemus_of(self, program: subprocess.Popen[str]) -> list[int]:
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        return [int(child) for child in children]

    def booting(self) -> tuple[subprocess.Popen[str], int]:
        """The command, waiting for what never comes, and its VM."""
        program = self.start("--ready-when", "never said")
        deadline = time.monotonic() + 60
        while not (qemus := self.qemus_of(program)):
            self.assertLess(time.monotonic(), deadline, "no VM was started")
            time.sleep(0.02)
        return program, qemus[0]

    def assert_gone(self, pid: int) -> None:
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}/status").exists():
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                break
            self.assertLess(time.monotonic(), deadline, f"VM {pid} was left behind")
            time.sleep(0.02)

    def test_kaslr_is_what_prevents_most_sharing_and_its_pages_are_named(self) -> None:
        plot = self.folder / "plot.svg"
        done = subprocess.run(
            self.arguments("--boots", "2", "--ready-when", READY, "--with", "nokaslr", "--executed",
                           "50000", "--plot", str(plot)),
            stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=500)
        self.assertEqual(done.returncode, 0, done.stderr)
        moved, fixed = json.loads(done.stdout)["sets"]
        for each in (moved, fixed):
            last = each["moments"][-1]
            print(f"{each['setting']}: same {last['same_address_mib']:.1f}, elsewhere "
                  f"{last['elsewhere_mib']:.1f}, different {last['different_mib']:.1f} MiB, named "
                  f"{last['named_share']:.3f}, in step "
                  f"{each['execution']['in_step'] / each['execution']['blocks']:.3f}")
            self.assertGreaterEqual(last["named_share"], NAMED_MIN)
            kinds = sum(kind["different_mib"] for kind in last["kinds"])
            self.assertAlmostEqual(kinds, last["different_mib"], places=6)
            self.assertAlmostEqual(sum(last["causes"].values()), last["different_mib"], places=6)
            self.assertEqual(each["execution"]["blocks"], 100_000)
            self.assertGreater(each["execution"]["in_any_order"], 50_000)
        self.assertGreater(fixed["gain_mib"], 1)
        # A kernel at the same place still patches some of its code to what it meets.
        self.assertGreater(self.different(moved, "kernel text"), 1)
        self.assertLess(self.different(fixed, "kernel text"), 0.1)
        self.assertTrue(xml.etree.ElementTree.parse(plot).getroot().tag.endswith("svg"))
        plot.unlink()
        self.assertEqual(list(self.folder.iterdir()), [])

    def different(self, found: dict[str, Any], kind: str) -> float:
        kinds = found["moments"][-1]["kinds"]
        return sum(each["different_mib"] for each in kinds if each["kind"] == kind)

    def test_ctrl_c_ends_the_vm_and_leaves_nothing(self) -> None:
        program, qemu = self.booting()
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=60)
        self.assertEqual(program.returncode, 1)
        self.assertIn("interrupted", said)
        self.assert_gone(qemu)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_killed_command_takes_its_vm_along(self) -> None:
        program, qemu = self.booting()
        program.kill()
        program.communicate(timeout=60)
        self.assert_gone(qemu)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_guest_that_ends_is_told_with_its_last_words(self) -> None:
        # Without an initrd the kernel panics, and panic=-1 restarts the VM, which ends it.
        words = self.arguments("--ready-when", READY, "--boots", "2")
        at = words.index("--initrd")
        done = subprocess.run(words[:at] + words[at + 2:], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=200)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the VM has ended", done.stderr)

    def test_a_dry_run_boots_nothing(self) -> None:
        done = subprocess.run(self.arguments("--dry-run", "--with", "nokaslr,fixed-seeds"),
                              stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertIn("12 boots", done.stderr)
        self.assertIn("none, nokaslr, fixed-seeds, all", done.stderr)


if __name__ == "__main__":
    unittest.main()
