"""Draws the migration benchmark's results: bytes on the wire by case, link and mode, as SVG."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_COLOURS = {"precopy": "#b0b0b0", "xbzrle": "#d8a85b", "multifd-zstd": "#5b8fd8",
            "postcopy": "#d0d0e8", "samepage": "#2c8a57"}
_BAR, _GAP, _LEFT, _WIDTH = 16, 14, 250, 560


def plot(results: list[dict[str, Any]]) -> str:
    """One bar for each result, in groups of one case and link."""
    most = max((one["wire_bytes"] for one in results), default=1)
    parts: list[str] = []
    top = 34
    group = None
    for one in results:
        if group not in (None, (one["case"], one["link"])):
            top += _GAP
        group = (one["case"], one["link"])
        parts.append(_bar(one, top, _WIDTH * one["wire_bytes"] / most))
        top += _BAR + 2
    title = '<text x="8" y="20" font-size="14">Bytes on the wire of one live migration, MB</text>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 140}" '
            f'height="{top + 12}" font-family="sans-serif" font-size="11">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{title}\n'
            + "\n".join(parts) + "\n</svg>\n")


def _bar(one: dict[str, Any], top: int, width: float) -> str:
    colour = _COLOURS[one["mode"] if one["mode"] in _COLOURS else "samepage"]
    name = escape(f'{one["case"]}, {one["link"]}, {one["mode"]}')
    figures = f'{one["wire_bytes"] / 1e6:.1f} MB, {one["total_ms"] / 1e3:.1f} s'
    base = top + _BAR - 4
    return (f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">{name}</text>'
            f'<rect x="{_LEFT}" y="{top}" width="{max(width, 1):.1f}" height="{_BAR}" '
            f'fill="{colour}"/>'
            f'<text x="{_LEFT + width + 5:.1f}" y="{base}">{figures}</text>')
