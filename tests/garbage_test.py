"""Tests lines that no text has: random bytes, characters of every plane, very long lines and very
many empty ones. Whatever comes in, each line has its line in valid UTF-8, or the run ends with one
message. This holds for each option that treats lines in its own way."""

import json
import os
import random

import program
from program import EN_DE, SHARED, Case

setUpModule = program.require
LONG = bool(os.environ.get("XLATE_LONG"))
SEED = int(os.environ.get("XLATE_TEST_SEED", 22))
SHORT = ["--max-length", "6", "--max-source-length", "48"]
JSONL_IN, JSONL_OUT = (["--%sput-format" % way, "jsonl"] for way in ("in", "out"))


def random_lines(count, chance):
    """Returns lines of bytes of several kinds, without a newline."""
    pools = (
        bytes(range(256)),
        bytes(range(128, 256)),
        b"\xe2\x80\xa8\xa9\xf0\x9f\x99\x82\xed\xa0\xbd\xef\xbb\xbf\xc3 ",
        b"\x00\x01\x0b\x0c\r\x1b\x7f \t",
        b"ab.!?;, \t|",
        '{}[]":,\\u0nt '.encode(),
    )
    lines = []
    for _ in range(count):
        pool, size = chance.choice(pools), chance.choice((0, 1, 2, 5, 30, 200))
        lines.append(bytes(chance.choice(pool) for _ in range(size)).replace(b"\n", b"x"))
    return lines


def plane_lines():
    """Returns lines with characters of each of the 17 planes, with those that are none, and with
    surrogates, which UTF-8 does not have."""
    lines = []
    for plane in range(17):
        first = plane << 16
        for begin in range(first, first + 0x10000, 0x1000):
            points = range(begin, begin + 0x1000, 67)
            lines.append(
                "".join(map(chr, points)).replace("\n", " ").encode("utf-8", "surrogatepass")
            )
        lines.append(b"a %s b" % "".join(map(chr, range(first + 0xFFF0, first + 0x10000))).encode())
    lines.append("".join(map(chr, range(0xD7F0, 0xE010))).encode("utf-8", "surrogatepass"))
    lines.append("".join(map(chr, range(0xFDD0, 0xFDF0))).encode())
    lines.append(b"\xf4\x90\x80\x80 \xf7\xbf\xbf\xbf \xf8\x88\x80\x80\x80 \xff")
    return lines


def joined(lines):
    return b"".join(line + b"\n" for line in lines)


class Options(Case):
    """Garbage goes through each option that treats lines in its own way."""

    KINDS = (
        ["-b", "1"],
        ["-b", "4", "--scores"],
        ["-b", "1", "--split-sentences"],
        ["-b", "1", "--split-sentences", "--long-lines", "skip", *JSONL_OUT],
        ["-b", "1", "--long-lines", "split"],
        ["-b", "1", "--long-lines", "skip"],
        ["-b", "1", "--alignments"],
        ["-b", "1", "--alignments", "--alignment-words", "--token-scores"],
        ["-b", "2", "--suppress-unk"],
        ["-b", "1", "--output-format", "pieces"],
        ["-b", "1", "--output-format", "ids"],
        ["-b", "1", "--input-format", "pieces"],
        ["-b", "1", *JSONL_OUT],
        ["-b", "1", "--sample", "--seed", "3"],
        ["-b", "1", "--line-buffered"],
    )

    def check_lines(self, result, count):
        """Checks that there is a line for each line. Reading them checks that they are UTF-8."""
        self.assertEqual(len(result.lines), count, result.story())

    def test_each_line_has_its_line(self):
        chance = random.Random(SEED)
        lines = random_lines(250, chance) + chance.sample(plane_lines(), 30)
        for number, options in enumerate(self.KINDS):
            for model in (SHARED, EN_DE) if LONG else ((SHARED, EN_DE)[number % 2],):
                with self.subTest(seed=SEED, options=options, model=os.path.basename(model)):
                    result, report = self.report(
                        "-q", *options, *SHORT, input=joined(lines), model=model
                    )
                    self.check_lines(result, len(lines))
                    self.assertEqual(report["lines"]["out"], len(lines))
                    if "jsonl" in options:
                        for line in result.lines:
                            if line:
                                json.loads(line)

    def test_every_plane(self):
        lines = plane_lines()
        for options in (["-b", "1"], ["-b", "1", "--split-sentences"]):
            result = self.ok("-q", *options, *SHORT, input=joined(lines), model=EN_DE)
            self.check_lines(result, len(lines))

    def test_pairs(self):
        """A line without a tab ends the run with a message that names it, and the scores of all
        lines before it are written."""
        chance = random.Random(SEED + 1)
        for number in range(12):
            lines = [
                line.replace(b"\t", b"") + b"\t" + target
                for line, target in zip(random_lines(40, chance), random_lines(40, chance))
            ]
            bad = chance.choice((None, chance.randrange(40)))
            if bad is not None:
                lines[bad] = b"no tab \xff\xfe"
            with self.subTest(seed=SEED + 1, round=number, bad=bad):
                options = ["-q", "--score-pairs", "--max-source-length", "48"]
                result = program.xlate(*options, input=joined(lines), model=EN_DE)
                self.check(result, 0 if bad is None else 1)
                for line in result.lines:
                    self.assertRegex(line, r"^(%s|-inf)$" % program.NUMBER)
                self.check_lines(result, len(lines) if bad is None else bad)
                if bad is not None:
                    self.says(result, "line %d:" % (bad + 1))
                    self.assertEqual(len(result.error_lines), 1, result.story())

    def test_objects(self):
        """A line of garbage is answered by an object with its error. Texts with any characters in
        them are translated."""
        chance = random.Random(SEED + 2)
        strings = [
            line.decode("utf-8", "replace") for line in plane_lines() + random_lines(99, chance)
        ]
        lines = [json.dumps({"text": x}).encode() for x in strings]
        lines += [json.dumps({"text": x}, ensure_ascii=False).encode() for x in strings]
        for line in lines[:150]:
            place = chance.randrange(len(line))
            lines.append(line[:place] + bytes([chance.randrange(256)]) + line[place + 1 :])
        lines += random_lines(150, chance)
        lines = [line.replace(b"\n", b" ") for line in lines]
        for options in ([], ["--split-sentences"], ["--alignments", "--token-scores"]):
            with self.subTest(seed=SEED + 2, options=options):
                result = self.ok(
                    *("-q", "-b", "1", *JSONL_IN, *JSONL_OUT, "--long-lines", "skip"),
                    *(*options, *SHORT),
                    input=joined(lines),
                    model=EN_DE,
                    lines=len(lines),
                )
                answers = [json.loads(line) if line else {} for line in result.lines]
                self.assertGreater(sum("output" in answer for answer in answers), 300)
                self.assertGreater(sum("error" in answer for answer in answers), 100)


class Sizes(Case):
    """Very long and very many lines take bounded memory."""

    def peak(self, path, count, *options):
        report = self.path("report.json")
        result, seen = program.peak_memory(
            *("-q", "-b", "1", *SHORT, "--report", report, *options), input_path=path, model=EN_DE
        )
        self.check(result, 0)
        self.assertEqual(result.out.count(b"\n"), count, result.story()[:500])
        result.out.decode("utf-8")
        return max(seen, self.load_report(report, result)["memory"]["host_peak_bytes"])

    def base(self):
        return self.peak(self.path("yes", "Yes.\n"), 1)

    def test_a_line_of_100_mb(self):
        path, base = self.path("long"), self.base()
        # Where a sentence ends is left to other tests: a MiB of sentences takes long to translate.
        bad = bytes(0x80 | byte for byte in random.Random(SEED).randbytes(1 << 20))
        for name, unit in (("bad bytes", bad), ("words", b"a " * (1 << 19))):
            with open(path, "wb") as file:
                for _ in range(100):
                    file.write(unit)
                file.write(b"\nYes.\n")
            for options in ([], ["--split-sentences"], ["--long-lines", "skip"], ["--alignments"]):
                with self.subTest(name, options=options):
                    peak = self.peak(path, 2, *options)
                    self.assertLess(peak, base + (160 << 20), "%d MiB" % (peak >> 20))

    def test_a_million_empty_lines(self):
        count = 1000000
        path = self.path("empty", "\n" * count)
        for options in ([], ["--split-sentences"], ["--alignments"], JSONL_IN + JSONL_OUT):
            with self.subTest(options):
                peak = self.peak(path, count, *options)
                self.assertLess(peak, self.base() + (64 << 20), "%d MiB" % (peak >> 20))

    def test_a_word_that_is_repeated(self):
        path = self.path("repeated", "word " * 100000 + "\nYes.\n" + "x" * 100000)
        for options in ([], ["--long-lines", "skip"], ["--alignments", "--alignment-words"]):
            with self.subTest(options):
                peak = self.peak(path, 3, *options)
                self.assertLess(peak, self.base() + (160 << 20), "%d MiB" % (peak >> 20))

    def test_a_word_that_is_repeated_is_split(self):
        path = self.path("repeated", "word " * 5000 + "\nYes.\n")
        for options in (["--split-sentences", "--long-lines", "split"], ["--long-lines", "split"]):
            with self.subTest(options):
                self.peak(path, 2, *options)


if __name__ == "__main__":
    program.main()
