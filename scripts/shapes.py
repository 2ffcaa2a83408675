"""Measures the speed of models of other families, whose weights are random. docs/benchmarks.md says
how the figures are counted.

  scripts/bench shapes                              every shape, on one GPU
  scripts/bench shapes --only nllb,t5-base --line-buffered --json FILE
  scripts/bench shapes --old PROGRAM                beside another xlate, in turns

The shapes are those of NLLB-600M (nllb), of the big models of opus-mt (tc-big) and of T5-base
(t5-base). The sources are as long as those of a news text, and every output is given a length of 30
tokens with its end token (XLATE_TEST_LENGTHS). There are as many sentences as take --seconds at the
rate of --teraflops. Each run is a fresh process. The runs take turns, and the figures are medians.
The models and sources lie in a temporary folder (TMPDIR), which needs 2.2 GB. The script needs
numpy.
"""

import functools
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass

import measure
from model_shapes import NEWS, config_of, flops_of_token, load_writer, write_source
from target_figures import BEAMS, Failure, spread, step_microseconds
from target_table import verdict


@dataclass(frozen=True)
class Shape:
    """Describes a model, and what xlate must reach with it on one H200."""

    title: str
    family: str
    sizes: dict
    # The weights are stored and the network is computed in this precision.
    precision: str
    # These are the required and the ambitious rate for each beam size, in target tokens per second.
    goals: dict


SHAPES = {
    "nllb": Shape(
        "NLLB-600M",
        "m2m_100",
        {"d": 1024, "heads": 16, "layers": 12, "ffn": 4096, "vocabulary": 256_206},
        "fp16",
        {"4": (110_000, 122_000), "1": (310_000, 350_000)},
    ),
    "tc-big": Shape(
        "opus-mt tc-big",
        "marian",
        {"d": 1024, "heads": 16, "layers": 6, "ffn": 4096, "vocabulary": 60_000},
        "fp16",
        {"4": (290_000, 325_000), "1": (720_000, 830_000)},
    ),
    "t5-base": Shape(
        "T5-base",
        "t5",
        {"d": 768, "heads": 12, "layers": 12, "ffn": 3072, "vocabulary": 32_128},
        "bf16",
        {"4": (275_000, 325_000), "1": (610_000, 740_000)},
    ),
}
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
# These are the tokens of every output, the sentences that are decoded one at a time, and the fewest
# sentences of a run.
TOKENS, ALONE, FEWEST = 30, 100, 20
# The default of --max-length-factor would cut the outputs of short sources.
LIMITS = ["--max-length", "200", "--max-length-factor", "100"]
SEARCH = ["--length-penalty", "1", "--early-stopping", "true", *LIMITS]
FORMATS = ["--input-format", "ids", "--output-format", "ids"]


@dataclass(frozen=True)
class Task:
    """Is one figure of a shape and a beam size, by the "new" program or the "old" one. The kind is
    "throughput", "alone" (one sentence at a time) or "keys" (the distinct keys at a position)."""

    shape: str
    beam: str
    kind: str
    program: str

    def __str__(self):
        kind = {"throughput": "", "alone": ", one sentence at a time", "keys": ", distinct keys"}
        old = ", old program" if self.program == "old" else ""
        title = SHAPES[self.shape].title
        return "%s, %s%s%s" % (title, title_of(self.beam), kind[self.kind], old)


class Bench:
    """Writes the models and their sources, and runs them."""

    def __init__(self, given, extra, folder):
        write_model = load_writer("bench")
        self.given, self.extra, self.folder = given, extra, folder
        lengths = os.path.join(folder, "lengths")
        with open(lengths, "w") as file:
            file.write("%d\n" % TOKENS)
        os.environ["XLATE_TEST_LENGTHS"] = lengths
        for name in given.only:
            begun = time.monotonic()
            write_model(self.model(name), self.config(name), DTYPES[SHAPES[name].precision])
            for beam in given.beam:
                self.write_sources(name, beam)
            measure.say("%s: written in %.1f s" % (name, time.monotonic() - begun))

    def sizes(self, name):
        return {**SHAPES[name].sizes, **self.given.sizes}

    def config(self, name):
        return config_of(SHAPES[name].family, **self.sizes(name))

    def model(self, name):
        return os.path.join(self.folder, name + ".bin")

    def source(self, name, what):
        return os.path.join(self.folder, "%s-%s.ids" % (name, what))

    def write_sources(self, name, beam):
        """Writes the sources of a shape and beam size, and those that are decoded one at a time."""
        sizes = self.sizes(name)
        flops = flops_of_token(
            sizes["d"], sizes["layers"], sizes["ffn"], sizes["vocabulary"], int(beam)
        )
        tokens = self.given.seconds * self.given.teraflops * 1e12 / flops
        for what, count in ((beam, max(FEWEST, int(tokens / TOKENS))), ("alone", ALONE)):
            numbers = random.Random(1)
            lengths = numbers.choices(NEWS, k=count)
            write_source(self.source(name, what), lengths, self.config(name), numbers)

    def run(self, program, name, beam, what, *more, output=None):
        setting = {"model": self.model(name), "device": self.given.device, "beam": beam}
        # The CPU computes in float32 unless another precision is asked for.
        if self.given.device != "cpu":
            setting["precision"] = SHAPES[name].precision
        if self.given.precision:
            setting["precision"] = self.given.precision
        report, error = measure.run(
            program,
            setting,
            [self.source(name, what)],
            [*SEARCH, *FORMATS, *more, *self.extra],
            output,
        )
        if error:
            raise Failure(error)
        return report

    def count_keys(self, program, name, beam):
        path = os.path.join(self.folder, "n-best.txt")
        report = self.run(program, name, beam, "alone", "--n-best", beam, output=path)
        return {**report, "distinct_keys": distinct_keys(path)}

    def tasks(self):
        """Returns {Task: (runs, function)} for measure.take_turns."""
        given, tasks = self.given, {}
        programs = {"new": given.xlate, **({"old": given.old} if given.old else {})}
        for name, beam, program in itertools.product(given.only, given.beam, programs):
            run = functools.partial(self.run, programs[program], name, beam)
            tasks[Task(name, beam, "throughput", program)] = (
                given.repeat,
                functools.partial(run, beam),
            )
            if given.line_buffered:
                tasks[Task(name, beam, "alone", program)] = (
                    given.repeat,
                    functools.partial(run, "alone", "--line-buffered"),
                )
        for name, beam in itertools.product(given.only, given.beam):
            count = functools.partial(self.count_keys, given.xlate, name, beam)
            tasks[Task(name, beam, "keys", "new")] = 1, count
        return tasks


def title_of(beam):
    return BEAMS.get(beam, "beam " + beam)


def distinct_keys(path):
    """Returns how many different keys a position has at the last step on average. The hypotheses of
    a sentence have the same key where their tokens so far are the same."""
    sentences = {}
    with open(path) as file:
        for line in file:
            number, ids, *_ = line.split(" ||| ")
            sentences.setdefault(number, []).append(ids.split())
    counts = [
        len({tuple(ids[:position]) for ids in hypotheses})
        for hypotheses in sentences.values()
        for position in range(len(hypotheses[0]) + 1)
    ]
    return statistics.mean(counts)


def rate_of(report):
    return measure.field(report, measure.RATE)


def compare(values, old):
    """Returns the cells of the old program's figures and of the ratio of the medians."""
    if not values or not old:
        return ["–", "–"]
    return [spread(old, "%.0f"), "%.3f" % (statistics.median(values) / statistics.median(old))]


def throughput_row(given, results, name, beam):
    reports, old, keys = (
        results.get(Task(name, beam, *task), [])
        for task in (("throughput", "new"), ("throughput", "old"), ("keys", "new"))
    )
    rates = [rate_of(report) for report in reports]
    # Other sizes than those of the shape have no goals.
    must, moonshot = (None, None) if given.sizes else SHAPES[name].goals.get(beam, (None, None))
    idle = measure.median(reports, "shares.rows_idle")
    return [
        SHAPES[name].title,
        title_of(beam),
        *("–" if goal is None else "{:,}".format(goal) for goal in (must, moonshot)),
        spread(rates, "%.0f") if rates else "–",
        verdict(statistics.median(rates), must, moonshot) if rates and must else "–",
        *(compare(rates, [rate_of(report) for report in old]) if given.old else []),
        measure.cell(measure.median(reports, "shares.device_busy"), 100, "%.1f"),
        measure.cell(None if idle is None else 1 - idle, 100, "%.1f"),
        measure.cell(measure.median(keys, "distinct_keys"), 1, "%.2f"),
        measure.cell(measure.median(reports, "memory.device_peak_bytes"), 2**-30, "%.2f"),
        measure.cell(measure.median(reports, "seconds.load"), 1, "%.2f"),
    ]


def alone_row(given, results, name, beam):
    steps, old_steps = (
        [
            step_microseconds(report)
            for report in results.get(Task(name, beam, "alone", program), [])
        ]
        for program in ("new", "old")
    )
    return [
        SHAPES[name].title,
        title_of(beam),
        spread(steps, "%.0f") if steps else "–",
        *(compare(steps, old_steps) if given.old else []),
    ]


def table_of(given, results, kind):
    old_columns = ["old program (least to most)", "new / old"] if given.old else []
    if kind == "throughput":
        row = throughput_row
        figures = ["must", "moonshot", "target tokens/s (least to most)", "", *old_columns]
        figures += ["device busy %", "useful rows %", "distinct keys", "device GiB", "load s"]
    else:
        row = alone_row
        figures = ["one sentence at a time, µs a step (least to most)", *old_columns]
    rows = [
        row(given, results, name, beam) for name, beam in itertools.product(given.only, given.beam)
    ]
    return measure.markdown(["shape", "search", *figures], rows, left=2)


def notes_of(results, failures):
    """Returns the kernels that ran in each row, and the messages of what failed."""
    notes = []
    for task, reports in results.items():
        shown = reports and task.program == "new" and task.kind != "keys"
        paths = reports[0].get("paths") if shown else None
        if paths:
            notes.append(
                "%s: %s" % (task, "; ".join("%s %s" % (kind, path) for kind, path in paths.items()))
            )
    return notes + ["%s: %s" % failure for failure in failures.items()]


def wrong_sizes(given):
    """Returns what is expected of --sizes, or None if they are right."""
    known = SHAPES["nllb"].sizes
    if not isinstance(given.sizes, dict) or not given.sizes.keys() <= known.keys():
        return "an object of some of %s" % ",".join(known)
    if not all(type(size) is int and size > 0 for size in given.sizes.values()):
        return "whole numbers above 0"
    for name in given.only:
        sizes = {**SHAPES[name].sizes, **given.sizes}
        if sizes["d"] % sizes["heads"] or sizes["d"] % 2:
            return "an even d that the heads divide, which is not so in %s" % name
    return None


def options(arguments):
    parser = measure.parser_of("scripts/bench shapes [options] [-- options of xlate]", __doc__)
    parser.add_argument("--only", default=",".join(SHAPES), metavar="A,B…", help="[%(default)s]")
    parser.add_argument("--device", default="cuda", help="[cuda]")
    parser.add_argument("--precision", help="[fp16; bf16 for t5-base; of the CPU fp32]")
    parser.add_argument("--beam", default="4,1", help="[4,1]")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each figure [3]")
    parser.add_argument(
        "--seconds", type=float, default=4, help="that a run is to take [%(default)s]"
    )
    parser.add_argument("--teraflops", type=float, default=400, help="at such a rate [%(default)s]")
    measure.add_minutes(parser)
    parser.add_argument(
        "--line-buffered",
        action="store_true",
        help="measure %d sentences one at a time, too" % ALONE,
    )
    parser.add_argument("--old", metavar="PROGRAM", help="another xlate, for comparison")
    parser.add_argument(
        "--sizes",
        default="{}",
        metavar="JSON",
        help='other sizes for all shapes, such as {"layers": 24}',
    )
    measure.add_program(parser)
    given, extra = measure.parse(parser, arguments)
    given.only, given.beam = given.only.split(","), given.beam.split(",")
    for name in given.only:
        if name not in SHAPES:
            parser.error("--only: %s, expected some of %s" % (name, ",".join(SHAPES)))
    if not all(beam.isdecimal() and int(beam) for beam in given.beam):
        parser.error("--beam: %s, expected whole numbers above 0" % ",".join(given.beam))
    if given.old and not os.access(given.old, os.X_OK):
        parser.error("--old: %s is no program" % given.old)
    try:
        given.sizes = json.loads(given.sizes)
    except ValueError as error:
        parser.error("--sizes: %s" % error)
    if message := wrong_sizes(given):
        parser.error("--sizes: expected %s" % message)
    return given, extra


def main(arguments):
    given, extra = options(arguments)
    begun, load, failures = time.monotonic(), os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory(prefix="xlate-shapes-") as folder:
        bench = Bench(given, extra, folder)
        results = measure.take_turns(bench.tasks(), given.minutes, failures)
        configs = {name: bench.config(name) for name in given.only}
    tables = [table_of(given, results, "throughput")]
    if given.line_buffered:
        tables.append(table_of(given, results, "alone"))
    header = {
        **measure.about(
            given.xlate, "scripts/bench", [report for run in results.values() for report in run]
        ),
        "load_average": load,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print("Medians, %s" % measure.headline(header))
    print("\n\n".join([*tables, *notes_of(results, failures)]))
    runs = [
        {**vars(task), "reports": reports, "failure": failures.get(task)}
        for task, reports in results.items()
    ]
    measure.write_json(given.json, {**header, "configs": configs, "runs": runs})
    # An older program need not know every model.
    return 1 if any(task.program == "new" for task in failures) else 0
