"""The ground truth about memory: which physical frames a host's guests occupy.

For every QEMU process of a host the kernel is asked which physical frame lies behind each page of
guest RAM (/proc/PID/pagemap), and what that frame is (/proc/kpageflags). Nothing is predicted or
estimated, and no code of Samepage is used. KSM is one per kernel and merges across lab hosts; here
frames are counted per host, so a frame shared by two hosts counts once on each. That is what a
kernel of its own would have merged there.

Guests should be paused, or idle, while they are counted: the two files are read in turn.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import asdict, dataclass

from .errors import LabError
from .hosts import Host

PAGE_BYTES = 4096
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
_KSM, _HUGE, _ZERO_PAGE = 1 << 21, 1 << 22, 1 << 24
# Frames further apart than this are read from kpageflags by separate calls.
_READ_GAP = 512
# The lab's emulator adds some; libvirt's own figures are of whole MiB.
_MORE_RAM_BYTES_MAX = 256 << 10


@dataclass(frozen=True)
class Frames:
    """Counts in pages of 4 KiB over the guest RAM of one host (or of one guest)."""

    guest_pages: int  # the guests' RAM, touched or not
    resident_pages: int  # mapped to a frame now, the kernel's zero page not counted
    distinct_frames: int  # frames behind them: what the host really pays
    zero_pages: int  # mapped to the kernel's zero page, which costs nothing
    ksm_mapped_pages: int  # mapped to frames that KSM shares
    ksm_frames: int  # distinct ones among those
    huge_pages: int  # resident as part of a transparent huge page

    @property
    def saved_pages(self) -> int:
        """Pages that sharing spares this host."""
        return self.ksm_mapped_pages - self.ksm_frames

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "saved_pages": self.saved_pages}


def ram_mapping(pid: int, memory_bytes: int) -> tuple[int, int]:
    """Start and end address of guest RAM in a QEMU process: of `memory_bytes`, or a little more.

    QEMU maps RAM as one private anonymous area and marks it mergeable ("mg"), which no other area
    of that size is: TCG's code buffer is executable, heaps and stacks are not mergeable.
    """
    start = end = 0
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            word = line.split(None, 1)[0]
            if "-" in word and not word.endswith(":"):
                start, end = (int(part, 16) for part in word.split("-"))
            elif word == "VmFlags:" and " mg" in line and is_ram_size(end - start, memory_bytes):
                return start, end
    raise LabError(f"no mergeable mapping of {memory_bytes} bytes in process {pid}")


def is_ram_size(size: int, memory_bytes: int) -> bool:
    """Whether a mapping's size can be that of RAM that libvirt says is of memory_bytes."""
    return memory_bytes <= size < memory_bytes + _MORE_RAM_BYTES_MAX


def _frames_behind(pid: int, start: int, end: int) -> array:
    """The pagemap entries of an address range."""
    entries = array("Q")
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(start // PAGE_BYTES * 8)
        wanted = (end - start) // PAGE_BYTES * 8
        while wanted > 0:
            data = pagemap.read(wanted)
            if not data:
                raise LabError(f"process {pid} ended while its memory was counted")
            entries.frombytes(data)
            wanted -= len(data)
    return entries


def _flags_of(frames: list[int]) -> dict[int, int]:
    """The kernel's flags of each frame; `frames` sorted and distinct."""
    flags: dict[int, int] = {}
    fd = os.open("/proc/kpageflags", os.O_RDONLY)
    try:
        first = 0
        while first < len(frames):
            last = first
            while last + 1 < len(frames) and frames[last + 1] - frames[last] < _READ_GAP:
                last += 1
            values = array("Q")
            base = frames[first]
            values.frombytes(os.pread(fd, (frames[last] - base + 1) * 8, base * 8))
            for frame in frames[first : last + 1]:
                flags[frame] = values[frame - base]
            first = last + 1
    finally:
        os.close(fd)
    return flags


def _count(maps: list[array]) -> Frames:
    mapped = [entry & _FRAME for entries in maps for entry in entries if entry & _PRESENT]
    if mapped and not any(mapped):
        raise LabError("the kernel hides frame numbers: counting frames needs root")
    flags = _flags_of(sorted(set(mapped)))
    zero_frames = {frame for frame, flag in flags.items() if flag & _ZERO_PAGE}
    ksm_frames = {frame for frame, flag in flags.items() if flag & _KSM} - zero_frames
    huge_frames = {frame for frame, flag in flags.items() if flag & _HUGE} - zero_frames
    zero_pages = sum(frame in zero_frames for frame in mapped)
    return Frames(
        guest_pages=sum(len(entries) for entries in maps),
        resident_pages=len(mapped) - zero_pages,
        distinct_frames=len(flags) - len(zero_frames),
        zero_pages=zero_pages,
        ksm_mapped_pages=sum(frame in ksm_frames for frame in mapped),
        ksm_frames=len(ksm_frames),
        huge_pages=sum(frame in huge_frames for frame in mapped),
    )


def count_frames(host: Host, vm: str | None = None) -> Frames:
    """Counts the frames of all guests of a host, or of one of them."""
    pids = host.guest_pids()
    if vm is not None:
        if vm not in pids:
            raise LabError(f"no guest {vm} on {host.name}: see `lab status`")
        pids = {vm: pids[vm]}
    maps = []
    for name, pid in pids.items():
        memory_bytes = host.domain(name).maxMemory() * 1024
        maps.append(_frames_behind(pid, *ram_mapping(pid, memory_bytes)))
    return _count(maps)
