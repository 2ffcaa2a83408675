"""Measures the speed of models of other families, whose weights are random. docs/benchmarks.md says
how the figures are counted.

  scripts/bench shapes                              every shape, on one GPU
  scripts/bench shapes --only nllb,t5-base --line-buffered --json FILE
  scripts/bench shapes --old PROGRAM                beside another xlate, in turns

The shapes are those of NLLB-600M (nllb), of the big models of opus-mt (tc-big) and of T5-base
(t5-base), each also with logits like those of text (nllb-text and so on). The sources are as long
as those of a news text, and every output is given a length of 30 tokens with its end token
(XLATE_TEST_LENGTHS). There are as many sentences as take --seconds at the rate of --teraflops. Each
run is a fresh process. The runs take turns, and the figures are medians. The models and sources lie
in a temporary folder (TMPDIR), which needs 4.4 GB. The script needs numpy.
"""

import functools
import itertools
import os
import random
import statistics
from dataclasses import dataclass, replace

import measure
import shape_runs
from model_shapes import NEWS, config_of, flops_of_token, write_source
from shape_runs import FORMATS, SIZES, compare, judge, shares_of, sizes_of
from target_figures import BEAMS, spread, step_microseconds
from targets import timed


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
    # generated_model.py says what that means.
    like_text: bool = False


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
SHAPES |= {
    name + "-text": replace(shape, title=shape.title + ", like text", like_text=True)
    for name, shape in SHAPES.items()
}
# These are the tokens of every output, the sentences that are decoded one at a time, and the fewest
# sentences of a run.
TOKENS, ALONE, FEWEST = 30, 100, 20
# A process is started with this beam size.
START_BEAM = "4"
# A step of one sentence reads the weights of the decoder once, at this rate at best. An H200 copies
# 1 GiB at it (docs/kernels.md).
BYTES_PER_SECOND = 4.24e12
# The default of --max-length-factor would cut the outputs of short sources.
LIMITS = ["--max-length", "200", "--max-length-factor", "100"]
SEARCH = ["--length-penalty", "1", "--early-stopping", "true", *LIMITS]


@dataclass(frozen=True)
class Task:
    """Is one figure of a shape and a beam size, by the "new" program, the "old" one or the "floor".
    The kind is "throughput", "alone" (one sentence at a time), "keys" (the distinct keys at a
    position) or "start" (the start of a process to its first output)."""

    shape: str
    beam: str
    kind: str
    program: str

    def __str__(self):
        kind = {
            "throughput": "",
            "alone": ", one sentence at a time",
            "keys": ", distinct keys",
            "start": ", start",
        }
        program = {"new": "", "old": ", old program", "floor": ", floor"}
        title = SHAPES[self.shape].title
        return "%s, %s%s%s" % (title, title_of(self.beam), kind[self.kind], program[self.program])


class Bench(shape_runs.ShapeRuns):
    def __init__(self, given, extra, folder):
        super().__init__(given, extra, folder, SHAPES, TOKENS)

    def config(self, name):
        return config_of(SHAPES[name].family, **self.sizes(name))

    def model(self, name):
        return [*super().model(name), SHAPES[name].like_text]

    def write_sources(self, name):
        """Writes the sources of a shape and each beam size, those that are decoded one at a time,
        and the one that a process is started for."""
        sizes, counts = self.sizes(name), {"alone": ALONE, "start": 1}
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

    def start(self, program, name):
        """Returns the seconds from the start of a process to its first output and to its exit."""
        setting = self.setting(name, START_BEAM)
        command = measure.command_of(program, setting, [*FORMATS, *SEARCH, *self.extra])
        first, exit = timed(command, self.source(name, "start"))
        return {"first_output": first, "exit": exit}

    def floor(self):
        return {"exit": timed([self.given.floor])[1]}

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
        for name in given.only if given.start else []:
            if given.floor:
                tasks[Task(name, START_BEAM, "start", "floor")] = given.repeat, self.floor
            for program, path in self.programs.items():
                start = functools.partial(self.start, path, name)
                tasks[Task(name, START_BEAM, "start", program)] = given.repeat, start
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


def decode_microseconds(report):
    return 1e6 * report["seconds"]["decode"] / max(1, report["counts"]["decoding_steps"])


def bound_microseconds(sizes):
    """Returns the time of reading the weights of a decoding step, in 16 bits, from memory."""
    width, layer = sizes["d"], 6 * sizes["d"] ** 2 + 2 * sizes["d"] * sizes["ffn"]
    weights = sizes["layers"] * layer + sizes["vocabulary"] * width
    return 1e6 * 2 * weights / BYTES_PER_SECOND


def alone_row(given, results, name, beam):
    def figures(program, figure):
        return [figure(report) for report in results.get(Task(name, beam, "alone", program), [])]

    steps, decode = figures("new", step_microseconds), figures("new", decode_microseconds)
    sizes = {**SHAPES[name].sizes, **given.sizes}
    bound = None if given.device == "cpu" else bound_microseconds(sizes)
    share = bound / statistics.median(decode) if bound and decode else None
    old = (figures("old", step_microseconds), figures("old", decode_microseconds))
    return [
        SHAPES[name].title,
        title_of(beam),
        spread(steps, "%.0f") if steps else "–",
        *(compare(steps, old[0]) if given.old else []),
        spread(decode, "%.0f") if decode else "–",
        *(compare(decode, old[1]) if given.old else []),
        measure.cell(bound, 1, "%.0f"),
        measure.cell(share, 1, "%.2f"),
    ]


def start_table(given, results):
    """Returns the table of the seconds from the start of a process to its first output."""

    def seconds(name, program, what):
        task = Task(name, START_BEAM, "start", program)
        return [run[what] for run in results.get(task, [])]

    rows = []
    for name in given.only:
        first, floor = seconds(name, "new", "first_output"), seconds(name, "floor", "exit")
        above = statistics.median(first) - statistics.median(floor) if first and floor else None
        old = seconds(name, "old", "first_output")
        rows.append(
            [
                SHAPES[name].title,
                spread(floor, "%.3f") if floor else "–",
                spread(first, "%.3f") if first else "–",
                measure.cell(above, 1, "%.3f"),
                *([spread(old, "%.3f") if old else "–"] if given.old else []),
            ]
        )
    headings = ["shape", "floor, start to exit, s", "start to first output, s", "above the floor"]
    return measure.markdown([*headings, *(["old program"] if given.old else [])], rows)


def table_of(given, results, kind):
    if kind == "start":
        return start_table(given, results)
    old_columns = ["old program (least to most)", "new / old"] if given.old else []
    if kind == "throughput":
        row = throughput_row
        figures = ["must", "moonshot", "target tokens/s (least to most)", "", *old_columns]
        figures += ["device busy %", "useful rows %", "distinct keys", *SIZES]
    else:
        row = alone_row
        figures = ["one sentence at a time, µs a step (least to most)", *old_columns]
        figures += ["decoding alone, µs a step", *old_columns, "weights read once, µs", "share"]
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
    parser.add_argument(
        "--start",
        action="store_true",
        help="measure the start of a process to its first output, too, beside bench_floor",
    )
    given, extra = shape_runs.parse(parser, arguments, SHAPES)
    floor = os.path.join(os.path.dirname(os.path.abspath(given.xlate)), "bench_floor")
    given.floor = floor if os.access(floor, os.X_OK) else None
    if given.start and not given.floor:
        measure.say("no floor: %s is not there" % floor)
    given.beam = given.beam.split(",")
    if not all(beam.isdecimal() and int(beam) for beam in given.beam):
        parser.error("--beam: %s, expected whole numbers above 0" % ",".join(given.beam))
    return given, extra


def main(arguments):
    given, extra = options(arguments)
    kinds = ["throughput", *(["alone"] if given.line_buffered else [])]
    kinds += ["start"] if given.start else []
    return shape_runs.measure_shapes(
        given,
        lambda folder: Bench(given, extra, folder),
        lambda results: [table_of(given, results, kind) for kind in kinds],
    )
