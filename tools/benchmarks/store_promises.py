"""What is promised of the image store, held against the rows of `tools/bench store`."""

from __future__ import annotations

import statistics
from typing import Any, Iterator

STORM_DEPTH = 2  # Reads under way of a storm's client; other boots have more.

Row = dict[str, Any]
Promise = tuple[str, float, float, bool]


def at_least(name: str, value: float, bound: float) -> Promise:
    return name, value, bound, value >= bound


def at_most(name: str, value: float, bound: float) -> Promise:
    return name, value, bound, value <= bound


def promises(rows: list[Row]) -> Iterator[Promise]:
    """Of the parts that ran: name, measured, bound, kept."""
    def rate(path: str, clients: int, case: str = "boot") -> float:
        found = [row["boots_per_s"] for row in rows
                 if (row["path"], row["case"], row["clients"]) == (path, case, clients)]
        return float(statistics.median(found)) if found else 0.0

    def ratio(name: str, value: float, peer: float, bound: float) -> Iterator[Promise]:
        if value and peer:
            yield at_least(name, value / peer, bound)

    for peer, clients, bound in (("memcached", 100, 3), ("nbd file", 100, 8),
                                 ("full copy", 10, 300), ("disk copy", 10, 300)):
        yield from ratio(f"storm of 100 over {peer}", rate("shm", 100), rate(peer, clients), bound)
    storms: dict[int, list[float]] = {}
    for row in rows:
        if (row["path"], row["case"], row.get("depth")) == ("shm", "boot", STORM_DEPTH):
            storms.setdefault(row["clients"], []).append(row["seconds"])
    if storms:
        medians = [(clients, statistics.median(seconds)) for clients, seconds in storms.items()]
        yield at_least("time linear in clients, R2", r_squared(medians), 0.99)
    for clients, bound in ((1, 1), (10, 5)):
        yield from ratio(f"full read over full copy, {clients}", rate("shm", clients, "all"),
                         rate("full copy", clients, "all"), bound)
    for case in ("write random", "write all"):
        yield from ratio(f"{case} over qcow2 over NBD", rate("disk", 1, case),
                         max(rate("qcow2", 1, case), rate("qcow2 sub", 1, case)), 2)
    yield at_most("wrong or failed reads", sum(row["failed"] for row in rows if "failed" in row), 0)
    yield from row_promises(rows)


def row_promises(rows: list[Row]) -> Iterator[Promise]:
    """Those that single rows keep."""
    by_case = {row["case"]: row for row in rows}
    for case, name, key, factor, bound in (
            ("one-sided", "server CPU s of one-sided reads", "server_cpu_s", 1, 0),
            ("server stopped", "failed reads, server stopped", "failed", 1, 0),
            ("Debian boot, cold", "of the image fetched, cold, %", "share", 100, 4),
            ("Debian boot, warm", "of the image fetched, warm, %", "share", 100, 0.1)):
        if case in by_case:
            yield at_most(name, by_case[case].get(key, 0) * factor, bound)
    limited = {row["nodes"]: row["gb_s"] for row in rows if row["case"] == "nodes"}
    if limited:
        yield at_least("8 limited nodes over 1", limited[8] / limited[1], 7.5)
        change = by_case["join and leave"]
        yield at_most("moved by a change, x n", change["moved_share"] * change["nodes"], 1.1)
    for row in rows:
        if row["case"] == "commit":
            yield at_most(f"150 commits on {row['path']}, s", row["seconds"],
                          1.0 if row["path"] == "dir:" else 4.0)
        if row["case"] == "clone" and row["path"] == "dir:":
            yield at_most("clone p99, us", row["p99_us"], 2000)
        if row["case"] == "import":
            yield at_least("dedup without zeros", row["dedup"], 2.5)


def r_squared(points: list[tuple[float, float]]) -> float:
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    sxx = sum((x - mean_x) ** 2 for x, _ in points)
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    syy = sum((y - mean_y) ** 2 for _, y in points)
    return sxy * sxy / (sxx * syy) if sxx * syy > 0 else 0.0
