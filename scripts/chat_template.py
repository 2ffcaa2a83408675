"""Finds the chat template of a checkpoint, and takes it apart into the texts that stand between the
contents of messages: the section `chat` of model.bin (docs/model-format.md).

chat_renderer.py renders conversations of placeholders. What stands between two placeholders is the
text of a transition: from the start to the first message, from a message of one role to the next
message, and from the user's last message to the answer. Longer conversations and other contents are
then rendered, and must be what the transitions give. A template of which that is not true has no
`chat`, or none for some of the roles, and a note says why.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from checkpoint_reader import InputError, Settings, read_bytes
from chat_renderer import NO_JINJA, SECONDS

RENDERER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_renderer.py")
SYSTEM_PYTHON = "/usr/bin/python3"
# The renderer limits its own computation. This limit, by the clock, leaves it room on a machine
# that has much else to do.
WAIT = 60 * SECONDS
LONGEST_TEMPLATE = 1 << 20
# A reader of model.bin accepts at most so many bytes of a transition.
LONGEST_TEXT = 1 << 16
NO_PACKAGE = (
    "there is no --chat, because no Python here has the package jinja2 (apt install "
    "python3-jinja2, or pip install jinja2)"
)
START, SYSTEM, USER, ASSISTANT, ANSWER = "start", "system", "user", "assistant", "answer"
# The conversations of each list are rendered to learn and to check the transitions of one role.
SHAPES = {
    USER: [[USER]],
    ASSISTANT: [[USER, ASSISTANT] * turns + [USER] for turns in (1, 2, 3)],
    SYSTEM: [[SYSTEM, USER]],
    "both": [[SYSTEM] + [USER, ASSISTANT] * turns + [USER] for turns in (1, 2)],
}
# White space at both ends of a content shows whether the template takes it off.
LEFT, RIGHT = "\n \t", " \t\n\n"
MARKS = '"it\'s" {{ a }} {% b %} {# c #} \\n \\ <b>&amp;\t\u00e4 \u6f22 \U0001f600\nend\n\n```\n'
KINDS = {
    "plain": lambda name: name,
    "padded": lambda name: LEFT + name + RIGHT,
    "marks": lambda name: f"#{name} {MARKS}{name}.",
    "digits": lambda name: name[1:],
    "long": lambda name: f"{name} " * 500 + name,
}


class Unusable(Exception):
    """Says in its message why there is no `chat`, or none with a role."""


def find_template(directory):
    """Returns the text of the template that AutoTokenizer takes where it is given none, or None if
    there is none. Templates in files count before those of the settings."""
    path = lambda *names: os.path.join(directory, *names)
    alone, folder = path("chat_template.jinja"), path("additional_chat_templates")
    if os.path.exists(alone):
        return read_bytes(alone).decode("utf-8", "replace")
    if os.path.isdir(folder) and any(name.endswith(".jinja") for name in os.listdir(folder)):
        raise Unusable(f"{folder} has templates, but none is the default")
    for name in ("tokenizer_config.json", "chat_template.json"):
        if not os.path.exists(path(name)):
            continue
        template = Settings(path(name)).get("chat_template")
        if isinstance(template, list):
            template = default_of(path(name), template)
        if template is not None and not isinstance(template, str):
            raise Unusable(f"{path(name)}: chat_template is no text")
        if template is not None:
            return template
    return None


def default_of(path, templates):
    for entry in templates:
        if isinstance(entry, dict) and entry.get("name") == "default":
            return entry.get("template")
    raise Unusable(f"{path}: no template of chat_template has the name default")


def list_pythons():
    """Returns the interpreters that may have jinja2. Not each of them has numpy as well."""
    found = [sys.executable, shutil.which("python3"), SYSTEM_PYTHON]
    return list(dict.fromkeys(path for path in found if path and os.access(path, os.X_OK)))


def render(template, variables, conversations):
    """Returns what chat_renderer.py writes."""
    request = {"template": template, "variables": variables, "conversations": conversations}
    for python in list_pythons():
        try:
            done = subprocess.run(
                [python, RENDERER],
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=WAIT,
            )
        except subprocess.TimeoutExpired:
            raise Unusable(f"rendering it takes more than {WAIT} seconds") from None
        if done.returncode == 0:
            return json.loads(done.stdout)
        if done.returncode < 0:
            raise Unusable(f"rendering it takes more than {SECONDS} seconds, or fails")
        if done.returncode != NO_JINJA:
            raise Unusable("rendering it fails")
    raise Unusable(NO_PACKAGE)


def name_contents(roles):
    """Returns the placeholders of a conversation."""
    return [f"q{number}0{number}71{number}4" for number in range(1, len(roles) + 1)]


def take_apart(text, contents):
    """Returns what stands before, between and behind the contents. Raises Unusable if a content
    does not stand in the text exactly once, in its turn."""
    gaps = []
    for content in contents:
        if text.count(content) != 1:
            raise Unusable("a message does not stand exactly once in what it renders")
        gap, _, text = text.partition(content)
        gaps.append(gap)
    return [*gaps, text]


class Conversations:
    """Has the texts of all conversations of SHAPES with all KINDS of contents."""

    def __init__(self, template, variables):
        self.keys = [(tuple(r), k) for roles in SHAPES.values() for r in roles for k in KINDS]
        conversations = [
            [
                {"role": role, "content": KINDS[kind](name)}
                for role, name in zip(roles, name_contents(roles))
            ]
            for roles, kind in self.keys
        ]
        result = render(template, variables, conversations)
        self.dated = result["dated"]
        self.results = dict(zip(self.keys, zip(result["texts"], result["errors"])))

    def text_of(self, roles, kind):
        text, error = self.results[tuple(roles), kind]
        if text is None:
            raise Unusable(f"rendering it fails: {error}")
        return text


def learn(conversations, roles):
    """Returns the transitions of a conversation by their places."""
    names = name_contents(roles)
    texts = take_apart(conversations.text_of(roles, "plain"), names)
    padded = take_apart(conversations.text_of(roles, "padded"), names)
    places = [START, *roles, ANSWER]
    transitions = {}
    for place, text, found in zip(zip(places, places[1:]), texts, padded):
        # These stand beside the text where the contents keep their white space.
        right = "" if place[0] == START else RIGHT
        left = "" if place[1] == ANSWER else LEFT
        trims = {
            right + text + left: (False, False),
            text + left: (right != "", False),
            right + text: (False, left != ""),
        }
        trims.setdefault(text, (True, True))
        if found not in trims:
            raise Unusable("it changes white space at the ends of a message")
        transitions[place] = (text, *trims[found])
    return transitions


def compose(transitions, roles, contents):
    """Returns the text of a conversation as a reader of model.bin makes it."""
    places = [START, *roles, ANSWER]
    steps = [transitions[place] for place in zip(places, places[1:])]
    result = steps[0][0]
    for content, (_, _, trims_left), (text, trims_right, _) in zip(contents, steps, steps[1:]):
        content = content.lstrip() if trims_left else content
        result += (content.rstrip() if trims_right else content) + text
    return result


def check(conversations, transitions, shapes):
    for roles in shapes:
        for kind in KINDS:
            contents = [KINDS[kind](name) for name in name_contents(roles)]
            if conversations.text_of(roles, kind) != compose(transitions, roles, contents):
                raise Unusable(
                    "a conversation is more than its messages with a text of the template between "
                    f"each two of them ({', '.join(roles)})"
                )


def learn_role(conversations, known, shapes, more):
    """Returns the known transitions with those of the first of the shapes. Raises Unusable unless
    they give all of the shapes and those of `more`."""
    transitions = known | learn(conversations, shapes[0])
    if any(transitions[place] != known[place] for place in known):
        raise Unusable("it changes the text around the user's message")
    check(conversations, transitions, [*shapes, *more])
    return transitions


def check_texts(transitions):
    for text, _, _ in transitions.values():
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise Unusable("it makes text that is not valid Unicode") from None
        if size > LONGEST_TEXT:
            raise Unusable(f"a text between messages has {size} bytes, at most {LONGEST_TEXT} fit")


def understand(template, variables):
    """Returns the transitions of a template, and notes about it."""
    if len(template) > LONGEST_TEMPLATE:
        raise Unusable(f"it has more than {LONGEST_TEMPLATE} characters")
    conversations = Conversations(template, variables)
    transitions, notes = learn_role(conversations, {}, SHAPES[USER], []), []
    for role in (ASSISTANT, SYSTEM):
        # A system's message must also fit before several turns, if there can be several.
        several = role == SYSTEM and (USER, ASSISTANT) in transitions
        try:
            transitions = learn_role(
                conversations, transitions, SHAPES[role], SHAPES["both"] if several else []
            )
        except Unusable as error:
            notes.append(f"--chat has no messages of the {role}: {error}")
    check_texts(transitions)
    if conversations.dated:
        notes.append("the template has asked for the date, and today's stays in the model")
    return transitions, notes


def describe_transition(places, transition):
    text, trims_before, trims_after = transition
    entry = {"from": places[0], "to": places[1], "text": text}
    if trims_before:
        entry["trim_from"] = True
    if trims_after:
        entry["trim_to"] = True
    return entry


def mark_tokens(chat, added, plain):
    """Marks the added tokens with which the template marks turns although they are not special: a
    line must not have them either. `added` is the header's `tokens.added`, and `plain` has the
    texts of those that are not special."""
    texts = [step["text"] for step in chat["transitions"]]
    for entry in added:
        token = plain.get(entry["id"], "")
        # A word or white space that is an added token is no mark.
        if any(c.isalnum() or c.isspace() or c == "\u2581" for c in (token[:1], token[-1:])):
            continue
        if token and any(token in text for text in texts):
            entry["marks_turn"] = True


def read_chat(directory, variables):
    """Returns the header's `chat` of a directory, or None, and a list of notes for people.
    `variables` has the texts of the named special tokens."""
    try:
        template = find_template(directory)
        if template is None:
            return None, []
        transitions, notes = understand(template, variables)
    except Unusable as error:
        why = str(error)
        return None, [why if why == NO_PACKAGE else f"there is no --chat: chat template: {why}"]
    except InputError as error:
        return None, [f"there is no --chat: {error}"]
    return {"transitions": [describe_transition(*item) for item in transitions.items()]}, notes
