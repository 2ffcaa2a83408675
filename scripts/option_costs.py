"""Measures what each option of decoding costs beside a run without it.

  scripts/bench options -m MODEL -i FILE                    on the device that xlate takes
  scripts/bench options -m MODEL -i FILE --old PROGRAM      beside another xlate, without options
  scripts/bench options -m MODEL -i FILE --only plain,alignments --repeat 5 -- --device cpu

Beam search has four beams, and draws are compared with greedy search. The prefix of
--target-prefix is the first word of each line's output, and the pairs of --score-pairs are the
lines with their outputs. Each run is a fresh process. The runs take turns, and the figures are
medians: lines, and tokens of the output, a second from the moment when the model is loaded to the
last line written.
"""

import functools
import itertools
import os
import statistics
import tempfile

import measure

BEAM, GREEDY = ("-b", "4"), ("-b", "1")
# Each option has its arguments, and the run without it that it is compared with.
OPTIONS = {
    "plain": (BEAM, None),
    "scores": ((*BEAM, "--scores"), "plain"),
    "n-best": ((*BEAM, "--n-best", "4"), "plain"),
    "token-scores": ((*BEAM, "--token-scores"), "plain"),
    "alignments": ((*BEAM, "--alignments"), "plain"),
    "alignment-words": ((*BEAM, "--alignments", "--alignment-words"), "plain"),
    "markup": ((*BEAM, "--markup", "html"), "plain"),
    "suppress-unk": ((*BEAM, "--suppress-unk"), "plain"),
    "target-prefix": ((*BEAM, "--target-prefix", "{prefixes}"), "plain"),
    "split-sentences": ((*BEAM, "--split-sentences"), "plain"),
    "beam-groups": ((*BEAM, "--beam-groups", "2", "--diversity", "0.5"), "plain"),
    "no-repeat-ngram": ((*BEAM, "--no-repeat-ngram", "3"), "plain"),
    "repetition-penalty": ((*BEAM, "--repetition-penalty", "1.2"), "plain"),
    "score-pairs": (("--score-pairs",), "plain"),
    "greedy": (GREEDY, None),
    "sample": (("--sample",), "greedy"),
    "top-k": (("--sample", "--top-k", "10"), "greedy"),
    "top-p": (("--sample", "--top-p", "0.9"), "greedy"),
    "num-samples": (("--sample", "--num-samples", "4"), "greedy"),
}


class Files:
    """Writes what the options read besides the input."""

    def __init__(self, given, extra, folder):
        self.prefixes, self.pairs = (os.path.join(folder, name) for name in ("prefixes", "pairs"))
        outputs = os.path.join(folder, "outputs")
        setting = {"model": given.model, "beam": 1}
        _, error = measure.run(given.xlate, setting, given.input, extra, output=outputs)
        if error:
            raise SystemExit("scripts/bench: the run without options failed: " + error)
        lines = itertools.chain.from_iterable(map(read_lines, given.input))
        with open(self.prefixes, "w") as prefixes, open(self.pairs, "w") as pairs:
            for line, output in zip(lines, read_lines(outputs), strict=True):
                prefixes.write("".join(output.split()[:1]) + "\n")
                pairs.write("%s\t%s\n" % (line.replace("\t", " "), output.replace("\t", " ")))


def read_lines(path):
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


def run(program, given, extra, files, arguments):
    arguments = [word.format(prefixes=files.prefixes) for word in arguments]
    inputs = [files.pairs] if "--score-pairs" in arguments else given.input
    report, error = measure.run(program, {"model": given.model}, inputs, [*arguments, *extra])
    if error:
        raise RuntimeError(error)
    return report


def rates_of(reports):
    return [report["lines"]["in"] / report["seconds"]["translate"] for report in reports]


def token_rate_of(reports):
    return statistics.median(measure.field(report, measure.RATE) for report in reports)


def row_of(name, program, results):
    rates = rates_of(results[name, program])
    if not rates:
        return None
    arguments, without = OPTIONS[name]
    beside = rates_of(results.get((without or name, "new"), []))
    share = statistics.median(rates) / statistics.median(beside) if beside else None
    compared = without or ("the new program" if program == "old" else None)
    return [
        name + (", old program" if program == "old" else ""),
        " ".join(arguments).replace("{prefixes}", "FILE"),
        "%.0f (%.0f to %.0f)" % (statistics.median(rates), min(rates), max(rates)),
        "%.0f" % token_rate_of(results[name, program]),
        "%.3f of %s" % (share, compared) if share and compared else "–",
    ]


def options(arguments):
    parser = measure.parser_of(
        "scripts/bench options -m MODEL -i FILE… [options] [-- options of xlate]", __doc__
    )
    parser.add_argument("-m", "--model", required=True, metavar="FILE")
    parser.add_argument("-i", "--input", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--only", metavar="A,B…", help="options to measure [all]")
    parser.add_argument("--old", metavar="PROGRAM", help="another xlate, without options")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each [3]")
    measure.add_minutes(parser)
    measure.add_program(parser)
    given, extra = measure.parse(parser, arguments)
    given.only = given.only.split(",") if given.only else list(OPTIONS)
    for name in given.only:
        if name not in OPTIONS:
            parser.error("--only: %s, expected some of %s" % (name, ", ".join(OPTIONS)))
    return given, extra


def main(arguments):
    given, extra = options(arguments)
    measure.read_ahead([given.model, *given.input])
    with tempfile.TemporaryDirectory(prefix="xlate-options-") as folder:
        files = Files(given, extra, folder)
        tasks = {}
        for name in given.only:
            programs = {"new": given.xlate}
            if given.old and OPTIONS[name][1] is None:
                programs["old"] = given.old
            for program, path in programs.items():
                function = functools.partial(run, path, given, extra, files, OPTIONS[name][0])
                tasks[name, program] = (given.repeat, function)
        failures = {}
        results = measure.take_turns(tasks, given.minutes, failures)
    header = measure.about(given.xlate, "scripts/bench", list(itertools.chain(*results.values())))
    rows = [row for task in tasks if (row := row_of(*task, results))]
    headings = ["option", "arguments", "lines/s (least to most)", "tokens/s"]
    headings += ["lines/s as a share of the run without it"]
    print(measure.headline(header))
    print(measure.markdown(headings, rows, left=2))
    for (name, program), message in failures.items():
        print("%s, %s program: %s" % (name, program, message))
    reports = {"%s, %s program" % task: results[task] for task in tasks}
    measure.write_json(given.json, {**header, "reports": reports, "failures": list(failures)})
    return 1 if failures else 0
