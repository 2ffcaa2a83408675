"""Has the modes of scripts/bench that each answer one question (docs/benchmarks.md says how each
figure is counted). target_table.py has the table of what xlate must reach on one H200. Every figure
is the median of fresh processes that take turns.

  scripts/bench startup -m ende-base.bin -i newstest2014.en
      start to first output and to exit, above the floor measured in turns with it
  scripts/bench latency -m ende-base.bin -i newstest2014.en
      --line-buffered: microseconds a decoding step
  scripts/bench throughput -m ende-base.bin -i news.en
      the text ten times over, shuffled with a fixed seed
  scripts/bench targets -m ende-base.bin [--json FILE]
      every row of the table; at most ten minutes on an H200

The mode targets takes its texts from XLATE_REFERENCE_DIR (default ../shared): data/bench/news.en,
data/wmt/newstest2014.en and .de. The floor is tests/bench_floor.cpp, whose program lies beside
xlate. BLEU needs the Python package sacrebleu; without it that figure stays empty.
"""

import os
import subprocess
import sys
import tempfile
import time

import measure
from target_figures import (
    BEAMS,
    Failure,
    changed_bytes,
    lines_of,
    other_than_copies,
    quality,
    spread,
    startup_figures,
    step_microseconds,
    tokens_away,
)
from target_table import figures_of, judge

MODES = ("startup", "latency", "throughput", "targets")
SEARCH = [
    "--length-penalty",
    "1",
    "--early-stopping",
    "true",
    "--max-length",
    "200",
    "--max-length-factor",
    "3",
]
ONE_LINE = "Hello, how are you today?\n"


class Bench:
    """Runs one model on one device."""

    def __init__(self, given, extra, folder):
        self.given, self.extra, self.folder = given, extra, folder
        self.device = {"model": given.model, "device": given.device, "precision": given.precision}
        self.failures = {}
        self.one_line = os.path.join(folder, "one-line.txt")
        with open(self.one_line, "w") as file:
            file.write(ONE_LINE)

    def report(self, text, beam, *more, output=None, **setting):
        report, error = measure.run(
            self.given.xlate,
            {**self.device, "beam": beam, **setting},
            [text],
            [*SEARCH, *more, *self.extra],
            output,
        )
        if error:
            raise Failure(error)
        return report

    def command(self, beam):
        return [
            self.given.xlate,
            "--quiet",
            *(
                word
                for name, value in self.device.items()
                for word in (measure.SETTINGS[name], value)
            ),
            "--beam-size",
            beam,
            *SEARCH,
            *self.extra,
        ]

    def shuffled(self, path, times, lines=None):
        """Returns a file with the text repeated, shuffled as `shuf --random-source=<(yes)` does it,
        and cut to `lines`."""
        target = os.path.join(self.folder, "shuffled-%s-%s.txt" % (times, lines))
        if not os.path.exists(target):
            cut = "| head -n %d" % lines if lines else ""
            script = (
                'for i in $(seq %d); do cat "$0"; done | shuf --random-source=<(yes 2>/dev/null) '
                '%s >"$1"' % (times, cut)
            )
            subprocess.run(["bash", "-c", script, path, target], check=True)
        return target

    # These functions measure the figures of one run each.

    def throughput(self, text, beam):
        """The text has each line many times. Its translation must be the same wherever the line
        stands and whatever is decoded beside it."""

        def run():
            path = os.path.join(self.folder, "throughput.txt")
            report = self.report(text, beam, output=path)
            return {**report, "other_than_copies": other_than_copies(text, path)}

        return run

    def latency(self, text, beam):
        return lambda: self.report(text, beam, "--line-buffered", output=self.single(beam))

    def single(self, beam):
        """Returns the path of the output of the latency runs."""
        return os.path.join(self.folder, "single-%s.txt" % beam)

    def startup(self, text):
        """Returns a function for one turn. The turn gives the seconds of the floor, of one line to
        its first output and to its exit, and of the text to its exit."""

        def turn():
            floor = timed([self.given.floor])[1] if self.given.floor else None
            first, line_exit = timed(self.command("4"), self.one_line)
            return {
                "floor": floor,
                "first_output": first,
                "one_line": line_exit,
                "whole": timed(self.command("4"), text)[1],
            }

        return turn

    def take_turns(self, tasks):
        return measure.take_turns(tasks, self.given.minutes, self.failures)


def timed(command, text=os.devnull):
    """Returns the seconds from the start of a process to its first output and to its exit."""
    first = None
    with open(text, "rb") as source:
        begun = time.monotonic()
        process = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.stdout.read1(1 << 16):
            first = first or time.monotonic() - begun
        message = process.stderr.read()
        code = process.wait()
        last = time.monotonic() - begun
    if code:
        raise Failure(
            "%s: exit %d: %s"
            % (
                os.path.basename(command[0]),
                code,
                " ".join(message.decode("utf-8", "replace").split()),
            )
        )
    return first, last


# These functions are the modes.


def startup(bench):
    turns = bench.take_turns(
        {"startup": (bench.given.repeat or 5, bench.startup(bench.given.input))}
    )["startup"]
    figures = startup_figures(turns)
    names = {
        "floor": "the floor, start to exit",
        "first_output": "one line, start to first output",
        "one_line": "one line, start to exit",
        "whole": os.path.basename(bench.given.input) + " once, start to exit",
    }
    rows = [
        [
            names[kind],
            measure.cell(figures[kind], 1, "%.3f"),
            measure.cell(figures.get(kind + "_above_floor"), 1, "%.3f"),
            "%.3f to %.3f" % (min(values), max(values)) if values else "",
        ]
        for kind in names
        for values in [[turn[kind] for turn in turns if turn[kind] is not None]]
    ]
    return (
        measure.markdown(["beam 4", "s", "above the floor", "least to most"], rows),
        {"figures": figures, "turns": turns},
        [],
    )


def latency(bench):
    beams = bench.given.beam.split(",")
    runs = bench.take_turns(
        {beam: (bench.given.repeat or 3, bench.latency(bench.given.input, beam)) for beam in beams}
    )
    rows = [
        [
            beam,
            spread([step_microseconds(report) for report in runs[beam]], "%.0f"),
            "%.0f" % measure.median(runs[beam], measure.RATE),
            *(
                "%.1f" % measure.median(runs[beam], "latency_ms." + name)
                for name in ("p50", "p90", "p99")
            ),
        ]
        for beam in beams
        if runs[beam]
    ]
    return (
        measure.markdown(
            ["beam", "µs a step (least to most)", "target tokens/s", "p50 ms a line", "p90", "p99"],
            rows,
        ),
        {"runs": runs},
        [report for beam in beams for report in runs[beam]],
    )


def throughput(bench):
    text, beams = bench.shuffled(bench.given.input, bench.given.times), bench.given.beam.split(",")
    runs = bench.take_turns(
        {beam: (bench.given.repeat or 3, bench.throughput(text, beam)) for beam in beams}
    )
    columns = [
        column
        for column in measure.COLUMNS
        if any(measure.median(reports, column[1]) is not None for reports in runs.values())
    ]
    rows = [
        [
            beam,
            *(
                measure.cell(measure.median(runs[beam], name), factor, form)
                for _, name, factor, form in columns
            ),
            spread([measure.field(report, measure.RATE) for report in runs[beam]], "%.0f"),
        ]
        for beam in beams
        if runs[beam]
    ]
    return (
        measure.markdown(
            ["beam", *(column[0] for column in columns), "tokens/s (least to most)"], rows
        ),
        {"runs": runs},
        [report for beam in beams for report in runs[beam]],
    )


def texts_of():
    folder = os.path.abspath(
        os.environ.get("XLATE_REFERENCE_DIR") or os.path.join(measure.ROOT, "..", "shared")
    )
    paths = [
        os.path.join(folder, "data", *name)
        for name in (("bench", "news.en"), ("wmt", "newstest2014.en"), ("wmt", "newstest2014.de"))
    ]
    for path in paths:
        if not os.path.isfile(path):
            sys.exit("bench: XLATE_REFERENCE_DIR holds no %s" % os.path.relpath(path, folder))
    return paths


def compare(bench):
    news, test, reference = texts_of()
    given, repeat = bench.given, bench.given.repeat or 3
    long, million = (
        bench.shuffled(news, given.times),
        bench.shuffled(news, -(-given.lines // 33_000), given.lines),
    )
    measure.read_ahead([long, million, test, given.model])
    references = lines_of(reference)
    results = bench.take_turns(
        {
            "startup": (5, bench.startup(test)),
            **{"throughput " + beam: (repeat, bench.throughput(long, beam)) for beam in BEAMS},
            **{"latency " + beam: (repeat, bench.latency(test, beam)) for beam in BEAMS},
            "quality": (1, lambda: quality(bench, test, references)),
            "tokens": (1, lambda: tokens_away(bench, news)),
            "bytes": (1, lambda: changed_bytes(bench)),
            "million": (1, lambda: bench.report(million, "1")),
        }
    )
    rows, entries = judge(figures_of(results), bench.failures)
    table = measure.markdown(["", "must", "moonshot", "figure (least to most)", ""], rows)
    rest = ["%s: %s" % (name, message) for name, message in bench.failures.items()]
    rest += [
        "%s: of the process %s target tokens/s"
        % (
            name,
            spread(
                [report["rates"]["target_tokens_per_second_process"] for report in results[name]],
                "%.0f",
            ),
        )
        for name in ("throughput 4", "throughput 1")
        if results[name]
    ]
    rest += [figure for result in results["bytes"] for figure in result["figures"]]
    rest += [
        "BLEU of newstest2014, %s, %s: %.2f (%s)"
        % (score["precision"], BEAMS[score["beam"]], score["bleu"], score["bleu_signature"])
        for result in results["quality"]
        for score in result["scores"]
    ]
    return (
        "\n\n".join([table, *rest]),
        {"targets": entries, "failures": bench.failures, "results": results},
        results["throughput 4"] + results["throughput 1"] + results["million"],
    )


def main(mode, arguments):
    parser = measure.parser_of(
        "scripts/bench %s -m MODEL%s [options] [-- options of xlate]"
        % (mode, "" if mode == "targets" else " -i FILE"),
        __doc__,
    )
    parser.add_argument("-m", "--model", required=True, metavar="FILE")
    if mode != "targets":
        parser.add_argument("-i", "--input", required=True, metavar="FILE")
    parser.add_argument("--device", default="cuda", help="[cuda]")
    parser.add_argument("--precision", default="fp16", help="[fp16]")
    parser.add_argument("--beam", default="4,1", help="of latency and throughput [4,1]")
    parser.add_argument("--repeat", type=int, help="runs of each figure [3; of startup 5]")
    measure.add_minutes(parser)
    parser.add_argument(
        "--times", type=int, default=10, help="how often the throughput text holds the input [10]"
    )
    parser.add_argument(
        "--lines", type=int, default=1_000_000, help="of the row of 1,000,000 lines"
    )
    parser.add_argument("--floor", metavar="PROGRAM", help="[bench_floor beside xlate]")
    measure.add_program(parser)
    given, extra = measure.parse(parser, arguments)
    beside = os.path.join(os.path.dirname(os.path.abspath(given.xlate)), "bench_floor")
    given.floor = given.floor or (beside if os.access(beside, os.X_OK) else None)
    if not given.floor and mode in ("startup", "targets"):
        measure.say("no floor: %s is not there" % beside)
    begun, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="xlate-bench-") as folder:
        bench = Bench(given, extra, folder)
        measure.read_ahead([given.model, getattr(given, "input", "")])
        text, results, reports = {
            "startup": startup,
            "latency": latency,
            "throughput": throughput,
            "targets": compare,
        }[mode](bench)
        reports = reports or [bench.report(bench.one_line, "1")]
    header = {
        **measure.about(given.xlate, "scripts/bench", reports),
        "load_average": load,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print("Medians, %s\n%s" % (measure.headline(header), text))
    measure.write_json(given.json, {**header, **results})
    return 1 if bench.failures else 0
