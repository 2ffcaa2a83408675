"""Tests that no number in a model file makes a run take memory that the file's bytes do not fill.
Each number of the header is replaced by large ones, and the run has little address space."""

import os
import random
import resource
import unittest

import program
from model_bytes import ModelFile
from program import Case, xlate

setUpModule = program.require
LONG = bool(os.environ.get("XLATE_LONG"))
SEED = int(os.environ.get("XLATE_TEST_SEED", 25))
SEEDS = os.path.join(program.ROOT, "tests", "data", "fuzz", "model_file")
# Small models with an encoder, without one, and with other tokenizers.
MODELS = ("float32", "decoder", "sentencepiece_bpe", "pipeline_unigram_bytes")
SIZES = (1 << 16, 1 << 20, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 64) - 1)
SPACE = 1200000 * 1024
MOST_RESIDENT = 200 << 20


def numbers(value, path=()):
    """Returns the paths of the whole numbers in a header."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [path]
    entries = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else entries
    return [found for key, entry in entries for found in numbers(entry, (*path, key))]


def set_number(header, path, number):
    for key in path[:-1]:
        header = header[key]
    header[path[-1]] = number


@unittest.skipIf(program.is_sanitized(), "the sanitizers need address space")
class Sizes(Case):
    def outcome(self, model, languages):
        return xlate(
            *("-q", "-b", "2", "--threads", "1", *languages),
            input="a b ab\nthe a\n",
            model=model,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE)),
        )

    def test_a_large_number_is_refused_or_costs_nothing(self):
        chance = random.Random(SEED)
        for name in MODELS:
            seed = os.path.join(SEEDS, name)
            languages = ["--target-lang", "de"] if name.startswith("sentencepiece") else []
            self.check(self.outcome(seed, languages), 0)
            paths = numbers(ModelFile(seed).header)
            cases = [(path, size) for path in paths for size in SIZES]
            for path, size in cases if LONG else chance.sample(cases, 60):
                with self.subTest(model=name, path=path, size=size):
                    model = ModelFile(seed)
                    set_number(model.header, path, size)
                    broken = self.path("model.bin", model.bytes())
                    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                    result = self.outcome(broken, languages)
                    self.assertIn(result.code, (0, 1, 2), result.story())
                    if result.code:
                        self.assertEqual(len(result.error_lines), 1, result.story())
                        self.assertNotIn("bad_alloc", result.errors)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                    if after > before:
                        self.assertLess(after * 1024, MOST_RESIDENT, result.story())


if __name__ == "__main__":
    program.main()
