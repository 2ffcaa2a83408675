"""Makes lines of text that need every rule of a tokenizer: natural language and code as they are,
and generated lines from all scripts. The same texts and seed give the same lines."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import re
import unicodedata

# Blocks of letters, syllables or signs, as first and last code point.
LATIN = ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF))
SCRIPTS = {
    "latin": LATIN,
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F),),
    "armenian": ((0x531, 0x58A),),
    "georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF)),
    "hebrew": ((0x591, 0x5F4),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "syriac": ((0x700, 0x74F),),
    "devanagari": ((0x900, 0x97F),),
    "bengali": ((0x980, 0x9FF),),
    "gurmukhi": ((0xA00, 0xA7F),),
    "gujarati": ((0xA80, 0xAFF),),
    "tamil": ((0xB80, 0xBFF),),
    "telugu": ((0xC00, 0xC7F),),
    "kannada": ((0xC80, 0xCFF),),
    "malayalam": ((0xD00, 0xD7F),),
    "sinhala": ((0xD80, 0xDFF),),
    "thai": ((0xE01, 0xE5B),),
    "lao": ((0xE81, 0xEDF),),
    "tibetan": ((0xF00, 0xFDA),),
    "myanmar": ((0x1000, 0x109F),),
    "ethiopic": ((0x1200, 0x137C),),
    "khmer": ((0x1780, 0x17F9),),
    "mongolian": ((0x1800, 0x18AA),),
    "han": ((0x4E00, 0x9FFF), (0x3400, 0x34FF), (0x20000, 0x200FF), (0xF900, 0xFAD9)),
    "kana": ((0x3041, 0x30FF), (0xFF61, 0xFF9F)),
    "hangul": ((0xAC00, 0xD7A3),),
    "jamo": ((0x1100, 0x1112), (0x1161, 0x1175), (0x11A7, 0x11C2)),
    "forms": ((0xFF01, 0xFF5E), (0xFB00, 0xFB06), (0x2460, 0x24FF), (0x3200, 0x33FF)),
    "letters of mathematics": ((0x1D400, 0x1D7FF), (0x2100, 0x214F)),
    "old scripts": ((0x10000, 0x100FA), (0x10300, 0x1034A), (0x10900, 0x1091B)),
}
INDIC = ("devanagari", "bengali", "gurmukhi", "gujarati", "tamil", "telugu", "kannada", "malayalam")
MARKS = ((0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x65F), (0x1AB0, 0x1ACE), (0x20D0, 0x20F0))
BLANKS = "\t\v\f \x1c\x1d\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f"
BLANKS += "\u3000\ufeff\u2060▁"
DIGITS = ("0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "²³¹½¾Ⅷⅻ①⑩㉛零一二三")
EMOJI = "😀👩👨👧🧑🏳🏴❤☠✈⚕🔬🚀👋🤝🦰🫠♂♀1#*"
EMOJI_JOINERS = ("\u200d", "\u200d", "\ufe0f", "\ufe0f\u20e3", "\U0001f3fb", "\U0001f3ff", " ", "")
MARKUP = ("<b>", "</p>", "<unk", "s>", "<0x41>", "<0xE5>", "Ġ", "##", "</w>", "@@ ", "▁▁", "<n>")
MARKUP += (
    "</s>",
    "<unk>",
    "＜／ｓ＞",
    "&amp;",
    "\\n",
    "http://a.b/c?d=e&f=%20",
    "a_b__c",
    "[X]",
    "{}",
)
MARKUP += ("⁇", "<|", "|>", "__")
# The texts of added tokens, and texts that are nearly the same.
ADDED = ("<NUM>", " <left>", "  <left> ", "<both>", "  <both>\u3000", "<word>", " <word>", "<each>")
ADDED += (
    " <each> ",
    "Größe",
    "Gro\u0308ße",
    "ﬁnd Å",
    "find A\u030a",
    "<é>",
    "_",
    "\u200d",
    "\u0301",
)
CLITICS = ("'s", "'S", "'t", "'T", "'ſ", "'ll", "'LL", "'Re", "'VE", "'m", "'d", "’s", "'x", "''")


def read_lines(path):
    """Returns the lines of a text file that are not blank. The file may be compressed. Bytes that
    are not UTF-8 become U+FFFD."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(os.path.splitext(path)[1], open)
    with opener(path, "rb") as file:
        text = file.read(1 << 26).decode("utf-8", "replace")
    return [line for line in text.split("\n") if line.strip()]


def text_files(folder):
    """Returns the paths of the files with text below a folder in a fixed order."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in sorted(names)]
    skipped = re.compile(r"\.(json|bin|bpe|md|npz|safetensors)$|domain")
    return [path for path in found if not skipped.search(os.path.relpath(path, folder))]


def read_translations(folder):
    """Returns the messages of the .po files below a folder, in every language that they have."""
    messages = []
    for path in text_files(folder):
        if not path.endswith(".po"):
            continue
        with open(path, encoding="utf-8") as file:
            text = re.sub(r'"\n"', "", file.read())
        for message in re.findall(r'^msgstr(?:\[\d\])? "(.+)"$', text, re.MULTILINE):
            if "Content-Type:" not in message:
                messages += message.replace('\\"', '"').replace("\\\\", "\\").split("\\n")
    return [message for message in messages if message.strip()]


class Generator:
    """Draws lines. `words` are words of natural language."""

    def __init__(self, seed, words):
        self.draw = random.Random(seed)
        self.words = words

    def any_of(self, blocks):
        first, last = self.draw.choice(blocks)
        return chr(self.draw.randint(first, last))

    def letters(self, name, low=1, high=8):
        return "".join(self.any_of(SCRIPTS[name]) for _ in range(self.draw.randint(low, high)))

    def word(self):
        return self.draw.choice(self.words)

    def join(self, make, low=2, high=10, blank=" "):
        return blank.join(make() for _ in range(self.draw.randint(low, high)))

    def marked(self):
        """Returns a decomposed word, with further marks on some letters, also on blanks and on
        letters that have a compatibility form."""
        word = self.word() if self.draw.random() < 0.6 else self.letters("latin")
        word = unicodedata.normalize(self.draw.choice(("NFD", "NFD", "NFKD", "NFC")), word)
        result = ""
        for c in word:
            if self.draw.random() < 0.1:
                c = self.draw.choice("ﬁﬂ½ｶﾊ①\u3000\xa0éẾÅ한각가ⅳＡ")
            result += c
            if self.draw.random() < 0.25:
                result += "".join(self.any_of(MARKS[:1]) for _ in range(self.draw.randint(1, 3)))
            if self.draw.random() < 0.05:
                result += self.draw.choice("ﾞﾟ\u3099\u309a\u0323\u0327\u0345\u11a7\u11a8")
        return result

    def nfd(self):
        return self.join(self.marked)

    def digits(self):
        def number():
            kind = self.draw.choice(DIGITS)
            high = self.draw.choice((3, 8, 30))
            text = "".join(self.draw.choice(kind) for _ in range(self.draw.randint(1, high)))
            return text + self.draw.choice(("", "", ".", ",5", "%", "e-3", "km²", "th", "/2", "-"))

        return self.join(number, blank=self.draw.choice((" ", " ", "", "  ", ".")))

    def blanks(self):
        line = self.draw.choice(("", "", " ", "  ", "\t", "\u3000"))
        for _ in range(self.draw.randint(1, 8)):
            line += self.draw.choice((self.word(), self.word(), self.letters("latin"), "5", "."))
            count = self.draw.choice((1, 1, 1, 2, 3, 9))
            line += "".join(
                self.draw.choice(BLANKS) if self.draw.random() < 0.6 else " " for _ in range(count)
            )
        return line if self.draw.random() < 0.5 else line + self.word()

    def long_words(self):
        length = self.draw.choice((100, 300, 1000, 3000))
        kind = self.draw.choice(("repeat", "latin", "words", "han", "thai", "emoji", "digits"))
        if kind == "repeat":
            return (
                self.draw.choice(("a", "ab", "haha", "0", "=", "-", "é", "ﷺ", "▁", "😀")) * length
            )
        if kind == "words":
            return "".join(self.word() for _ in range(length // 8))
        if kind == "emoji":
            return "".join(self.draw.choice(EMOJI) for _ in range(length // 4))
        if kind == "digits":
            return "".join(self.draw.choice("0123456789") for _ in range(length))
        return self.letters(kind, length, length)

    def controls(self):
        def piece():
            controls = [c for c in [*range(32), *range(127, 160), 0xAD, *range(0x2060, 0x2070)]]
            count = self.draw.randint(1, 2)
            text = "".join(chr(self.draw.choice(controls)) for _ in range(count))
            text = text.replace("\n", "\r")
            return self.draw.choice((text + self.word(), self.word() + text, text, self.word()))

        return self.join(piece, blank=self.draw.choice((" ", "")))

    def unassigned(self):
        def piece():
            blocks = ((0x378, 0x379), (0x2FE0, 0x2FEF), (0xE000, 0xF8FF), (0xFDD0, 0xFDEF))
            blocks += ((0x1FAD0, 0x1FAFF), (0x31350, 0x323AF), (0x10D40, 0x10D8F), (0xFFF0, 0xFFFF))
            blocks += ((0x70000, 0x70FFF), (0xF0000, 0x10FFFF), (0x1CC00, 0x1CEB3), (0x890, 0x89F))
            return self.any_of(blocks) + self.draw.choice(("", "", self.word(), "1", "\u0301"))

        return self.join(piece, blank=self.draw.choice((" ", "")))

    def right_to_left(self):
        def piece():
            name = self.draw.choice(("arabic", "hebrew", "syriac"))
            controls = (
                "",
                "",
                "\u200f",
                "\u200e",
                "\u202b",
                "\u202c",
                "\u2067",
                "\u2069",
                "\u061c",
            )
            return self.draw.choice(controls) + self.letters(name) + self.draw.choice(controls)

        return self.join(piece)

    def indic(self):
        def piece():
            name = self.draw.choice(INDIC)
            first = SCRIPTS[name][0][0]
            text = ""
            for _ in range(self.draw.randint(1, 5)):
                text += chr(first + self.draw.randint(0x15, 0x39))
                virama = chr(first + 0x4D)
                text += self.draw.choice(
                    ("", chr(first + self.draw.randint(0x3C, 0x4C)), virama, virama + "\u200d")
                )
                text += self.draw.choice(
                    ("", "", "", chr(first + self.draw.randint(1, 3)), "\u200c")
                )
            return text + self.draw.choice(("", "", "।", "॥"))

        return self.join(piece)

    def eastern(self):
        names = ("han", "kana", "hangul", "jamo", "thai", "lao", "khmer", "myanmar", "tibetan")
        blank = self.draw.choice(("", "", " ", "\u3000", "、", "。", "・", "\u200b"))
        return self.join(lambda: self.letters(self.draw.choice(names)), blank=blank)

    def emoji(self):
        def piece():
            text = ""
            for _ in range(self.draw.randint(1, 5)):
                text += self.draw.choice(EMOJI) + self.draw.choice(EMOJI_JOINERS)
            if self.draw.random() < 0.2:
                text += "".join(chr(self.draw.randint(0x1F1E6, 0x1F1FF)) for _ in range(3))
            if self.draw.random() < 0.1:
                text += "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
            return text + self.draw.choice(("", "", self.word()))

        return self.join(piece)

    def mixed(self):
        def piece():
            name = self.draw.choice(sorted(SCRIPTS))
            text = self.letters(name, 1, 5)
            return text + self.draw.choice(
                ("", "", self.any_of(MARKS), "'", "-", ".", "5", "\u200d")
            )

        return self.join(piece, blank=self.draw.choice((" ", " ", "", "  ")))

    def everything(self):
        text = "".join(chr(self.draw.randint(0, 0xFFFF)) for _ in range(self.draw.randint(3, 30)))
        text = re.sub("[\ud800-\udfff\n]", self.word().replace("\\", ""), text)
        return text + chr(self.draw.randint(0x10000, 0x10FFFF))

    def markup(self):
        def piece():
            return self.draw.choice((self.draw.choice(MARKUP), self.word(), self.letters("forms")))

        return self.join(piece, blank=self.draw.choice((" ", "")))

    def added(self):
        def piece():
            return self.draw.choice((self.draw.choice(ADDED), self.draw.choice(ADDED), self.word()))

        return self.join(piece, blank=self.draw.choice((" ", "", "")))

    def clitics(self):
        def piece():
            word = self.draw.choice(
                (self.word(), self.letters("latin", 1, 3), "don", "I", "1990", "")
            )
            word = self.draw.choice(
                (word, word, word.upper(), word.title(), "$" + word, "." + word)
            )
            return word + self.draw.choice(CLITICS)

        return self.join(piece, blank=self.draw.choice((" ", " ", "", "  ", "\r", " \r", "\t")))


# What generated lines are made of. Every kind has the same share.
GENERATED = (
    "nfd digits blanks long_words controls unassigned right_to_left indic eastern emoji mixed "
    "everything markup clitics added"
).split()


def make_lines(count, seed, texts):
    """Returns `count` lines. `texts` has lists of natural lines, and each list gives the same
    number of lines. Half of the lines are generated. No line holds a newline, ends in a carriage
    return, begins with a byte order mark or is empty."""
    draw = random.Random(seed)
    words = sorted({word for lines in texts for line in lines[:4000] for word in line.split()})
    generator = Generator(seed + 1, [word for word in words if len(word) < 30])
    lines = []
    natural = count // 2
    for index, text in enumerate(texts):
        share = natural // len(texts) + (index < natural % len(texts))
        lines += [draw.choice(text) for _ in range(share)]
    while len(lines) < count:
        line = getattr(generator, GENERATED[len(lines) % len(GENERATED)])()
        lines.append(line)
    draw.shuffle(lines)
    return [tidy(line) for line in lines]


def tidy(line):
    """Returns the line without what the program's reader changes before a tokenizer sees it."""
    line = line.replace("\n", " ").rstrip("\r").lstrip("\ufeff")
    return line or "."
