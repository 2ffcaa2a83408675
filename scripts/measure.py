"""This module has the functions that the measuring scripts share: settings and their combinations,
a run of xlate with its report, medians, a description of the machine, and tables."""

import argparse
import datetime
import itertools
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# These are the options of a script and the options of xlate for them. An option that is not given
# is not passed on, so xlate's default holds.
SETTINGS = {
    "model": "--model",
    "device": "--device",
    "precision": "--precision",
    "beam": "--beam-size",
    "batch_tokens": "--batch-tokens",
    "window": "--window",
    "threads": "--threads",
}

# The entries are (heading, field of the report, factor, format).
COLUMNS = [
    ("target tokens/s", "rates.target_tokens_per_second", 1, "%.0f"),
    ("… of the process", "rates.target_tokens_per_second_process", 1, "%.0f"),
    ("lines/s of the process", "rates.sentences_per_second", 1, "%.1f"),
    ("translate s", "seconds.translate", 1, "%.2f"),
    ("process s", "seconds.process", 1, "%.2f"),
    ("load s", "seconds.load", 1, "%.2f"),
    ("first output s", "seconds.first_output", 1, "%.2f"),
    ("encode s", "seconds.encode", 1, "%.2f"),
    ("decode s", "seconds.decode", 1, "%.2f"),
    ("device busy %", "shares.device_busy", 100, "%.1f"),
    ("rows idle %", "shares.rows_idle", 100, "%.1f"),
    ("host MiB", "memory.host_peak_bytes", 2**-20, "%.0f"),
    ("device MiB", "memory.device_peak_bytes", 2**-20, "%.0f"),
    ("target tokens", "counts.target_tokens", 1, "%d"),
]
RATE = COLUMNS[0][1]


def parser_of(usage, doc):
    return argparse.ArgumentParser(
        usage=usage,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_program(parser):
    """Adds --json and --xlate, which every script has."""
    parser.add_argument("--json", metavar="FILE", help="everything, each run's report included")
    parser.add_argument(
        "--xlate",
        metavar="PROGRAM",
        default=os.environ.get("XLATE_BINARY") or os.path.join(ROOT, "build", "bin", "xlate"),
        help="[XLATE_BINARY, else build/bin/xlate]",
    )


def add_settings(parser):
    for name in list(SETTINGS)[1:]:
        parser.add_argument(
            "--" + name.replace("_", "-"),
            action="append",
            metavar="A,B…",
            help="values of xlate's " + SETTINGS[name],
        )


def parse(parser, arguments):
    """Returns (the parsed options, the options of xlate behind --)."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    given = parser.parse_args(arguments[:at])
    if getattr(given, "repeat", None) is not None and given.repeat < 1:
        parser.error("--repeat: expected at least 1, got %d" % given.repeat)
    if not os.access(given.xlate, os.X_OK):
        parser.error("--xlate: %s is no program (build it: scripts/quickstart)" % given.xlate)
    return given, arguments[at + 1 :]


def settings(given):
    """Returns every combination as {name: value}. A comma before a digit belongs to the name of a
    device, as in cuda:0,1."""
    values = {}
    for name in SETTINGS:
        texts = getattr(given, name) or []
        pattern = r",(?=[a-z])" if name == "device" else ","
        values[name] = (
            texts
            if name == "model"
            else [value for text in texts for value in re.split(pattern, text)]
        )
    names = [name for name in SETTINGS if values[name]]
    return [dict(zip(names, row)) for row in itertools.product(*(values[name] for name in names))]


def command_of(xlate, setting, extra=()):
    options = [word for name, value in setting.items() for word in (SETTINGS[name], str(value))]
    return [xlate, "--quiet", *options, *map(str, extra)]


def run(xlate, setting, inputs, extra=(), output=None):
    """Runs xlate and returns (report, None) or (None, its message). `output` is a file for the
    translations, which are otherwise thrown away."""
    command = command_of(xlate, setting, extra)
    with (
        tempfile.TemporaryDirectory(prefix="xlate-bench-") as folder,
        open(output or os.devnull, "wb") as out,
    ):
        path = os.path.join(folder, "report.json")
        done = subprocess.run(
            [*command, "--input", *inputs, "--report", path], stdout=out, stderr=subprocess.PIPE
        )
        if done.returncode:
            return None, "exit %d: %s" % (
                done.returncode,
                " ".join(done.stderr.decode("utf-8", "replace").split()) or "no message",
            )
        with open(path) as file:
            return json.load(file), None


def add_minutes(parser):
    """Adds the option --minutes of the scripts that measure in turns."""
    parser.add_argument(
        "--minutes",
        type=float,
        default=8.5,
        help="no second run of anything is begun that would end later [8.5]",
    )


def take_turns(tasks, minutes, failures):
    """Turns {name: (most runs, function)} into {name: [result of each run]}. The first run of each
    task is always made. Later runs for which no time is left are skipped. `failures` gets the
    message of each task that failed."""
    results, seconds, end = {name: [] for name in tasks}, {}, time.monotonic() + 60 * minutes
    for turn in range(max(most for most, _ in tasks.values())):
        for name, (most, function) in tasks.items():
            if (
                turn >= most
                or name in failures
                or (turn and time.monotonic() + seconds[name] > end)
            ):
                continue
            begun = time.monotonic()
            try:
                results[name].append(function())
            # A row that cannot be measured does not affect the others.
            except Exception as error:
                failures[name] = "%s: %s" % (type(error).__name__, error)
            seconds[name] = time.monotonic() - begun
            say(
                "turn %d, %s: %s" % (turn + 1, name, failures.get(name) or "%.1f s" % seconds[name])
            )
    return results


def field(report, name):
    for key in name.split("."):
        report = report.get(key) if isinstance(report, dict) else None
    return report


def median(reports, name):
    values = [field(report, name) for report in reports]
    return None if not values or None in values else statistics.median(values)


def cell(value, factor, form):
    return "–" if value is None else form % (value * factor)


def first_line(*command):
    try:
        return (
            subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
            .stdout.decode()
            .partition("\n")[0]
            or None
        )
    except OSError:
        return None


def about(xlate, script, reports):
    """Returns what a reader needs in order to trust or repeat the figures."""
    device = reports[0]["device"] if reports else {}
    with open("/proc/cpuinfo") as file:
        cpu = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            device.get("cpu"),
        )
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "cpu": cpu,
        "cpu_threads": len(os.sched_getaffinity(0)),
        "cpu_as_reported": device.get("cpu"),
        "gpu": device.get("name") if device.get("compute_capability") else None,
        "driver": device.get("driver"),
        "load_average": os.getloadavg()[0],
        "xlate": first_line(xlate, "--version"),
        "revision": first_line("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "command": shlex.join([script, *sys.argv[1:]]),
    }


def headline(header):
    return "%s. %s, %d threads%s; load average %.1f before. %s, revision %s.\n\n    %s\n" % (
        header["date"],
        header["cpu"],
        header["cpu_threads"],
        "; %s, driver %s" % (header["gpu"], header["driver"]) if header["gpu"] else "",
        header["load_average"],
        header["xlate"],
        header["revision"] or "unknown",
        header["command"],
    )


def markdown(headings, rows, left=1):
    """Returns a Markdown table whose first `left` columns are aligned to the left."""
    rule = ["---"] * left + ["---:"] * (len(headings) - left)
    return "\n".join(
        "| " + " | ".join(str(text).replace("|", "\\|") for text in row) + " |"
        for row in [headings, rule, *rows]
    )


def read_ahead(paths):
    """Reads the files into the page cache, so that the first run is as fast as the others."""
    for path in paths:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                while file.read(1 << 22):
                    pass


def write_json(path, value):
    if path:
        with open(path, "w") as file:
            json.dump(value, file, indent=1)
            file.write("\n")


def say(text):
    print(text, file=sys.stderr, flush=True)


def text_lines(path):
    """Returns the lines of a text as xlate counts them: only a line feed ends a line, and a byte
    order mark at the beginning is no text. Without this, sacrebleu would take the mark of a
    reference for a part of its first word, and split some texts at a lone carriage return."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        text = file.read()
    return text.removesuffix("\n").split("\n") if text else []


def require_sacrebleu(script):
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        sys.exit(script + ": needs the Python package sacrebleu (pip install sacrebleu)")


def score(lines, references):
    """Returns {"bleu", "chrf", their signatures} from sacrebleu. The caller handles ImportError."""
    from sacrebleu.metrics import BLEU, CHRF

    result = {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        result[name] = metric.corpus_score(lines, [references]).score
        result[name + "_signature"] = str(metric.get_signature())
    return result
