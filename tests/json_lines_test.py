#!/usr/bin/env python3
"""Tests --input-format jsonl and --output-format jsonl: what the objects ask for, what comes back,
and what becomes of lines that are no objects."""

import json
import os
import random

import families_test
import program
from program import EN_DE, GREEDY, IDS_OUT, Case, main, require
from prompts_test import model_of

JSONL_IN = ["--input-format", "jsonl"]
JSONL_OUT = ["--output-format", "jsonl"]
JSONL = [*JSONL_IN, *JSONL_OUT]
SKIP = ["--long-lines", "skip"]
TEXTS = ["Yes.", "The house is small.", 'He said "no".', "I see a dog and a cat."]
setUpModule = require


def lines_of(objects):
    return "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in objects)


class JsonCase(Case):
    MODEL = EN_DE

    def objects(self, *options, input, model=None):
        """Returns the output lines as objects, and None for each empty line."""
        input = input if isinstance(input, (str, bytes)) else lines_of(input)
        lines = self.ok(*options, input=input, model=model or self.MODEL).lines
        return [json.loads(line) if line else None for line in lines]

    def refused(self, line, *names, options=(), model=None):
        """Expects that a line ends the run with an error, after the line before it. Returns what is
        written of it with --long-lines skip."""
        line = line if isinstance(line, bytes) else line.encode("utf-8")
        input = b'{"text": "Yes."}\n' + line + b'\n{"text": "Yes."}\n'
        more = {"input": input, "model": model or self.MODEL}
        result = self.fails(*JSONL, *options, names=["line 2: ", *names], **more)
        self.assertEqual(len(result.lines), 1, result.story())
        result, report = self.report(*JSONL, *SKIP, *options, lines=3, **more)
        self.says(result, "line 2: ", *names, ": skipped")
        self.assertEqual((report["lines"]["skipped"], report["lines"]["in"]), (1, 3))
        self.assertEqual(result.lines[0], result.lines[2])
        skipped = json.loads(result.lines[1])
        self.assertNotIn("output", skipped)
        self.assertIn(names[-1].lower() if names else "", skipped["error"].lower())
        return skipped


class Objects(JsonCase):
    def test_output_and_score_are_those_of_text(self):
        scored = self.ok("--scores", input=program.text(TEXTS), model=EN_DE).lines
        objects = [{"text": text, "n": n} for n, text in enumerate(TEXTS)]
        for n, (found, row) in enumerate(zip(self.objects(*JSONL, input=objects), scored)):
            score, output = row.split(" ||| ")
            self.assertEqual(list(found), ["text", "n", "output", "score", "tokens"])
            self.assertEqual((found["text"], found["n"]), (TEXTS[n], n))
            self.assertEqual((found["output"], found["score"]), (output, float(score)))
            self.assertGreater(found["tokens"], 1)

    def test_tokens_are_counted_with_the_end_token(self):
        ids = self.ok(*IDS_OUT, input=program.text(TEXTS), model=EN_DE).lines
        for found, line in zip(self.objects(*JSONL_OUT, input=program.text(TEXTS)), ids):
            self.assertEqual(found["tokens"], len(line.split()) + 1)

    def test_a_list_of_the_best_takes_the_place_of_the_three(self):
        options = ["-b", "3", "--n-best", "3"]
        rows = self.ok(*options, input=program.text(TEXTS), model=EN_DE).lines
        objects = [{"text": text, "score": "old"} for text in TEXTS]
        found = self.objects(*JSONL, *options, input=objects)
        for n, line in enumerate(found):
            self.assertEqual(list(line), ["text", "output"])
            expected = [row.split(" ||| ") for row in rows if row.startswith("%d |||" % n)]
            self.assertEqual(
                [(row[1], float(row[3])) for row in expected],
                [(x["output"], x["score"]) for x in line["output"]],
            )
            self.assertTrue(all(list(x) == ["output", "score", "tokens"] for x in line["output"]))

    def test_all_other_fields_come_back_as_they_were_written(self):
        fields = (
            '"n": 12345678901234567890123,"x" : 1.10, "y":[1e400 , -0], "o":{"b":1,"a":{}}',
            '"e": "\\u00e4\\/\\ud83d\\ude00", "dup":1, "dup":2, "t":true, "z":null, "\\u0000":"ä"',
        )
        for own in fields:
            line = '{"text":"Yes.", %s}' % own
            found = self.ok(*JSONL, input=line + "\n", model=EN_DE).lines[0]
            self.assertTrue(found.startswith(line[:-1] + ', "output": "'), found)
            json.loads(found)

    def test_old_results_are_replaced(self):
        old = '{"output":"old","text":"Yes.","score":[1,2],"tokens":{},"error":"old","b":1}\n'
        line = self.ok(*JSONL, input=old, model=EN_DE).lines[0]
        self.assertTrue(line.startswith('{"text":"Yes.","b":1, "output": '), line)
        self.assertNotIn("old", line)
        # The output of one run can be the input of another.
        again = self.objects(*JSONL, "--text-key", "output", input=line + "\n")
        expected = self.ok(input="Ja.\n", model=EN_DE).lines[0]
        self.assertEqual((again[0]["output"], again[0]["text"]), (expected, "Yes."))

    def test_the_key_of_the_text(self):
        objects = [{"src": "Yes.", "text": 5}, {"src": "No."}]
        result, report = self.report(
            *JSONL, "--text-key", "src", input=lines_of(objects), model=EN_DE
        )
        self.assertEqual(report["options"]["text_key"], "src")
        self.assertEqual([json.loads(x)["output"] for x in result.lines], ["Ja.", "Nein."])
        _, report = self.report(*JSONL, input='{"text":"Yes."}', model=EN_DE)
        self.assertEqual(report["options"]["text_key"], "text")

    def test_empty_lines_and_empty_texts(self):
        input = '{"text":""}\n\n \t\n{"text":"Yes."}\n{"n":1, "text":""}'
        result, report = self.report(*JSONL, input=input, model=EN_DE, lines=5)
        empty = '"output": "", "score": 0, "tokens": 0}'
        self.assertEqual(result.lines[0], '{"text":"", ' + empty)
        self.assertEqual(result.lines[1:3], ["", ""])
        self.assertEqual(result.lines[4], '{"n":1, "text":"", ' + empty)
        self.assertEqual((report["lines"]["empty"], report["lines"]["out"]), (4, 5))
        listed = self.objects(*JSONL, "--n-best", "2", input='{"text":""}\n')
        self.assertEqual(listed[0]["output"], [{"output": "", "score": 0, "tokens": 0}])

    def test_objects_in_and_other_formats_out(self):
        objects = lines_of({"text": text} for text in [*TEXTS, ""]) + "\n"
        lines = program.text([*TEXTS, "", ""])
        for options in (
            [],
            ["--scores"],
            ["--n-best", "2"],
            IDS_OUT,
            ["--output-format", "pieces"],
        ):
            expected = self.ok(*options, input=lines, model=EN_DE).lines
            self.same(expected, self.ok(*JSONL_IN, *options, input=objects, model=EN_DE).lines)

    def test_other_formats_in_and_objects_out(self):
        ids = program.text(program.source_ids()[:20] + [""])
        options = [*GREEDY, "--input-format", "ids"]
        lines = self.ok(*options, input=ids).lines
        found = self.objects(*JSONL_OUT, *options, input=ids, model=program.SHARED)
        self.assertEqual(lines, [x["output"] for x in found])
        self.assertTrue(all(list(x) == ["output", "score", "tokens"] for x in found))

    def test_a_byte_order_mark_cr_and_no_newline_at_the_end(self):
        input = b'\xef\xbb\xbf{"text":"Yes."}\r\n {"text":"Yes."} \r\n{"text":"Yes."}'
        found = self.objects(*JSONL, input=input)
        self.assertEqual([x["output"] for x in found], ["Ja."] * 3)

    def test_invalid_utf8_is_replaced_and_counted(self):
        input = b'{"text":"Yes. \xff", "\xc3":"\xe2\x82"}\n{"text":"No."}\n'
        result, report = self.report(*JSONL, input=input, model=EN_DE, lines=2)
        self.assertEqual(report["lines"]["invalid_utf8"], 1)
        self.assertEqual(json.loads(result.lines[0])["\ufffd"], "\ufffd")

    def test_an_infinite_score_is_null(self):
        found = self.objects(*JSONL, *GREEDY, "--length-penalty", "-100", input=[{"text": "Yes."}])
        self.assertIsNone(found[0]["score"])

    def test_one_line_at_a_time(self):
        running = self.start(*JSONL, "--line-buffered", model=EN_DE)
        for n in range(1, 4):
            running.send(b'{"n":%d,"text":"Yes."}\n' % n)
            self.assertTrue(running.until(lambda: running.count() == n))
        running.close()
        lines = running.wait().lines
        self.assertEqual([json.loads(x)["n"] for x in lines], [1, 2, 3])

    def test_many_lines_in_order(self):
        words = "a dog and the cat see no small house".split()
        draw = random.Random(3)
        texts = [" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(600)]
        objects = [{"n": n, "text": text} for n, text in enumerate(texts)]
        found = self.objects(*JSONL, *GREEDY, "--window", "100", input=objects)
        self.assertEqual([x["n"] for x in found], list(range(600)))
        self.assertEqual([x["text"] for x in found], texts)
        lines = self.ok(*GREEDY, input=program.text(texts), model=EN_DE).lines
        self.same(lines, [x["output"] for x in found], allowed=1)


class Refused(JsonCase):
    def test_lines_that_are_no_objects(self):
        for line in ("[]", "1", '"text"', "null", "text", "{", '{"text":"a"', '{"text":"a"}}'):
            with self.subTest(line):
                self.assertEqual(list(self.refused(line, "no object of JSON")), ["error"])

    def test_garbage(self):
        whole = b'{"text":"Yes. \\u00e4", "n":[1.5e3,{"a":null}], "b":true}'
        draw = random.Random(5)
        lines = [whole[:size] for size in range(1, len(whole))]
        lines += [draw.randbytes(draw.randint(1, 60)).replace(b"\n", b"x") for _ in range(200)]
        lines += [b"\x00", b'{"text":"\x00"}', b'{"text":"a"\x00}', b'{"text":"\\x"}', b"\xff" * 9]
        input = b"\n".join(lines) + b"\n" + whole + b"\n"
        result, report = self.report(*JSONL, *SKIP, input=input, model=EN_DE, lines=len(lines) + 1)
        self.assertEqual(report["lines"]["skipped"], len(lines))
        for line in result.lines[:-1]:
            self.assertEqual(list(json.loads(line)), ["error"])
        self.assertIn("output", json.loads(result.lines[-1]))

    def test_half_a_surrogate_pair(self):
        for text in ("\\ud800", "\\udc00", "\\ud800\\ud800"):
            self.refused('{"text":"%s"}' % text, "'\\ud", "surrogate pair")

    def test_deep_nesting(self):
        for nested in ("[" * 500000, "[" * 250000 + "]" * 250000, '{"a":' * 100000):
            self.refused('{"text":"a","b":%s}' % nested, "512 levels")
        deep = '{"text":"Yes.","b":%s}' % ("[" * 511 + "]" * 511)
        line = self.ok(*JSONL, input=deep, model=EN_DE).lines[0]
        self.assertTrue(line.startswith(deep[:-1]))

    def test_values_of_the_wrong_type(self):
        cases = (
            ('{"n":1}', "without the key 'text'"),
            ('{"n":1,"text":null}', "'text': null, expected a string"),
            ('{"n":1,"text":"a","text":[1]}', "'text': [1], expected a string"),
            ('{"n":1,"text":"a","source_lang":1}', "'source_lang': 1, expected a string"),
            ('{"n":1,"text":"a","max_new_tokens":"5"}', "expected a whole number from 1"),
        )
        for line, message in cases:
            with self.subTest(line):
                self.assertEqual(self.refused(line, message)["n"], 1)

    def test_keys_that_the_model_cannot_honour(self):
        self.refused('{"text":"a","target_lang":"de"}', "'de'", "has no language tokens")
        self.refused('{"text":"a","max_new_tokens":5}', "has an encoder")

    def test_a_text_of_too_many_tokens(self):
        input = lines_of([{"n": 1, "text": "Yes. " * 50}, {"text": "Yes."}])
        options = [*JSONL, "--max-source-length", "20"]
        result, report = self.report(*options, input=input, model=EN_DE, lines=2)
        self.assertEqual(report["lines"]["truncated"], 1)
        self.assertIn("output", json.loads(result.lines[0]))
        skipped = self.objects(*options, *SKIP, input=input)[0]
        self.assertEqual(list(skipped), ["n", "text", "error"])
        self.assertIn("expected at most 20", skipped["error"])
        lines = self.ok(*JSONL_IN, *options[4:], *SKIP, input=input, model=EN_DE).lines
        self.assertEqual(lines, ["", "Ja."])

    def test_a_line_of_more_than_a_mebibyte_cannot_be_cut(self):
        found = self.refused('{"text":"%s"}' % ("x" * (1 << 20)), "1048576 bytes", "cannot be cut")
        self.assertEqual(list(found), ["error"])
        text = "Yes. " * 100000
        line = '{"text":"Yes.","b":"%s"}' % text
        self.assertEqual(self.objects(*JSONL, input=line)[0]["b"], text)

    def test_usage_errors(self):
        for options, names in (
            ([*JSONL_OUT, "--scores"], ["--scores", "jsonl", "have the score"]),
            ([*JSONL_OUT, "--newline", "\\n"], ["--newline", "jsonl"]),
            ([*JSONL_IN, "--lang-column"], ["--lang-column", "jsonl"]),
            (["--text-key", "src"], ["--text-key", "text"]),
            ([*JSONL_IN, "--text-key", ""], ["--text-key", "name of a key"]),
        ):
            with self.subTest(options):
                self.usage_error(*options, names=names)

    def test_memory_is_bounded_by_bytes(self):
        """1 GB of objects goes through queues of some 200 MB."""
        path, count = self.path("lines.jsonl"), 1000
        with open(path, "w", encoding="utf-8") as file:
            for _ in range(count):
                file.write('{"b":"%s","text":"Yes."}\n' % ("x" * 1000000))
        result, peak = program.peak_memory(*JSONL, *GREEDY, input_path=path, model=EN_DE)
        self.check(result, 0)
        self.assertEqual(result.out.count(b"\n"), count)
        # CUDA itself takes some 300 MB of the host's memory.
        self.assertLess(peak, (800 if program.DEVICE == "cpu" else 1300) << 20)


class Prompts(JsonCase):
    """A model without an encoder. No token ends its output."""

    OPTIONS = [*GREEDY, "--max-new-tokens", "6"]

    def setUp(self):
        super().setUp()
        self.MODEL = model_of("qwen3")

    def test_a_line_has_its_own_limit(self):
        objects = [{"text": "Here"}] + [
            {"text": "Here", "max_new_tokens": limit} for limit in (1, 3, 6, 40)
        ]
        found = self.objects(*JSONL, *self.OPTIONS, input=objects)
        self.assertEqual([x["tokens"] for x in found], [6, 1, 3, 6, 40])
        ids = self.ok(
            *JSONL_IN, *IDS_OUT, *self.OPTIONS, input=lines_of(objects), model=self.MODEL
        ).lines
        longest = ids[-1].split()
        self.assertEqual([longest[: x["tokens"]] for x in found], [x.split() for x in ids])

    def test_a_limit_that_there_is_no_room_for(self):
        options = [*self.OPTIONS[:2], "--max-new-tokens", "2"]
        found = self.refused(
            '{"text":"a","max_new_tokens":1000000}', "1000000, expected at most", options=options
        )
        self.assertEqual(found["max_new_tokens"], 1000000)

    def test_newlines_are_kept_on_both_sides(self):
        found = self.objects(*JSONL, "--echo", *self.OPTIONS, input=[{"text": "a\nb\n\nc"}])
        self.assertTrue(found[0]["output"].startswith("a\nb\n\nc"))

    def test_a_template_stands_around_the_text(self):
        options = [*self.OPTIONS, "--echo", "--template", "Q:\\n{line}\\nA:"]
        found = self.objects(*JSONL, *options, input=[{"text": "a\nb"}, {"text": ""}])
        self.assertTrue(found[0]["output"].startswith("Q:\na\nb\nA:"))
        self.assertEqual((found[1]["output"], found[1]["tokens"]), ("", 0))

    def test_a_text_ends_before_its_stop(self):
        plain = self.objects(*JSONL, *self.OPTIONS, input=[{"text": "Here"}])[0]
        stop = plain["output"][2:5]
        ended = self.objects(*JSONL, "--stop", stop, *self.OPTIONS, input=[{"text": "Here"}])[0]
        self.assertEqual(ended["output"], plain["output"][: plain["output"].index(stop)])
        self.assertEqual(ended["tokens"], plain["tokens"])


class Languages(JsonCase):
    def setUp(self):
        super().setUp()
        self.MODEL = families_test.model_of(os.path.join(families_test.FAMILIES, "m2m100"))

    def lines(self, *options, input):
        options = [*GREEDY, "--max-length", "20", *IDS_OUT, *options]
        return self.ok(*options, input=input, model=self.MODEL).lines

    def test_the_languages_of_a_line(self):
        directions = [("en", "de"), ("de", "en"), ("fr", "de"), ("en", "en")]
        columns = "".join("%s\t%s\ta word\n" % direction for direction in directions)
        expected = self.lines("--lang-column", input=columns)
        self.assertGreater(len(set(expected)), 1)
        objects = lines_of(
            {"text": "a word", "source_lang": source, "target_lang": target}
            for source, target in directions
        )
        self.same(expected, self.lines(*JSONL_IN, input=objects))
        run = ["--source-lang", "fr", "--target-lang", "fr"]
        self.same(expected, self.lines(*JSONL_IN, *run, input=objects))
        # The options are those of lines that name no language.
        run = ["--source-lang", "de", "--target-lang", "en"]
        self.same([expected[1]], self.lines(*JSONL_IN, *run, input='{"text":"a word"}\n'))

    def test_an_unknown_code(self):
        input = '{"text":"a","target_lang":"de"}\n{"text":"a","target_lang":"xx"}\n'
        result = self.fails(
            *JSONL,
            *GREEDY,
            "--max-length",
            "5",
            names=["line 2: 'xx' is no target language", "af, am"],
            input=input,
            model=self.MODEL,
        )
        self.assertEqual(len(result.lines), 1)

    def test_a_line_must_name_the_languages_that_the_run_does_not(self):
        for line in ('{"text":"a"}', '{"text":"a","source_lang":"en"}'):
            names = ["line 1: 'target_lang' is missing", "--target-lang"]
            self.fails(*JSONL, names=names, input=line, model=self.MODEL)


if __name__ == "__main__":
    main()
