"""Tests the options of search: beams, length penalty, early stopping, row rules and languages."""

import json
import os
import shutil

import families_test
import model_bytes
import program
from checkpoint_fixture import convert
from program import (
    BEAM4,
    BOTH_MODELS,
    EN_DE,
    GREEDY,
    IDS,
    IDS_OUT,
    NUMBER,
    N_BEST_ROW,
    REFERENCE_LIMITS,
    SHARED,
    Case,
    best,
    reference,
    source_ids,
    source_lines,
    text,
)

setUpModule = program.require


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
        for name, model in BOTH_MODELS:
            for setting, options in self.SETTINGS.items():
                with self.subTest(name + " " + setting):
                    result = self.ok(
                        *options, *IDS, model=model, input=text(source_ids(name)), lines=200
                    )
                    self.same(best(name, setting), result.lines, result)

    def test_scores_are_the_references(self):
        for name, model in BOTH_MODELS:
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
        for name, model in BOTH_MODELS:
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
                    if not N_BEST_ROW.match(row):
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
        for name, model in BOTH_MODELS:
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
            self.assertEqual((options["source_lang"], options["target_lang"]), ("en", code))
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

    def test_the_list_of_codes_is_one_line_whatever_the_codes_are(self):
        languages = {"d\u2028e\u2029": 3, "\u0085": 4, "\u009b31m": 5, "fr": 6}

        def change(header):
            header["tokens"].update(languages=languages)
            header["tokenizer"].update(source_language="fr")

        model = self.changed(change)
        for code, shown in (("x\n\x1b[31m", r"'x\n\x1b[31m'"), ("\u2029\x7f", r"'\u2029\x7f'")):
            result = self.usage_error(
                *self.OPTIONS,
                "--target-lang",
                code,
                names=[shown, r"expected one of d\u2028e\u2029, fr, \u0085, \u009b31m"],
                model=model,
            )
            self.assertEqual(len(result.errors.splitlines()), 1, result.story())

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


if __name__ == "__main__":
    program.main()
