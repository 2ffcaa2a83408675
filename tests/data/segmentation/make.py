#!/usr/bin/env python3
"""Makes the models and the lines of this folder; needs SentencePiece 0.2.2 or later, and build/bin/segment_lines built with an older one.

Usage: make.py ENGLISH.txt GERMAN.txt

NAME.spm are small models; NAME.lines are lines that SentencePiece 0.2.1 and 0.2.3 segment differently, for their best segmentations have
the same score, and NAME.ids what 0.2.3 makes of them. For opus-shape the model is that of ../opus-shape/shared.
"""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys

import sentencepiece

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
MODELS = {"en": {}, "de": {}, "bytes": {"byte_fallback": True}, "symbols": {"user_defined_symbols": ["<sep>", "77", "oo", "ß"]}}
KEPT = 40


def load_lines():
    loader = importlib.machinery.SourceFileLoader("compare_sentencepiece", os.path.join(ROOT, "scripts", "compare_sentencepiece"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare_sentencepiece", loader))
    loader.exec_module(module)
    return module.make_lines


def main():
    texts = {name: path for name, path in zip(("en", "de"), sys.argv[1:])}
    for name, options in MODELS.items():
        sentencepiece.SentencePieceTrainer.train(input=texts.get(name, texts["en"]), model_prefix="/tmp/segmentation", vocab_size=600, hard_vocab_limit=False,
                                                 normalization_rule_name="identity", minloglevel=2, **options)
        os.replace("/tmp/segmentation.model", os.path.join(HERE, name + ".spm"))
    lines = [line for line in load_lines()(30000, open(texts["en"], encoding="utf-8").read(), 7) if len(line) < 80 and line.isprintable()]
    for name in [*MODELS, "opus-shape"]:
        path = os.path.join(HERE, name + ".spm") if name in MODELS else os.path.join(HERE, "..", "opus-shape", "shared", "source.spm")
        old = subprocess.run([os.path.join(ROOT, "build", "bin", "segment_lines"), path, "--library"], input="".join(l + "\n" for l in lines).encode(),
                             stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
        model = sentencepiece.SentencePieceProcessor(model_file=path)
        differ = [(line, ids) for line, ids, before in ((l, " ".join(map(str, model.encode(l))), o) for l, o in zip(lines, old)) if ids != before][:KEPT]
        for kind, column in (("lines", 0), ("ids", 1)):
            with open(os.path.join(HERE, f"{name}.{kind}"), "w", encoding="utf-8", newline="\n") as file:
                file.writelines(row[column] + "\n" for row in differ)
        print(name, len(differ))


if __name__ == "__main__":
    main()
