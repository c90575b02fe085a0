"""The lab's network: one bridge in the control node, one veth pair to every host.

All of it lies in the lab's own network namespaces, so any number of labs use the same names and
addresses at once: the bridge is `lan` (10.99.0.254/24), host i has 10.99.0.i on its eth0, whose
other end is the port `hosti` of the bridge. Interfaces are numbered by IPv4 only, so that idle
links stay silent and byte counters mean something.

Each host also has a bridge `guests` of its own, 10.98.0.254/24, for the cards of its guests: a
guest is reached from the host that it runs on, also after a migration, and from nowhere else.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .namespaces import Node

CONTROL_ADDRESS = "10.99.0.254"
GUEST_NETWORK = "10.98.0"
GUEST_GATEWAY = f"{GUEST_NETWORK}.254"
_PACKET_BYTES = 1514
_BRIDGE = "lan"


def host_address(index: int) -> str:
    """The address of host `index`, counted from 1."""
    return f"10.99.0.{index}"


def _in_network_of(node: Node, argv: list[str], stdin: str | None = None) -> None:
    """Runs a machine command in the node's network only, so that pids stay the machine's."""
    command = ["nsenter", f"--net=/proc/{node.pid}/ns/net", "--", *argv]
    done = subprocess.run(command, input=stdin, text=True, capture_output=True)
    if done.returncode != 0:
        raise LabError(f"{node.name}: `{' '.join(argv)}` failed: {done.stderr.strip()}")


def connect(control: Node, hosts: list[Node]) -> None:
    """Makes the bridge and joins every host to it; `hosts` in the order of their addresses."""
    lines = [
        "link set lo up",
        f"link add name {_BRIDGE} type bridge",
        f"link set {_BRIDGE} addrgenmode none",
        f"addr add {CONTROL_ADDRESS}/24 dev {_BRIDGE}",
        f"link set {_BRIDGE} up",
    ]
    for host in hosts:
        lines += [
            f"link add name {host.name} type veth peer name eth0 netns {host.pid}",
            f"link set {host.name} addrgenmode none",
            f"link set {host.name} master {_BRIDGE}",
            f"link set {host.name} up",
        ]
    _in_network_of(control, ["ip", "-batch", "-"], "\n".join(lines) + "\n")
    for index, host in enumerate(hosts, 1):
        lines = [
            "link set lo up",
            "link set eth0 addrgenmode none",
            f"addr add {host_address(index)}/24 dev eth0",
            "link set eth0 up",
            "link add name guests type bridge",
            "link set guests addrgenmode none",
            f"addr add {GUEST_GATEWAY}/24 dev guests",
            "link set guests up",
        ]
        _in_network_of(host, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def shape(control: Node, host: Node, mbit: float) -> None:
    """Limits a host's link to mbit megabit/s in each direction; 0 takes the limit away.

    A token bucket at both ends of the veth pair: each limits what it sends. The bucket holds
    4 ms of traffic and at least 32 KiB. Some 50 ms of traffic wait in front of it, in the kernel's
    usual queues, where what a program marks as bulk lets the rest pass.
    """
    for node, device in ((host, "eth0"), (control, host.name)):
        if mbit <= 0:
            _in_network_of(node, ["tc", "qdisc", "replace", "dev", device, "root", "noqueue"])
            continue
        bytes_per_s = mbit * 1e6 / 8
        bucket = max(32 * 1024, int(bytes_per_s * 0.004))
        packets = max(16, int(bytes_per_s * 0.050 / _PACKET_BYTES))
        _in_network_of(node, ["ip", "link", "set", device, "txqueuelen", str(packets)])
        _in_network_of(node, ["tc", "qdisc", "replace", "dev", device, "root", "handle", "1:", "tbf",
                              "rate", f"{mbit:g}mbit", "burst", str(bucket), "latency", "50ms"])
        _in_network_of(node, ["tc", "qdisc", "replace", "dev", device, "parent", "1:1",
                              "pfifo_fast"])


@dataclass(frozen=True)
class LinkBytes:
    """Bytes that a host received and sent on its link since the lab came up."""

    rx: int
    tx: int

    def __sub__(self, former: "LinkBytes") -> "LinkBytes":
        return LinkBytes(self.rx - former.rx, self.tx - former.tx)


def link_bytes(host: Node) -> LinkBytes:
    """Reads the counters of the host's eth0.

    They count Ethernet frames as the veth carries them: the kernel hands over up to 64 KiB of TCP
    in one frame, so headers weigh less than on a wire with an MTU of 1500 (about 4 % less).
    """
    for line in Path(f"/proc/{host.pid}/net/dev").read_text().splitlines():
        device, _, counters = line.partition(":")
        if device.strip() == "eth0":
            fields = counters.split()
            return LinkBytes(int(fields[0]), int(fields[8]))
    raise LabError(f"{host.name} has no eth0: take the lab down and up again")
