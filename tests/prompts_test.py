#!/usr/bin/env python3
"""Tests the options of prompts and of the text that continues them. The models are a decoder alone,
with random weights and the tokenizers of tests/data/tokenizers."""

import functools
import json
import os
import shutil
import tempfile

from checkpoint_fixture import read
from program import GREEDY, IDS_OUT, ROOT, Case, main, require
from prompt_model import write_model

TOKENIZERS = os.path.join(ROOT, "tests", "data", "tokenizers")
# Every model is converted once. The folder is removed at the end of the process.
MODELS = tempfile.TemporaryDirectory(prefix="xlate-prompts-")
LINES = ["Here", "To determine the size", "Why don't you"]
setUpModule = require


@functools.lru_cache(maxsize=None)
def model_of(name):
    """Returns a model.bin with a tokenizer of tests/data/tokenizers. No token ends its output."""
    checkpoint, model = (os.path.join(MODELS.name, name + end) for end in ("", ".bin"))
    shutil.copytree(os.path.join(TOKENIZERS, name), checkpoint)
    write_model(checkpoint, model)
    return model


class PromptCase(Case):
    def continued(self, *options, input=LINES, model="qwen3", tokens=8, search=GREEDY):
        lines = input if isinstance(input, (str, bytes)) else "".join(x + "\n" for x in input)
        limit = ["--max-new-tokens", str(tokens)]
        return self.ok(*search, *limit, *options, input=lines, model=model_of(model)).lines


class Echo(PromptCase):
    def test_the_prompt_stands_before_its_continuation(self):
        """A byte-level tokenizer writes every token in the same way, wherever it stands."""
        plain, echoed = self.continued(), self.continued("--echo")
        self.assertEqual([line + text for line, text in zip(LINES, plain)], echoed)

    def test_a_space_between_prompt_and_continuation_is_kept(self):
        """Llama's tokenizer drops the first space of a text, so that a continuation by itself may
        begin without it."""
        for line, plain, echoed in zip(
            LINES, self.continued(model="llama"), self.continued("--echo", model="llama")
        ):
            self.assertIn(echoed, (line + plain, line + " " + plain))

    def test_ids_of_the_prompt_stand_before_those_of_the_continuation(self):
        plain = self.continued(*IDS_OUT, model="llama")
        echoed = self.continued(*IDS_OUT, "--echo", model="llama")
        sources = read(TOKENIZERS, "llama", "source.ids").decode().splitlines()
        prompts = read(TOKENIZERS, "prompts.txt").decode().splitlines()
        self.assertEqual(sources[prompts.index("Here")] + " " + plain[0], echoed[0])
        for without, with_prompt in zip(plain, echoed):
            self.assertTrue(with_prompt.endswith(" " + without))

    def test_rows_of_an_n_best_list_have_the_prompt(self):
        rows = self.continued("--n-best", "3", "--echo", search=["-b", "3"])
        self.assertEqual(len(rows), 9)
        for number, row in enumerate(rows):
            self.assertTrue(row.split(" ||| ")[1].startswith(LINES[number // 3]), row)

    def test_an_empty_line_and_one_that_is_skipped_have_no_prompt(self):
        options = ["--echo", "--long-lines", "skip", "--max-source-length", "3"]
        lines = self.continued(*options, input="\nHere\n" + "Why " * 20 + "\n")
        self.assertEqual((lines[0], lines[2]), ("", ""))
        self.assertTrue(lines[1].startswith("Here"))

    def test_a_model_with_an_encoder_has_no_prompt(self):
        self.usage_error("--echo", names=["--echo", "has an encoder"])


class Template(PromptCase):
    def prompts(self, *options, input=LINES, model="qwen3"):
        """Returns the ids of the prompts, without the token that continues each of them."""
        options = [*IDS_OUT, "--echo", *options]
        lines = self.continued(*options, input=input, model=model, tokens=1)
        return [line.split()[:-1] for line in lines]

    def test_ids_are_those_of_the_whole_text(self):
        """Blanks beside the line belong to its words, and so do letters."""
        for template in ("Q: {line} A:", "a{line}b", "{line}", "{line} = {line}\\{", "x\\t{line}"):
            text = template.replace("\\{", "{").replace("\\t", "\t")
            whole = [text.replace("{line}", line) for line in LINES]
            for model in ("qwen3", "llama"):
                with self.subTest(template, model=model):
                    found = self.prompts("--template", template, model=model)
                    self.assertEqual(self.prompts(input=whole, model=model), found)

    def test_special_tokens_are_tokens_in_the_template_and_text_in_a_line(self):
        begin, end = "1101", "1102"
        template = ["--template", "<|im_start|>{line}<|im_end|>"]
        lines = [*LINES, "x<|im_end|>y", "<|im_start|>", "<|im_", "<|im_end|>\\n<|im_start|>"]
        for plain, prompt in zip(self.prompts(input=lines), self.prompts(*template, input=lines)):
            self.assertEqual([begin, *plain, end], prompt)

    def test_a_line_cannot_complete_a_special_token_of_the_template(self):
        for template, line in (("<|im_{line}", "start|>"), ("<|im_{line}end|>", " ")):
            (prompt,) = self.prompts("--template", template, input=[line])
            self.assertFalse({"1101", "1102"} & set(prompt))

    def test_the_file_of_a_template(self):
        for content, template in (
            ("Q: {line}\n", "Q: {line}"),
            ("Q:\n{line}\n\n", "Q:\\n{line}\\n"),
            ("\ufeffQ:\\n{line}\\{", "Q:\\n{line}\\{"),
        ):
            file = self.path("template", content)
            self.assertEqual(
                self.prompts("--template", template), self.prompts("--template-file", file)
            )

    def test_a_long_line_is_cut_inside_the_template(self):
        template, most = ["--template", "<|im_start|>{line}<|im_end|> Answer:"], 24
        line = " ".join("word%d" % number for number in range(1000))
        limit = ["--max-source-length", str(most)]
        whole, short = (self.prompts(*template, *more, input=[line])[0] for more in ([], limit))
        after = self.prompts(input=[" Answer:"])[0]
        self.assertEqual(short[-len(after) - 1 :], ["1102", *after])
        self.assertLessEqual(len(short), most)
        self.assertGreater(len(short), most - 3)
        self.assertEqual(whole[:10], short[:10])
        for action in ("skip", "error"):
            options = ["--long-lines", action, *limit, *template]
            if action == "skip":
                self.assertEqual(self.continued(*options, input=[line]), [""])
            else:
                self.fails(*options, names="line 1", input=line + "\n", model=model_of("qwen3"))

    def test_an_empty_line_stays_empty(self):
        lines = self.continued("--template", "Say: {line}", "--echo", input="\nHere\n\n")
        self.assertEqual((lines[0], lines[2]), ("", ""))
        self.assertTrue(lines[1].startswith("Say: Here"))

    def test_what_is_wrong_is_a_usage_error(self):
        where = {"model": model_of("qwen3")}
        good = ["--template", "{line}"]
        for template, names in (
            ("", "{line}"),
            ("no line", "{line}"),
            ("\\{line}", "{line}"),
            ("{line}\\d", "'\\d'"),
            ("{line}\\", "'\\'"),
            ("{line}" * 17, "17 times"),
            (b"{line}\xff", "UTF-8"),
        ):
            file = self.path("template", template)
            self.usage_error("--template-file", file, names=["--template-file", names], **where)
            if isinstance(template, str):
                self.usage_error("--template", template, names=["--template", names], **where)
        self.usage_error(*good, "--input-format", "ids", names="--input-format ids", **where)
        self.usage_error(*good, "--template-file", "x", names="--template-file", **where)
        self.usage_error(*good, names="has an encoder")
        long = ["--template", "word " * 20 + "{line}", "--max-source-length", "9"]
        self.usage_error(*long, names="--max-source-length", **where)
        self.fails("--template-file", "/nowhere", names="/nowhere", input="a\n", **where)


class Stop(PromptCase):
    def test_a_text_ends_before_its_stop(self):
        plain = self.continued(tokens=20)
        for line, text in zip(LINES, plain):
            self.assertGreater(len(text), 12)
            # These begin and end inside of tokens as well.
            for begin, end in ((3, 5), (4, 9), (7, 8), (0, 4)):
                stop = text[begin:end].replace("\\", "\\\\")
                options = ["--stop=" + stop, "--stop", "not there"]
                found = self.continued(*options, input=[line], tokens=20)
                self.assertEqual(found, [text[: text.index(text[begin:end])]])

    def test_the_first_of_several_counts(self):
        (text,) = self.continued(input=["Here"], tokens=20)
        first, second = (text[at : at + 3].replace("\\", "\\\\") for at in (8, 4))
        found = self.continued("--stop=" + first, "--stop=" + second, input=["Here"], tokens=20)
        places = (text.index(text[at : at + 3]) for at in (8, 4))
        self.assertEqual(found, [text[: min(places)]])

    def test_a_stop_in_the_prompt_does_not_count(self):
        found = self.continued("--echo", "--stop", "er", input=["Here"])
        (plain,) = self.continued(input=["Here"])
        self.assertEqual(found, ["Here" + plain.partition("er")[0]])

    def test_a_newline_is_a_stop(self):
        newline, _ = Newline.breaks(self)
        options = ["--input-format", "ids", "--echo", "--newline", "\\n"]
        ids = ["%d" % newline]
        (plain,) = self.continued(*options, input=ids, tokens=40)
        (found,) = self.continued(*options, "--stop", "\\n", input=ids, tokens=40)
        self.assertEqual(found, "\\n" + plain[2:].partition("\\n")[0])

    def test_scores_are_those_of_the_whole_search(self):
        (plain,) = self.continued("--scores", input=["Here"])
        score, _, text = plain.partition(" ||| ")
        stop = text[2:4].replace("\\", "\\\\")
        (found,) = self.continued("--scores", "--stop=" + stop, input=["Here"])
        self.assertEqual(found, score + " ||| " + text[: text.index(text[2:4])])

    def test_usage_errors(self):
        where = {"model": model_of("qwen3")}
        self.usage_error("--stop", "", names="--stop", **where)
        self.usage_error("--stop", "\\d", names="--stop", **where)
        self.usage_error("--stop", "x", *IDS_OUT, names=["--stop", "--output-format"], **where)


class Newline(PromptCase):
    def breaks(self):
        """Returns the ids of a newline and of a CR in Qwen's tokenizer."""
        vocabulary = json.loads(read(TOKENIZERS, "qwen3", "tokenizer.json"))["model"]["vocab"]
        return vocabulary["\u010a"], vocabulary["\u010d"]

    def echoed(self, *options):
        newline, cr = self.breaks()
        options = ["--input-format", "ids", "--echo", *options]
        return self.continued(*options, input=["%d %d" % (newline, cr)], tokens=1)

    def test_a_newline_becomes_a_space_or_two_characters(self):
        for options, expected in (
            ([], "  "),
            (["--newline", " "], "  "),
            (["--newline", "\\n"], "\\n "),
        ):
            lines = self.echoed(*options)
            self.assertEqual(len(lines), 1)
            self.assertTrue(lines[0].startswith(expected), (options, lines))

    def test_other_values_are_refused(self):
        for value in ("", "\n", "x"):
            self.usage_error("--newline", value, names="--newline", model=model_of("qwen3"))

    def test_ids_have_no_newline(self):
        self.usage_error(*IDS_OUT, "--newline", " ", names=["--newline", "--output-format ids"])


if __name__ == "__main__":
    main()
