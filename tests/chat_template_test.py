#!/usr/bin/env python3
"""Tests what scripts/convert.py understands of chat templates: where they stand, what they render,
and templates that are wrong or mean harm."""

import json
import os
import subprocess
import sys
import time
from unittest import mock

import chat_fixture
from checkpoint_fixture import convert
from program import Case, main
from prompt_model import write_model

import chat_template
import summary

CHATML = chat_fixture.template_of("chatml")
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
START, END = ("start", "user"), ("user", "answer")


class Templates(Case):
    def read(self, template=None, **files):
        """Returns the transitions of a directory by their places, or None, and the notes."""
        if template is not None:
            files["chat_template.jinja"] = template
        for name, content in files.items():
            self.path(name, content if isinstance(content, str) else json.dumps(content))
        chat, notes = chat_template.read_chat(self.folder, VARIABLES)
        steps = chat and {(step["from"], step["to"]): step for step in chat["transitions"]}
        return steps, notes

    def refused(self, template, names):
        steps, notes = self.read(template)
        self.assertIsNone(steps)
        self.assertEqual(len(notes), 1, notes)
        self.assertIn("there is no --chat", notes[0])
        self.assertIn(names, notes[0])
        self.assertLess(len(notes[0]), 400)


class Places(Templates):
    def test_a_checkpoint_without_a_template(self):
        self.assertEqual(self.read(), (None, []))
        self.assertEqual(
            self.read(**{"tokenizer_config.json": {"chat_template": None}}), (None, [])
        )

    def test_a_file_counts_before_the_settings(self):
        mark = "{{ messages[0].content }}"
        settings = {"tokenizer_config.json": {"chat_template": "1" + mark}}
        listed = [
            {"name": "rag", "template": "9" + mark},
            {"name": "default", "template": "3" + mark},
        ]
        for files, expected in (
            ({"chat_template.json": {"chat_template": "0" + mark}}, "0"),
            (settings, "1"),
            ({"tokenizer_config.json": {"chat_template": listed}}, "3"),
            ({"chat_template.jinja": "4" + mark}, "4"),
        ):
            steps, _ = self.read(**files)
            self.assertEqual(steps[START]["text"], expected)

    def test_a_list_without_a_default(self):
        for listed in ([], [{"name": "rag", "template": "x"}], ["x"]):
            steps, notes = self.read(**{"tokenizer_config.json": {"chat_template": listed}})
            self.assertIsNone(steps)
            self.assertIn("default", notes[0])
        steps, notes = self.read(**{"tokenizer_config.json": {"chat_template": 3}})
        self.assertIn("no text", notes[0])

    def test_more_templates_without_a_default(self):
        os.mkdir(self.path("additional_chat_templates"))
        steps, notes = self.read(**{"additional_chat_templates/rag.jinja": "x"})
        self.assertIn("none is the default", notes[0])


class Understanding(Templates):
    def test_the_start_depends_on_the_first_message(self):
        steps, notes = self.read(CHATML)
        self.assertEqual(notes, [])
        self.assertEqual(
            steps[START]["text"],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
        )
        self.assertEqual(steps["start", "system"]["text"], "<|im_start|>system\n")
        self.assertEqual(steps[END]["text"], "<|im_end|>\n<|im_start|>assistant\n")

    def test_white_space_is_trimmed_where_the_template_does_it(self):
        for expression, trims in (
            ("content", [False, False]),
            ("content | trim", [True, True]),
            ("content.rstrip()", [False, True]),
            ("content.lstrip()", [True, False]),
        ):
            steps, _ = self.read("[{{ messages[0].%s }}]" % expression)
            found = [steps[START].get("trim_to", False), steps[END].get("trim_from", False)]
            self.assertEqual(found, trims, expression)

    def test_roles_that_the_template_refuses(self):
        check = "{% if m.role != 'user' %}{{ raise_exception('no ' + m.role) }}{% endif %}"
        template = "{% for m in messages %}" + check + "<{{ m.content }}>{% endfor %}"
        steps, notes = self.read(template)
        self.assertEqual(set(steps), {START, END})
        self.assertIn("no assistant", notes[0])
        self.assertIn("no system", notes[1])

    def test_a_role_that_is_no_concatenation(self):
        """The system's message stands in the last turn of the user."""
        steps, notes = self.read(chat_fixture.template_of("mistral"))
        self.assertNotIn(("start", "system"), steps)
        self.assertIn("no messages of the system", notes[0])

    def test_the_date(self):
        steps, notes = self.read("{{ strftime_now('%Y') }} {{ messages[0].content }}")
        self.assertRegex(steps[START]["text"], r"\d{4} ")
        self.assertIn("date", notes[-1])

    def test_the_environment_is_that_of_transformers(self):
        template = """{%- for m in messages %}
            {%- if m.role == 'system' %}{% continue %}{% endif %}
            {%- generation %}{{ m.content }}{% endgeneration %}
            {%- endfor %}{{ bos_token }}{{ [tools, documents, '<é>'] | tojson }}
            {%- if unk_token is not defined %}!{% endif %}"""
        steps, _ = self.read(template)
        self.assertEqual(steps[END]["text"], '<s>[[], null, "<é>"]!')

    def test_what_is_no_beginning_and_end(self):
        content = "messages[0].content"
        self.refused("{{ %s | upper }}" % content, "exactly once")
        self.refused("{{ %s }}{{ %s }}" % (content, content), "exactly once")
        self.refused("no message", "exactly once")
        self.refused("{{ %s.replace('\\n', ' ') }}" % content, "white space")
        self.refused("{{ %s[:50] }}" % content, "is more than")
        self.refused("{{ %s | replace('\"', '') }}" % content, "is more than")
        self.refused("{{ %s | e }}" % content, "is more than")
        self.refused("{{ %s }}{{ %s | length }}" % (content, content), "white space")

    def test_a_token_that_is_not_special_and_marks_turns(self):
        chat = {"transitions": [{"text": "<U>"}, {"text": "A word\n\n."}]}
        texts = {1: "<U>", 2: "<V>", 3: "word", 4: "\n\n", 5: "\u2581"}
        added = [{"id": number} for number in range(7)]
        chat_template.mark_tokens(chat, added, texts)
        self.assertEqual([entry["id"] for entry in added if "marks_turn" in entry], [1])

    def test_the_summary_is_short(self):
        steps, _ = self.read(CHATML)
        line = summary.describe_chat({"transitions": list(steps.values())})
        self.assertIn("system, user, assistant", line)
        self.assertLess(len(line), 240)


class Harm(Templates):
    """Whatever a template does, the conversion goes on, and one line says why there is no chat."""

    def test_an_endless_loop(self):
        loop = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
        begin = time.monotonic()
        self.refused(loop + "{{ messages[0].content }}", "seconds")
        self.assertLess(time.monotonic() - begin, 30)

    def test_much_output(self):
        self.refused("{{ messages[0].content }}{{ 'x' * 9999999 }}", "characters")
        self.refused("{{ 'x' * 99999999999 }}", "memory")
        self.refused("{{ 10 ** (10 ** 9) }}", "seconds")
        self.refused("x" * 2000000, "characters")
        self.refused("x" * 100000 + "{{ messages[0].content }}", "bytes")

    def test_attributes_of_python(self):
        for expression in ("''.__class__.__mro__", "messages.append(1)", "f.__globals__.x"):
            template = "{%% set f = raise_exception %%}{{ messages[0].content }}{{ %s }}"
            self.refused(template % expression, "unsafe")
        self.refused("{% include '/etc/passwd' %}{{ messages[0].content }}", "no loader")

    def test_errors(self):
        self.refused("{% if %}", "Expected an expression")
        self.refused("{{ 1 / 0 }}", "division by zero")
        self.refused("{{ messages[9].content }}", "no element 9")
        self.refused("{{ raise_exception('no\nway') }}", "no\nway")
        self.refused("{{ messages[0].content }}{{ '\\ud800' }}", "Unicode")
        self.refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion")
        self.refused("(" * 100000, "exactly once")
        self.refused("{{ " + "(" * 100000, "")

    def test_a_file_that_is_no_json(self):
        steps, notes = self.read(**{"tokenizer_config.json": "{"})
        self.assertIsNone(steps)
        self.assertIn("tokenizer_config.json", notes[0])

    def test_without_jinja2(self):
        """Another Python is tried, and the note says how to install the package."""
        none = [self.path("python", "#!/bin/sh\nexit %d\n" % chat_template.NO_JINJA)]
        os.chmod(none[0], 0o755)
        real = chat_template.list_pythons()
        with mock.patch.object(chat_template, "list_pythons", lambda: none + real):
            self.assertIsNotNone(self.read(CHATML)[0])
        with mock.patch.object(chat_template, "list_pythons", lambda: none):
            self.refused(CHATML, "python3-jinja2")


class Conversion(Case):
    def test_the_converter_says_what_it_understood_in_one_line(self):
        for template, names in ((CHATML, "--chat puts a line between"), ("{% if %}", "no --chat")):
            folder = self.path("checkpoint-%d" % len(template))
            chat_fixture.write_tokenizer("chatml", folder)
            with open(os.path.join(folder, "chat_template.jinja"), "w") as file:
                file.write(template)
            header = write_model(folder, self.path("model.bin"))
            self.assertEqual("chat" in header, template is CHATML)
            done = subprocess.run(
                [sys.executable, convert.__file__, folder, "-o", self.path("again.bin")],
                stderr=subprocess.PIPE,
                check=True,
            )
            lines = [x for x in done.stderr.decode().splitlines() if "chat" in x]
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(names, lines[0])


if __name__ == "__main__":
    main()
