#!/usr/bin/env python3
"""Tests every family that the converter knows against transformers' generate(). Each family has a
folder in tests/data/families, with a tiny trained checkpoint, source ids and outputs. The name of
an output file gives its settings. A setting that xlate does not have yet has no test."""

import json
import os
import re
import shutil
import unittest

from checkpoint_fixture import convert, read
from program import DATA, Case, main, require

FAMILIES = os.path.join(os.path.dirname(DATA), "families")
REFERENCE = os.environ.get("XLATE_REFERENCE_DIR") or os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(DATA))), "..", "shared"
)
# The generation config of a checkpoint asks for these rules, but all references here were made
# without them.
SWITCHED_OFF = ("min_length", "no_repeat_ngram_size")
# Two correct programs may differ where scores are closer than this.
NEAR = 1e-4


def setUpModule():
    require()


def options_of(setting):
    """Returns the command line options that the parts of a reference's name stand for, or None
    where xlate does not have such a rule yet."""
    options = {"--max-length": "60", "--max-length-factor": "50"}
    for part in re.split(r"\.(?!\d)", setting):
        if part == "greedy":
            options["-b"] = "1"
        elif re.fullmatch(r"beam\d+", part):
            options.update({"-b": part[4:], "--length-penalty": "1", "--early-stopping": "true"})
        elif part == "limit12":
            options["--max-length"] = "12"
        elif re.fullmatch(r"lp[\d.]+", part):
            options["--length-penalty"] = part[2:]
        elif part.startswith("stop-"):
            options["--early-stopping"] = part[5:]
        elif part.startswith("nbest"):
            options["--n-best"] = part[5:]
        else:
            return None
    return [word for option in options.items() for word in option]


def copy_of(folder, checkpoint):
    """Copies the checkpoint of a family without the rules that its references were made without."""
    os.mkdir(checkpoint)
    for name in os.listdir(folder):
        if name.endswith((".json", ".safetensors")):
            shutil.copy(os.path.join(folder, name), checkpoint)
    path = os.path.join(checkpoint, "generation_config.json")
    os.chmod(path, 0o644)
    generation = {
        key: value for key, value in json.loads(read(path)).items() if key not in SWITCHED_OFF
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(generation, file)
    return checkpoint


class Families(Case):
    def model(self, folder):
        model = self.path("model.bin")
        convert.convert(copy_of(folder, os.path.join(self.folder, "checkpoint")), model)
        return model

    def compare(self, folder, setting, options, model):
        rows = [
            line.split(" ||| ") for line in read(folder, setting + ".txt").decode().split("\n")[:-1]
        ]
        n_best = "--n-best" in options
        found = self.ok(
            *options,
            "--scores",
            "--input-format",
            "ids",
            "--output-format",
            "ids",
            input=read(folder, "source.ids"),
            model=model,
        ).lines
        self.assertEqual(len(found), len(rows))
        wrong = []
        for (number, ids, _, score), line in zip(rows, found):
            fields = line.split(" ||| ")
            mine, my_score = (fields[1], fields[3]) if n_best else (fields[1], fields[0])
            if n_best:
                self.assertEqual(fields[0], number)
            if mine != ids:
                wrong.append((number, ids, score, mine, my_score))
            elif setting != "greedy" and not setting.startswith("greedy."):
                self.assertAlmostEqual(
                    float(my_score), float(score), delta=NEAR, msg=(setting, number)
                )
        self.assertLessEqual(len(wrong), 1, wrong[:3])
        # The difference must be a near-tie.
        for _, _, score, _, my_score in wrong:
            self.assertAlmostEqual(float(my_score), float(score), delta=NEAR, msg=wrong)

    def compare_all(self, folder):
        model = self.model(folder)
        settings = [name[:-4] for name in sorted(os.listdir(folder)) if name.endswith(".txt")]
        known = [(setting, options_of(setting)) for setting in settings if options_of(setting)]
        self.assertGreaterEqual(len(known), 9)
        for setting, options in known:
            with self.subTest(setting):
                self.compare(folder, setting, options, model)
        return model

    def test_bart(self):
        model = self.compare_all(os.path.join(FAMILIES, "bart"))
        for formats in ([], ["--input-format", "ids"], ["--output-format", "ids"]):
            self.usage_error(*formats, names="holds no tokenizer for text", model=model)
        self.ok(
            "--input-format",
            "pieces",
            "--output-format",
            "pieces",
            input="<s> The </s>\n",
            model=model,
        )

    @unittest.skipUnless(
        os.path.isdir(os.path.join(REFERENCE, "models", "families", "bart")), "no reference folder"
    )
    def test_bart_of_the_reference_folder(self):
        self.compare_all(os.path.join(REFERENCE, "models", "families", "bart"))


if __name__ == "__main__":
    main()
