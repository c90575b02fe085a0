#!/usr/bin/env python3
"""Fails when a header does not compile by itself.

Every header of the tree is compiled alone, with the flags of some source file of its folder taken
from the build's compile_commands.json; but for those that a source file of the build begins with.
"""
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys


def flags_by_folder(build: pathlib.Path) -> dict[str, list[str]]:
    flags = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        if not entry["file"].endswith(".cpp"):
            continue
        kept = [w for w in words[1:] if w.startswith(("-I", "-D", "-std"))]
        for here, word in enumerate(words):
            if word == "-isystem":
                kept += [word, words[here + 1]]
        flags.setdefault(str(pathlib.Path(entry["file"]).parent), kept)
    return flags


def begun_with(build: pathlib.Path) -> set[str]:
    """The headers that come before everything else in some source file of the build."""
    headers = set()
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if not entry["file"].endswith(".cpp"):
            continue
        with open(entry["file"], encoding="utf-8") as source:
            first = next((line for line in source if line.startswith("#")), "")
        if first.startswith('#include "'):
            headers.add(first.split('"')[1])
    return headers


def compile_alone(header: pathlib.Path, flags: list[str]) -> str:
    command = ["c++", "-fsyntax-only", "-w", "-x", "c++", *flags, str(header)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{header}:\n{done.stderr}"


def main(root: pathlib.Path, build: pathlib.Path) -> int:
    known = flags_by_folder(build)
    proven = begun_with(build)
    modules = ["core", "fingerprinter", "imagestore", "pagecache", "placer", "migrator", "tools", "tests"]
    jobs = []
    for module in modules:
        for header in sorted((root / module).rglob("*.h")):
            if str(header.relative_to(root)) in proven:
                continue
            folder = header.parent
            while str(folder) not in known and folder != root:
                folder = folder.parent
            flags = known.get(str(folder)) or known[str(root / "tests" / "core")]
            jobs.append((header, flags))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [text for text in pool.map(lambda job: compile_alone(*job), jobs) if text]
    print("\n".join(failures))
    print(f"{len(jobs)} headers, {len(failures)} do not compile alone")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
