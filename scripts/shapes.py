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
import os
import random
import statistics
from dataclasses import dataclass

import measure
import shape_runs
from model_shapes import NEWS, config_of, flops_of_token, write_source
from shape_runs import compare, judge, shares_of, sizes_of
from target_figures import BEAMS, spread, step_microseconds


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
# These are the tokens of every output, the sentences that are decoded one at a time, and the fewest
# sentences of a run.
TOKENS, ALONE, FEWEST = 30, 100, 20
# The default of --max-length-factor would cut the outputs of short sources.
LIMITS = ["--max-length", "200", "--max-length-factor", "100"]
SEARCH = ["--length-penalty", "1", "--early-stopping", "true", *LIMITS]


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


class Bench(shape_runs.ShapeRuns):
    def __init__(self, given, extra, folder):
        super().__init__(given, extra, folder, SHAPES, TOKENS)

    def config(self, name):
        return config_of(SHAPES[name].family, **self.sizes(name))

    def write_sources(self, name):
        """Writes the sources of a shape and each beam size, and those that are decoded one at a
        time."""
        sizes, counts = self.sizes(name), {"alone": ALONE}
        for beam in self.given.beam:
            flops = flops_of_token(
                sizes["d"], sizes["layers"], sizes["ffn"], sizes["vocabulary"], int(beam)
            )
            tokens = self.given.seconds * self.given.teraflops * 1e12 / flops
            counts[beam] = max(FEWEST, int(tokens / TOKENS))
        for what, count in counts.items():
            numbers = random.Random(1)
            lengths = numbers.choices(NEWS, k=count)
            write_source(self.source(name, what), lengths, self.config(name), numbers)

    def count_keys(self, program, name, beam):
        path = os.path.join(self.folder, "n-best.txt")
        report = self.run(program, name, beam, "alone", *SEARCH, "--n-best", beam, output=path)
        return {**report, "distinct_keys": distinct_keys(path)}

    def tasks(self):
        """Returns {Task: (runs, function)} for measure.take_turns."""
        given, tasks = self.given, {}
        for name, beam, program in itertools.product(given.only, given.beam, self.programs):
            run = functools.partial(self.run, self.programs[program], name, beam)
            tasks[Task(name, beam, "throughput", program)] = (
                given.repeat,
                functools.partial(run, beam, *SEARCH),
            )
            if given.line_buffered:
                tasks[Task(name, beam, "alone", program)] = (
                    given.repeat,
                    functools.partial(run, "alone", *SEARCH, "--line-buffered"),
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


def throughput_row(given, results, name, beam):
    reports, old, keys = (
        results.get(Task(name, beam, *task), [])
        for task in (("throughput", "new"), ("throughput", "old"), ("keys", "new"))
    )
    rates = [rate_of(report) for report in reports]
    # Other sizes than those of the shape have no goals.
    goals = None if given.sizes else SHAPES[name].goals.get(beam)
    return [
        SHAPES[name].title,
        title_of(beam),
        *judge(rates, goals),
        *(compare(rates, [rate_of(report) for report in old]) if given.old else []),
        *shares_of(reports),
        measure.cell(measure.median(keys, "distinct_keys"), 1, "%.2f"),
        *sizes_of(reports),
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


def options(arguments):
    parser = measure.parser_of("scripts/bench shapes [options] [-- options of xlate]", __doc__)
    shape_runs.add_options(parser, SHAPES, "fp16; bf16 for t5-base", "%d sentences" % ALONE)
    parser.add_argument("--beam", default="4,1", help="[4,1]")
    parser.add_argument(
        "--seconds", type=float, default=4, help="that a run is to take [%(default)s]"
    )
    parser.add_argument("--teraflops", type=float, default=400, help="at such a rate [%(default)s]")
    given, extra = shape_runs.parse(parser, arguments, SHAPES)
    given.beam = given.beam.split(",")
    if not all(beam.isdecimal() and int(beam) for beam in given.beam):
        parser.error("--beam: %s, expected whole numbers above 0" % ",".join(given.beam))
    return given, extra


def main(arguments):
    given, extra = options(arguments)
    kinds = ["throughput", *(["alone"] if given.line_buffered else [])]
    return shape_runs.measure_shapes(
        given,
        lambda folder: Bench(given, extra, folder),
        lambda results: [table_of(given, results, kind) for kind in kinds],
    )
