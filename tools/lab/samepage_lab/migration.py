"""Stock libvirt live migration, without any of Samepage: what Samepage is compared with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .bindings import libvirt
from .errors import LabError

if TYPE_CHECKING:
    from .guests import Guest
    from .hosts import Host

# In MiB/s: no limit of libvirt's or QEMU's own, so that the lab's link is the only one.
_BANDWIDTH_MAX = 100_000


@dataclass(frozen=True)
class Migration:
    """What one migration took; `wire_bytes` is all that the source sent on its link meanwhile."""

    seconds: float
    wire_bytes: int


def migrate_stock(guest: "Guest", target: "Host") -> Migration:
    """Moves a running guest to another host of the lab; libvirt's own TCP stream carries it.

    The calling process speaks to both libvirtds over their sockets; RAM goes over the lab's
    network, so link limits apply and byte counters see it. LabError when libvirt refuses; the
    guest then still runs where it was. The hosts of a lab see the same overlay of a Debian guest's
    disk, which libvirt cannot know and so calls unsafe.
    """
    source = guest.host
    parameters = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{target.address}",
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: _BANDWIDTH_MAX,
    }
    flags = libvirt.VIR_MIGRATE_LIVE
    if guest.disk is not None:
        flags |= libvirt.VIR_MIGRATE_UNSAFE
    sent = source.bytes().tx
    began = time.monotonic()
    try:
        guest.domain().migrate3(target.libvirt(), parameters, flags)
    except libvirt.libvirtError as error:
        raise LabError(f"cannot migrate {guest.name} to {target.name}: {error}") from None
    return Migration(time.monotonic() - began, source.bytes().tx - sent)
