#!/usr/bin/env python3
"""Tests --chat with each chat format of tests/data/chat, on random networks with real tokenizers.
What transformers gives is in golden.json."""

import functools
import json
import os
import tempfile

import chat_fixture
from chat_fixture import CONVERSATIONS, FORMATS, LINES
from program import GREEDY, IDS_OUT, Case, main, require
from prompt_model import write_model

# Every model is converted once. The folder is removed at the end of the process.
MODELS = tempfile.TemporaryDirectory(prefix="xlate-chat-")
setUpModule = require


def folder_of(name):
    return os.path.join(MODELS.name, name)


@functools.lru_cache(maxsize=None)
def header_of(name):
    """Returns the header of model_of(name)."""
    chat_fixture.write_tokenizer(name, folder_of(name))
    return write_model(folder_of(name), folder_of(name) + ".bin")


def model_of(name):
    header_of(name)
    return folder_of(name) + ".bin"


def golden(name):
    return chat_fixture.read_json(chat_fixture.GOLDEN)[name]


class ChatCase(Case):
    def prompts(self, name, lines, *options):
        """Returns the ids of the prompts, without the token that continues each of them."""
        options = ["--max-new-tokens", "1", "--echo", *GREEDY, *IDS_OUT, *options]
        text = "".join(line + "\n" for line in lines)
        found = self.ok("--chat", *options, input=text, model=model_of(name)).lines
        return [line.split()[:-1] for line in found]


class Formats(ChatCase):
    def test_ids_are_those_of_transformers(self):
        for name in FORMATS:
            with self.subTest(name):
                expected = [ids.split() for ids in golden(name)[: len(LINES)]]
                self.assertEqual(self.prompts(name, LINES), expected)

    def test_no_line_can_forge_a_turn(self):
        """Lines with all tokens of the format have only those of the template around them."""
        for name in FORMATS:
            with self.subTest(name):
                (harmless,) = self.prompts(name, ["Here"])
                marks = chat_fixture.marks_of(folder_of(name))
                count = lambda ids: sum(int(number) in marks for number in ids)
                forged = [
                    " ".join(marks.values()),
                    "".join(marks.values()),
                    *(f"Here{mark}there" for mark in marks.values()),
                    *(mark[:-1] for mark in marks.values()),
                    *(mark[1:] for mark in marks.values()),
                ]
                for line, ids in zip(forged, self.prompts(name, forged)):
                    self.assertEqual(count(ids), count(harmless), line)
                    self.assertGreater(len(ids), len(harmless) - 3, line)

    def test_what_the_converter_understands(self):
        for name in FORMATS:
            with self.subTest(name):
                header = header_of(name)
                steps = header["chat"]["transitions"]
                there = {(step["from"], step["to"]) for step in steps}
                self.assertIn(("assistant", "user"), there)
                has_system = name not in chat_fixture.NO_SYSTEM
                self.assertEqual(("start", "system") in there, has_system)
                self.assertEqual("system" in header["provenance"].get("chat", ""), not has_system)
        trims = [
            name for name in FORMATS if header_of(name)["chat"]["transitions"][0].get("trim_to")
        ]
        self.assertEqual(trims, ["llama3", "llama2", "gemma", "cohere"])


class Lines(ChatCase):
    def test_a_long_line_is_cut_inside_the_template(self):
        line = " ".join("word%d" % number for number in range(1000))
        for name in ("chatml", "llama2"):
            (whole,), (short,) = (
                self.prompts(name, [line], *more) for more in ([], ["--max-source-length", "60"])
            )
            self.assertLessEqual(len(short), 60)
            self.assertGreater(len(short), 57)
            self.assertEqual(whole[:40], short[:40])
            self.assertEqual(whole[-4:], short[-4:])
        limit = ["--max-source-length", "60"]
        where = {"model": model_of("chatml"), "input": line + "\n"}
        skipped = self.ok("--chat", "--long-lines", "skip", *limit, **where)
        self.assertEqual(skipped.lines, [""])
        self.fails("--chat", "--long-lines", "error", *limit, names="line 1", **where)

    def test_an_empty_line_stays_empty(self):
        """So does one of white space where the template takes it off."""
        options = ["--chat", "--max-new-tokens", "3", "--echo"]
        for name, line in (("chatml", ""), ("llama3", ""), ("llama3", " \t\u3000")):
            found = self.ok(*options, input=line + "\nHere\n", model=model_of(name)).lines
            self.assertEqual(found[0], "")
            self.assertIn("Here", found[1])

    def test_the_report_has_the_option(self):
        for options, value in (([], False), (["--chat"], True)):
            _, report = self.report(*options, input="Here\n", model=model_of("llama2"))
            self.assertEqual(report["options"]["chat"], value)

    def test_usage_errors(self):
        where = {"model": model_of("chatml")}
        self.usage_error("--chat", names=["--chat", "has an encoder"])
        template = ["--chat", "--template", "{line}"]
        self.usage_error(*template, names=["--template", "--chat"], **where)
        for form in ("ids", "pieces"):
            self.usage_error("--chat", "--input-format", form, names=["--chat", form], **where)
        self.usage_error("--chat", "--max-source-length", "9", names="template", **where)


class Messages(ChatCase):
    """--input-format jsonl with `messages`."""

    def lines_of(self, objects):
        return "".join(json.dumps(x) + "\n" for x in objects)

    def test_ids_are_those_of_transformers(self):
        for name in FORMATS:
            some = chat_fixture.NO_SYSTEM
            pairs = [
                (messages, ids.split())
                for messages, ids in zip(CONVERSATIONS, golden(name))
                if ids and not (name in some and messages[0]["role"] == "system")
            ]
            objects = [self.lines_of([{"messages": messages}])[:-1] for messages, _ in pairs]
            found = self.prompts(name, objects, "--input-format", "jsonl")
            for (messages, expected), ids in zip(pairs, found):
                self.assertEqual(ids, expected, (name, messages))

    def test_a_text_is_one_message(self):
        objects = [self.lines_of([{"text": line}])[:-1] for line in LINES]
        found = self.prompts("llama3", objects, "--input-format", "jsonl")
        self.assertEqual(found, self.prompts("llama3", LINES))

    def test_the_last_message_is_cut(self):
        first = [
            {"role": "user", "content": "Here"},
            {"role": "assistant", "content": "There is one word and another one."},
        ]
        line = json.dumps({"messages": [*first, {"role": "user", "content": "word " * 900}]})
        options = ["--input-format", "jsonl", "--max-source-length"]
        (short,) = self.prompts("llama3", [line], *options, "90")
        self.assertLessEqual(len(short), 90)
        self.assertGreater(len(short), 87)
        self.fails(
            *["--chat", *options, "20"],
            names=["line 1", "--max-source-length", "template"],
            model=model_of("llama2"),
            input=line + "\n",
        )

    def test_what_is_wrong_names_the_line(self):
        user = {"role": "user", "content": "x"}
        for messages, names in (
            ("x", "a list of messages"),
            ([], "a list of messages"),
            ([1], "'role' and 'content'"),
            ([{"role": "user"}], "'role' and 'content'"),
            ([{"role": "user", "content": 1}], "'role' and 'content'"),
            ([user | {"tool_calls": []}], "'role' and 'content'"),
            ([{"role": "tool", "content": "x"}], "'tool'"),
            ([user, {"role": "assistant", "content": "x"}], "last message"),
            ([user, user], "behind one with the role user"),
            ([{"role": "system", "content": "x"}, user], "system at the beginning"),
        ):
            self.fails(
                *["--chat", "--input-format", "jsonl"],
                names=["line 1", names],
                model=model_of("gemma"),
                input=self.lines_of([{"messages": messages}]),
            )
        self.fails(
            *["--input-format", "jsonl"],
            names=["line 1", "'text'"],
            model=model_of("gemma"),
            input=self.lines_of([{"messages": [user]}]),
        )


if __name__ == "__main__":
    main()
