#!/usr/bin/env python3
"""Converts and runs checkpoints as people have them: with added tokens, with matrices and positions
of their own, and with settings in one file or the other. The references come from transformers
(tests/data/variants/make.py)."""

import json
import os

import checkpoint_variants
from checkpoint_fixture import convert, read
from program import BEAM4, Case, DATA, GREEDY, REFERENCE_LIMITS, SHARED, main, require

VARIANTS = os.path.join(os.path.dirname(DATA), "variants")
IDS = ["--input-format", "ids", "--output-format", "ids"]


def setUpModule():
    require()


def lines_of(*path):
    return read(*path).decode().split("\n")[:-1]


class CheckpointsTest(Case):
    def convert(self, checkpoint, name="model"):
        """Returns the path of the converted model of a Checkpoint."""
        model = self.path(name + ".bin")
        convert.convert(checkpoint.write(self.path(name)), model)
        return model

    def run_lines(self, options, text, model=SHARED):
        return self.ok(*options, input=text, model=model).lines

    def sources(self, count):
        return "".join(
            line + "\n" for line in lines_of(DATA, "shared", "source.ids")[:count]
        ).encode()

    # Each case has a line and the ids that transformers reads from it. The line is translated as
    # those ids are.
    def test_added_tokens(self):
        model = self.convert(checkpoint_variants.added_tokens())
        cases = json.loads(read(VARIANTS, "tokens.json"))["encode"]
        text = "".join(line + "\n" for line, _ in cases).encode()
        ids = "".join(" ".join(map(str, numbers)) + "\n" for _, numbers in cases).encode()
        from_text = self.run_lines(
            ["-b", "1", "--scores", "--output-format", "ids"], text, model=model
        )
        from_ids = self.run_lines(["-b", "1", "--scores"] + IDS, ids, model=model)
        self.assertEqual(len(from_ids), len(cases))
        # The score distinguishes one source from another.
        self.assertGreater(len(set(from_ids)), len(cases) - 8)
        for (line, _), mine, reference in zip(cases, from_text, from_ids):
            self.assertEqual(mine, reference, line)

    def test_added_tokens_of_older_transformers(self):
        """The checkpoint has only added_tokens.json, as transformers 4 wrote it."""
        checkpoint = checkpoint_variants.added_tokens()
        reference = self.run_lines(
            GREEDY + ["--scores"],
            b"a <NUM> of New York <NUM>x <turn> b\n",
            model=self.convert(checkpoint),
        )
        added = checkpoint.json["tokenizer_config.json"].pop("added_tokens_decoder")
        del checkpoint.json["tokenizer_config.json"]["extra_special_tokens"]
        checkpoint.json["added_tokens.json"] = {
            token["content"]: int(number) for number, token in added.items() if int(number) >= 2571
        }
        checkpoint.json["special_tokens_map.json"] = {"additional_special_tokens": ["<turn>"]}
        again = self.convert(checkpoint, "older")
        self.assertEqual(
            self.run_lines(
                GREEDY + ["--scores"], b"a <NUM> of New York <NUM>x <turn> b\n", model=again
            ),
            reference,
        )
        del checkpoint.json["added_tokens.json"]
        self.assertNotEqual(
            self.run_lines(
                GREEDY + ["--scores"],
                b"a <NUM> of New York <NUM>x <turn> b\n",
                model=self.convert(checkpoint, "none"),
            ),
            reference,
        )

    # A line is text, even where it looks like a special token: </s> or an added one.
    def test_special_tokens_are_text(self):
        added, plain = (
            self.convert(checkpoint_variants.added_tokens()),
            checkpoint_variants.added_tokens(),
        )
        del (
            plain.json["tokenizer_config.json"]["added_tokens_decoder"],
            plain.json["tokenizer_config.json"]["extra_special_tokens"],
        )
        text = "The house </s> is <turn> big. <unk> <pad>\na >>nds<< b\n".encode()
        as_text = self.run_lines(GREEDY + ["--scores"], text, model=self.convert(plain, "plain"))
        self.assertEqual(self.run_lines(GREEDY + ["--scores"], text, model=added), as_text)
        # At the start of a line this text is the added language token.
        ids = [
            self.run_lines(GREEDY + ["--scores"], line, model=added)
            for line in (b">>nds<< Tom is here.\n", b">>xyz<< Tom is here.\n")
        ]
        self.assertNotEqual(*ids)

    def test_an_output_matrix_of_its_own(self):
        self.compare_with_reference(checkpoint_variants.own_matrices(), "own_matrices")

    def test_stored_positions(self):
        model = self.compare_with_reference(
            checkpoint_variants.stored_positions(), "stored_positions"
        )
        for option in ("--max-length", "--max-source-length"):
            self.assertEqual(
                self.run_lines([option, 64], b"a\n", model=model),
                self.run_lines([], b"a\n", model=model),
            )
            self.usage_error(option, 65, names=[option + ": 65, expected at most 64"], model=model)

    def compare_with_reference(self, checkpoint, name):
        model, reference = (
            self.convert(checkpoint),
            [line.split(" ||| ") for line in lines_of(VARIANTS, name + ".ids")],
        )
        sources = "".join(
            " ".join(line.split()[-60:]) + "\n"
            for line in lines_of(DATA, "shared", "source.ids")[: len(reference)]
        ).encode()
        for column, rules in enumerate((GREEDY, BEAM4)):
            found = self.run_lines(
                rules + ["--max-length", 59, "--max-length-factor", 50] + IDS, sources, model=model
            )
            self.assertEqual(found, [row[column] for row in reference])
        self.assertGreater(len({tuple(row) for row in reference}), len(reference) // 2)
        return model

    # The decoder may choose a piece that only the SentencePiece model of the source has.
    def test_no_marks_are_left_in_the_text(self):
        model, marks = self.convert(checkpoint_variants.two_languages()), 0
        text = read(DATA, "..", "opus-shape", "input.txt")
        for rules in (GREEDY, BEAM4):
            pieces = self.run_lines(
                rules + REFERENCE_LIMITS + ["--output-format", "pieces"], text, model=model
            )
            found = self.run_lines(rules + REFERENCE_LIMITS, text, model=model)
            source_only = set(
                checkpoint_variants.pieces_of(read(DATA, "..", "segmentation", "en.spm"))
            ) - set(checkpoint_variants.pieces_of(read(DATA, "..", "segmentation", "de.spm")))
            for line, row in zip(found, pieces):
                marks += any(
                    "\u2581" in piece for piece in source_only.intersection(row.split(" "))
                )
                self.assertNotIn("\u2581", line)
                if "<unk>" not in row:
                    self.assertEqual(line, row.replace(" ", "").replace("\u2581", " ").strip())
        # Enough lines have the case at all.
        self.assertGreater(marks, 10)

    def test_a_generation_config_hides_the_config(self):
        checkpoint = checkpoint_variants.Checkpoint()
        checkpoint.json["generation_config.json"] = {}
        with self.assertRaisesRegex(
            convert.InputError,
            "generation_config.json: decoder_start_token_id: expected an id.*config.json's, 2570, "
            "does not count",
        ):
            self.convert(checkpoint, "empty")
        # The file names only a start token. Beams, end tokens and limits of config.json do not
        # count, so only the limit ends a line.
        checkpoint.json["generation_config.json"] = {"decoder_start_token_id": 2570}
        checkpoint.json["config.json"].update(num_beams=2, max_length=7, eos_token_id=0)
        model = self.convert(checkpoint)
        for rules in (GREEDY, BEAM4):
            found = self.run_lines(
                rules + ["--max-length", 12, "--max-length-factor", 50] + IDS,
                self.sources(20),
                model=model,
            )
            self.assertEqual([len(line.split()) for line in found], [12] * 20)
            # The end token is a token like any other here.
            self.assertTrue(any("0" in line.split() for line in found))
        _, report = self.report("--max-length-factor", 50, *IDS, input=self.sources(1), model=model)
        self.assertEqual([report["options"][key] for key in ("beam_size", "max_length")], [4, 512])
        # Without that file, config.json counts.
        del checkpoint.json["generation_config.json"]
        _, report = self.report(
            *IDS, input=self.sources(1), model=self.convert(checkpoint, "alone")
        )
        self.assertEqual([report["options"][key] for key in ("beam_size", "max_length")], [2, 6])

    def test_a_checkpoint_that_samples_by_default(self):
        checkpoint = checkpoint_variants.Checkpoint()
        checkpoint.json["generation_config.json"].update(do_sample=True, temperature=0.7, top_k=20)
        model = self.convert(checkpoint)
        result = self.ok(*IDS, input=self.sources(3), model=model)
        self.assertEqual(
            len([line for line in result.error_lines if "do_sample" in line]), 1, result.errors
        )
        self.assertEqual(self.ok(*IDS, "--quiet", input=self.sources(3), model=model).errors, "")
        self.assertEqual(result.lines, self.run_lines(IDS, self.sources(3)))

    # Other versions of SentencePiece segment these lines differently (tests/data/segmentation).
    def test_lines_with_ties(self):
        folder = os.path.join(os.path.dirname(DATA), "segmentation")
        vocabulary = json.loads(read(DATA, "shared", "vocab.json"))
        pieces = checkpoint_variants.all_pieces_of(read(DATA, "shared", "source.spm"))
        ids, lines = lines_of(folder, "opus-shape.ids"), lines_of(folder, "opus-shape.lines")
        # Text that is unknown to the source's model may be a piece of the vocabulary, so these
        # lines are left out.
        kept = [i for i, row in enumerate(ids) if "1" not in row.split()]
        self.assertGreater(len(kept), 10)
        sources = "".join(
            " ".join(str(vocabulary.get(pieces[int(n)], 1)) for n in ids[i].split()) + " 0\n"
            for i in kept
        )
        rules = GREEDY + ["--scores", "--output-format", "ids"]
        from_ids = self.run_lines(rules + ["--input-format", "ids"], sources.encode())
        self.assertEqual(
            self.run_lines(rules, "".join(lines[i] + "\n" for i in kept).encode()), from_ids
        )


if __name__ == "__main__":
    main()
