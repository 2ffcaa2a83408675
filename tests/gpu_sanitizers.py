"""Has the checks of a GPU's acceptance (gpu_acceptance.py) that run under compute-sanitizer."""

import os
import re
import shutil

from gpu_checks import check
from gpu_place import too_long

PRECISIONS = ("fp32", "fp16", "bf16")
# compute-sanitizer makes every launch slow, so it runs a few small cases of every operation and a
# few sentences.
SANITIZED = (
    "Backend*.*/cuda_{0}*:SearchTest.EarlyStopping/cuda_{0}:SearchTest.BeamSizes/cuda_{0}:"
    "SearchStateTest.*/cuda_{0}-*_solo*"
)
SANITIZED_LINES = 6
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
# compute-sanitizer exits with this code where it found something.
FOUND = 9
CANNOT = (
    "Device not supported",
    "terminated before first instrumented API call",
    "Unable to attach",
)


def sanitize(place, seconds, tool, command, options=(), **environment):
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if not sanitizer:
        return None, "no compute-sanitizer", ""
    code, output = place.run(
        [
            sanitizer,
            "--tool",
            tool,
            "--error-exitcode",
            str(FOUND),
            "--print-limit",
            "20",
            *options,
            *command,
        ],
        seconds,
        **environment,
    )
    summary = " ".join(re.findall(r"((?:ERROR|RACECHECK|INITCHECK|LEAK) SUMMARY: .*)", output)) or (
        "exit %s" % code
    )
    if code is None:
        return False, too_long(seconds), output
    if any(text in output for text in CANNOT) and "SUMMARY: 0" not in summary:
        return (
            None,
            "compute-sanitizer cannot work here: "
            + next(text for text in CANNOT if text in output),
            output,
        )
    if ran := re.findall(r"\[  PASSED  \] (\d+) tests?", output):
        summary += ", %s tests" % ran[-1]
    return code == 0, summary, output


def add_operations(tool):
    for precision in PRECISIONS:

        @check("%s, operations, %s" % (tool, precision), 400)
        def operations(place, seconds, precision=precision):
            return sanitize(
                place,
                seconds,
                tool,
                [place.tests, "--gtest_filter=" + SANITIZED.format(precision)],
                XLATE_TEST_FEW="1",
            )


def add_lone_sentences(tool):
    """Only the kernel for a single sentence is checked, because the library's kernels beside it are
    not part of xlate. Racecheck itself fails on a kernel whose blocks write into one another's
    shared memory ("failed to handle a hardware exception")."""
    for precision in ("fp16", "bf16") if tool != "racecheck" else ():

        @check("%s, a lone sentence, %s" % (tool, precision), 200)
        def lone(place, seconds, precision=precision):
            return sanitize(
                place,
                seconds,
                tool,
                [place.tests, "--gtest_filter=SoloStepTest.*/cuda_%s_solo" % precision],
                ("--kernel-name", "kns=solo_step"),
                XLATE_TEST_FEW="1",
            )


def run_few(place, seconds, tool, model, text, precision, *options):
    """Runs xlate over a few lines. The paths are relative to the models and to the folder."""
    where = ["--device", place.device, "--precision", precision, "--gpu-memory", "4GiB"]
    search = ["--max-length", "12", "--batch-tokens", "64"]
    files = ["-i", os.path.join(place.folder, text), "-o", os.devnull]
    command = [place.xlate, "-q", "-m", os.path.join(place.models, model), *where, *search]
    return sanitize(place, seconds, tool, [*command, *options, *files])


def add_runs(tool):
    for precision, beam in (("fp16", "4"), ("fp16", "1"), ("fp32", "4")):

        @check("%s, a run, %s, beam %s" % (tool, precision, beam), 400)
        def run(place, seconds, precision=precision, beam=beam):
            return run_few(place, seconds, tool, "shared.bin", "few.txt", precision, "-b", beam)


def add_family_runs(tool):
    """T5 has what the model of the other runs has not: distance biases, RMS norms and norms before
    sublayers. The row rules have kernels of their own."""

    @check("%s, a run of t5 with row rules, bf16" % tool, 400)
    def family(place, seconds):
        rules = ["--min-length", "8", "--no-repeat-ngram", "3", "--repetition-penalty", "1.3"]
        formats = ["--input-format", "ids", "--output-format", "ids"]
        options = ["-b", "4", *formats, *rules]
        return run_few(place, seconds, tool, "t5.bin", "few.ids", "bf16", *options)


def add_option_runs(tool):
    """Groups of beams, draws and annotations have kernels of their own."""
    for name, options in (
        ("groups of beams", ("-b", "4", "--beam-groups", "2", "--diversity", "1")),
        ("draws", ("--sample", "--top-k", "50", "--top-p", "0.9")),
        ("annotations", ("-b", "3", "--alignments", "--token-scores")),
    ):

        @check("%s, a run with %s, fp16" % (tool, name), 400)
        def run(place, seconds, options=options):
            return run_few(place, seconds, tool, "shared.bin", "few.txt", "fp16", *options)


def sanitizer_checks():
    for tool in TOOLS:
        add_operations(tool)
        add_lone_sentences(tool)
        add_runs(tool)
        add_family_runs(tool)
        add_option_runs(tool)
