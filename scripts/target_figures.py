"""Turns runs of scripts/bench into the figures of targets.py (docs/benchmarks.md says how each is
counted)."""

import os
import re
import statistics
import subprocess
import sys

import measure

BEAMS = {"4": "beam 4", "1": "greedy"}


class Failure(Exception):
    pass


def spread(values, form):
    return (
        form % statistics.median(values)
        if len(values) < 2
        else "%s (%s to %s)"
        % tuple(form % value for value in (statistics.median(values), min(values), max(values)))
    )


def step_microseconds(report):
    return (
        1e6
        * (report["seconds"]["translate"] - report["seconds"]["waiting"])
        / max(1, report["counts"]["decoding_steps"])
    )


def startup_figures(turns):
    """Returns the median of each kind and its difference to the floor's median."""
    kinds = {
        kind: [turn[kind] for turn in turns if turn[kind] is not None]
        for kind in ("floor", "first_output", "one_line", "whole")
    }
    figures = {
        kind: statistics.median(values) if values else None for kind, values in kinds.items()
    }
    for kind in ("first_output", "one_line", "whole"):
        figures[kind + "_above_floor"] = (
            None if None in (figures[kind], figures["floor"]) else figures[kind] - figures["floor"]
        )
    return figures


def lines_of(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def other_than_copies(source, output):
    """Returns the number of lines whose translation differs from that of the first equal line."""
    with open(source, "rb") as lines, open(output, "rb") as translations:
        first = {}
        return sum(
            first.setdefault(line, translation) != translation
            for line, translation in zip(lines, translations, strict=True)
        )


def quality(bench, text, references):
    """Returns, for each beam size, the share of lines equal to those of the float32 run and to
    those decoded one sentence at a time, and the BLEU scores. bfloat16's BLEU is included."""
    precisions = ["fp32", bench.given.precision, *(["bf16"] if bench.given.device != "cpu" else [])]
    # This has the scores of each precision and beam size.
    result = {"scores": []}
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        measure.say("no BLEU: the Python package sacrebleu is not there")
        references = None
    for beam in BEAMS:
        lines = []
        for precision in precisions:
            path = os.path.join(bench.folder, "quality.txt")
            bench.report(text, beam, output=path, precision=precision)
            lines.append(lines_of(path))
            if references:
                result["scores"].append(
                    {
                        "precision": precision,
                        "beam": beam,
                        **measure.score(lines[-1], references[: len(lines[-1])]),
                    }
                )
        result["equal " + beam] = (
            100 * sum(a == b for a, b in zip(*lines[:2])) / max(1, len(lines[0]))
        )
        result["lines"] = len(lines[0])
        if os.path.exists(bench.single(beam)):
            single = lines_of(bench.single(beam))
            result["single " + beam] = (
                100 * sum(a == b for a, b in zip(single, lines[1])) / max(1, len(single))
            )
    bleu, each = [score["bleu"] for score in result["scores"]], len(precisions)
    for name, place in (("away", 1), ("away bf16", 2)):
        result[name] = (
            max(abs(one - other) for one, other in zip(bleu[::each], bleu[place::each]))
            if bleu and place < each
            else None
        )
    return result


def tokens_away(bench, text):
    """Returns by how many per cent the number of target tokens differs from that in float32."""
    counts = [
        bench.report(text, "4", precision=precision)["counts"]["target_tokens"]
        for precision in ("fp32", bench.given.precision)
    ]
    return 100 * abs(counts[1] - counts[0]) / max(1, counts[0])


def changed_bytes(bench):
    """Returns the runs with a different text, as the tests count them."""
    folder = os.path.dirname(os.path.abspath(bench.given.xlate))
    models = next(
        (
            path
            for path in (
                os.environ.get("XLATE_TEST_MODELS"),
                folder,
                os.path.join(folder, "..", "test_models"),
            )
            if path and os.path.isfile(os.path.join(path, "shared.bin"))
        ),
        folder,
    )
    environment = {
        **os.environ,
        "XLATE_BINARY": bench.given.xlate,
        "XLATE_TEST_DEVICE": bench.given.device,
        "XLATE_TEST_PRECISION": bench.given.precision,
        "XLATE_ENDE_BASE": os.path.abspath(bench.given.model),
        "XLATE_TEST_MODELS": models,
    }
    done = subprocess.run(
        [
            sys.executable,
            os.path.join(measure.ROOT, "tests", "invariance_test.py"),
            "ByteForByte.test_greedy",
            "ByteForByte.test_beam4",
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = done.stdout.decode("utf-8", "replace")
    figures = re.findall(r"^figure: (.*?(\d+) with another text.*)$", said, re.M)
    if len(figures) != len(BEAMS):
        raise Failure("invariance_test: " + " ".join(said.split())[-400:])
    return {
        "figures": [figure for figure, _ in figures],
        "runs": sum(int(count) for _, count in figures),
    }
