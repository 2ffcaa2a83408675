"""Tests that for anything in the input or in the model file there is either one line out for each
line in, or one clear message."""

import os
import random

import program
from model_bytes import ModelFile
from program import (
    BEAM4,
    GREEDY,
    REFERENCE_LIMITS,
    SEPARATE,
    SHARED,
    Case,
    best,
    source_ids,
    source_lines,
    text_of,
)

IDS = GREEDY + ["--output-format", "ids"] + REFERENCE_LIMITS
setUpModule = program.require


class Lines(Case):
    def ids(self, data, *options, **more):
        return self.ok(*IDS, *options, input=data, **more).lines

    def test_an_empty_line_gives_an_empty_line_without_asking_the_model(self):
        result, report = self.report(*IDS, input="\nYes.\n\n\n", lines=4)
        self.same(["", best("shared", "greedy")[193], "", ""], result.lines, result)
        self.assertEqual(
            (report["lines"]["in"], report["lines"]["out"], report["lines"]["empty"]), (4, 4, 3)
        )
        self.assertEqual(report["counts"]["source_tokens"], len(source_ids()[193].split()))

    def test_only_empty_lines(self):
        result, report = self.report("-b", "4", input="\n" * 1000)
        self.assertEqual(result.out, b"\n" * 1000, result.story())
        self.assertEqual((report["lines"]["empty"], report["counts"]["decoding_rows"]), (1000, 0))

    def test_a_line_that_normalises_to_nothing_counts_as_empty(self):
        blanks = [
            " ",
            "   ",
            "\t",
            " \t ",
            "\u3000",
            "\u00a0",
            "\u2003",
            "\u200b",
            "\x01",
            "\x7f",
            " \x02 ",
            "\u2028",
            "\x0b",
            "\x0c",
            "\ufffd",
            "\r",
        ]
        result, report = self.report(
            *IDS, input="".join(blank + "\n" for blank in blanks), lines=len(blanks)
        )
        self.same([""] * len(blanks), result.lines, result)
        self.assertEqual(report["lines"]["empty"], len(blanks), result.story())

    def test_one_trailing_cr_is_stripped_and_not_put_back(self):
        plain = self.ok(*BEAM4, input="\n".join(source_lines()[:20]) + "\n", lines=20)
        dos = self.ok(*BEAM4, input="\r\n".join(source_lines()[:20]) + "\r\n", lines=20)
        self.same(plain.lines, dos.lines, dos)
        self.assertNotIn(b"\r", dos.out)

    def test_a_line_of_only_crlf_is_empty(self):
        result, report = self.report(*IDS, input=b"\r\n\r\n", lines=2)
        self.assertEqual((result.out, report["lines"]["empty"]), (b"\n\n", 2))

    def test_a_cr_before_the_end_of_the_file_is_stripped(self):
        self.same(self.ids("Yes.\nYes.\n"), self.ids(b"Yes.\r\nYes.\r"))

    def test_a_lone_cr_does_not_split(self):
        result = self.ok(*GREEDY, input=b"Yes.\rNo.\rYes.\r\r\n", lines=1)
        self.assertNotIn(b"\r", result.out)

    def test_crlf_and_lf_may_be_mixed(self):
        self.same(
            self.ids("Yes.\nIt was really cheap.\nYes.\n"),
            self.ids(b"Yes.\nIt was really cheap.\r\nYes.\n"),
        )

    def test_only_lf_splits(self):
        for name, character in (
            ("U+2028", "\u2028"),
            ("U+2029", "\u2029"),
            ("U+0085", "\u0085"),
            ("VT", "\v"),
            ("FF", "\f"),
            ("CR", "\r"),
            ("FS", "\x1c"),
            ("GS", "\x1d"),
            ("RS", "\x1e"),
            ("NUL", "\0"),
        ):
            with self.subTest(name):
                self.ok(*GREEDY, input="It was%sreally cheap.\nYes.\n" % character, lines=2)

    def test_the_splitters_of_other_programs_are_spaces_to_the_tokenizer(self):
        # The normalization of this model, nmt_nfkc, makes a space of each of these characters.
        spaced = self.ids("It was really cheap.\n")
        for character in ("\u2028", "\u2029", "\f", "\r", "\ufffd", "\t", "\u3000"):
            with self.subTest(repr(character)):
                self.same(spaced, self.ids("It was%sreally cheap.\n" % character))

    def test_a_last_line_without_newline_is_translated_and_ends_in_one(self):
        with_end, without = (
            self.ok(*BEAM4, input="Yes.\nIt was really cheap.\n"),
            self.ok(*BEAM4, input="Yes.\nIt was really cheap."),
        )
        self.assertEqual(with_end.out, without.out, without.story())
        self.assertTrue(without.out.endswith(b"\n"))

    def test_a_single_line_without_newline(self):
        self.same(self.ids("Yes.\n"), self.ids("Yes."))

    def test_an_empty_input_gives_no_lines(self):
        for options in (
            GREEDY,
            BEAM4,
            ["--n-best", "2", "-b", "2"],
            ["--scores"],
            ["--line-buffered"],
        ):
            with self.subTest(options):
                self.assertEqual(self.ok(*options, input=b"").out, b"")

    def test_nul_is_an_ordinary_character(self):
        _, cut = self.report(*IDS, input=b"Tom got changed.\n", lines=1)
        result, whole = self.report(
            *IDS, input=b"Tom got changed.\0 I wrote it down.\nYes.\n", lines=2
        )
        self.assertGreater(
            whole["counts"]["source_tokens"],
            cut["counts"]["source_tokens"] + 4,
            "the line was cut at NUL",
        )
        self.same(self.ids("Yes.\n"), result.lines[1:], result)
        self.assertEqual(whole["lines"]["empty"], 0)

    def test_a_line_of_nuls(self):
        self.ok(*GREEDY, input=b"\0\0\0\nYes.\n", lines=2)

    def test_whatever_the_bytes_are_as_many_lines_come_out_and_they_are_utf8(self):
        chance = random.Random(4)
        lines = []
        for i in range(400):
            size = chance.choice([1, 2, 3, 5, 20, 60])
            pool = chance.choice(
                [
                    range(256),
                    range(128, 256),
                    [0, 10, 13, 32, 0x85, 0xE2, 0x80, 0xA8],
                    list(b">>fra<< |||\t"),
                    [0xEF, 0xBB, 0xBF, 0xBD],
                    [0xC2, 0x85, 0x0B, 0x0C],
                ]
            )
            lines.append(
                bytes(byte for byte in (chance.choice(pool) for _ in range(size)) if byte != 10)
            )
        for options in (GREEDY, ["--n-best", "2", "-b", "2", "--output-format", "ids"]):
            result, report = self.report(
                *options, "--max-length", "12", input=b"".join(line + b"\n" for line in lines)
            )
            self.assertEqual(
                (report["lines"]["in"], report["lines"]["out"]), (400, 400), result.story()
            )
            if options is GREEDY:
                self.assertEqual(len(result.lines), 400, result.story())
            else:
                self.assertEqual(
                    sorted({int(row.split(" ||| ")[0]) for row in result.lines}), list(range(400))
                )

    def test_a_separator_in_the_input_is_text(self):
        self.ok(*GREEDY, "--scores", input="a ||| b\n|||\n", lines=2)


class InvalidUtf8(Case):
    BAD = [
        b"\xff",
        b"\xfe\xff",
        b"\x80",
        b"\xbf\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\xbd\xed\xb8\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x99",
        b"\xf0\x9f",
        b"\xe2\x28\xa1",
        b"\xf0\x9f\x98\xc3\xa9",
        b"\xc3\xc3\xa9",
        b"\xe2\x82\xe2\x82\xac",
        b"\xf0\x9f\x99\xf0\x9f\x99\x82",
        b"caf\xe9 cr\xe8me",
        b"\xc3\x28",
        b"\xa9\xc3",
    ]

    def lines(self):
        """Returns lines with each bad sequence between words, inside a word, at the end and at the
        beginning."""
        return [
            before + bad + after
            for bad in self.BAD
            for before, after in (
                (b"Tom ", b" came home."),
                (b"ho", b"me."),
                (b"Yes.", b""),
                (b"", b" Yes."),
            )
        ]

    def test_bad_bytes_are_translated_like_one_replacement_character_for_each_maximal_bad_part(
        self,
    ):
        lines = self.lines()
        # Python writes one U+FFFD for each maximal bad part.
        repaired = [line.decode("utf-8", "replace").encode("utf-8") for line in lines]
        bad, bad_report = self.report(
            *IDS, input=b"".join(line + b"\n" for line in lines), lines=len(lines)
        )
        good, good_report = self.report(
            *IDS, input=b"".join(line + b"\n" for line in repaired), lines=len(lines)
        )
        for line, a, b in zip(lines, good.lines, bad.lines):
            if a != b:
                self.fail("%r: expected %r, got %r\n%s" % (line, a, b, bad.story()))
        self.assertEqual(
            bad_report["counts"]["source_tokens"], good_report["counts"]["source_tokens"]
        )
        self.assertEqual(bad_report["lines"]["invalid_utf8"], len(lines))
        self.assertEqual(good_report["lines"]["invalid_utf8"], 0, "U+FFFD itself is valid")

    def test_an_invalid_line_is_counted_once_and_valid_ones_are_not(self):
        _, report = self.report(
            *GREEDY,
            input="Yes.\n".encode() + b"\xff \xff \xff\n" + "Ünïcödé 雪 🙂\n".encode() + b"caf\xe9",
            lines=4,
        )
        self.assertEqual(report["lines"]["invalid_utf8"], 2)

    def test_the_neighbours_of_a_bad_line_are_untouched(self):
        lines = [line.encode() for line in source_lines()[:40]]
        spoilt = [b"\xff\xfe " + line if i % 2 else line for i, line in enumerate(lines)]
        result = self.ok(*IDS, input=b"\n".join(spoilt) + b"\n", lines=40)
        self.same(best("shared", "greedy")[:40:2], result.lines[::2], result)

    def test_a_sequence_cut_by_the_end_of_the_file(self):
        for tail in (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x99"):
            with self.subTest(tail):
                self.ok(*GREEDY, input=b"Yes.\nYes. " + tail, lines=2)

    def test_a_character_that_straddles_read_buffers_is_valid(self):
        # Long lines of two-, three- and four-byte characters are cut at every offset.
        data = b"".join(
            b"x" * shift + character.encode() * 9000 + b"\n"
            for character in "é€🙂"
            for shift in range(4)
        )
        _, report = self.report(*GREEDY, "--max-length", "3", input=data, lines=12)
        self.assertEqual(report["lines"]["invalid_utf8"], 0)

    def test_input_in_utf16_and_latin1_gives_utf8(self):
        for encoding in ("utf-16-le", "utf-16", "latin-1", "utf-32"):
            with self.subTest(encoding):
                data = "Grüße aus Köln.\nÄpfel.\n".encode(encoding)
                self.ok(
                    *GREEDY,
                    "--max-length",
                    "10",
                    input=data,
                    lines=data.count(b"\n") + (not data.endswith(b"\n")),
                )

    def test_bad_bytes_in_pieces_input_never_fail(self):
        result = self.ok(
            *GREEDY,
            "--input-format",
            "pieces",
            "--max-length",
            "10",
            input=b"\xe2\x96\x81Tom \xff\xfe \xe2\x96\n",
        )
        self.assertEqual(len(result.lines), 1)


class ByteOrderMark(Case):
    BOM = b"\xef\xbb\xbf"

    def test_it_is_stripped_from_the_first_line(self):
        # The language token stands at the start of the line only after the byte order mark is
        # removed.
        line = b">>fra<< Tom has already apologized.\n"
        clean, marked = self.ok(*IDS, input=line), self.ok(*IDS, input=self.BOM + line)
        self.same(clean.lines, marked.lines, marked)

    def test_it_is_stripped_from_the_first_line_of_each_file(self):
        # The line has ids, so any extra byte would be an error.
        line = b"1117 500 314 1227 818 586 1220 2371 0\n"
        files = [
            self.path("a", self.BOM + line),
            self.path("b", self.BOM + line * 2),
            self.path("c.gz", self.BOM + line),
            self.path("d", line),
        ]
        result = self.ok(*IDS, "--input-format", "ids", "-i", *files, lines=5)
        self.same([best("shared", "greedy")[188]] * 5, result.lines, result)

    def test_it_is_stripped_from_stdin_among_files(self):
        line = b"1117 500 314 1227 818 586 1220 2371 0\n"
        self.ok(
            *IDS,
            "--input-format",
            "ids",
            "-i",
            self.path("a", line),
            "-",
            input=self.BOM + line,
            lines=2,
        )

    def test_an_otherwise_empty_first_line_is_empty(self):
        result, report = self.report(*IDS, input=self.BOM + b"\nYes.\n", lines=2)
        self.assertEqual((result.lines[0], report["lines"]["empty"]), ("", 1))

    def test_two_bytes_of_it_are_just_invalid(self):
        _, report = self.report(*IDS, input=self.BOM[:2] + b"Yes.\n", lines=1)
        self.assertEqual(report["lines"]["invalid_utf8"], 1)

    def test_it_is_stripped_before_crlf(self):
        result, report = self.report(*IDS, input=self.BOM + b"\r\nYes.\r\n", lines=2)
        self.assertEqual(report["lines"]["empty"], 1, result.story())


class LanguageTokens(Case):
    def report_of(self, line):
        result, report = self.report(*IDS, input=line + "\n", lines=1)
        return result.lines[0], report

    def test_a_line_that_holds_nothing_else_is_translated(self):
        output, report = self.report_of(">>fra<<")
        self.assertEqual((report["lines"]["empty"], report["counts"]["source_tokens"]), (0, 2))
        self.assertEqual(output, self.ok(*IDS, "--input-format", "ids", input="193 0\n").lines[0])

    def test_spaces_after_it_do_not_matter(self):
        self.assertEqual(self.report_of(">>fra<<   ")[1]["counts"]["source_tokens"], 2)
        self.same([self.report_of(">>deu<<Yes.")[0]], [self.report_of(">>deu<<   Yes.")[0]])

    def test_an_unknown_one_is_one_unknown_token(self):
        self.assertEqual(self.report_of(">>xyz_Abcd<<")[1]["counts"]["source_tokens"], 2)
        self.assertEqual(
            self.report_of(">>xyz<<")[0],
            self.ok(*IDS, "--input-format", "ids", input="1 0\n").lines[0],
        )

    def test_it_counts_only_at_the_start_of_a_line(self):
        for line in ("Yes. >>fra<<", " >>fra<<", "x>>fra<<"):
            with self.subTest(line):
                self.assertGreater(self.report_of(line)[1]["counts"]["source_tokens"], 3)

    def test_only_the_first_one_is_a_token(self):
        self.assertGreater(self.report_of(">>fra<<>>deu<<")[1]["counts"]["source_tokens"], 4)

    def test_what_only_looks_like_one_is_text(self):
        for line in (">><<", ">>a<b<<", ">>fra<", ">fra<<", ">>"):
            with self.subTest(line):
                _, report = self.report_of(line)
                self.assertEqual((report["lines"]["in"], report["lines"]["empty"]), (1, 0))

    def test_a_very_long_one_is_one_token(self):
        self.assertEqual(self.report_of(">>" + "x" * 5000 + "<<")[1]["counts"]["source_tokens"], 2)


class Output(Case):
    def test_the_unknown_token_is_printed_as_sentencepiece_does(self):
        result = self.ok(
            *GREEDY, *REFERENCE_LIMITS, input="\n".join(source_lines()) + "\n", lines=200
        )
        wanted = [i for i, ids in enumerate(best("shared", "greedy")) if " 1 " in ids]
        self.assertTrue(wanted)
        for i in wanted:
            self.assertIn(
                " \u2047 ",
                result.lines[i],
                "line %d: ids %s\n%s" % (i + 1, best("shared", "greedy")[i], result.story()),
            )

    def test_text_is_what_sentencepiece_makes_of_the_pieces(self):
        for name, model in (("shared", SHARED), ("separate", SEPARATE)):
            with self.subTest(name):
                result = self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    "--input-format",
                    "ids",
                    input="\n".join(source_ids(name)) + "\n",
                    model=model,
                    lines=200,
                )
                self.same(
                    [text_of(name, ids) for ids in best(name, "greedy")], result.lines, result
                )

    def test_a_newline_or_cr_piece_becomes_a_space(self):
        model = ModelFile(SEPARATE)
        # These are among the ids that this model chooses most often.
        swaps = {234: b"\n", 78: b"\r", 1263: b"\n"}
        for id, piece in swaps.items():
            model.replace_piece("target", id, piece)
        path = self.path("newlines.bin", model.bytes())
        common = [*GREEDY, *REFERENCE_LIMITS, "--input-format", "ids"]
        input = "\n".join(source_ids("separate")) + "\n"
        result = self.ok(*common, input=input, model=path, lines=200)
        plain = self.ok(*common, input=input, model=SEPARATE, lines=200)
        self.assertTrue(any("-" in line for line in plain.lines))
        self.assertNotIn(b"\r", result.out)
        table = program.pieces("separate")

        def expected(ids):
            return "".join(
                " \u2047 "
                if id == "1"
                else " "
                if int(id) in swaps
                else table[int(id)].replace("\u2581", " ")
                for id in ids.split()
            )

        self.same(
            [expected(ids).strip(" ") for ids in best("separate", "greedy")],
            [line.strip(" ") for line in result.lines],
            result,
        )
        for options in (["--output-format", "pieces"], ["--scores"]):
            self.assertNotIn(
                b"\r", self.ok(*common, *options, input=input, model=path, lines=200).out
            )

    def test_stdout_is_the_same_in_any_locale(self):
        runs = [
            self.ok(
                *GREEDY,
                "--scores",
                input="Snow 雪, 1,5 Grüße.\n",
                env=dict(os.environ, LC_ALL=locale, LANG=locale),
            ).out
            for locale in ("C", "C.UTF-8", "de_DE.UTF-8", "no_SUCH")
        ]
        self.assertEqual(len(set(runs)), 1, runs)


class LongLine(Case):
    """Tests lines longer than 1 MiB."""

    def huge(self, size):
        path = self.path("huge-%d" % size)
        with open(path, "wb") as file:
            file.write(b"Yes.\n")
            for _ in range(size >> 20):
                file.write(b"word and " * 116508 + b"more")
            file.write(b"\nYes.")
        return path

    def test_a_line_of_100_mb_is_cut_in_bounded_memory(self):
        peaks = {}
        for size in (2 << 20, 100 << 20):
            report_path = self.path("report.json")
            result, seen = program.peak_memory(
                *IDS, "--report", report_path, input_path=self.huge(size)
            )
            self.check(result, 0)
            self.assertEqual(len(result.lines), 3, result.story())
            report = self.load_report(report_path, result)
            self.assertEqual(
                (report["lines"]["in"], report["lines"]["out"], report["lines"]["truncated"]),
                (3, 3, 1),
            )
            self.same([best("shared", "greedy")[193]] * 2, result.lines[::2], result)
            self.assertTrue(result.error_lines, "no warning\n" + result.story())
            peaks[size] = max(seen, report["memory"]["host_peak_bytes"])
        small, large = peaks[2 << 20], peaks[100 << 20]
        self.assertLess(
            large,
            small + (48 << 20),
            "peak memory %d MiB with a line of 2 MiB, %d MiB with one of 100 MiB"
            % (small >> 20, large >> 20),
        )
        self.assertLess(large, 1 << 30)

    def test_the_end_of_the_kept_part_does_not_make_invalid_utf8(self):
        for shift in range(3):
            with self.subTest(shift):
                _, report = self.report(
                    *GREEDY,
                    "--max-length",
                    "3",
                    input=b"x" * shift + "雪".encode() * 400000 + b"\nYes.\n",
                    lines=2,
                )
                self.assertEqual(
                    (report["lines"]["invalid_utf8"], report["lines"]["truncated"]), (0, 1)
                )

    def test_a_long_line_of_blanks_is_empty(self):
        result, report = self.report(*GREEDY, input=b" " * (3 << 20) + b"\nYes.\n", lines=2)
        self.assertEqual((result.lines[0], report["lines"]["empty"]), ("", 1))

    def test_a_long_line_in_a_gz_file_and_as_the_last_one_without_newline(self):
        path = self.path("long.gz", b"Yes.\n" + b"word " * 500000)
        _, report = self.report(*GREEDY, "--max-length", "3", "-i", path, lines=2)
        self.assertEqual(report["lines"]["truncated"], 1)


if __name__ == "__main__":
    program.main()
