"""The scenarios of Memory Buddies and Sandpiper, as `samepage simulate` reads them.

Page sets are of the published kind (Wood et al. 2009, table 1): VMs of one application share 41
(TPC-W), 22 (OFBiz), 15 (RUBiS) and 5 % (SpecJBB) of their memory with each other.
"""

from __future__ import annotations

import random
from typing import Any

_SHARED = {"tpcw": 0.41, "ofbiz": 0.22, "rubis": 0.15, "specjbb": 0.05}


def _vm(name: str, sort: str, mib: float, arrives_s: float) -> dict[str, Any]:
    shared = _SHARED[sort] * mib
    return {"name": name, "arrives_s": arrives_s,
            "memory": [{"own_mib": mib - shared, "pools": {sort: shared}}]}


def _arrivals(hosts: int, memory_mib: int, vms: list[dict[str, Any]], placement: str,
              every_s: float) -> dict[str, Any]:
    """VMs arrive one by one until nobody takes them; equal pages are merged a minute later."""
    return {"interval_s": every_s, "duration_s": every_s * (len(vms) + 1), "cells": 4096,
            "cell_mib": 1,
            "hosts": [{"name": "host", "count": hosts, "memory_mib": memory_mib}],
            "vms": vms,
            "policy": {"placement": placement, "make_room": placement == "share",
                       "hotspots": False, "headroom": 0, "merge_s": 60}}


def testbed(placement: str) -> dict[str, Any]:
    """Four hosts of 1.5 GiB; VMs of 384 MiB, whose applications take turns."""
    sorts = ("tpcw", "ofbiz", "rubis", "specjbb")
    vms = [_vm(f"vm{i}", sorts[i % 4], 384, 600 * i) for i in range(28)]
    return _arrivals(4, 1536, vms, placement, 600)


def hundred_hosts(placement: str) -> dict[str, Any]:
    """A hundred such hosts; VMs of many sizes and of random applications."""
    numbers = random.Random(2009)
    sorts = list(_SHARED)
    vms = [_vm(f"vm{i}", numbers.choice(sorts), numbers.choice((256, 384, 512)), 600 * i)
           for i in range(900)]
    return _arrivals(100, 1536, vms, placement, 600)


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
