"""Turns reports of xlate into charts and tables."""

import statistics

from charts import Axis, Histogram, Lines, Row, Spans, number
from measure import field

RATE = "rates.target_tokens_per_second"
SECTIONS = ("seconds", "lines")  # No report is without them.
# The entries are (name of a stage in the report, what one says of it).
STAGES = {
    "load": ("loading the model", "Loading the model took {} of the process's time."),
    "input": ("waiting for input", "It waited {} of the process's time for input."),
    "tokenize": ("tokenizing", "It was tokenizing {} of the process's time."),
    "device": ("the device", "The device was at work {} of the process's time."),
    "output": ("writing", "Making text or writing it took {} of the process's time."),
}
# The figures of a comparison are (heading, field of the report, factor, unit).
COMPARED = (
    ("tokens/s", RATE, 1, ""),
    ("tokens/s, process", "rates.target_tokens_per_second_process", 1, ""),
    ("lines/s, process", "rates.sentences_per_second", 1, ""),
    ("process", "seconds.process", 1, "s"),
    ("translate", "seconds.translate", 1, "s"),
    ("load", "seconds.load", 1, "s"),
    ("first output", "seconds.first_output", 1, "s"),
    ("waiting", "seconds.waiting", 1, "s"),
    ("tokenize, threads", "seconds.tokenize", 1, "s"),
    ("encode", "seconds.encode", 1, "s"),
    ("decode", "seconds.decode", 1, "s"),
    ("device busy", "seconds.device_busy", 1, "s"),
    ("detokenize, threads", "seconds.detokenize", 1, "s"),
    ("write", "seconds.write", 1, "s"),
    ("latency, p50", "latency_ms.p50", 1, "ms"),
    ("latency, p99", "latency_ms.p99", 1, "ms"),
    ("host memory", "memory.host_peak_bytes", 2**-20, "MiB"),
    ("device memory", "memory.device_peak_bytes", 2**-20, "MiB"),
    ("idle rows", "shares.rows_idle", 100, "%"),
    ("target tokens", "counts.target_tokens", 1, ""),
    ("decoding steps", "counts.decoding_steps", 1, ""),
)
COUNTS = ("target tokens", "decoding steps")
# These are the axes of scripts/sweep that are drawn, with what one says of them.
SWEEP_AXES = {
    "d": "width of the model",
    "head": "width of a head",
    "layers": "layers of encoder and of decoder",
    "vocabulary": "tokens of the vocabulary",
    "beam": "beam size",
    "source": "source tokens of a line",
    "budget": "budget (--batch-tokens), source tokens",
}
# These fields of two reports are compared beside their options.
SETUP = ("version", "model.path", "model.hash", "device.name", "device.cpu", "device.driver")
# These options say where a run reads and writes, not how it computes.
PLACES = ("input", "output", "report", "progress", "quiet")


def is_report(value):
    return isinstance(value, dict) and all(isinstance(value.get(key), dict) for key in SECTIONS)


def reports_in(value):
    """Returns the reports in what a JSON file holds, which may be a report or have some, as what
    scripts/bench and scripts/score write has."""
    if is_report(value):
        return [value]
    children = value.values() if isinstance(value, dict) else value
    return (
        [report for child in children for report in reports_in(child)]
        if isinstance(value, (dict, list))
        else []
    )


def bound(report):
    """Returns a sentence that says what bounded the run, or an empty text."""
    stage = report.get("bound")
    if stage not in STAGES:
        return ""
    words, sentence = STAGES[stage]
    share = field(report, "stages." + stage)
    said = "Bound by %s." % words
    return said if share is None else said + " " + sentence.format("%.0f %%" % (100 * share))


def setting(report):
    """Returns what the label of a run may say, by name."""
    options = report.get("options") or {}
    return {
        "model": (field(report, "model.path") or "").rpartition("/")[2],
        "device": field(report, "device.name"),
        "precision": report.get("precision"),
        "": "one line at a time" if options.get("line_buffered") else None,
        "beam": options.get("beam_size"),
        "budget": options.get("batch_tokens"),
    }


def labels(reports, without=()):
    """Returns a label for each report, of the settings in which the reports differ."""
    settings = [setting(report) for report in reports]
    names = [
        name
        for name in settings[0]
        if name not in without and len({given[name] for given in settings}) > 1
    ]
    return [
        ", ".join(
            ("%s %s" % (name, given[name])).strip() if name in ("beam", "budget") else given[name]
            for name in names
            if given[name] is not None
        )
        for given in settings
    ]


def over(reports, option, name):
    """Returns a chart of the throughput over an option, or None if no series has two of its
    values. Runs with the same settings give their median."""
    chosen = [
        report
        for report in reports
        if field(report, "options." + option) and field(report, RATE) is not None
    ]
    runs = {}
    for report, label in zip(chosen, labels(chosen, (name,)) if chosen else ()):
        points = runs.setdefault(label, {})
        points.setdefault(report["options"][option], []).append(field(report, RATE))
    series = [
        (label, sorted((x, statistics.median(rates)) for x, rates in points.items()))
        for label, points in runs.items()
        if len(points) > 1
    ]
    if not series:
        return None
    ticks = sorted({x for _, points in series for x, _ in points})
    words = {"beam": "beam size", "budget": "budget (--batch-tokens), source tokens"}[name]
    return Lines(
        "Throughput over the %s" % words.partition(" (")[0],
        Axis(words, True, ticks),
        Axis("target tokens/s"),
        series,
    )


def sums_of(report):
    """Returns (label, seconds or None, colour) of the times that are sums over a run."""
    seconds, process = report["seconds"], field(report, "seconds.process")

    def at_work(stage, otherwise):
        """Returns the time in which a stage with several threads was at work, if that is known."""
        share = field(report, "stages." + stage)
        return (share * process if share and process else 0) or seconds.get(otherwise)

    return [
        ("waiting", seconds.get("waiting"), 5),
        ("tokenize", at_work("tokenize", "tokenize"), 3),
        ("encode", seconds.get("encode"), 4),
        ("decode", seconds.get("decode"), 2),
        ("device busy", seconds.get("device_busy"), 2),
        ("text, writing", at_work("output", "detokenize"), 1),
    ]


def timeline(report, title):
    """Returns the times of a run, or None if it has none: first those whose place is known, then
    the sums."""
    seconds = report["seconds"]
    load, translate, process = (seconds.get(name) for name in ("load", "translate", "process"))
    rows, begin = [], 0
    if load is not None:
        rows.append(Row("load", 0, load, seconds_text(load), 0))
    if translate is not None and process is not None:
        begin = process - translate
        rows.append(Row("translate", begin, process, seconds_text(translate), 0))
    rows += [
        Row(label, begin, begin + value, seconds_text(value), colour, True)
        for label, value, colour in sums_of(report)
        if value is not None
    ]
    marks = [("first output", seconds["first_output"])] if seconds.get("first_output") else []
    note = "Pale bars are sums over the run, which overlap. Only their lengths are known."
    axis = Axis("seconds from the start of the process")
    return Spans(title, axis, rows, marks, note) if rows else None


def seconds_text(value):
    """Returns a time with a unit that suits it."""
    for unit, least, factor in (("s", 1, 1), ("ms", 1e-3, 1e3), ("µs", 0, 1e6)):
        if value >= least:
            break
    return "%s %s" % (number(value * factor), unit if value else "s")


def stage_shares(report, title):
    """Returns the shares of the stages of a run, or None if none is known."""
    rows = [
        Row(words, 0, 100 * share, "%.0f %%" % (100 * share), 1 if stage == report["bound"] else 0)
        for stage, (words, _) in STAGES.items()
        for share in [field(report, "stages." + stage)]
        if share is not None
    ]
    axis = Axis("% of the process's time, at work at once", ticks=[0, 20, 40, 60, 80, 100])
    return Spans(title, axis, rows, note=bound(report)) if rows else None


def latency(report, title):
    """Returns the histogram of the latencies of a run, or None if it has none."""
    figures = report["latency_ms"]
    total = sum(bar["lines"] for bar in figures["histogram"])
    if not total:
        return None
    return Histogram(
        title,
        Axis("milliseconds from reading a line to writing it", True),
        Axis("% of the lines"),
        [(bar["from"], bar["to"], 100 * bar["lines"] / total) for bar in figures["histogram"]],
        [
            ("%s %s ms" % (name, number(figures[name])), figures[name])
            for name in ("p50", "p90", "p99")
            if figures.get(name) is not None
        ],
    )


def comparison(first, second):
    """Returns rows (heading, first value, second value, ratio) of what both reports have."""
    rows = []
    for heading, name, factor, unit in COMPARED:
        values = [field(report, name) for report in (first, second)]
        if None in values or not any(values):
            continue
        ratio = values[1] / values[0] if all(values) else None
        if ratio and not 1e-9 < ratio < 1e9:
            ratio = None  # One of the two is as good as 0.
        texts = [
            seconds_text(value) if unit == "s" else (number(value * factor) + " " + unit).strip()
            for value in values
        ]
        rows.append((heading, *texts, ratio))
    return rows


def ratios(rows, title):
    """Returns a chart of the ratios of a comparison. A ratio of 1 has no bar."""
    note = "Green is better and orange is worse. Blue is neither."
    bars = [
        Row(heading, *sorted((1, ratio)), "× %s" % number(ratio), colour_of(heading, ratio))
        for heading, _, _, ratio in rows
        if ratio
    ]
    return Spans(title, Axis("second run / first run", True), bars, note=note)


def colour_of(heading, ratio):
    """Returns the place in the palette for a ratio: of rates the larger one is better, of times and
    memory the smaller one, and of counts none."""
    if heading in COUNTS:
        return 0
    return 2 if (ratio > 1) == ("/s" in heading) else 1


def differences(first, second):
    """Returns rows (name, first value, second value) of the settings in which two runs differ."""
    rows = [(name, *(field(report, name) for report in (first, second))) for name in SETUP]
    for section in ("options", "policy"):
        values = [report.get(section) or {} for report in (first, second)]
        rows += [
            (
                name if section == "options" else "policy." + name,
                *(each.get(name) for each in values),
            )
            for name in dict.fromkeys([*values[0], *values[1]])
            if name not in PLACES and not (section == "options" and name == "model")
        ]
    return [row for row in rows if row[1] != row[2]]


def sweep_charts(axes):
    """Returns a chart for each axis of what scripts/sweep measured."""
    charts = []
    for axis, words in SWEEP_AXES.items():
        values = sorted((p[axis], p["tokens_per_second"]) for p in axes.get(axis, ()))
        if values:
            charts.append(
                Lines(
                    "Over the " + words.partition(" (")[0],
                    Axis(words, True, [value for value, _ in values]),
                    Axis("target tokens/s", True),
                    [("", values)],
                )
            )
    return charts
