#!/usr/bin/env python3
"""Writes what this folder holds with transformers 5.17 and PyTorch (float32), for the checkpoints of tests/checkpoint_variants.py.

tokens.json: lines and their source ids, ids and their text, of added_tokens. Lines with special tokens in them are not here: xlate reads
those as text. NAME.ids: what generate() makes of the first lines of ../opus-shape/input.txt greedily and at beam 4, at most 60 ids with
the start: `greedy ||| beam 4`, without start and end.
"""
import json
import os
import sys
import tempfile

import torch
from transformers import MarianMTModel, MarianTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", ".."))
import checkpoint_variants

LINES = """a <NUM> of <NUM> items
<NUM>
<NUM> <NUM>
<NUM><NUM>x<NUM>
The house<NUM>s are big.
<num> and ＜NUM＞ are text.
in New York, New Yorker, New  York
I see New York
a <L> b
a<L>b \u3000<L> c
a <R>  b
a <W> b
a<W>b <W>. <W>
<W>
 <W><W> <NUM><W> x
x<W><NUM>y <W>\t<W>
<L><R> <R><L> <W> <L>
>>fra<< a <NUM> b
>>fra<<<NUM> b
>>f<NUM>ra<< b
>> a <NUM> b<< c
>>a<b<< Tom is here.
>><< Tom is here.
>>x<< y >>z<< w
<NUM>.
a▁the house <NUM> the
<NUMBER> <NUM
abcd ab bcd abcbcd
a\u0085<L>b\u00a0<R>\u2003c
  <NUM>   \u3000
the other way""".split("\n")
IDS = [[2571], [5, 2571, 40, 2571, 2571, 60], [2571, 2576, 100], [40, 50, 2577, 60], [2577, 2577, 2571], [70, 2572, 71], [2574, 2573, 300, 2575],
       [7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [2570 - k for k in range(1, 200)]]


def write(name, text):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as file:
        file.write(text)


def tokens(directory):
    tokenizer = MarianTokenizer.from_pretrained(directory)
    write("tokens.json", json.dumps({"encode": [[line, tokenizer(line)["input_ids"]] for line in LINES],
                                     "decode": [[ids, tokenizer.decode(ids, skip_special_tokens=True)] for ids in IDS]}, ensure_ascii=False, indent=0) + "\n")


def translations(directory, name):
    model = MarianMTModel.from_pretrained(directory, dtype=torch.float32).eval()
    with open(os.path.join(HERE, "..", "opus-shape", "shared", "source.ids"), encoding="utf-8") as file:
        sources = [[int(word) for word in line.split()] for line in file][:40]
    rows = []
    for source in sources:
        row = []
        for beams in (1, 4):
            ids = model.generate(torch.tensor([source[-60:]]), num_beams=beams, max_length=60, early_stopping=beams > 1, length_penalty=1.0)[0].tolist()[1:]
            row.append(" ".join(str(i) for i in ids[: ids.index(0) if 0 in ids else len(ids)]))
        rows.append(" ||| ".join(row) + "\n")
    write(name + ".ids", "".join(rows))


def main():
    with tempfile.TemporaryDirectory() as folder:
        made = {name: variant().write(os.path.join(folder, name)) for name, variant in checkpoint_variants.VARIANTS.items()}
        tokens(made["added_tokens"])
        for name in ("own_matrices", "stored_positions"):
            translations(made[name], name)


if __name__ == "__main__":
    main()
