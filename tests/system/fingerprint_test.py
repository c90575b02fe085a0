#!/usr/bin/python3
"""Fingerprints of real guests: tracked, told as deltas, compared with KSM, asked what if.

Everything is real: libvirtd, QEMU started with the preload library, the kernel's notes of writes
and KSM. Needs root; skips with the reason elsewhere (with CI=true that fails).
"""

from __future__ import annotations

import tempfile
import threading
import unittest
from pathlib import Path

from fleet_case import FleetCase
from samepage_lab import Ksm

_DIMM_XML = """\
<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"""


class Fingerprints(FleetCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        preload = str(cls.fleet.programs / "libsamepage-preload.so")
        cls.web1 = cls.boot("host1", "web1", preload=preload)
        cls.web2 = cls.boot("host1", "web2", preload=preload)
        cls.plain = cls.boot("host1", "plain", image="b", memory="memfd")
        cls.ready(cls.web1, cls.web2, cls.plain)

    def vms(self) -> dict[str, dict]:
        return {vm["name"]: vm for vm in self.fleet.cli("vms")["vms"]}

    def test_1_changes_are_tracked_and_every_figure_has_an_age(self) -> None:
        found = self.vms()
        doctor = self.fleet.run_cli("doctor", json_output=True).stdout
        if '"written-pages' in doctor:
            self.assertEqual(found["web1"]["tracker"], "written-pages")
        self.assertIn(found["plain"]["tracker"], ("rotation", "soft-dirty"))
        self.assertEqual([found[vm]["mergeable"] for vm in ("web1", "plain")], [True, False])
        self.fleet.cli("scan")
        for vm in self.vms().values():
            self.assertLess(vm["fingerprint_age_s"], 60)
        for host in self.fleet.cli("sharing")["hosts"]:
            if host["vms"]:
                self.assertLess(host["oldest_fingerprint_age_s"], 60)

    def test_2_what_if_and_the_heat_map_answer_from_fingerprints(self) -> None:
        answer = self.fleet.cli("vms", "--what-if", "web2=host2")
        self.assertLess(answer["gain_mib"], -20)  # The image, and much of the kernel.
        self.assertEqual([host["name"] for host in answer["hosts"]], ["host1", "host2"])
        wrong = self.fleet.run_cli("vms", "--what-if", "web2=nowhere")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("nowhere", wrong.stderr)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "sharing.svg")
            self.fleet.cli("sharing", "--plot", str(file))
            self.assertIn("web1 and web2", file.read_text())

    def test_3_ksm_does_what_was_predicted_and_it_is_kept(self) -> None:
        with Ksm(pages_to_scan=20_000, sleep_millisecs=10):
            verified = self.fleet.cli("sharing", "--verify", "--timeout", "120")
        host = verified["hosts"][0]
        self.assertTrue(host["ksm_runs"])
        self.assertAlmostEqual(host["predicted_shared_mib"] / host["achieved_shared_mib"], 1,
                               delta=0.1)
        points = self.fleet.cli("sharing", "--history")["points"]
        self.assertEqual(points[0]["host"], "host1")
        self.assertGreater(points[0]["ksm_full_scans"], points[-1]["ksm_full_scans"])

    def test_4_a_guest_that_moves_is_let_go_and_tracked_where_it_arrives(self) -> None:
        before = self.vms()["web1"]
        self.fleet.cli("migrate", "web1", "--to", "host2")
        self.fleet.cli("scan")
        after = self.vms()["web1"]
        self.assertEqual(after["host"], "host2")
        self.assertEqual(after["tracker"], before["tracker"])
        self.assertLess(after["fingerprint_age_s"], 60)
        self.assertIn("guest watched vm=web1", self.fleet.log("host2"))

    def test_5_guests_that_change_while_they_are_scanned_are_no_harm(self) -> None:
        grows = self.boot("host1", "grows", memory_max_mib=512)
        ends = self.boot("host1", "ends")
        self.ready(grows, ends)
        over = threading.Event()

        def scan_on_and_on() -> None:
            while not over.is_set():
                self.fleet.run_cli("scan")

        scanning = threading.Thread(target=scan_on_and_on)
        scanning.start()
        try:
            self.fleet.cli("migrate", "web2", "--to", "host2")
            ends.stop()
            self.lab.host("host1").domain("grows").attachDevice(_DIMM_XML)
        finally:
            over.set()
            scanning.join()

        self.fleet.cli("scan")
        before = self.vms()
        self.fleet.cli("scan")
        after = self.vms()
        self.assertNotIn("ends", after)
        self.assertEqual(after["web2"]["host"], "host2")
        self.assertLess(after["web2"]["fingerprint_age_s"], 60)
        # What is known of its RAM is of before, and says so.
        self.assertEqual(after["grows"]["memory_mib"], 320)
        self.assertEqual(after["grows"]["unique_mib"], before["grows"]["unique_mib"])
        self.assertGreater(after["grows"]["fingerprint_age_s"],
                           before["grows"]["fingerprint_age_s"])
        self.assertRegex(self.fleet.log("host1"),
                         r'guest not scanned, .* vm=grows why="RAM of guest grows is not one block')
        self.assert_runs_once(grows, self.lab.host("host1"))


if __name__ == "__main__":
    unittest.main()
