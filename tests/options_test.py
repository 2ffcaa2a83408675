"""Tests what each option means. The expected ids come from tests/data/opus-shape."""

import json
import os
import re
import shutil

import families_test
import model_bytes
import program
from checkpoint_fixture import convert
from program import (
    BEAM4,
    EN_DE,
    GREEDY,
    REFERENCE_LIMITS,
    SEPARATE,
    SHARED,
    Case,
    best,
    pieces,
    reference,
    source_ids,
    source_lines,
    text_of,
    xlate,
)

IDS_OUT = ["--output-format", "ids"]
IDS = ["--input-format", "ids", *IDS_OUT]
MODELS = (("shared", SHARED), ("separate", SEPARATE))
NUMBER = r"-?(?:\d+(?:\.\d+)?(?:e[-+]\d+)?)"
setUpModule = program.require


def text(lines):
    return "".join(line + "\n" for line in lines)


class Search(Case):
    SETTINGS = {
        "greedy": GREEDY + REFERENCE_LIMITS,
        "greedy.limit12": GREEDY + ["--max-length", "12", "--max-length-factor", "50"],
        "beam4": BEAM4 + REFERENCE_LIMITS,
        "beam4.stop-false": ["-b", "4", "--length-penalty", "1", "--early-stopping", "false"]
        + REFERENCE_LIMITS,
        "beam4.stop-never": ["-b", "4", "--length-penalty", "1", "--early-stopping", "never"]
        + REFERENCE_LIMITS,
        "beam4.lp0.6": ["--beam-size", "4", "--length-penalty", "0.6", "--early-stopping", "true"]
        + REFERENCE_LIMITS,
        "beam4.lp2.stop-false": ["-b", "4", "--length-penalty", "2", "--early-stopping", "false"]
        + REFERENCE_LIMITS,
        "beam4.lp0.stop-false": ["-b", "4", "--length-penalty", "0", "--early-stopping", "false"]
        + REFERENCE_LIMITS,
        "beam4.limit12.stop-never": [
            "-b",
            "4",
            "--length-penalty",
            "1",
            "--early-stopping",
            "never",
            "--max-length",
            "12",
            "--max-length-factor",
            "50",
        ],
    }

    def test_ids_are_the_references_in_every_setting(self):
        for name, model in MODELS:
            for setting, options in self.SETTINGS.items():
                with self.subTest(name + " " + setting):
                    result = self.ok(
                        *options, *IDS, model=model, input=text(source_ids(name)), lines=200
                    )
                    self.same(best(name, setting), result.lines, result)

    def test_scores_are_the_references(self):
        for name, model in MODELS:
            for setting in ("beam4", "beam4.lp2.stop-false", "beam4.lp0.stop-false"):
                with self.subTest(name + " " + setting):
                    # The scores are plain sums, or sums over length^A.
                    bound = 1e-3 if ".lp0." in setting else 3e-4
                    result = self.ok(
                        *self.SETTINGS[setting],
                        *IDS,
                        "--scores",
                        model=model,
                        input=text(source_ids(name)),
                        lines=200,
                    )
                    for i, (line, hypotheses) in enumerate(
                        zip(result.lines, reference(name, setting))
                    ):
                        score, _, ids = line.partition(" ||| ")
                        self.assertRegex(score, "^%s$" % NUMBER, result.story())
                        if ids != hypotheses[0][0] or abs(float(score) - hypotheses[0][1]) > bound:
                            self.fail(
                                "line %d: expected %.5f %s, got %s\n%s"
                                % (i + 1, hypotheses[0][1], hypotheses[0][0], line, result.story())
                            )

    def test_n_best_is_the_references(self):
        for name, model in MODELS:
            with self.subTest(name):
                result = self.ok(
                    "-b",
                    "6",
                    "--length-penalty",
                    "1",
                    "--early-stopping",
                    "false",
                    "--n-best",
                    "6",
                    *REFERENCE_LIMITS,
                    *IDS,
                    model=model,
                    input=text(source_ids(name)),
                )
                wanted = [
                    (i, ids, score)
                    for i, hypotheses in enumerate(reference(name, "beam6.nbest6.stop-false"))
                    for ids, score in hypotheses
                ]
                self.assertEqual(len(result.lines), len(wanted), result.story())
                wrong = []
                for row, (i, ids, score) in zip(result.lines, wanted):
                    if not NBest.ROW.match(row):
                        self.fail("not an n-best row: %r\n%s" % (row, result.story()))
                    line, got, _, final = row.split(" ||| ")
                    self.assertEqual(int(line), i)
                    if abs(float(final) - score) > 1e-4:
                        self.fail("line %d: expected %.5f %s, got %s" % (i, score, ids, row))
                    wrong += [(row, i, ids, score)] if got != ids else []
                self.assertLessEqual(
                    len(wrong), 4, "only near-ties may change places: %s" % wrong[:3]
                )

    def test_text_in_gives_the_ids_of_the_checkpoints_tokenizer(self):
        for name, model in MODELS:
            with self.subTest(name):
                result, report = self.report(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    *IDS_OUT,
                    model=model,
                    input=text(source_lines()),
                    lines=200,
                )
                self.same(best(name, "greedy"), result.lines, result)
                self.assertEqual(
                    report["counts"]["source_tokens"],
                    sum(len(ids.split()) for ids in source_ids(name)),
                )

    def test_without_options_the_models_own_settings_hold(self):
        # opus-shape asks for six beams and 511 tokens. It says nothing of penalty and stopping, so
        # these are 1 and `false`.
        plain = self.ok(*IDS_OUT, input=text(source_lines()[:60]), lines=60)
        spelled = self.ok(
            "-b",
            "6",
            "--length-penalty",
            "1",
            "--early-stopping",
            "false",
            "--max-length",
            "511",
            "--max-length-factor",
            "3",
            *IDS_OUT,
            input=text(source_lines()[:60]),
            lines=60,
        )
        self.same(spelled.lines, plain.lines, plain)
        limited = self.ok(
            "--max-length",
            "60",
            "--max-length-factor",
            "50",
            *IDS,
            input=text(source_ids()[:60]),
            lines=60,
        )
        self.same(best("shared", "beam6.nbest6.stop-false")[:60], limited.lines, limited)

    def test_the_default_beam_is_four_where_the_model_says_nothing(self):
        plain, spelled = (
            self.ok(*options, model=EN_DE, input=text(source_lines()[:15]), lines=15)
            for options in (
                [],
                [
                    "-b",
                    "4",
                    "--length-penalty",
                    "1",
                    "--early-stopping",
                    "false",
                    "--max-length",
                    "512",
                    "--max-length-factor",
                    "3.0",
                ],
            )
        )
        self.same(spelled.lines, plain.lines, plain)


class Languages(Case):
    """The language tokens of M2M-100 follow its vocabulary. The list of their codes begins with af
    am ar ast az ba be bg bn br bs ca ceb cs cy da de el en."""

    FOLDER = os.path.join(families_test.FAMILIES, "m2m100")
    OPTIONS = ["-b", "2", *REFERENCE_LIMITS, *IDS]

    def setUp(self):
        super().setUp()
        self.model = families_test.model_of(self.FOLDER)
        with open(os.path.join(self.FOLDER, "source.ids")) as file:
            self.sources = "".join(file.readlines()[:20])
        with open(os.path.join(self.FOLDER, "vocab.json"), encoding="utf-8") as file:
            first = len(json.load(file))
        self.ids = {"de": first + 16, "en": first + 18}

    def to(self, *options, model=None):
        result, report = self.report(
            *self.OPTIONS, *options, input=self.sources, model=model or self.model, lines=20
        )
        return result.lines, report["options"]

    def changed(self, change):
        """Returns the path of a copy of the model whose header change() has changed."""
        file = model_bytes.ModelFile(self.model)
        change(file.header)
        return self.path("changed.bin", file.bytes())

    def test_the_target_language_is_the_first_token(self):
        lines = {}
        for code, id in self.ids.items():
            lines[code], options = self.to("--target-lang", code)
            self.assertEqual({int(line.split()[0]) for line in lines[code]}, {id})
            self.assertEqual((options["source_lang"], options["target_lang"]), (None, code))
        self.assertNotEqual(*([line.split()[1:] for line in lines[code]] for code in ("de", "en")))

    def test_the_source_language_does_not_change_ids(self):
        plain, _ = self.to("--target-lang", "de")
        named, options = self.to("--target-lang", "de", "--source-lang", "fr")
        self.same(plain, named)
        self.assertEqual((options["source_lang"], options["target_lang"]), ("fr", "de"))

    def test_an_unknown_code_is_a_usage_error_that_lists_the_known_ones(self):
        for option in ("--source-lang", "--target-lang"):
            for code in ("xx", "deu_Latn", "DE", ""):
                with self.subTest(option, code=code):
                    target = ["--target-lang", "de"] if option == "--source-lang" else []
                    result = self.usage_error(
                        *self.OPTIONS,
                        option,
                        code,
                        *target,
                        names=[option, "'%s'" % code, "af, am, ar, ast", "zh, zu"],
                        model=self.model,
                    )
                    self.assertEqual(len(result.error_lines), 1, result.story())

    def test_a_model_without_languages_takes_none(self):
        for option in ("--source-lang", "--target-lang"):
            self.usage_error(option, "de", names=[option, "'de'", "no language tokens"])

    def test_a_multilingual_model_needs_a_target(self):
        self.usage_error(*self.OPTIONS, names=["--target-lang", "missing", "100"], model=self.model)
        self.usage_error(
            *self.OPTIONS, "--source-lang", "en", names="--target-lang", model=self.model
        )

    def test_a_model_with_a_language_of_its_own_needs_no_target(self):
        german = {"forced_first": self.ids["de"]}
        model = self.changed(lambda header: header["generation"].update(german))
        expected, _ = self.to("--target-lang", "de")
        found, options = self.to(model=model)
        self.same(expected, found)
        self.assertEqual(options["target_lang"], "de")
        # The option takes the place of the model's own language.
        expected, _ = self.to("--target-lang", "en")
        found, options = self.to("--target-lang", "en", model=model)
        self.same(expected, found)
        self.assertEqual(options["target_lang"], "en")

    def test_a_model_that_starts_with_a_language_needs_no_target(self):
        model = self.changed(lambda header: header["tokens"].update(start=self.ids["de"]))
        found, options = self.to(model=model)
        self.assertIsNone(options["target_lang"])
        self.assertNotEqual({int(line.split()[0]) for line in found}, {self.ids["de"]})

    def test_languages_that_are_none_are_refused(self):
        for languages, names in (
            ([3], "no object 'tokens.languages'"),
            ({"de": 997}, ["'tokens.languages.de' is 997", "0 to 996"]),
            ({"de": "3"}, ["'tokens.languages.de'", "0 to 996"]),
            ({"": 3}, ["'tokens.languages'", "language codes"]),
            ({"d\n": 3}, ["'tokens.languages'", "language codes"]),
            ({"l%d" % i: 3 for i in range(4097)}, ["'tokens.languages'", "4097", "4096"]),
        ):
            with self.subTest(names=names):
                model = self.changed(lambda header: header["tokens"].update(languages=languages))
                self.fails(*self.OPTIONS, names=names, model=model)


def repeats(ids, n):
    """Returns whether some n consecutive ids are there twice."""
    ngrams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(ngrams)) < len(ngrams)


class RowRules(Case):
    """families_test.py compares the outputs under these rules with references. These tests show
    that the rules can be switched on and off, that a model's own values are the defaults, and that
    values out of range are refused."""

    OFF = ["--min-length", "0", "--no-repeat-ngram", "0", "--repetition-penalty", "1"]

    def decode(self, *options, model=SHARED):
        # A forced end at the limit overrides the minimum, so the limit is far away.
        arguments = [*options, *REFERENCE_LIMITS, *IDS]
        return self.ok(*arguments, input=text(source_ids()[:60]), model=model, lines=60).lines

    def test_the_minimum_is_the_least_number_of_tokens_before_the_end(self):
        for options in (GREEDY, BEAM4):
            plain = [len(line.split()) for line in self.decode(*options)]
            least = sorted(plain)[len(plain) // 2]
            lines = self.decode(*options, "--min-length", str(least))
            self.assertLess(min(plain), least)
            self.assertGreaterEqual(min(len(line.split()) for line in lines), least)

    def test_no_ngram_is_there_twice(self):
        for options in (GREEDY, BEAM4):
            plain = [line.split() for line in self.decode(*options)]
            lines = [line.split() for line in self.decode(*options, "--no-repeat-ngram", "2")]
            self.assertTrue(any(repeats(ids, 2) for ids in plain))
            self.assertFalse(any(repeats(ids, 2) for ids in lines))
            for mine, before in zip(lines, plain):
                if options is GREEDY and not repeats(before, 2):
                    self.assertEqual(mine, before)

    def test_a_large_penalty_leaves_few_ids_repeated(self):
        plain, lines = (
            sum(len(line.split()) - len(set(line.split())) for line in self.decode(*options))
            for options in (GREEDY, [*GREEDY, "--repetition-penalty", "5"])
        )
        self.assertLess(lines, plain / 2)

    def test_switched_off_they_change_nothing(self):
        for options in (GREEDY, BEAM4):
            self.assertEqual(
                self.decode(*options, "--scores", *self.OFF), self.decode(*options, "--scores")
            )

    def test_a_rule_without_effect_changes_nothing(self):
        for options in (GREEDY, BEAM4):
            self.assertEqual(
                self.decode(*options, "--no-repeat-ngram", "100"), self.decode(*options)
            )

    def test_the_models_own_values_are_the_defaults(self):
        checkpoint = os.path.join(self.folder, "checkpoint")
        shutil.copytree(os.path.join(program.DATA, "shared"), checkpoint)
        path = os.path.join(checkpoint, "generation_config.json")
        with open(path, encoding="utf-8") as file:
            generation = json.load(file)
        generation.update(min_length=9, no_repeat_ngram_size=2, repetition_penalty=1.2)
        os.remove(path)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(generation, file)
        model = self.path("model.bin")
        convert.convert(checkpoint, model)
        own = ["--min-length", "8", "--no-repeat-ngram", "2", "--repetition-penalty", "1.2"]
        self.assertEqual(self.decode(*BEAM4, model=model), self.decode(*BEAM4, *own))
        self.assertEqual(self.decode(*BEAM4, *self.OFF, model=model), self.decode(*BEAM4))
        _, report = self.report(*GREEDY, *IDS, input=text(source_ids()[:1]), model=model)
        options = report["options"]
        self.assertEqual((options["min_length"], options["no_repeat_ngram"]), (8, 2))
        self.assertAlmostEqual(options["repetition_penalty"], 1.2, places=6)

    def test_what_is_out_of_range_is_a_usage_error(self):
        for option, value in (
            ("--min-length", "-1"),
            ("--min-length", "2.5"),
            ("--no-repeat-ngram", "-1"),
            ("--no-repeat-ngram", "x"),
            ("--repetition-penalty", "0"),
            ("--repetition-penalty", "-1"),
            ("--repetition-penalty", "nan"),
            ("--repetition-penalty", "0.0099"),
            ("--repetition-penalty", "101"),
        ):
            self.usage_error(option, value, names=value)

    def test_the_ends_of_a_range_belong_to_it(self):
        for value in ("0.01", "100"):
            self.report("--repetition-penalty", value, input="", lines=0)


class Limits(Case):
    def limited(self, *options):
        return self.report(*GREEDY, *options, *IDS, input=text(source_ids()), lines=200)

    def check_limits(self, options, limit):
        """With a forced end token, greedy decoding gives the tokens of the unlimited run, but the
        last token that the limit allows is the end token."""
        result, report = self.limited(*options)
        expected, cut, natural = [], 0, 0
        for source, ids in zip(source_ids(), best("shared", "greedy")):
            ids, most = ids.split(), limit(len(source.split()))
            # The references were cut at 60 tokens, so no limit here may be larger.
            assert most <= 60
            expected.append(" ".join(ids[: most - 1]))
            cut, natural = cut + (len(ids) + 1 > most), natural + (len(ids) + 1 == most)
        self.same(expected, result.lines, result)
        self.assertTrue(
            cut <= report["lines"]["hit_length_limit"] <= cut + natural,
            "hit_length_limit is %d, expected %d to %d"
            % (report["lines"]["hit_length_limit"], cut, cut + natural),
        )

    def test_max_length_counts_the_end_token(self):
        self.check_limits(["--max-length", "12", "--max-length-factor", "50"], lambda source: 12)

    def test_max_length_1_leaves_room_for_the_end_token_only(self):
        self.check_limits(["--max-length", "1"], lambda source: 1)

    def test_the_factor_is_per_sentence_and_adds_ten(self):
        self.check_limits(
            ["--max-length", "60", "--max-length-factor", "0.5"],
            lambda source: min(60, source // 2 + 10),
        )
        self.check_limits(
            ["--max-length", "60", "--max-length-factor", "0.25"],
            lambda source: min(60, source // 4 + 10),
        )
        self.check_limits(
            ["--max-length", "60", "--max-length-factor", "1.5"],
            lambda source: min(60, source * 3 // 2 + 10),
        )

    def test_the_default_factor_is_three(self):
        self.check_limits(["--max-length", "60"], lambda source: min(60, 3 * source + 10))

    def test_a_model_without_forced_end_is_cut_at_the_limit(self):
        result, report = self.report(
            *GREEDY,
            "--max-length",
            "3",
            "--output-format",
            "ids",
            model=EN_DE,
            input="The quick brown fox jumps over the lazy dog again and again.\n",
            lines=1,
        )
        self.assertEqual(len(result.lines[0].split()), 3, result.story())
        self.assertEqual(
            (report["lines"]["hit_length_limit"], report["counts"]["target_tokens_without_end"]),
            (1, 3),
        )


class LongLines(Case):
    LIMIT = 20

    def setUp(self):
        super().setUp()
        self.long = [i for i, ids in enumerate(source_ids()) if len(ids.split()) > self.LIMIT]
        assert 12 < len(self.long) < 190

    def run_with(self, policy, *options):
        return self.report(
            *GREEDY,
            *REFERENCE_LIMITS,
            *IDS,
            "--max-source-length",
            self.LIMIT,
            *(["--long-lines", policy] if policy else []),
            *options,
            input=text(source_ids()),
            lines=200,
        )

    def test_truncate_keeps_the_end_token(self):
        cut = [
            " ".join(ids.split()[: self.LIMIT - 1] + ["0"]) if i in self.long else ids
            for i, ids in enumerate(source_ids())
        ]
        expected = self.ok(*GREEDY, *REFERENCE_LIMITS, *IDS, input=text(cut), lines=200).lines
        for policy in ("truncate", None):
            with self.subTest(policy):
                result, report = self.run_with(policy)
                self.same(expected, result.lines, result)
                self.assertEqual(
                    (report["lines"]["truncated"], report["lines"]["skipped"]), (len(self.long), 0)
                )
                self.assertEqual(
                    report["counts"]["source_tokens"], sum(len(ids.split()) for ids in cut)
                )

    def test_truncate_works_on_text_as_on_ids(self):
        common = [*GREEDY, *REFERENCE_LIMITS, *IDS_OUT, "--max-source-length", str(self.LIMIT)]
        by_ids = self.ok(*common, "--input-format", "ids", input=text(source_ids()), lines=200)
        by_text = self.ok(*common, input=text(source_lines()), lines=200)
        self.same(by_ids.lines, by_text.lines, by_text)

    def test_skip_gives_an_empty_line_and_leaves_the_others_alone(self):
        result, report = self.run_with("skip")
        self.same(
            ["" if i in self.long else ids for i, ids in enumerate(best("shared", "greedy"))],
            result.lines,
            result,
        )
        self.assertEqual(
            (report["lines"]["skipped"], report["lines"]["truncated"], report["lines"]["empty"]),
            (len(self.long), 0, 0),
        )

    def test_a_skipped_line_with_scores(self):
        result, _ = self.run_with("skip", "--scores")
        self.assertEqual({result.lines[i] for i in self.long}, {"0 ||| "}, result.story())

    def test_a_skipped_line_with_n_best_gives_one_empty_row(self):
        result = self.ok(
            "-b",
            "2",
            "--n-best",
            "2",
            *IDS,
            "--max-source-length",
            self.LIMIT,
            "--long-lines",
            "skip",
            input=text(source_ids()),
        )
        rows = [row for row in result.lines if int(row.split(" ||| ")[0]) in self.long]
        self.same(["%d |||  ||| F0= 0 ||| 0" % i for i in self.long], rows, result)

    def test_error_names_the_line_and_both_lengths(self):
        first = self.long[0]
        self.fails(
            *GREEDY,
            *IDS,
            "--max-source-length",
            self.LIMIT,
            "--long-lines",
            "error",
            input=text(source_ids()),
            names=["line %d" % (first + 1), str(len(source_ids()[first].split())), str(self.LIMIT)],
        )

    def test_error_says_nothing_where_no_line_is_long(self):
        self.ok(
            *GREEDY,
            *IDS,
            "--max-source-length",
            "395",
            "--long-lines",
            "error",
            input=text(source_ids()),
            lines=200,
        )

    def test_the_limit_itself_is_allowed(self):
        longest = max(len(ids.split()) for ids in source_ids())
        for limit, truncated in ((longest, 0), (longest - 1, 1)):
            _, report = self.report(
                *GREEDY, *IDS, "--max-source-length", limit, input=text(source_ids()), lines=200
            )
            self.assertEqual(report["lines"]["truncated"], truncated)

    def test_the_default_limit_is_the_models_512(self):
        _, report = self.report(
            *GREEDY,
            "--max-length",
            "3",
            *IDS,
            input=text(["193 " * 511 + "0", "193 " * 512 + "0"]),
            lines=2,
        )
        self.assertEqual(report["lines"]["truncated"], 1)

    def test_more_than_the_models_limit_may_be_asked_for(self):
        _, report = self.report(
            *GREEDY,
            "--max-length",
            "3",
            *IDS,
            "--max-source-length",
            "700",
            input=text(["193 " * 650 + "0"]),
            lines=1,
        )
        self.assertEqual(
            (report["lines"]["truncated"], report["counts"]["source_tokens"]), (0, 651)
        )

    def test_the_first_ten_are_named_on_stderr(self):
        lines = [""] * 7000 + ["193 " * 30 + "0"] * 15
        for policy in ("truncate", "skip"):
            with self.subTest(policy):
                result = self.ok(
                    *GREEDY,
                    *IDS,
                    "--max-length",
                    "3",
                    "--max-source-length",
                    "20",
                    "--long-lines",
                    policy,
                    input=text(lines),
                    lines=7015,
                )
                numbers = {int(number) for number in re.findall(r"\b70\d\d\b", result.errors)}
                self.assertEqual(numbers - {7015}, set(range(7001, 7011)), result.story())


class Formats(Case):
    def test_pieces_out_are_those_of_the_target_vocabulary(self):
        for name, model in MODELS:
            with self.subTest(name):
                table = pieces(name)
                result = self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    "--output-format",
                    "pieces",
                    model=model,
                    input=text(source_lines()),
                    lines=200,
                )
                self.same(
                    [
                        " ".join(table[int(id)] for id in ids.split())
                        for ids in best(name, "greedy")
                    ],
                    result.lines,
                    result,
                )

    def test_pieces_in_are_looked_up_and_the_end_token_is_added(self):
        for name, model in MODELS:
            with self.subTest(name):
                table = pieces(name, "source")
                lines = [
                    " ".join(table[int(id)] for id in ids.split()[:-1]) for ids in source_ids(name)
                ]
                result, report = self.report(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    "--input-format",
                    "pieces",
                    *IDS_OUT,
                    model=model,
                    input=text(lines),
                    lines=200,
                )
                self.same(best(name, "greedy"), result.lines, result)
                self.assertEqual(
                    report["counts"]["source_tokens"],
                    sum(len(ids.split()) for ids in source_ids(name)),
                )

    def test_a_piece_that_the_vocabulary_lacks_is_the_unknown_token(self):
        known = self.ok(*GREEDY, *IDS, input="1 2437 2482 0\n").lines
        table = pieces("shared", "source")
        self.same(
            known,
            self.ok(
                *GREEDY,
                "--input-format",
                "pieces",
                *IDS_OUT,
                input="qqqzzz\u2581 %s %s\n" % (table[2437], table[2482]),
            ).lines,
        )

    def test_pieces_in_are_not_normalised(self):
        _, report = self.report(
            *GREEDY,
            "--input-format",
            "pieces",
            *IDS_OUT,
            input="\u2581Yes \uff26\uff35\uff2c\uff2c\n",
            lines=1,
        )
        self.assertEqual(report["counts"]["source_tokens"], 3)

    def test_spaces_around_tokens_do_not_matter(self):
        expected = self.ok(*GREEDY, *IDS, input="1013 2371 0\n").lines
        self.same(
            expected * 3,
            self.ok(
                *GREEDY, *IDS, input="  1013   2371 0\n1013 2371 0  \n1013 2371 0\r\n", lines=3
            ).lines,
        )

    def test_ids_in_give_text_out(self):
        result = self.ok(
            *GREEDY, *REFERENCE_LIMITS, "--input-format", "ids", input=text(source_ids()), lines=200
        )
        self.same(
            [text_of("shared", ids) for ids in best("shared", "greedy")], result.lines, result
        )

    def test_empty_lines_of_ids_and_pieces_are_empty(self):
        for format in ("ids", "pieces"):
            with self.subTest(format):
                result, report = self.report(
                    *GREEDY, "--input-format", format, input="\n  \n\r\n", lines=3
                )
                self.assertEqual((result.out, report["lines"]["empty"]), (b"\n\n\n", 3))

    def test_a_bad_id_ends_the_run_naming_line_and_value(self):
        for bad in (
            "2571",
            "99999",
            "-1",
            "abc",
            "12x",
            "1.5",
            "0x10",
            "99999999999999999999999999",
            "+",
            "\u0663",
            "1e3",
            "4294967297",
            "-0.0",
        ):
            with self.subTest(bad):
                lines = ["1013 2371 0"] * 40 + ["1013 %s 0" % bad] + ["1013 0"] * 5
                self.fails(*GREEDY, *IDS, input=text(lines), names=["line 41", bad])

    def test_the_range_of_ids_is_the_source_vocabularys(self):
        self.ok(*GREEDY, *IDS, input="2569 0\n", lines=1)
        self.fails(*GREEDY, *IDS, input="1474 0\n", model=SEPARATE, names=["line 1", "1474"])
        self.ok(*GREEDY, *IDS, input="1474 0\n", lines=1)

    def test_unknown_formats_are_usage_errors(self):
        for option in ("--input-format", "--output-format"):
            self.usage_error(option, "words", names=[option])


class Scores(Case):
    def test_the_format_of_scores(self):
        for options in (GREEDY, BEAM4):
            with self.subTest(options):
                plain = self.ok(
                    *options,
                    *REFERENCE_LIMITS,
                    input=text(source_lines()[:50] + ["", "a"]),
                    lines=52,
                )
                scored = self.ok(
                    *options,
                    *REFERENCE_LIMITS,
                    "--scores",
                    input=text(source_lines()[:50] + ["", "a"]),
                    lines=52,
                )
                for line, wanted in zip(scored.lines, plain.lines):
                    score, separator, got = line.partition(" ||| ")
                    self.assertEqual((separator, got), (" ||| ", wanted), scored.story())
                    self.assertRegex(score, "^%s$" % NUMBER, scored.story())
                    self.assertEqual("%.6g" % float(score), score)
                    self.assertLessEqual(float(score), 0)

    def test_empty_lines_have_score_0(self):
        for options in (GREEDY, BEAM4):
            self.assertEqual(self.ok(*options, "--scores", input="\n  \n\n").out, b"0 ||| \n" * 3)

    def test_the_greedy_score_is_divided_by_the_length_too(self):
        input = text(source_ids()[:60])
        sums = self.ok(
            *GREEDY, *REFERENCE_LIMITS, *IDS, "--scores", "--length-penalty", "0", input=input
        ).lines
        for penalty in (1, 0.6, 2):
            for a, b in zip(
                sums,
                self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    *IDS,
                    "--scores",
                    "--length-penalty",
                    penalty,
                    input=input,
                ).lines,
            ):
                total, ids = a.split(" ||| ")
                score, same = b.split(" ||| ")
                self.assertEqual(ids, same, "the penalty changed a greedy line")
                n = len(ids.split()) + 1
                self.assertAlmostEqual(
                    float(score), float(total) / n**penalty, delta=1e-5 * max(1, abs(float(score)))
                )

    def test_a_single_beam_scores_like_greedy(self):
        a, b = (
            self.ok(
                "-b", "1", "--early-stopping", stopping, "--scores", input=text(source_lines()[:30])
            ).out
            for stopping in ("true", "never")
        )
        self.assertEqual(a, b)


class NBest(Case):
    ROW = re.compile(r"^(\d+) \|\|\| (.*) \|\|\| F0= (%s) \|\|\| (%s)$" % (NUMBER, NUMBER))

    def rows(self, *options, lines, model=SHARED):
        result = self.ok(*options, input=text(lines), model=model)
        parsed = []
        for line in result.lines:
            match = self.ROW.match(line)
            if not match:
                self.fail("not an n-best row: %r\n%s" % (line, result.story()))
            for number in match.groups()[2:]:
                self.assertEqual("%.6g" % float(number), number, line)
            parsed.append((int(match[1]), match[2], float(match[3]), float(match[4])))
        return result, parsed

    def test_rows_are_in_the_order_of_lines_and_best_first(self):
        lines = source_lines()[:40] + ["", "Yes."]
        result, rows = self.rows("-b", "5", "--n-best", "3", lines=lines)
        self.assertEqual(
            sorted({row[0] for row in rows}), list(range(42)), "lines are counted from 0"
        )
        self.assertEqual([row[0] for row in rows], sorted(row[0] for row in rows))
        for i in range(42):
            scores = [score for line, _, _, score in rows if line == i]
            self.assertLessEqual(len(scores), 3)
            self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertGreater(len(rows), 100, result.story())

    def test_the_first_row_is_what_the_run_without_gives(self):
        lines = source_lines()[:60]
        plain = self.ok(*BEAM4, "--scores", input=text(lines), lines=60)
        _, rows = self.rows(*BEAM4, "--n-best", "4", lines=lines)
        first = {}
        for line, got, _, score in rows:
            first.setdefault(line, "%.6g ||| %s" % (score, got))
        self.same(plain.lines, [first[i] for i in range(60)], plain)

    def test_the_sum_is_the_score_times_length_to_the_penalty(self):
        for penalty in (0, 0.6, 1, 2):
            _, rows = self.rows(
                "-b",
                "4",
                "--n-best",
                "4",
                "--length-penalty",
                penalty,
                *IDS,
                *REFERENCE_LIMITS,
                lines=source_ids()[:30],
            )
            for _, ids, total, score in rows:
                n = len(ids.split()) + 1
                self.assertAlmostEqual(total, score * n**penalty, delta=1e-4 * max(1, abs(total)))

    def test_hypotheses_of_a_line_are_distinct(self):
        _, rows = self.rows("-b", "6", "--n-best", "6", *IDS, lines=source_ids()[:60])
        self.assertEqual(len({row[:2] for row in rows}), len(rows))

    def test_an_empty_line_gives_one_empty_row(self):
        self.assertEqual(
            self.ok("-b", "4", "--n-best", "4", input="\n \n").out,
            b"0 |||  ||| F0= 0 ||| 0\n1 |||  ||| F0= 0 ||| 0\n",
        )

    def test_it_implies_the_scores(self):
        a, b = (
            self.ok("-b", "2", "--n-best", "2", *more, input=text(source_lines()[:10])).out
            for more in ([], ["--scores"])
        )
        self.assertEqual(a, b)

    def test_n_best_1_has_the_format_too(self):
        _, rows = self.rows("-b", "4", "--n-best", "1", lines=source_lines()[:10])
        self.assertEqual([row[0] for row in rows], list(range(10)))
        _, rows = self.rows("-b", "1", "--n-best", "1", lines=source_lines()[:10])
        self.assertEqual([row[0] for row in rows], list(range(10)))

    def test_lines_are_counted_through_all_files(self):
        a, b = self.path("a", "Yes.\nYes."), self.path("b", "Yes.\n")
        result = self.ok("-b", "2", "--n-best", "1", "-i", a, b, "-", input="Yes.\n")
        self.assertEqual([line.split(" ||| ")[0] for line in result.lines], ["0", "1", "2", "3"])

    def test_more_than_the_beam_is_a_usage_error(self):
        self.usage_error("-b", "4", "--n-best", "5", names=["--n-best", "5", "4"])
        self.usage_error("-b", "1", "--n-best", "2", names=["--n-best"])
        self.ok("-b", "4", "--n-best", "4", input="Yes.\n")

    def test_more_than_the_models_own_beam_is_a_usage_error(self):
        self.usage_error("--n-best", "7", names=["--n-best", "7", "6"])
        self.ok("--n-best", "6", input="Yes.\n")


class Scheduling(Case):
    """Budgets change speed and not text, except for near-ties on the CPU."""

    ORDERS = (
        [],
        ["--window", "1"],
        ["--window", "7"],
        ["--window", "100000"],
        ["--batch-tokens", "1"],
        ["--batch-tokens", "64"],
        ["--batch-tokens", "1000"],
        ["--batch-tokens", "1000000"],
        ["--threads", "1"],
        ["--threads", "2"],
        ["--threads", "3", "--batch-tokens", "200", "--window", "33"],
        ["--line-buffered"],
    )

    def test_budgets_do_not_change_text_or_order(self):
        lines = [source_lines()[i * 37 % 200] if i % 23 else "" for i in range(260)]
        wanted = [best("shared", "beam4")[i * 37 % 200] if i % 23 else "" for i in range(260)]
        for options in self.ORDERS:
            with self.subTest(options):
                result = self.ok(
                    *BEAM4, *REFERENCE_LIMITS, *IDS_OUT, *options, input=text(lines), lines=260
                )
                self.same(wanted, result.lines, result, allowed=1)

    def test_budgets_do_not_change_greedy_text(self):
        wanted = [text_of("separate", ids) for ids in best("separate", "greedy")]
        for options in self.ORDERS:
            with self.subTest(options):
                result = self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    *options,
                    model=SEPARATE,
                    input=text(source_lines()),
                    lines=200,
                )
                self.same(wanted, result.lines, result, allowed=1)

    def test_equal_lines_give_equal_text_wherever_they_stand(self):
        lines = (source_lines()[:30] + ["Yes."]) * 20
        result = self.ok(
            *GREEDY,
            *IDS_OUT,
            "--window",
            "50",
            "--batch-tokens",
            "300",
            input=text(lines),
            lines=620,
        )
        self.same(result.lines[:31] * 20, result.lines, result, allowed=2)

    def test_effective_values_are_reported(self):
        _, report = self.report(
            *GREEDY,
            "--window",
            "77",
            "--batch-tokens",
            "333",
            "--threads",
            "1",
            input="Yes.\n",
            lines=1,
        )
        options = {key.replace("-", "_"): value for key, value in report["options"].items()}
        self.assertEqual(
            (
                options["window"],
                options["batch_tokens"],
                options["threads"],
                report["device"]["threads"],
            ),
            (77, 333, 1, 1),
        )

    def test_threads_default_to_those_the_process_may_run_on(self):
        if not hasattr(os, "sched_setaffinity"):
            self.skipTest("no affinity here")
        # The container in which the tests run may have a quota.
        no_quota = dict(os.environ, XLATE_TEST_SYSTEM_ROOT=self.folder)
        _, report = self.report(*GREEDY, input="Yes.\n", lines=1, env=no_quota)
        self.assertEqual(report["device"]["threads"], len(os.sched_getaffinity(0)))
        one = min(os.sched_getaffinity(0))
        _, report = self.report(
            *GREEDY,
            input="Yes.\n",
            lines=1,
            env=no_quota,
            preexec_fn=lambda: os.sched_setaffinity(0, {one}),
        )
        self.assertEqual(report["device"]["threads"], 1)


class Devices(Case):
    NO_GPU = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")

    def test_auto_without_a_gpu_takes_the_cpu_and_says_so_in_one_line(self):
        on_cpu = self.ok(*GREEDY, input="Yes.\n", lines=1)
        for device in (None, "auto"):
            with self.subTest(device):
                result = self.ok(*GREEDY, input="Yes.\n", device=device, env=self.NO_GPU, lines=1)
                self.assertEqual(result.out, on_cpu.out)
                self.assertEqual(
                    len([line for line in result.error_lines if "cpu" in line.lower()]),
                    1,
                    result.story(),
                )

    def test_asked_for_the_cpu_it_says_nothing(self):
        self.assertEqual(self.ok(*GREEDY, input="Yes.\n").err, b"")

    def test_an_unknown_device_is_a_usage_error(self):
        for device in ("tpu", "cpu:1", "", "cudax", "cpu,cpu", "CUDA:"):
            with self.subTest(device):
                self.usage_error(*GREEDY, device=device, names="--device")

    def test_a_gpu_that_is_not_there_is_an_error_in_one_line(self):
        result = xlate("-q", *GREEDY, device="cuda", input="Yes.\n", env=self.NO_GPU)
        self.assertIn(result.code, (1, 2), result.story())
        self.assertEqual((result.out, len(result.error_lines)), (b"", 1), result.story())

    def test_precision_on_the_cpu(self):
        a, b, c = (
            self.ok(*GREEDY, "--precision", precision, input="Yes.\n", lines=1).out
            for precision in ("auto", "fp32", "fp32")
        )
        self.assertEqual(a, b)
        for precision in ("fp16", "bf16", "int8", "fp8", "double", ""):
            with self.subTest(precision):
                self.usage_error("--precision", precision, names="--precision")


if __name__ == "__main__":
    program.main()
