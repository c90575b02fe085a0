"""Placement: the packer, whole fleets, the index, and the published systems' scenarios.

    tools/bench placement [--json] [--quick] [--only PART] [--instances FILE] [--packings FILE]

Pagination instances (Grange, Kacem and Martin 2018: bin packing with overlapping items) are packed
within 1, 10 and 100 ms each, by two threads, and by the heuristics that schedulers and the
literature use; an exact model is given to CBC for small ones. FILE is JSON lines, gzipped or not;
without it a sample that lies here is used. --packings writes every packing better than the best
known one. `plan` takes about 10 GiB of memory. The scenarios of Memory Buddies and Sandpiper run through `samepage simulate`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import placement_scenarios
from placement_exact import solve_exactly

_REPOSITORY = Path(__file__).resolve().parents[2]
_SAMPLE = Path(__file__).resolve().parent / "data" / "pagination_sample.jsonl"
_BUILT = os.environ.get("SAMEPAGE_BIN")  # Somebody has built them already.
_PROGRAMS = Path(_BUILT) if _BUILT else _REPOSITORY / "build" / "release" / "bin"
_BUDGETS_MS = (1, 10, 100)
_PEERS = ("first_fit", "best_fit_by_size", "best_fusion", "memory_buddies")

_COUNTER_CASE = 0.05  # SpecJBB's (Wood et al. 2009, table 1): next to nothing is shared.

Instance = dict[str, Any]


def build() -> None:
    """Builds the optimized programs; what the compiler says goes to stderr."""
    if not (_REPOSITORY / "build" / "release" / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", "release"], cwd=_REPOSITORY, check=True,
                       stdout=sys.stderr)
    subprocess.run(["cmake", "--build", "--preset", "release", "--target", "placement_bench",
                    "samepage"], cwd=_REPOSITORY, check=True, stdout=sys.stderr)


def read_instances(path: Path) -> list[Instance]:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def bench(*argv: str, stdin: str = "") -> list[dict[str, Any]]:
    """Runs placement_bench; one JSON object a line."""
    done = subprocess.run([str(_PROGRAMS / "placement_bench"), *argv], input=stdin, text=True,
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def simulate(scenario: dict[str, Any]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(scenario, file)
        file.flush()
        done = subprocess.run([str(_PROGRAMS / "samepage"), "--json", "simulate", file.name],
                              text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def as_text(instance: Instance) -> str:
    tiles = " ".join(f"{len(tile)} {' '.join(map(str, tile))}" for tile in instance["tiles"])
    return f"{instance['name']} {instance['capacity']} {len(instance['tiles'])} {tiles}\n"


def ratios(found: list[dict[str, Any]], instances: list[Instance], key: str) -> list[float]:
    return [one[key] / instance["best_known"] for one, instance in zip(found, instances)]


def pagination(instances: list[Instance], packings: Path | None) -> dict[str, Any]:
    text = "".join(map(as_text, instances))
    by_budget = []
    for budget_ms in _BUDGETS_MS:
        found = bench("pagination", "--budget-us", str(budget_ms * 1000), "--threads", "2",
                      "--packings", stdin=text)
        mean = statistics.fmean(ratios(found, instances, "bins"))
        by_budget.append({"ms": budget_ms, "mean_ratio": round(mean, 5)})
        say(f"packer, {budget_ms} ms: mean ratio {mean:.5f}")
    best = ratios(found, instances, "bins")
    proven = [(one, instance) for one, instance in zip(found, instances) if instance["optimum"]]
    better = [(one, instance) for one, instance in zip(found, instances)
              if one["bins"] < instance["best_known"]]
    if packings:
        with packings.open("w") as file:
            for one, instance in better:
                file.write(json.dumps({"name": one["name"], "bins": one["bins"],
                                       "best_known": instance["best_known"],
                                       "bin_of": one["bin_of"]}) + "\n")
    matched = sum(one["bins"] == instance["optimum"] for one, instance in proven)
    say(f"proven optima matched: {matched} of {len(proven)}; better than best known: {len(better)}")
    return {
        "instances": len(instances),
        "mean_ratio_to_best_known": round(statistics.fmean(best), 5),
        "worst_ratio": round(max(best), 5),
        "matched_optima": matched,
        "new_best": len(better),
        "mean_ms": round(statistics.fmean(one["ms"] for one in found), 2),
        "by_budget": by_budget,
    }


def peers(instances: list[Instance], quick: bool) -> dict[str, Any]:
    text = "".join(map(as_text, instances))
    found = bench("pagination", "--budget-us", "0", stdin=text)
    table: dict[str, Any] = {}
    for peer in _PEERS:
        mean = statistics.fmean(ratios(found, instances, peer))
        table[peer] = {"mean_ratio": round(mean, 5),
                       "mean_ms": round(statistics.fmean(one[f"{peer}_ms"] for one in found), 4)}
        say(f"{peer}: mean ratio {mean:.5f}")
    small = sorted(instances, key=lambda one: len(one["tiles"]) * one["best_known"])
    small = small[:2 if quick else 8]
    ours = bench("pagination", "--budget-us", "100000", "--threads", "2",
                 stdin="".join(map(as_text, small)))
    table["cbc"] = solve_exactly(small, [one["bins"] for one in ours], 5 if quick else 20)
    say(f"exact model: {table['cbc']}")
    return table


def fleets(quick: bool) -> list[dict[str, Any]]:
    runs = [(20, 200, 1_000 if quick else 10_000)]
    runs += [(1_000, 10_000, 3_000)] if quick else [(10_000, 100_000, 45_000)]
    found = []
    for hosts, vms, budget_ms in runs:
        [one] = bench("fleet", "--hosts", str(hosts), "--vms", str(vms), "--budget-ms",
                      str(budget_ms))
        say(f"fleet: {one}")
        found.append({key: one[key] for key in (
            "hosts", "vms", "plan_ms", "hosts_used", "lower_bound", "gap_pct", "moves",
            "peak_rss_mib")})
    return found


def plans(quick: bool) -> list[dict[str, Any]]:
    """All that placer::plan() does, on fingerprints as agents report them."""
    hosts, vms = (1_000, 10_000) if quick else (10_000, 100_000)
    found = []
    for goal, moves_max, search_ms in (("hosts", vms, 3_000 if quick else 20_000),
                                       ("sharing", vms, 0), ("sharing", 100, 0)):
        [one] = bench("plan", "--hosts", str(hosts), "--vms", str(vms), "--goal", goal,
                      "--moves-max", str(moves_max), "--search-ms", str(search_ms))
        say(f"whole plan: {one}")
        found.append(one)
    return found


def index(quick: bool) -> dict[str, Any]:
    hosts = 1_000 if quick else 10_000
    [one] = bench("index", "--hosts", str(hosts), "--vms", str(10 * hosts))
    say(f"index: {one}")
    return {key: one[key] for key in ("hosts", "query_us_p50", "query_us_p99", "query_cpu_us_p99")}


def memory_buddies() -> dict[str, Any]:
    aware, blind = (
        simulate(placement_scenarios.testbed(placement))["vms_placed"]
        for placement in ("share", "size"))
    many_aware, many_blind = (
        simulate(placement_scenarios.hundred_hosts(placement))["vms_placed"]
        for placement in ("share", "size"))
    [counter_case] = bench("plan", "--hosts", "100", "--vms", "1000", "--goal", "sharing",
                           "--shared", str(_COUNTER_CASE))
    say(f"memory buddies: {aware} against {blind} VMs on 4 hosts, "
        f"{many_aware} against {many_blind} on 100; counter-case: {counter_case}")
    return {"testbed_vms_sharing_aware": aware, "testbed_vms_sharing_blind": blind,
            "fleet100_gain_pct": round(100 * (many_aware / many_blind - 1), 1),
            "counter_case_moves": counter_case["moves"]}


def sandpiper() -> dict[str, Any]:
    scenario = placement_scenarios.sandpiper()
    report = simulate(scenario)
    say(f"sandpiper: {report['overloaded_first']} overloaded, {len(report['moves'])} moves, "
        f"cleared after {report['cleared_at_s']:g} s")
    return {"overloaded": report["overloaded_first"],
            "cleared": report["overloaded_first"] - report["overloaded_last"],
            "moves": len(report["moves"]),
            "intervals": round(report["cleared_at_s"] / scenario["interval_s"])}


def large_simulation(quick: bool) -> dict[str, Any]:
    hosts, vms = (1_000, 20_000) if quick else (10_000, 200_000)
    scenario = placement_scenarios.large(hosts, vms)
    begin = time.monotonic()
    report = simulate(scenario)
    seconds = time.monotonic() - begin
    rss_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    say(f"simulation: {hosts} hosts, {vms} VMs, {report['intervals']} intervals in {seconds:.1f} s, "
        f"{len(report['moves'])} moves, children's peak {rss_mib:.0f} MiB")
    return {"hosts": hosts, "vms": vms, "intervals": report["intervals"],
            "seconds": round(seconds, 1), "overloaded": report["overloaded_first"],
            "overloaded_at_end": report["overloaded_last"], "moves": len(report["moves"])}


def say(text: object) -> None:
    print(text, file=sys.stderr, flush=True)


_PARTS: dict[str, Callable[[list[Instance], argparse.Namespace], Any]] = {
    "pagination": lambda instances, options: pagination(instances, options.packings),
    "fleet": lambda _, options: fleets(options.quick),
    "plan": lambda _, options: plans(options.quick),
    "index": lambda _, options: index(options.quick),
    "memory_buddies": lambda *_: memory_buddies(),
    "sandpiper": lambda *_: sandpiper(),
    "simulation": lambda _, options: large_simulation(options.quick),
    "peers": lambda instances, options: peers(instances, options.quick),
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench placement",
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer instances and smaller fleets")
    parser.add_argument("--instances", type=Path, default=_SAMPLE, metavar="FILE")
    parser.add_argument("--packings", type=Path, metavar="FILE")
    parser.add_argument("--only", action="append", choices=sorted(_PARTS),
                        help="run this part only; may be repeated")
    options = parser.parse_args(argv)
    if not _BUILT:
        build()
    instances = read_instances(options.instances)
    if options.quick:
        instances = instances[::max(1, len(instances) // 50)]
    say(f"{os.cpu_count()} processors, {len(instances)} instances of {options.instances.name}")
    parts = {name: part for name, part in _PARTS.items() if name in (options.only or _PARTS)}
    result = {name: part(instances, options) for name, part in parts.items()}
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0
