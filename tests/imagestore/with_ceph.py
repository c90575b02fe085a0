#!/usr/bin/python3
"""Starts a Ceph of one monitor and one OSD, runs a command beside it, ends both.

    with_ceph.py COMMAND ARGS...

The command finds the cluster by SAMEPAGE_CEPH_CONF, and the OSD's pid in SAMEPAGE_CEPH_OSD.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "lab"))

from samepage_lab.ceph import CephCluster  # noqa: E402

if __name__ == "__main__":
    with CephCluster.start() as ceph:
        cluster = {"SAMEPAGE_CEPH_CONF": str(ceph.conf), "SAMEPAGE_CEPH_OSD": str(ceph.osd.pid)}
        sys.exit(subprocess.run(sys.argv[1:], env=os.environ | cluster).returncode)
