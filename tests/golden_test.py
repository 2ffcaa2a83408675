"""Compares every line of all 28 reference files in tests/data/opus-shape, which Hugging Face's
`generate` wrote, with the output for source ids and for text, on one thread and on two. The
comparison covers the ids, how many hypotheses ended or reached their limit, and the scores; with
--n-best it covers every row.

Two results tie where final scores differ by less than 1e-5, or plain sums by less than 1e-4, and
either may win. A line that differs is therefore decoded again alone, and both hypotheses are
printed with their scores under xlate's own model. Only a shown tie is forgiven. A line whose result
differs for text but not for ids was split differently by another version of SentencePiece. Both
results are printed, and at most TEXT_ALLOWED lines of a file may be so. On another device
(XLATE_TEST_DEVICE) one shown tie for each file is forgiven.
"""

import os
import sys

import program
from program import SEPARATE, SHARED, Case, reference, source_ids, source_lines, xlate

MODELS = {"shared": SHARED, "separate": SEPARATE}
SETTINGS = [
    "greedy",
    "greedy.limit12",
    "beam4",
    "beam4.stop-false",
    "beam4.stop-never",
    "beam4.limit12",
    "beam4.limit12.stop-false",
    "beam4.limit12.stop-never",
    "beam4.lp0.6",
    "beam4.lp0.6.stop-false",
    "beam4.lp0.6.stop-never",
    "beam4.lp2.stop-false",
    "beam4.lp0.stop-false",
    "beam6.nbest6.stop-false",
]
TEXT_ALLOWED = 2
# This many lines of a file may tie.
TIES_ALLOWED = 200 if program.DEVICE == "cpu" else 1
setUpModule = program.require


class Search:
    """A Search has the settings of a search, as options and as numbers."""

    def __init__(
        self, beam=1, penalty=1.0, stop="true", limit=60, factor=50, n_best=0, forced_end=True
    ):
        (
            self.beam,
            self.penalty,
            self.stop,
            self.limit,
            self.factor,
            self.n_best,
            self.forced_end,
        ) = beam, penalty, stop, limit, factor, n_best, forced_end

    @classmethod
    def named(cls, name):
        """Returns the settings that the name of a reference file stands for: greedy.limit12,
        beam6.nbest6.stop-false, beam4.lp0.6, …."""
        first, *words = name.replace("lp0.6", "lp0_6").split(".")
        search = cls(beam=1 if first == "greedy" else int(first[len("beam") :]))
        for word in words:
            if word.startswith("lp"):
                search.penalty = float(word[2:].replace("_", "."))
            elif word.startswith("stop-"):
                search.stop = word[5:]
            elif word.startswith("limit"):
                search.limit = int(word[5:])
            elif word.startswith("nbest"):
                search.n_best = int(word[5:])
            else:
                raise ValueError(name)
        return search

    @property
    def options(self):
        return [
            "-b",
            self.beam,
            "--length-penalty",
            self.penalty,
            "--early-stopping",
            self.stop,
            "--max-length",
            self.limit,
            "--max-length-factor",
            self.factor,
            *(["--n-best", self.n_best] if self.n_best else ["--scores"]),
        ]

    @property
    def tolerance(self):
        return 1e-3 if self.penalty == 0 else 1e-4

    @property
    def tie(self):
        return 1e-4 if self.penalty == 0 else 1e-5

    def row(self, line):
        """Returns (line number or None, ids, final score, plain sum or None) of an output row."""
        fields = line.split(" ||| ")
        if len(fields) != (4 if self.n_best else 2):
            raise AssertionError("not a row with a score: %r" % line)
        if self.n_best:
            return int(fields[0]), fields[1], float(fields[3]), float(fields[2][len("F0= ") :])
        return None, fields[1], float(fields[0]), None


def own_scores(model, source, expected, got, search, format="ids"):
    """Compares both hypotheses by the scores that xlate itself gives them in n-best lists. Returns
    (whether they tie, a text that says why).

    Greedy outputs are the same up to one token and then differ. The two beginnings up to that token
    are therefore compared as plain sums. A limit ends the search right after the token, or one step
    later where the model forces an end token, which adds nothing to the sum."""
    hypotheses = [expected.split(), got.split()]
    if search.beam == 1:
        at = len(os.path.commonprefix(hypotheses))
        hypotheses = [ids[: at + 1] for ids in hypotheses]
        search = Search(1, 0, "true", at + 1 + search.forced_end, search.factor)
    scores = {}
    for width, stop in ((search.beam, search.stop), (16, search.stop), (16, "never")):
        wide = Search(width, search.penalty, stop, search.limit, search.factor, width)
        result = xlate(
            *wide.options,
            "-q",
            "--input-format",
            format,
            "--output-format",
            "ids",
            model=model,
            input=source + "\n",
        )
        if result.code:
            return False, "no scores: " + result.story()
        for line in result.lines:
            scores.setdefault(wide.row(line)[1], wide.row(line)[2])
    both = [scores.get(" ".join(ids)) for ids in hypotheses]
    story = "".join(
        "\n    %-9s %-12s %s"
        % (who, "not found" if score is None else "%.6g" % score, " ".join(ids))
        for who, score, ids in zip(("expected", "got"), both, hypotheses)
    )
    return None not in both and abs(both[0] - both[1]) <= search.tie, "under xlate itself" + story


class Golden(Case):
    # This has the lines with different ids, by file and number of threads.
    differing = {}

    @classmethod
    def tearDownClass(cls):
        program.figure(
            "%d files of goldens read, %d lines of them differ"
            % (len(cls.differing), sum(cls.differing.values()))
        )

    def run_search(self, name, search, format, threads):
        """Returns (the rows of Search.row, the report, the result)."""
        source = source_ids(name) if format == "ids" else source_lines()
        result, report = self.report(
            *search.options,
            "--input-format",
            format,
            "--output-format",
            "ids",
            "--threads",
            threads,
            model=MODELS[name],
            input="".join(line + "\n" for line in source),
        )
        return [search.row(line) for line in result.lines], report, result

    def check_setting(self, name, setting, threads):
        search, title = Search.named(setting), "%s %s, %d thread(s)" % (name, setting, threads)
        rows, report, result = self.run_search(name, search, "ids", threads)
        different, wrong = self.compare(name, setting, search, rows, result)
        Golden.differing[title] = len(different)
        if wrong or len(different) > TIES_ALLOWED:
            self.fail(
                "%s: %d lines differ, %d allowed; %d rows are wrong\n%s\n%s"
                % (
                    title,
                    len(different),
                    TIES_ALLOWED,
                    len(wrong),
                    "\n".join(wrong[:5]),
                    result.story(),
                )
            )
        if not different:
            self.check_ends(name, setting, search, report)

        text_rows, text_report, text_result = self.run_search(name, search, "text", threads)
        apart = self.apart(rows, text_rows, search, text_result)
        for line in apart:
            self.tell_split(name, search, line)
        if len(apart) > TEXT_ALLOWED:
            self.fail(
                "%s: lines %s have other translations from text than from the ids of source.ids\n%s"
                % (title, apart, text_result.story())
            )
        if not different and not apart:
            self.check_ends(name, setting, search, text_report)

    def compare(self, name, setting, search, rows, result):
        """Returns (lines whose ids differ from the reference, faults of these lines and of the
        scores of the others)."""
        wanted = [
            (line, ids, score)
            for line, hypotheses in enumerate(reference(name, setting))
            for ids, score in hypotheses
        ]
        self.assertEqual(
            len(rows),
            len(wanted),
            "%d rows, expected %d\n%s" % (len(rows), len(wanted), result.story()),
        )
        different, wrong = set(), []
        for (line, ids, score), (number, got, final, total) in zip(wanted, rows):
            if number not in (None, line):
                self.fail(
                    "a row of line %d where one of line %d should be\n%s"
                    % (number, line, result.story())
                )
            if ids != got:
                different.add(line)
                tie, story = own_scores(MODELS[name], source_ids(name)[line], ids, got, search)
                print(
                    "\n%s %s: line %d differs%s, %s"
                    % (name, setting, line, " (a tie)" if tie else "", story),
                    file=sys.stderr,
                )
                if not tie:
                    wrong.append("line %d differs, %s" % (line, story))
            # A greedy reference has no score. Its score is nan, and the comparison is then false.
            elif abs(final - score) > search.tolerance:
                wrong.append(
                    "line %d: score %.6g, expected %.6g, of %s" % (line, final, score, ids)
                )
            if (
                total is not None
                and abs(total / (len(got.split()) + 1) ** search.penalty - final) > search.tolerance
            ):
                wrong.append(
                    "line %d: the sum %.6g does not give the score %.6g of %s"
                    % (line, total, final, got)
                )
        return different, wrong

    def apart(self, rows, text_rows, search, result):
        """Returns the lines whose rows differ when the source is text."""

        def by_line(rows):
            lines = {}
            for i, (number, ids, score, _) in enumerate(rows):
                lines.setdefault(i if number is None else number, []).append((ids, score))
            return lines

        first, second = by_line(rows), by_line(text_rows)
        self.assertEqual(sorted(first), sorted(second), result.story())
        return [
            line
            for line in first
            if len(first[line]) != len(second[line])
            or any(
                a[0] != b[0] or abs(a[1] - b[1]) > search.tolerance
                for a, b in zip(first[line], second[line])
            )
        ]

    def check_ends(self, name, setting, search, report):
        """Checks that the report counts correctly how many of the best hypotheses ended and how
        many reached their limit. The column end|cut of the references says it."""
        with open(os.path.join(program.DATA, name, setting + ".txt")) as file:
            rows = [row.split(" ||| ") for row in file]
        best = [row for i, row in enumerate(rows) if i == 0 or row[0] != rows[i - 1][0]]
        tokens, ended = (
            sum(len(row[1].split()) for row in best),
            sum(row[2] == "end" for row in best),
        )
        limited = sum(
            len(row[1].split()) + 1 >= min(search.limit, search.factor * len(source.split()) + 10)
            for row, source in zip(best, source_ids(name))
        )
        self.assertEqual(
            (tokens, tokens + ended, limited),
            (
                report["counts"]["target_tokens_without_end"],
                report["counts"]["target_tokens"],
                report["lines"]["hit_length_limit"],
            ),
        )

    def tell_split(self, name, search, line):
        """Prints the output for the text and the output for the ids in the reference file."""
        print(
            "\nline %d differs between text and ids (another SentencePiece?): %r"
            % (line, source_lines()[line]),
            file=sys.stderr,
        )
        for format, source in (("text", source_lines()[line]), ("ids", source_ids(name)[line])):
            result, report = self.report(
                *search.options,
                "--input-format",
                format,
                "--output-format",
                "ids",
                model=MODELS[name],
                input=source + "\n",
            )
            print(
                "  %-4s %d source tokens: %s"
                % (format, report["counts"]["source_tokens"], result.lines[0]),
                file=sys.stderr,
            )


def add_tests():
    """Adds a method for each file and number of threads, so that each can run and fail alone."""
    for name in MODELS:
        for setting in SETTINGS:
            for threads in (1, 2):

                def test(self, name=name, setting=setting, threads=threads):
                    self.check_setting(name, setting, threads)

                test.__name__ = "test_%s_%s_threads_%d" % (
                    name,
                    setting.replace(".", "_").replace("-", "_"),
                    threads,
                )
                setattr(Golden, test.__name__, test)


add_tests()

if __name__ == "__main__":
    program.main()
