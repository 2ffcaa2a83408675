#!/usr/bin/env python3
"""Tests --markup html: where tags stand in translations, that none is lost, and what other options
do with it."""

import html
import json
import os
import random
import re

import program
from families_test import FAMILIES, model_of
from program import EN_DE, IDS_OUT, Case, main, require

HTML = ["--markup", "html"]
LINE = "The <b>house</b> is <i>small</i>."
TAG = re.compile(r"<[^<>]*>")
setUpModule = require


def bare(line):
    return html.unescape(TAG.sub("", line))


def dense(text):
    return "".join(text.split())


class MarkupCase(Case):
    def lines(self, *options, input, model=EN_DE):
        return self.ok(*options, input=program.text(input), model=model).lines


class Places(MarkupCase):
    def test_tags_stand_around_the_same_words(self):
        (line,) = self.lines(*HTML, input=[LINE])
        self.assertRegex(line, r"^Das <b>\w+</b> ist <i>\w+</i>\.$")
        (line,) = self.lines(*HTML, input=["<p>The house is <a href='x>y'>small</a>.</p>"])
        self.assertRegex(line, r"^<p>Das \w+ ist <a href='x>y'>\w+</a>\.</p>$")

    def test_lines_of_tags_alone_come_back(self):
        lines = ["<p>", "  <hr/> <!-- x -->", "<p>&nbsp;</p>", "", "<b></b>"]
        result, report = self.report(*HTML, input=program.text(lines), model=EN_DE, lines=5)
        self.assertEqual(result.lines, lines)
        self.assertEqual(report["lines"]["empty"], 5)
        self.assertEqual(report["options"]["markup"], "html")

    def test_text_without_markup_is_translated_as_without_the_option(self):
        lines = ["The house is small.", "a < b", "I see a dog & a cat."]
        plain = self.lines(input=lines)
        self.assertEqual(self.lines(*HTML, input=lines), plain)
        self.assertEqual(self.lines("--markup", "none", input=[LINE]), self.lines(input=[LINE]))

    def test_references_are_read_and_written(self):
        (plain,) = self.lines(input=["I see a dog & a cat."])
        (line,) = self.lines(*HTML, input=["I see a dog &amp; a &#99;at."])
        self.assertEqual(html.unescape(line), plain)
        self.assertNotRegex(line, r"&(?!amp;)")


class RandomLines(MarkupCase):
    WORDS = "the house is small . I see a dog and (a cat) & no &lt; one".split()
    TAGS = ["<b>", "</b>", "<i x='>'>", "</i>", "<br>", "<p>", "</p>", "<img/>", "<!-- c -->"]

    def soup(self, count):
        draw = random.Random(3)
        for _ in range(count):
            pieces = [
                draw.choice(self.TAGS if draw.random() < 0.4 else self.WORDS)
                for _ in range(draw.randrange(1, 18))
            ]
            yield "".join(p + draw.choice(["", " ", " "]) for p in pieces)

    def test_no_tag_is_lost_and_the_text_is_the_translation(self):
        lines = list(self.soup(200))
        pattern = re.compile(r"<!-- c -->|<i x='>'>|</?[bip]>|<br>|<img/>")
        # A block between two words becomes a space.
        texts = [
            html.unescape(pattern.sub("", re.sub(r"<(br|/?p|img/)>", " \\g<0> ", line)))
            for line in lines
        ]
        marked = self.lines("-b", "1", *HTML, input=lines)
        plain = self.lines("-b", "1", input=[" ".join(text.split()) for text in texts])
        for line, out, translation in zip(lines, marked, plain):
            self.assertEqual(sorted(pattern.findall(out)), sorted(pattern.findall(line)), line)
            if not dense(translation):
                continue
            found = html.unescape(pattern.sub("", out))
            self.assertEqual(dense(found), dense(translation), line)

    def test_every_batch_gives_the_same(self):
        lines = list(self.soup(60))
        expected = self.lines(*HTML, input=lines)
        for options in (["--batch-tokens", "9"], ["--line-buffered"], ["--window", "7"]):
            self.assertEqual(self.lines(*HTML, *options, input=lines), expected)
        lines.reverse()
        self.assertEqual(self.lines(*HTML, input=lines), expected[::-1])


class OtherOptions(MarkupCase):
    def test_every_hypothesis_has_the_tags(self):
        for options in (
            ["--n-best", "3", "-b", "3"],
            ["--sample", "--num-samples", "3", "--top-k", "3"],
        ):
            rows = self.lines(*HTML, *options, input=[LINE])
            self.assertEqual(len(rows), 3)
            for row in rows:
                self.assertEqual(len(TAG.findall(row.split(" ||| ")[1])), 4, row)

    def test_alignments_are_those_of_the_text(self):
        (plain,) = self.lines("--alignments", "--token-scores", input=[bare(LINE)])
        (marked,) = self.lines("--alignments", "--token-scores", *HTML, input=[LINE])
        self.assertEqual(bare(marked), plain)

    def test_parts_of_a_line(self):
        line = "<div>The <b>house</b> is small. <i>I see a dog. He</i> said no.</div>"
        for options in (
            ["--split-sentences"],
            ["--long-lines", "split", "--max-source-length", "12"],
        ):
            (out,) = self.lines(*HTML, *options, input=[line])
            (plain,) = self.lines(*options, input=[bare(line)])
            self.assertEqual(bare(out), plain)
            self.assertRegex(out, r"^<div>.*<b>\w+</b>.*<i>.*\. .*</i>.*</div>$")

    def test_tags_of_what_is_cut_off_stand_at_the_end(self):
        line = LINE + " I see a dog and <b>a cat</b>."
        options = ["--max-source-length", "8", "-q"]
        (out,) = self.lines(*HTML, *options, input=[line])
        self.assertTrue(out.endswith("<b></b>"), out)
        self.assertEqual(self.lines(*HTML, *options, "--long-lines", "skip", input=[line]), [""])

    def test_objects(self):
        line = json.dumps({"id": 1, "text": "<a\nx>The house</a> is\nsmall &amp; old."})
        (out,) = self.lines(
            *HTML, "--input-format", "jsonl", "--output-format", "jsonl", input=[line]
        )
        self.assertRegex(json.loads(out)["output"], r"^<a\nx>.*</a> ")
        (out,) = self.lines(*HTML, "--input-format", "jsonl", input=[line])
        self.assertRegex(out, r"^<a x>.*</a> ")

    def test_refusals(self):
        for options, why in (
            (IDS_OUT, "expected text or jsonl"),
            (["--input-format", "pieces"], "expected text or jsonl"),
            (["--score-pairs"], "no text is written"),
        ):
            self.usage_error(*HTML, *options, names=["--markup html", why])
        self.usage_error(*HTML, "--alignment-words", names="--alignments")
        self.usage_error("--alignment-layer", "0", names="--markup html")

    def test_without_an_encoder(self):
        model = model_of(os.path.join(FAMILIES, "random-gpt2"))
        self.usage_error(*HTML, "-b", "1", model=model, names=["--markup html", "no encoder"])


if __name__ == "__main__":
    main()
