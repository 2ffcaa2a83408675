"""Measures the speed of models without an encoder, whose weights are random. docs/benchmarks.md
says how the figures are counted.

  scripts/bench prompts                             every shape, on one GPU
  scripts/bench prompts --only gpt2,llama-1b --line-buffered --seconds 5 --json FILE
  scripts/bench prompts --old PROGRAM               beside another xlate, in turns

The shapes are those of GPT-2 with 124 million weights (gpt2) and of Llama with 1 and 8 billion
(llama-1b, llama-8b), and llama-1b-long gives the second one long prompts. Prompts are random ids.
Search is greedy, and every continuation is given a length of 128 tokens (XLATE_TEST_LENGTHS). Each
run is a fresh process. The runs take turns, and the figures are medians. The models and prompts lie
in a temporary folder (TMPDIR), which needs 19 GB for all shapes and 3 GB without
llama-8b. The
script needs numpy.
"""

import functools
import itertools
import random
from dataclasses import dataclass, field

import measure
import shape_runs
from model_shapes import prompt_config_of, write_prompts
from shape_runs import SIZES, compare, judge, shares_of, sizes_of
from target_figures import spread


@dataclass(frozen=True)
class Shape:
    """Describes a model and its prompts, and what xlate must reach with them on one H200."""

    title: str
    family: str
    # They are those of the network, and the least and the most ids of a prompt. The lengths between
    # are equally frequent.
    sizes: dict
    prompts: int
    # These are the rates of vLLM 0.23.0 and the required and the ambitious one, in tokens per
    # second.
    vllm: int
    goals: tuple
    # The goals of one prompt at a time are in microseconds for each new token.
    alone: tuple | None = None
    # It is true if the rates count the tokens of prompts, too.
    counts_prompts: bool = False
    settings: dict = field(default_factory=dict)
    precision: str = "bf16"


LLAMA_1B = {
    "d": 2048,
    "layers": 16,
    "heads": 32,
    "kv_heads": 8,
    "ffn": 8192,
    "vocabulary": 128_256,
    "context": 8192,
}
LLAMA_8B = LLAMA_1B | {"d": 4096, "layers": 32, "ffn": 14_336}
SHORT, LONG = {"shortest": 32, "longest": 256}, {"shortest": 7000, "longest": 7000}
LLAMA_3 = {"rope_theta": 500_000.0, "rms_norm_eps": 1e-5}
SHAPES = {
    "gpt2": Shape(
        "GPT-2 124M",
        "gpt2",
        {
            "d": 768,
            "layers": 12,
            "heads": 12,
            "kv_heads": 12,
            "ffn": 3072,
            "vocabulary": 50_257,
            "context": 1024,
            **SHORT,
        },
        8192,
        36_600,
        (200_000, 290_000),
    ),
    "llama-1b": Shape(
        "Llama 1B",
        "llama",
        LLAMA_1B | SHORT,
        8192,
        48_100,
        (75_000, 95_000),
        alone=(800, 680),
        settings=LLAMA_3 | {"tie_word_embeddings": True},
    ),
    "llama-8b": Shape(
        "Llama 8B",
        "llama",
        LLAMA_8B | SHORT,
        # vLLM had this many, too.
        4096,
        16_400,
        (16_400, 17_600),
        settings=LLAMA_3,
    ),
    "llama-1b-long": Shape(
        "Llama 1B, long prompts",
        "llama",
        LLAMA_1B | LONG,
        256,
        167_800,
        (172_000, 195_000),
        counts_prompts=True,
        settings=LLAMA_3 | {"tie_word_embeddings": True},
    ),
}
# These are the tokens of every continuation, and the prompts that are continued one at a time.
TOKENS, ALONE = 128, 20
# Random weights hardly ever choose the end token, but the search looks for one, as it does for a
# trained model. XLATE_TEST_LENGTHS forbids it before the last token.
END = {"eos_token_id": 2}


@dataclass(frozen=True)
class Task:
    """Is one figure of a shape, by the "new" program or the "old" one. The kind is "throughput" or
    "alone" (one prompt at a time)."""

    shape: str
    kind: str
    program: str

    def __str__(self):
        kind = {"throughput": "", "alone": ", one prompt at a time"}[self.kind]
        old = ", old program" if self.program == "old" else ""
        return "%s%s%s" % (SHAPES[self.shape].title, kind, old)


class Bench(shape_runs.ShapeRuns):
    def __init__(self, given, extra, folder):
        super().__init__(given, extra, folder, SHAPES, TOKENS)

    def config(self, name):
        sizes = self.sizes(name)
        network = {key: sizes[key] for key in sizes if key not in SHORT}
        return prompt_config_of(SHAPES[name].family, **network, **SHAPES[name].settings, **END)

    def write_sources(self, name):
        sizes = self.sizes(name)
        for what, count in (("prompts", prompts_of(self.given, name)), ("alone", ALONE)):
            numbers = random.Random(1)
            lengths = [numbers.randint(sizes["shortest"], sizes["longest"]) for _ in range(count)]
            write_prompts(self.source(name, what), lengths, self.config(name), numbers)

    def tasks(self):
        """Returns {Task: (runs, function)} for measure.take_turns."""
        given, tasks = self.given, {}
        limit = ["--max-new-tokens", str(TOKENS)]
        for name, program in itertools.product(given.only, self.programs):
            run = functools.partial(self.run, self.programs[program], name, "1")
            tasks[Task(name, "throughput", program)] = (
                given.repeat,
                functools.partial(run, "prompts", *limit),
            )
            if given.line_buffered and is_measured_alone(name):
                tasks[Task(name, "alone", program)] = (
                    given.repeat,
                    functools.partial(run, "alone", *limit, "--line-buffered"),
                )
        return tasks


def is_measured_alone(name):
    """Returns whether a shape is measured one prompt at a time. With long prompts, the time would
    be that of reading them."""
    return not SHAPES[name].counts_prompts


def prompts_of(given, name):
    """Returns the number of prompts of a shape: its own, unless the options ask for fewer."""
    shape = SHAPES[name]
    sizes = {**shape.sizes, **given.sizes}
    counts = [shape.prompts, given.prompts or shape.prompts]
    if given.seconds:
        read = (sizes["shortest"] + sizes["longest"]) / 2 if shape.counts_prompts else 0
        counts.append(int(given.seconds * shape.goals[0] / (TOKENS + read)))
    return max(1, min(counts))


def rate_of(report, counts_prompts):
    """Returns the new tokens per second, or all tokens per second."""
    counts = report["counts"]
    read = counts["source_tokens"] if counts_prompts else 0
    return (counts["target_tokens"] + read) / report["seconds"]["translate"]


def reading_rate_of(report):
    """Returns the tokens of prompts per second of the time in which the device reads prompts."""
    return report["counts"]["source_tokens"] / max(1e-9, report["seconds"]["encode"])


def microseconds_of(report):
    """Returns the microseconds for each new token, with the reading of the prompt."""
    seconds = report["seconds"]
    return 1e6 * (seconds["translate"] - seconds["waiting"]) / report["counts"]["target_tokens"]


def throughput_row(given, results, name):
    shape = SHAPES[name]
    reports, old = (
        results.get(Task(name, "throughput", program), []) for program in ("new", "old")
    )
    rates, old_rates = (
        [rate_of(report, shape.counts_prompts) for report in runs] for runs in (reports, old)
    )
    reading = [reading_rate_of(report) for report in reports]
    return [
        shape.title,
        "all" if shape.counts_prompts else "new",
        prompts_of(given, name),
        # Other sizes than those of the shape have no goals.
        "–" if given.sizes else "{:,}".format(shape.vllm),
        *judge(rates, None if given.sizes else shape.goals),
        *(compare(rates, old_rates) if given.old else []),
        spread(reading, "%.0f") if reading else "–",
        *shares_of(reports),
        *sizes_of(reports),
    ]


def alone_row(given, results, name):
    times, old_times = (
        [microseconds_of(report) for report in results.get(Task(name, "alone", program), [])]
        for program in ("new", "old")
    )
    return [
        SHAPES[name].title,
        *judge(times, None if given.sizes else SHAPES[name].alone, less=True),
        *(compare(times, old_times) if given.old else []),
    ]


def tables_of(given, results):
    old_columns = ["old program (least to most)", "new / old"] if given.old else []
    figures = ["prompts", "vLLM 0.23.0", "must", "moonshot", "tokens/s (least to most)", ""]
    figures += [*old_columns, "prompt tokens/s of reading"]
    figures += ["device busy %", "useful rows %", *SIZES]
    rows = [throughput_row(given, results, name) for name in given.only]
    tables = [measure.markdown(["shape", "counted tokens", *figures], rows, left=2)]
    alone = [name for name in given.only if is_measured_alone(name)]
    if given.line_buffered and alone:
        what = "one prompt at a time, µs a new token (least to most)"
        rows = [alone_row(given, results, name) for name in alone]
        tables.append(measure.markdown(["shape", "must", "moonshot", what, "", *old_columns], rows))
    return tables


def options(arguments):
    parser = measure.parser_of("scripts/bench prompts [options] [-- options of xlate]", __doc__)
    shape_runs.add_options(parser, SHAPES, "bf16", "%d prompts" % ALONE)
    parser.add_argument("--prompts", type=int, metavar="N", help="at most so many of each shape")
    parser.add_argument(
        "--seconds", type=float, help="at most so many prompts as take that long at the must"
    )
    given, extra = shape_runs.parse(parser, arguments, SHAPES)
    for name in ("prompts", "seconds"):
        if getattr(given, name) is not None and getattr(given, name) <= 0:
            parser.error("--%s: expected a number above 0" % name)
    if message := wrong_prompts(given):
        parser.error("--sizes: expected %s" % message)
    return given, extra


def wrong_prompts(given):
    """Returns what is expected of --sizes, or None if they are right."""
    for name in given.only:
        sizes = {**SHAPES[name].sizes, **given.sizes}
        if sizes["shortest"] > sizes["longest"]:
            return "a shortest that is not above longest, which is not so in %s" % name
        if sizes["longest"] + TOKENS > sizes["context"]:
            return "a context for longest + %d tokens, which is not so in %s" % (TOKENS, name)
        if sizes["heads"] % sizes["kv_heads"]:
            return "heads that kv_heads divides, which is not so in %s" % name
    return None


def main(arguments):
    given, extra = options(arguments)
    return shape_runs.measure_shapes(
        given,
        lambda folder: Bench(given, extra, folder),
        lambda results: tables_of(given, results),
    )
