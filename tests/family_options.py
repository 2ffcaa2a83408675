"""Knows what the names of the outputs in tests/data/families mean: the options of xlate that each
setting stands for, and the file with its sources."""

import os
import re

# These are the codes of English, of German, and of a third language that was made up from English.
LANGUAGES = {
    "mbart50": ("en_XX", "de_DE", "nl_XX"),
    "m2m100": ("en", "de", "nl"),
    "nllb": ("eng_Latn", "deu_Latn", "epo_Latn"),
    "random-mbart": ("en_XX", "de_DE", "nl_XX"),
    "random-m2m_100": ("en", "de", "nl"),
}
# These models are a decoder alone. Those of the first four names are only in the reference folder.
DECODERS = (
    "gpt2",
    "llama",
    "qwen3",
    "opt",
    "random-gpt2",
    "random-opt",
    "random-llama",
    "random-llama-linear",
    "random-llama-yarn",
    "random-mistral",
    "random-qwen2",
    "random-qwen3",
    "random-gemma2",
    "random-gemma3_text",
    "random-phi3",
    "random-gpt_neox",
    "random-starcoder2",
    "random-cohere",
    "random-cohere2",
)
# The generation config of a checkpoint may ask for these rules. Only "defaults" was made with them.
RULES = {
    "min_length": ("--min-length", "0"),
    "no_repeat_ngram_size": ("--no-repeat-ngram", "0"),
    "repetition_penalty": ("--repetition-penalty", "1"),
}
# Each pattern matches one part of a setting's name, and gives the options that the part stands for.
# A group of the pattern takes the place of {}.
PARTS = {
    r"greedy": {"-b": "1", "--length-penalty": "1"},
    r"beam(\d+)": {"-b": "{}", "--length-penalty": "1", "--early-stopping": "true"},
    r"limit(\d+)": {"--max-length": "{}"},
    r"lp([\d.]+)": {"--length-penalty": "{}"},
    r"stop-(\w+)": {"--early-stopping": "{}"},
    r"nbest(\d+)": {"--n-best": "{}"},
    r"min(\d+)": {"--min-length": "{}"},
    r"ngram(\d+)": {"--no-repeat-ngram": "{}"},
    r"rep([\d.]+)": {"--repetition-penalty": "{}"},
    r"to-third": {},
    r"from-de": {},
    r"to-en": {},
    r"prefix\d": {},
    r"defaults": {},
}


def parts_of(setting):
    """Returns the parts of a setting's name. A dot before a digit belongs to a number."""
    return re.split(r"\.(?!\d)", setting)


def is_known(setting):
    # prefix2.txt has the text of prefix2.ids and is no output.
    if re.fullmatch(r"prefix\d", setting):
        return False
    return all(any(re.fullmatch(part, name) for part in PARTS) for name in parts_of(setting))


def source_name(setting):
    """Returns the name of the file with the sources of a setting."""
    return "source.de.ids" if "from-de" in parts_of(setting) else "source.ids"


def search_options(setting, has_option=lambda option: True):
    """Returns the options of search that a known setting stands for, by name. has_option says
    whether xlate has an option."""
    options = {"--max-length": "60", "--max-length-factor": "50"}
    if setting != "defaults":
        options.update(rule for rule in RULES.values() if has_option(rule[0]))
    for name in parts_of(setting):
        for part, values in PARTS.items():
            if match := re.fullmatch(part, name):
                options.update(
                    (option, value.format(*match.groups())) for option, value in values.items()
                )
    return options


def language_options(family, setting):
    """Returns the options of languages that a setting of a multilingual model stands for."""
    if family not in LANGUAGES:
        return {}
    english, german, third = LANGUAGES[family]
    parts = parts_of(setting)
    return {
        "--source-lang": german if "from-de" in parts else english,
        "--target-lang": english if "to-en" in parts else third if "to-third" in parts else german,
    }


def run_options(family, folder, setting, has_option=lambda option: True):
    """Returns all options that the outputs of a setting in a family's folder were made with."""
    options = {**search_options(setting, has_option), **language_options(family, setting)}
    if family in DECODERS:
        limited = any(re.fullmatch(r"limit\d+", part) for part in parts_of(setting))
        limit = options.pop("--max-length")
        del options["--max-length-factor"]
        options["--max-new-tokens"] = limit if limited else "40"
    for part in parts_of(setting):
        if re.fullmatch(r"prefix\d", part):
            options["--target-prefix"] = os.path.join(folder, part + ".ids")
    # generate() is greedy where a checkpoint names no number of beams.
    if setting == "defaults":
        with open(os.path.join(folder, "generation_config.json"), encoding="utf-8") as file:
            if "num_beams" not in file.read():
                options["-b"] = "1"
    return options
