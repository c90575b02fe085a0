#!/usr/bin/python3
"""`samepage divergence` of the lab's Debian image, with KASLR and without, with fixed seeds and
with a fixed clock, twice: what boots could share, and what differs, is that of the run before to
within 5 %, and at least 90 % of the differing pages have names. How much of it lies at the same
address is shown and not compared: where pages lie is chance, with KASLR and without.

Not part of tools/test: thirty boots of Debian take some twenty minutes. SAMEPAGE_BOOTS sets how
many boots are compared under each setting, SAMEPAGE_SETTINGS which settings are tried beside none;
all of them together is a further one. The command itself reads the kernel out of the image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "lab"))
sys.dont_write_bytecode = True

from samepage_lab import GuestSpec, debian_image, require_lab  # noqa: E402

PROGRAM = Path(os.environ.get("SAMEPAGE_BIN", "build/dev/bin")).resolve() / "samepage"
BOOTS = os.environ.get("SAMEPAGE_BOOTS", "3")
SETTINGS = os.environ.get("SAMEPAGE_SETTINGS", "nokaslr,fixed-seeds,fixed-clock")
MEMORY_MIB = 512
NAMED_MIN = 0.9
APART_MAX = 0.05
FIGURES = ("shareable_mib", "different_mib")


class DebianDivergence(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        require_lab()
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory(dir="/var/tmp")))
        cls.store = folder / "store"
        subprocess.run([str(PROGRAM), "image", "import", str(debian_image("a").disk), "--name",
                        "debian", "--store", str(cls.store)], check=True, timeout=600,
                       stdin=subprocess.DEVNULL)

    def run_once(self) -> list[dict[str, Any]]:
        """What it says of each setting at the moment when the boots are ready."""
        spec = GuestSpec(name="boot", kind="debian", memory_mib=MEMORY_MIB)
        done = subprocess.run(
            [str(PROGRAM), "--json", "divergence", "debian", "--store", str(self.store),
             "--append", spec.command_line(""), "--memory", str(MEMORY_MIB), "--accel", "tcg",
             "--boots", BOOTS, "--ready-when", "ready role=", "--with", SETTINGS],
            stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=3600)
        self.assertEqual(done.returncode, 0, done.stderr)
        sets = json.loads(done.stdout)["sets"]
        return [{**each["moments"][-1], **{key: each[key] for key in
                                           ("setting", "shareable_mib", "gain_mib")}}
                for each in sets]

    def test_figures_are_the_same_twice_and_pages_have_names(self) -> None:
        runs = [self.run_once() for _ in range(2)]
        for found in (found for pair in zip(*runs) for found in pair):
            print(f"{found['setting']}: " +
                  ", ".join(f"{name} {found[name]:.1f}"
                            for name in (*FIGURES, "same_address_mib", "elsewhere_mib")) +
                  f", gain {found['gain_mib']:.1f}, named {found['named_share']:.3f}")
        for first, second in zip(*runs):
            with self.subTest(first["setting"]):
                self.assertGreaterEqual(min(first["named_share"], second["named_share"]), NAMED_MIN)
                for name in FIGURES:
                    self.assertLessEqual(abs(first[name] - second[name]), APART_MAX * first[name],
                                         name)


if __name__ == "__main__":
    unittest.main()
