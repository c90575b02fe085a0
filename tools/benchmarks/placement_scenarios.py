"""The scenarios of Memory Buddies and Sandpiper, as `samepage simulate` reads them.

Page sets are of the published kind (Wood et al. 2009): VMs of one application share 41 % of their
memory with each other (TPC-W, table 1), and 37 % of the pages of 30 machines were on another one.
"""

from __future__ import annotations

import random
from typing import Any

_TPCW, _TRACES = 0.41, 0.37


def _vm(name: str, application: str, shared: float, mib: float, arrives_s: float) -> dict[str, Any]:
    return {"name": name, "arrives_s": arrives_s,
            "memory": [{"own_mib": mib * (1 - shared), "pools": {application: mib * shared}}]}


def _arrivals(hosts: int, vms: list[dict[str, Any]], placement: str) -> dict[str, Any]:
    """VMs arrive every ten minutes; equal pages are merged a minute later, wherever they meet."""
    every_s = 600
    return {"interval_s": every_s, "duration_s": every_s * (len(vms) + 1), "cells": 4096,
            "cell_mib": 1,
            "hosts": [{"name": "host", "count": hosts, "memory_mib": 1536}],
            "vms": vms,
            "policy": {"placement": placement, "make_room": placement == "share",
                       "hotspots": False, "headroom": 0, "merge_s": 60}}


def testbed(placement: str) -> dict[str, Any]:
    """Four hosts of 1.5 GiB; VMs of 384 MiB, whose four applications take turns."""
    vms = [_vm(f"vm{i}", f"application{i % 4}", _TPCW, 384, 600 * i) for i in range(28)]
    return _arrivals(4, vms, placement)


def hundred_hosts(placement: str) -> dict[str, Any]:
    """A hundred such hosts; VMs of eight applications, drawn at random."""
    numbers = random.Random(2009)
    vms = [_vm(f"vm{i}", f"application{numbers.randrange(8)}", _TRACES, 384, 600 * i)
           for i in range(600)]
    return _arrivals(100, vms, placement)


def sandpiper() -> dict[str, Any]:
    """16 hosts and 35 VMs; from the fifth minute on 4 hosts lack CPU, 1 network, 1 both."""
    cpus, link, interval_s = 2.0, 125e6, 10
    vms: list[dict[str, Any]] = []

    def add(host: int, cpu: float, rise: float = 0, network: float = 0, flood: float = 0) -> None:
        vms.append({"name": f"vm{len(vms) + 1}", "host": f"host{host}",
                    "memory": [{"own_mib": 256}],
                    "cpu": {"base": cpu, "noise": 0.05, "steps": [[300, cpu + rise]]},
                    "network_bytes_s": {"base": network, "noise": 0.05,
                                        "steps": [[300, network + flood]]}})

    for host in (1, 2, 3, 4):  # The load of one VM rises.
        add(host, 0.4, rise=0.5)
        add(host, 0.4, rise=0.1)
        add(host, 0.3)
    add(5, 0.2, network=30e6, flood=45e6)
    add(5, 0.2, network=30e6)
    add(5, 0.1)
    add(6, 0.5, rise=0.6, network=40e6, flood=40e6)
    add(6, 0.5, network=30e6)
    add(6, 0.1)
    for host in range(7, 17):
        add(host, 0.3, network=5e6)
    for host in range(7, 14):
        add(host, 0.2)
    return {"interval_s": interval_s, "duration_s": 1800, "seed": 7,
            "hosts": [{"name": "host", "count": 16, "memory_mib": 1024, "cpus": cpus,
                       "network_bytes_s": link}],
            "vms": vms,
            "policy": {"hotspot": {"n": 5, "k": 3}, "cooldown_s": 300}}


def large(hosts: int, vms: int) -> dict[str, Any]:
    """Ten minutes of a large fleet; after two of them one host in a hundred lacks CPU."""
    dice = random.Random(7)
    listed: list[dict[str, Any]] = []
    for i in range(vms):
        host, application = i % hosts, dice.randrange(24)
        cpu: dict[str, Any] = {"base": 1.2 + 0.8 * dice.random(), "noise": 0.1}
        if host % 100 == 0:
            cpu["steps"] = [[120, 2.6]]
        pools = {f"system{application % 6}": 300,
                 f"application{application}": dice.choice([200, 400, 800])}
        listed.append({"name": f"vm{i}", "host": f"host{host + 1}", "cpu": cpu,
                       "memory": [{"own_mib": dice.choice([1000, 1800, 3200]), "pools": pools}]})
    return {"interval_s": 10, "duration_s": 600, "seed": 7, "cells": 4096, "cell_mib": 16,
            "hosts": [{"name": "host", "count": hosts, "memory_mib": 96 * 1024, "cpus": 64}],
            "vms": listed, "policy": {"at_once_max": 200, "moves_max": 400}}
