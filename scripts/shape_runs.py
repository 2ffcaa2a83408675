"""Has what the modes shapes and prompts of scripts/bench share: models of given shapes with random
weights in a temporary folder, runs of them, options, and parts of their tables."""

import json
import os
import statistics
import tempfile
import time

import measure
from model_shapes import load_writer
from target_figures import Failure, spread
from target_table import verdict

DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
FORMATS = ["--input-format", "ids", "--output-format", "ids"]


class ShapeRuns:
    """Writes the models of the chosen shapes and their sources, and runs them. A subclass has
    config(name) and write_sources(name), and may have a model(name) of its own. Every output gets a
    length of `tokens`."""

    def __init__(self, given, extra, folder, shapes, tokens):
        write_model = load_writer("bench")
        self.given, self.extra, self.folder, self.shapes = given, extra, folder, shapes
        lengths = os.path.join(folder, "lengths")
        with open(lengths, "w") as file:
            file.write("%d\n" % tokens)
        os.environ["XLATE_TEST_LENGTHS"] = lengths
        self.programs = {"new": given.xlate, **({"old": given.old} if given.old else {})}
        self.models, written = {}, {}
        for name in given.only:
            begun = time.monotonic()
            model, path = self.model(name), os.path.join(folder, name + ".bin")
            # Shapes that differ only in their sources have one model.
            self.models[name] = written.setdefault(json.dumps(model), path)
            if self.models[name] == path:
                write_model(path, *model)
            self.write_sources(name)
            measure.say("%s: written in %.1f s" % (name, time.monotonic() - begun))

    def model(self, name):
        """Returns what write_model() needs to know of a shape's model."""
        return [self.config(name), DTYPES[self.shapes[name].precision]]

    def sizes(self, name):
        return {**self.shapes[name].sizes, **self.given.sizes}

    def source(self, name, what):
        return os.path.join(self.folder, "%s-%s.ids" % (name, what))

    def setting(self, name, beam):
        setting = {"model": self.models[name], "device": self.given.device, "beam": beam}
        # The CPU computes in float32 unless another precision is asked for.
        if self.given.device != "cpu":
            setting["precision"] = self.shapes[name].precision
        if self.given.precision:
            setting["precision"] = self.given.precision
        return setting

    def run(self, program, name, beam, what, *options, output=None):
        """Returns the report of a run with a source."""
        report, error = measure.run(
            program,
            self.setting(name, beam),
            [self.source(name, what)],
            [*FORMATS, *options, *self.extra],
            output,
        )
        if error:
            raise Failure(error)
        return report


def compare(values, old):
    """Returns the cells of the old program's figures and of the ratio of the medians."""
    if not values or not old:
        return ["–", "–"]
    return [spread(old, "%.0f"), "%.3f" % (statistics.median(values) / statistics.median(old))]


def judge(values, goals, less=False):
    """Returns the cells of the required and the ambitious figure, of the figures, and of what is to
    be said of them. `goals` is None where there are none."""
    must, moonshot = goals or (None, None)
    return [
        *("–" if goal is None else "{:,}".format(goal) for goal in (must, moonshot)),
        spread(values, "%.0f") if values else "–",
        verdict(statistics.median(values), must, moonshot, less) if values and must else "–",
    ]


def shares_of(reports):
    """Returns the cells of the busy share of the device and of the share of useful rows."""
    idle = measure.median(reports, "shares.rows_idle")
    return [
        measure.cell(measure.median(reports, "shares.device_busy"), 100, "%.1f"),
        measure.cell(None if idle is None else 1 - idle, 100, "%.1f"),
    ]


def sizes_of(reports):
    """Returns the cells of the device's memory, of its ratio to the weights and caches, and of the
    time of loading."""
    peak, *parts = (
        measure.median(reports, "memory.device_%s_bytes" % part)
        for part in ("peak", "weight", "cache")
    )
    # A program of an older commit does not tell the parts.
    ratio = None if None in (peak, *parts) else peak / sum(parts)
    return [
        measure.cell(peak, 2**-30, "%.2f"),
        measure.cell(ratio, 1, "%.2f"),
        measure.cell(measure.median(reports, "seconds.load"), 1, "%.2f"),
    ]


# These are the headings of sizes_of().
SIZES = ["device GiB", "/ weights and caches", "load s"]


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


def add_options(parser, shapes, precision, alone):
    """Adds the options that both modes have. `precision` describes the default, and `alone` what is
    measured one at a time."""
    parser.add_argument("--only", default=",".join(shapes), metavar="A,B…", help="[%(default)s]")
    parser.add_argument("--device", default="cuda", help="[cuda]")
    parser.add_argument("--precision", help="[%s; of the CPU fp32]" % precision)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each figure [3]")
    measure.add_minutes(parser)
    parser.add_argument(
        "--line-buffered", action="store_true", help="measure %s one at a time, too" % alone
    )
    parser.add_argument("--old", metavar="PROGRAM", help="another xlate, for comparison")
    parser.add_argument(
        "--sizes",
        default="{}",
        metavar="JSON",
        help='other sizes for all shapes, such as {"layers": 24}',
    )
    measure.add_program(parser)


def parse(parser, arguments, shapes):
    """Returns (the parsed options, the options of xlate behind --)."""
    given, extra = measure.parse(parser, arguments)
    given.only = given.only.split(",")
    for name in given.only:
        if name not in shapes:
            parser.error("--only: %s, expected some of %s" % (name, ",".join(shapes)))
    if given.old and not os.access(given.old, os.X_OK):
        parser.error("--old: %s is no program" % given.old)
    try:
        given.sizes = json.loads(given.sizes)
    except ValueError as error:
        parser.error("--sizes: %s" % error)
    if message := wrong_sizes(given, shapes):
        parser.error("--sizes: expected %s" % message)
    return given, extra


def wrong_sizes(given, shapes):
    """Returns what is expected of --sizes, or None if they are right."""
    known = next(iter(shapes.values())).sizes
    if not isinstance(given.sizes, dict) or not given.sizes.keys() <= known.keys():
        return "an object of some of %s" % ",".join(known)
    if not all(type(size) is int and size > 0 for size in given.sizes.values()):
        return "whole numbers above 0"
    for name in given.only:
        sizes = {**shapes[name].sizes, **given.sizes}
        if sizes["d"] % sizes["heads"] or sizes["d"] % 2:
            return "an even d that the heads divide, which is not so in %s" % name
    return None


def measure_shapes(given, make_runs, tables_of):
    """Measures the tasks of make_runs(folder), a ShapeRuns, in turns, prints the tables of
    tables_of(results), and returns the exit code."""
    begun, load, failures = time.monotonic(), os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory(prefix="xlate-shapes-") as folder:
        runs = make_runs(folder)
        results = measure.take_turns(runs.tasks(), given.minutes, failures)
        configs = {name: runs.config(name) for name in given.only}
    # Runs that only tell seconds have no report.
    reports = [report for run in results.values() for report in run if "device" in report]
    header = {
        **measure.about(given.xlate, "scripts/bench", reports),
        "load_average": load,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print("Medians, %s" % measure.headline(header))
    print("\n\n".join([*tables_of(results), *notes_of(results, failures)]))
    tasks = [
        {**vars(task), "reports": reports, "failure": failures.get(task)}
        for task, reports in results.items()
    ]
    measure.write_json(given.json, {**header, "configs": configs, "runs": tasks})
    # An older program need not know every model.
    return 1 if any(task.program == "new" for task in failures) else 0
