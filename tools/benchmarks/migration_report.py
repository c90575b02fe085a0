"""The migration benchmark's results as Markdown: every figure, and what was wanted of them."""

from __future__ import annotations

from typing import Any, Iterator

_OWN_MB = (32 << 20) / 1e6
Result = dict[str, Any]


def report(results: list[Result]) -> str:
    lines = ["| case, link | mode | wire MB | time s | downtime ms | gap ms | processor s | agents s"
             " | same memory | runs |", "|" + " --- |" * 10]
    lines += [_row(one) for one in results]
    lines += ["", "| wanted | measured | limit | |", "| --- | --- | --- | --- |"]
    groups: dict[tuple[str, str], dict[str, Result]] = {}
    for one in results:
        groups.setdefault((one["case"], one["link"]), {})[one["mode"]] = one
    for (case, link), modes in groups.items():
        for what, measured, limit in _wanted(case, link, modes):
            met = "" if measured <= limit else "missed"
            lines.append(f"| {case}, {link}: {what} | {measured:.3g} | {limit:.3g} | {met} |")
    return "\n".join(lines)


def _row(one: Result) -> str:
    least, most = (one["spread"]["total_ms"][i] / 1e3 for i in (0, 1))
    down = "" if one["downtime_ms"] is None else f"{one['downtime_ms']:.0f}"
    same = {True: "yes", False: "NO", None: ""}[one["memory_identical"]]
    return (f"| {one['case']}, {one['link']} | {one['mode']} | {one['wire_bytes'] / 1e6:.2f} "
            f"| {one['total_ms'] / 1e3:.2f} ({least:.2f} to {most:.2f}) | {down} "
            f"| {one['heartbeat_gap_ms']:.0f} | {one['cpu_s']:.2f} | {one['agents_cpu_s']:.2f} "
            f"| {same} | {one['repeats']} |")


def _wanted(case: str, link: str, modes: dict[str, Result]) -> Iterator[tuple[str, float, float]]:
    """What was wanted of Samepage in one case on one link: what, the figure, and its limit."""
    ours = next((one for mode, one in modes.items() if mode.startswith("samepage")), None)
    precopy, multifd = modes.get("precopy"), modes.get("multifd-zstd")
    if ours is None:
        return

    def share(of: Result | None, what: str, limit: float, key: str = "wire_bytes",
              ) -> Iterator[tuple[str, float, float]]:
        if of is not None:
            yield what, 100 * ours[key] / of[key], limit

    if case in ("idle-twin", "debian"):
        yield from share(precopy, "wire, % of precopy", 6)
        yield from share(multifd, "wire, % of multifd-zstd", 20)
    if case == "idle-twin":
        if link == "200mbit":
            yield from share(multifd, "time, % of multifd-zstd", 50, "total_ms")
        yield ("agents' processor seconds for a GB of the stream",
               1e9 * ours["agents_cpu_s"] / ours["stream_bytes"], 1.6)
    if case == "own-data" and precopy is not None:
        yield ("wire, MB", ours["wire_bytes"] / 1e6,
               1.02 * _OWN_MB + 0.06 * (precopy["wire_bytes"] / 1e6 - _OWN_MB))
        if link != "unlimited":
            yield from share(multifd, "time, % of multifd-zstd", 100, "total_ms")
    if case == "return-home":
        yield from share(precopy, "wire, % of precopy", 0.3)
    if case == "gang-4" and precopy is not None and multifd is not None:
        cold, rest = 1.05 * multifd["wire_bytes"] / 4e6, 3 * 0.06 * precopy["wire_bytes"] / 4e6
        yield "wire, MB, of one cold and 3 of 6 %", ours["wire_bytes"] / 1e6, cold + rest
    if case == "sparse":
        yield from share(multifd, "wire, % of multifd-zstd", 40)
        yield from share(modes.get("xbzrle"), "wire, % of xbzrle", 25)
    if case == "cold":
        yield from share(precopy, "wire, % of precopy", 100.5)
        if link == "unlimited":
            yield from share(precopy, "time, % of precopy", 130, "total_ms")
        else:
            yield from share(multifd, "wire, % of multifd-zstd", 105)
    if precopy is not None and precopy["downtime_ms"] is not None:
        yield "downtime, ms", ours["downtime_ms"], precopy["downtime_ms"] + 20
