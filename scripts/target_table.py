"""Has the table of what xlate must reach on one H200 (docs/benchmarks.md says how each figure is
counted), and compares the figures of scripts/bench targets with it."""

import statistics

import measure
from target_figures import BEAMS, spread, step_microseconds

# The name of each figure leads to (description, required value, ambitious value, format, whether
# less is better).
TARGETS = {
    "throughput 4": ("fp16, beam 4, target tokens/s", 500_000, 800_000, "%.0f", False),
    "throughput 1": ("fp16, greedy, target tokens/s", 1_300_000, 2_000_000, "%.0f", False),
    "latency 4": ("one sentence at a time, beam 4, µs a decoding step", 250, 120, "%.0f", True),
    "latency 1": ("one sentence at a time, greedy, µs a decoding step", 200, 90, "%.0f", True),
    "first output": ("start to first output line, s above the floor", 0.25, 0.1, "%.2f", True),
    "whole": (
        "newstest2014 once, beam 4, start to exit, s above the floor",
        0.6,
        0.35,
        "%.2f",
        True,
    ),
    "device memory": ("device memory at the throughput setting, GiB", 8, 4, "%.2f", True),
    "million": ("1,000,000 lines, greedy, whole process, s", 26, 17, "%.1f", True),
    "equal 1": ("lines of newstest2014 equal to fp32, greedy, %", 98, 99, "%.2f", False),
    "equal 4": ("lines of newstest2014 equal to fp32, beam 4, %", 97, 99, "%.2f", False),
    "single 1": ("lines equal one sentence at a time, greedy, %", 99, 100, "%.2f", False),
    "single 4": ("lines equal one sentence at a time, beam 4, %", 99, 100, "%.2f", False),
    "bleu": ("BLEU on newstest2014, away from fp32 (greedy or beam 4)", 0.1, 0.1, "%.3f", True),
    "bleu bf16": ("the same in bf16", 0.3, 0.3, "%.3f", True),
    "tokens": ("target tokens of news.en once, beam 4, % away from fp32", 1, 1, "%.2f", True),
    "bytes": ("runs of 18 (order, budget, beam) with another text, fp16", 0, 0, "%d", True),
    "copies": (
        "lines of the throughput runs with another text than their copies",
        0,
        0,
        "%d",
        True,
    ),
    "busy 4": ("device busy, beam 4, %", 95, 98, "%.1f", False),
    "busy 1": ("device busy, greedy, %", 95, 98, "%.1f", False),
    "useful 4": ("useful rows among those computed, beam 4, %", 90, 95, "%.1f", False),
    "useful 1": ("useful rows among those computed, greedy, %", 90, 95, "%.1f", False),
}


def figures_of(results):
    """Returns {name: values of its runs}. A figure that was not measured has no values."""
    figures = {}
    figures["copies"] = [
        report["other_than_copies"] for beam in BEAMS for report in results["throughput " + beam]
    ]
    for beam in BEAMS:
        figures["throughput " + beam] = [
            measure.field(report, measure.RATE) for report in results["throughput " + beam]
        ]
        shares = [report["shares"] for report in results["throughput " + beam]]
        figures["busy " + beam] = [
            100 * share["device_busy"] for share in shares if share["device_busy"] is not None
        ]
        figures["useful " + beam] = [100 * (1 - share["rows_idle"]) for share in shares]
        figures["latency " + beam] = [
            step_microseconds(report) for report in results["latency " + beam]
        ]
        for name in ("equal " + beam, "single " + beam):
            figures[name] = [result.get(name) for result in results["quality"]]
    floor = (
        statistics.median([turn["floor"] for turn in results["startup"]])
        if results["startup"] and results["startup"][0]["floor"]
        else None
    )
    for name, kind in (("first output", "first_output"), ("whole", "whole")):
        figures[name] = [turn[kind] - floor for turn in results["startup"]] if floor else []
    peaks = [
        report["memory"]["device_peak_bytes"]
        for report in results["throughput 4"] + results["throughput 1"]
        if report["memory"]["device_peak_bytes"]
    ]
    figures["device memory"] = [max(peaks) / 2**30] if peaks else []
    figures["million"] = [report["seconds"]["process"] for report in results["million"]]
    figures["bleu"], figures["bleu bf16"] = (
        [result[name] for result in results["quality"]] for name in ("away", "away bf16")
    )
    figures["tokens"], figures["bytes"] = (
        results["tokens"],
        [result["runs"] for result in results["bytes"]],
    )
    return {
        name: [value for value in values if value is not None] for name, values in figures.items()
    }


def reaches(value, goal, less):
    return value <= goal if less else value >= goal


def verdict(value, must, moonshot, less=False):
    """Returns what a table says of a figure. `less` says whether less is better."""
    if reaches(value, moonshot, less):
        return "moonshot"
    return "met" if reaches(value, must, less) else "NOT MET"


def judge(figures, failures):
    """Returns the rows of the table, and the same as JSON."""
    rows, entries = [], []
    for name, (what, must, moonshot, form, less) in TARGETS.items():
        values = figures[name]
        value = statistics.median(values) if values else None
        met = {
            kind: None if value is None else reaches(value, goal, less)
            for kind, goal in (("must", must), ("moonshot", moonshot))
        }
        word = (
            failures.get(name, "not measured")
            if value is None
            else verdict(value, must, moonshot, less)
        )
        rows.append(
            [
                what,
                *((("≤ " if less else "≥ ") + "{:,}".format(goal)) for goal in (must, moonshot)),
                spread(values, form) if values else "–",
                word,
            ]
        )
        entries.append(
            {
                "name": name,
                "what": what,
                "must": must,
                "moonshot": moonshot,
                "less_is_better": less,
                "value": value,
                "values": values,
                **{"met_" + kind: is_met for kind, is_met in met.items()},
            }
        )
    return rows, entries
