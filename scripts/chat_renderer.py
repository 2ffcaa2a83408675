"""Renders conversations with a chat template as transformers 5 does. chat_template.py runs it as a
process of its own: a template is a program of a stranger, and may loop for ever.

It reads a JSON object from stdin: `template`, the `variables` that the template sees, and the
`conversations`. It writes one to stdout: `texts` with the text of each conversation or null,
`errors` with the reasons of those that are null, and `dated`, which is true if the template has
asked for the date. The exit code is NO_JINJA where this Python has no jinja2.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime

NO_JINJA = 3
# The process is ended after so many seconds of computation.
SECONDS = 5
MEMORY = 1 << 30
# All conversations together may have so many characters.
LONGEST = 1 << 23


def limit_resources():
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # No file can be written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def make_environment(jinja2, now):
    """Returns the environment of transformers. `now` returns the date that a template sees."""

    class Generation(jinja2.ext.Extension):
        """Reads {% generation %}, which marks the assistant's text and changes nothing of it."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        # Jinja's own filter escapes the characters of HTML.
        options = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment


class Renderer:
    def __init__(self, jinja2, template, variables):
        self.dated, self.left, self.now = False, LONGEST, datetime.now()
        self.template = make_environment(jinja2, self.date).from_string(template)
        self.variables = variables

    def date(self):
        self.dated = True
        return self.now

    def render(self, messages):
        """Returns the text of a conversation behind which the assistant is to answer."""
        parts = []
        for part in self.template.generate(
            messages=messages,
            tools=[],
            documents=None,
            add_generation_prompt=True,
            **self.variables,
        ):
            self.left -= len(part)
            if self.left < 0:
                raise ValueError(f"it makes more than {LONGEST} characters")
            parts.append(part)
        return "".join(parts)


def reason_of(error):
    """Returns what is wrong with a template as a short text."""
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    return (str(error) or type(error).__name__)[:200]


def render_all(jinja2, request):
    texts, errors = [], []
    try:
        renderer = Renderer(jinja2, request["template"], request["variables"])
    except Exception as error:
        count = len(request["conversations"])
        return {"texts": [None] * count, "errors": [reason_of(error)] * count, "dated": False}
    for messages in request["conversations"]:
        text, reason = None, None
        # A template can raise anything that an expression of Python can raise.
        try:
            text = renderer.render(messages)
        except Exception as error:
            reason = reason_of(error)
        texts.append(text)
        errors.append(reason)
    return {"texts": texts, "errors": errors, "dated": renderer.dated}


def main():
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError:
        return NO_JINJA
    request = json.load(sys.stdin)
    limit_resources()
    json.dump(render_all(jinja2, request), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
