"""Real libvirtd hosts and real guests on one Linux machine; see tools/lab/README.md."""

from .availability import check_available, require_lab
from .debian_image import DebianImage, debian_image
from .errors import LabError, LabUnavailable
from .frames import PAGE_BYTES, Frames, count_frames
from .guest_spec import KINDS, ROLES, GuestSpec
from .guests import Guest
from .heartbeat import Beat, Heartbeat
from .hosts import Host
from .ksm import Ksm
from .lab import Lab, lab_names
from .migration import Migration
from .namespaces import Node, NodeProcess
from .network import CONTROL_ADDRESS, LinkBytes

__all__ = [
    "CONTROL_ADDRESS",
    "KINDS",
    "PAGE_BYTES",
    "ROLES",
    "Beat",
    "DebianImage",
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
    "debian_image",
    "lab_names",
    "require_lab",
]
