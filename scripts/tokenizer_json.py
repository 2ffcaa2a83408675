"""Writes the components of a tokenizer.json as the steps of model.bin (docs/model-format.md). A
component that xlate has no step for is refused in one line with the file, the key and the type."""

from __future__ import annotations

from checkpoint_reader import Settings, is_integer, refuse, show
from subword_model import check_text
from tokenizer_parts import MARK, decode_charsmap
from tokenizer_settings import LARGEST_ID

# A ByteLevel component splits a text into the words of GPT-2 by this pattern.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BEHAVIORS = {
    "Isolated": "isolated",
    "Removed": "removed",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
    "Contiguous": "contiguous",
}
SCHEMES = ("always", "first", "never")
# A component has at most this many steps, and its texts and patterns at most this many bytes.
MOST_STEPS = 64
LONGEST_TEXT = 4096


class Component(Settings):
    """A component is an object with a type. `key` says where it stands in the file."""

    def __init__(self, path, key, values):
        if not isinstance(values, dict) or not isinstance(values.get("type"), str):
            refuse(path, key, "an object with a type", show(values))
        self.path, self.key, self.values = path, key, values
        self.kind = values["type"]

    def flag(self, key):
        return self.take(key, None, "true or false", lambda v: isinstance(v, bool))

    def needed(self, key):
        value = self.flag(key)
        if value is None:
            refuse(self.path, f"{self.key}.{self.kind}.{key}", "true or false", "nothing")
        return value

    def text(self, key, empty=True):
        value = self.get(key)
        if not isinstance(value, str) or not (value or empty):
            refuse(self.path, f"{self.key}.{self.kind}.{key}", "a text", show(value))
        if len(check_text(self.path, value)) > LONGEST_TEXT:
            refuse(self.path, f"{self.key}.{self.kind}.{key}", f"{LONGEST_TEXT} bytes", show(value))
        return value

    def choice(self, key, default, choices):
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, str) or value not in choices:
            expected = f"one of {', '.join(choices)}"
            refuse(self.path, f"{self.key}.{self.kind}.{key}", expected, show(value))
        return value

    def pattern(self):
        """Returns (True for a regular expression, its text)."""
        pattern = self.get("pattern")
        if isinstance(pattern, dict) and len(pattern) == 1:
            for name in ("String", "Regex"):
                if name in pattern:
                    inner = Component(self.path, self.key, {**pattern, "type": self.kind})
                    return name == "Regex", inner.text(name, empty=False)
        expected = "an object with String or Regex"
        refuse(self.path, f"{self.key}.{self.kind}.pattern", expected, show(pattern))


def escape(text):
    """Returns a regular expression that matches the text itself."""
    return "".join(c if c.isalnum() or ord(c) > 127 else f"\\{c}" for c in text)


def scheme_of(component):
    """Returns when a mark goes before a word. Old files say only whether one does at all."""
    if component.get("replacement") != MARK:
        expected = f"{show(MARK)} (xlate has no other)"
        refuse(
            component.path, "Metaspace.replacement", expected, show(component.get("replacement"))
        )
    scheme = component.choice("prepend_scheme", "always", SCHEMES)
    if component.flag("add_prefix_space") is False and scheme != "never":
        expected = '"never", as add_prefix_space is false'
        refuse(component.path, "Metaspace.prepend_scheme", expected, show(scheme))
    return scheme


def normalize_precompiled(component):
    return [{"kind": "charsmap"}]


def normalize_replace(component):
    is_pattern, text = component.pattern()
    key = "pattern" if is_pattern else "text"
    return [{"kind": "replace", key: text, "with": component.text("content")}]


def normalize_prepend(component):
    return [{"kind": "prepend", "text": component.text("prepend")}]


def normalize_strip(component):
    sides = {side: component.needed(f"strip_{side}") for side in ("left", "right")}
    return [{"kind": "strip", **sides}]


def normalize_unicode(component):
    return [{"kind": "unicode", "form": component.kind.lower()}]


def split_whitespace(component):
    return [{"kind": "whitespace"}]


def split_metaspace(component):
    splits = component.flag("split")
    return [
        {
            "kind": "metaspace",
            "prepend": scheme_of(component),
            "split": True if splits is None else splits,
        }
    ]


def split_pattern(component):
    is_pattern, text = component.pattern()
    return [
        {
            "kind": "pattern",
            "pattern": text if is_pattern else escape(text),
            "behavior": BEHAVIORS[component.choice("behavior", None, BEHAVIORS)],
            "invert": component.needed("invert"),
        }
    ]


def split_digits(component):
    return [{"kind": "digits", "individual": component.needed("individual_digits")}]


def split_bytes(component):
    step = {"kind": "byte_level", "prefix_space": component.needed("add_prefix_space")}
    if component.flag("use_regex") is not False:
        step["pattern"] = GPT2_PATTERN
    return [step]


def decode_metaspace(component):
    return [{"kind": "metaspace", "prepend": scheme_of(component)}]


def decode_replace(component):
    is_pattern, text = component.pattern()
    if is_pattern:
        refuse(component.path, "decoder.Replace.pattern", "a String", "a Regex")
    return [{"kind": "replace", "text": text, "with": component.text("content")}]


def decode_strip(component):
    counts = [component.get(key) for key in ("start", "stop")]
    if not all(is_integer(count) and 0 <= count < LARGEST_ID for count in counts):
        refuse(component.path, "decoder.Strip", "numbers as start and stop", show(counts))
    text = component.text("content", empty=False)
    if len(text) != 1:
        refuse(component.path, "decoder.Strip.content", "one character", show(text))
    return [{"kind": "strip", "text": text, "left": counts[0], "right": counts[1]}]


NORMALIZERS = {
    "Precompiled": normalize_precompiled,
    "Replace": normalize_replace,
    "Prepend": normalize_prepend,
    "Strip": normalize_strip,
    **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD"), normalize_unicode),
}
PRE_TOKENIZERS = {
    "WhitespaceSplit": split_whitespace,
    "Metaspace": split_metaspace,
    "Split": split_pattern,
    "Digits": split_digits,
    "ByteLevel": split_bytes,
}
DECODERS = {
    "Metaspace": decode_metaspace,
    "ByteLevel": lambda component: [{"kind": "byte_level"}],
    "Replace": decode_replace,
    "ByteFallback": lambda component: [{"kind": "byte_fallback"}],
    "Fuse": lambda component: [{"kind": "fuse"}],
    "Strip": decode_strip,
}
# Each key of a component has the key of the list in a Sequence, and the components that are known.
KINDS = {
    "normalizer": ("normalizers", NORMALIZERS),
    "pre_tokenizer": ("pretokenizers", PRE_TOKENIZERS),
    "decoder": ("decoders", DECODERS),
}


def list_components(path, key, value, depth=0):
    """Returns the components of a value, which may be null, a component or sequences of them."""
    if value is None:
        return []
    component = Component(path, key, value)
    if component.kind != "Sequence":
        return [component]
    steps = component.get(KINDS[key][0] if key in KINDS else "processors")
    if not isinstance(steps, list) or len(steps) > MOST_STEPS or depth > 8:
        refuse(path, f"{key}.Sequence", f"a list of at most {MOST_STEPS} components", show(steps))
    return [part for step in steps for part in list_components(path, key, step, depth + 1)]


def list_steps(path, key, value):
    """Returns the steps of model.bin for the component `key` of a tokenizer.json."""
    known, steps = KINDS[key][1], []
    for component in list_components(path, key, value):
        if component.kind not in known:
            refuse(path, f"{key}.type", f"one of {', '.join(known)}", show(component.kind))
        steps += known[component.kind](component)
    if len(steps) > MOST_STEPS:
        refuse(path, key, f"at most {MOST_STEPS} steps", len(steps))
    return steps


def read_charsmap(path, value):
    """Returns the charsmap of a normalizer, or None if it has none."""
    found = [
        decode_charsmap(path, component.values)
        for component in list_components(path, "normalizer", value)
        if component.kind == "Precompiled"
    ]
    if len(found) > 1:
        refuse(path, "normalizer", "one Precompiled component", len(found))
    return found[0] if found else None


def template_ids(path, component, item):
    """Returns the ids of one item of a template, or None for the line itself."""
    if isinstance(item, dict) and isinstance(item.get("Sequence"), dict):
        if item["Sequence"].get("id") == "A":
            return None
    if isinstance(item, dict) and isinstance(item.get("SpecialToken"), dict):
        tokens = component.take("special_tokens", {}, "an object", lambda v: isinstance(v, dict))
        name = item["SpecialToken"].get("id")
        token = tokens.get(name) if isinstance(name, str) else None
        ids = token.get("ids") if isinstance(token, dict) else None
        if isinstance(ids, list) and all(is_integer(n) and 0 <= n < LARGEST_ID for n in ids):
            return ids
    refuse(path, "post_processor.single", "the line A and special tokens with ids", show(item))


def template_of(path, component):
    items = component.take("single", [], "a list", lambda v: isinstance(v, list))
    parts = [template_ids(path, component, item) for item in items]
    if parts.count(None) != 1:
        refuse(path, "post_processor.single", "the line once", f"{parts.count(None)} times")
    at = parts.index(None)
    return tuple([n for ids in side for n in ids] for side in (parts[:at], parts[at + 1 :]))


def pair_id(path, component, key):
    """Returns the id of a processor's text and id."""
    value = component.get(key)
    if not isinstance(value, list) or len(value) != 2 or not is_integer(value[1]):
        refuse(path, f"post_processor.{component.kind}.{key}", "a text and an id", show(value))
    if not 0 <= value[1] < LARGEST_ID:
        refuse(path, f"post_processor.{component.kind}.{key}", "an id", show(value[1]))
    return value[1]


def read_template(path, value):
    """Returns the ids before and behind a line."""
    before, after = [], []
    for component in list_components(path, "post_processor", value):
        if component.kind == "TemplateProcessing":
            inner = template_of(path, component)
        elif component.kind in ("RobertaProcessing", "BertProcessing"):
            inner = tuple([pair_id(path, component, key)] for key in ("cls", "sep"))
        elif component.kind == "ByteLevel":
            # This component changes only the places of tokens in the text.
            continue
        else:
            known = "TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel"
            refuse(path, "post_processor.type", f"one of {known}", show(component.kind))
        before, after = [*inner[0], *before], [*after, *inner[1]]
    return before, after
