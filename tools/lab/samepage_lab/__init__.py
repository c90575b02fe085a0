"""Real libvirtd hosts and real guests on one Linux machine; see tools/lab/README.md."""

from .availability import check_available, require_lab
from .errors import LabError, LabUnavailable
from .frames import PAGE_BYTES, Frames, count_frames
from .guests import ROLES, Guest, GuestSpec
from .heartbeat import Beat, Heartbeat
from .hosts import Host
from .ksm import Ksm
from .lab import Lab, lab_names
from .migration import Migration
from .namespaces import Node, NodeProcess
from .network import CONTROL_ADDRESS, LinkBytes

__all__ = [
    "CONTROL_ADDRESS",
    "PAGE_BYTES",
    "ROLES",
    "Beat",
    "Frames",
    "Guest",
    "GuestSpec",
    "Heartbeat",
    "Host",
    "Ksm",
    "Lab",
    "LabError",
    "LabUnavailable",
    "LinkBytes",
    "Migration",
    "Node",
    "NodeProcess",
    "check_available",
    "count_frames",
    "lab_names",
    "require_lab",
]
