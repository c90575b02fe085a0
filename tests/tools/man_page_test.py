#!/usr/bin/env python3
"""Fails when a man page and its program's --help differ in subcommands or options, either way.

    man_page_test.py PROGRAM PAGE

The page names options in .TP items that begin with a dash, and each subcommand in a heading
".SS program sub command [ARGUMENT]"; options before the first such heading are the program's own.
"""
import pathlib, re, subprocess, sys

OPTION = re.compile(r"--[a-z][a-z-]*")


def of_page(page: str, name: str) -> dict[str, set[str]]:
    """Options by subcommand; '' is the program."""
    known, command = {"": set()}, ""
    lines = page.replace("\\-", "-").splitlines()
    for line, following in zip(lines, lines[1:] + [""]):
        if line.startswith(".SS "):
            words = line[4:].split()
            assert words[0] == name, f"heading '{line}' does not begin with {name}"
            command = " ".join(word for word in words[1:] if word.islower())
            known[command] = set()
        if line == ".TP" and re.match(r"\.B[IR]? -", following):
            known[command] |= set(OPTION.findall(following))
        if line.startswith(".SH") and "SUBCOMMANDS" not in line and command:
            break
    return known


def of_help(program: str, path: list[str], known: dict[str, set[str]]) -> None:
    text = subprocess.run([program, *path, "--help"], check=True, capture_output=True, text=True,
                          timeout=60).stdout
    options = set()
    subcommands = []
    section = ""
    for line in text.splitlines():
        if re.match(r"\S.*:$", line):
            section = line
        elif section == "Options:" and re.match(r"  -", line):
            # "  -h,--help", "  --url URL (...) Excludes: --socket": only the names that lead.
            options |= set(OPTION.findall(line.split()[0].split("=")[0]))
        elif section == "Subcommands:" and re.match(r"  [a-z]", line):
            subcommands.append(line.split()[0])
    known[" ".join(path)] = options if not path else options - {"--help"}
    for subcommand in subcommands:
        of_help(program, [*path, subcommand], known)


def main(program: str, page: pathlib.Path) -> int:
    documented = of_page(page.read_text(), pathlib.Path(program).name)
    actual: dict[str, set[str]] = {}
    of_help(program, [], actual)
    problems = []
    for command in sorted(actual.keys() | documented.keys()):
        where = f"'{command}'" if command else "the program"
        if command not in documented:
            problems.append(f"{where} is not in {page.name}")
        elif command not in actual:
            problems.append(f"{where} is in {page.name} but not in --help")
        else:
            for option in sorted(actual[command] - documented[command]):
                problems.append(f"{option} of {where} is not in {page.name}")
            for option in sorted(documented[command] - actual[command]):
                problems.append(f"{option} of {where} is in {page.name} but not in --help")
    print("\n".join(problems) or f"{sum(map(len, actual.values()))} options agree")
    return 1 if problems or not actual[""] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2])))
