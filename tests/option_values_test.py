"""Tests values at the edges of every option that takes a number. The options are those that the
help lists. Each value gives a usage error that names the option and the value, or a run."""

import concurrent.futures
import os
import re
import resource

import program
from program import Case, xlate

setUpModule = program.require
LONG = bool(os.environ.get("XLATE_LONG"))
SANITIZED = program.is_sanitized()
# Every test takes these values, and the short one every second of the others.
EXTREMES = ("0", "-1", "2", "nan", "1e308", "1" + "0" * 308, "9223372036854775808", "")
OTHERS = (
    *("1", "-0", "+1", "00", "-nan", "inf", "-inf", "1e309", "-1e308"),
    *("1e-320", "1e3", "0x10", "1.0", ".5", "5.", "1,5", "0.1", " ", " 1", "1 ", "1\n", "\t"),
    *("9223372036854775807", "-9223372036854775809", "4294967297"),
    *("18446744073709551616", "2147483648", "2147483647", "1073741824", "9" * 400, "1" + "0" * 400),
    *("one", "٣", "１", "1\u00a0", "1x", "--", "-"),
)
# The help names the values of these options so. Others take text, files or one of several words.
NUMBERS = {"N", "A", "D", "F", "G", "K", "P", "S", "T", "LINES", "N|auto", "0.9|8GiB", "A,B,..."}
# These options need others to have a meaning.
NEEDED = {
    "--beam-groups": ["-b", "4", "--diversity", "1"],
    "--diversity": ["-b", "4", "--beam-groups", "2"],
    "--temperature": ["--sample"],
    "--top-k": ["--sample"],
    "--top-p": ["--sample"],
    "--seed": ["--sample"],
    "--num-samples": ["--sample"],
    "--alignment-layer": ["--alignments"],
    "--alignment-heads": ["--alignments"],
    "--n-best": ["-b", "4"],
}
# These values are fine, and cost what they ask for: many draws, or a thread each.
COSTLY = {"--num-samples", "--threads"}
# This model without an encoder has random weights and 8 positions.
DECODER = os.path.join(program.ROOT, "tests", "data", "fuzz", "model_file", "decoder")


def numeric_options():
    """Returns the options of the help that take numbers."""
    help = xlate("--help", model=None, device=None).out.decode("utf-8")
    found = re.findall(r"^  (-[^ ]+) ([^ ]+)", help, re.MULTILINE)
    return [(names.split(",")[-1], kind) for names, kind in found if kind in NUMBERS]


def spare_memory():
    """Bounds the memory of a run, so that a size that wraps cannot take that of the machine."""
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))


class Values(Case):
    def test_every_number_is_refused_or_taken(self):
        options = numeric_options()
        self.assertGreater(len(options), 20, options)
        values = EXTREMES + (OTHERS if LONG else OTHERS[::2])
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for option, _ in options:
                results, taken = pool.map(lambda value: self.run_with(option, value), values), 0
                for value, result in zip(values, results):
                    with self.subTest(option=option, value=value[:30]):
                        taken += self.outcome(option, value, result) == 0
                self.assertGreater(taken, 0, "%s takes no value" % option)

    def run_with(self, option, value):
        """Returns the result of a run with the value."""
        words = [*([] if option == "--beam-size" else ["-b", "1"]), "--max-length", "4"]
        more = NEEDED.get(option, [])
        words = words if "-b" not in more else words[2:]
        model = program.SHARED
        if option in ("--max-length", "--max-new-tokens"):
            words = words[:-2]
        if option == "--max-new-tokens":
            model = DECODER
        # On the CPU alone, the memory of a GPU has no meaning.
        device = "auto" if option == "--gpu-memory" and program.DEVICE == "cpu" else program.DEVICE
        # Several runs share a GPU.
        memory = ["--gpu-memory", "2GiB"] if device == "cuda" and option != "--gpu-memory" else []
        return xlate(
            *("-q", "--device", device, *words, *more, *memory, option + "=" + value),
            input="Yes.\nIt was really cheap.\n",
            timeout=60,
            model=model,
            device=None,
            preexec_fn=None if SANITIZED else spare_memory,
        )

    def outcome(self, option, value, result):
        """Checks what happened in a run with the value, and returns the exit code."""
        self.assertIn(result.code, (0, 1, 2), result.story())
        if result.code == 0:
            self.assertGreaterEqual(len(result.lines), 2, result.story())
            self.assertEqual(result.err, b"", result.story())
            # A run takes plain decimal numbers, each of them in one way.
            self.assertRegex(value, r"^-?[0-9]*[.,]?[0-9]*(e-?[0-9]+)?$", result.story())
            return 0
        self.assertEqual((result.out, len(result.error_lines)), (b"", 1), result.story())
        name = "no room" if result.code == 1 else option.split("-")[-1]
        self.says(result, name if option not in COSTLY else "")
        if result.code == 2 and value.isascii() and value.isprintable() and len(value) < 40:
            self.assertIn(value, result.errors, result.story())
        return result.code

    def test_the_bounds_of_the_message_are_those_of_the_option(self):
        """What a message names as the least and the largest value is taken, and one more is not."""
        for option, kind in numeric_options():
            result = xlate("-q", *NEEDED.get(option, []), option + "=x", input="Yes.\n")
            bounds = re.search(r"from (\S+) to (\S+)", result.errors)
            if not bounds or option in COSTLY or option in ("--max-new-tokens", "--seed"):
                continue
            for value in bounds.groups():
                with self.subTest(option=option, value=value):
                    got = xlate(
                        *("-q", *NEEDED.get(option, []), option + "=" + value), input="Yes.\n"
                    )
                    self.assertNotIn("expected a number from", got.errors, got.story())
                    self.assertNotIn("whole number from", got.errors, got.story())


if __name__ == "__main__":
    program.main()
