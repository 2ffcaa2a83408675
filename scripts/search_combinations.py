"""Has the plain parts of scripts/compare_search, which need no PyTorch: the combinations of rules,
the options of xlate and the settings of transformers' generate for them, and the comparison of
their hypotheses."""

import dataclasses

# A hypothesis that is not the expected one is a near tie if transformers' own scores of the two are
# closer than this. Sums of many log-probabilities in float32 differ by less between two programs.
TIE = 0.0005
# The scores of equal hypotheses may differ by this much.
SCORE_APART = 0.001
# The limits on generated tokens of models with an encoder and without one. The factor lifts the
# limit that depends on the source.
LIMIT, LIMIT_ALONE, FACTOR = 60, 40, 50
EQUAL, NEAR_TIE, DIFFERENT = "equal", "near tie", "different"


@dataclasses.dataclass(frozen=True)
class Combination:
    """Is a set of rules that hold together. The defaults are those of generate, and switch each
    rule off."""

    beams: int = 1
    length_penalty: float = 1
    early_stopping: str = "false"
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1
    n_best: int = 1
    # A limit below that of the family.
    limit: int | None = None
    # The two most frequent tokens of the greedy outputs are never chosen.
    suppress: bool = False
    # Each line begins with the first tokens of the next line's greedy output.
    prefix: bool = False
    # These are no options of xlate, which reads them from the checkpoint's generation config. The
    # forced first token is the language of a multilingual model, the checkpoint's own, or else the
    # most frequent token.
    forced_first: bool = False
    renormalize: bool = False

    def suits(self, has_encoder):
        """Says whether xlate has the rules for a model, with or without an encoder."""
        return has_encoder or not (self.prefix or self.forced_first)

    def limit_of(self, has_encoder):
        limit = LIMIT if has_encoder else LIMIT_ALONE
        return min(limit, self.limit or limit)

    def xlate_options(self, has_encoder, suppressed=(), prefixes=None):
        """Returns the options of xlate. `suppressed` has ids, and `prefixes` is a file."""
        limit = str(self.limit_of(has_encoder))
        limits = ["--max-length", limit, "--max-length-factor", str(FACTOR)]
        options = limits if has_encoder else ["--max-new-tokens", limit]
        options += ["-b", str(self.beams), "--length-penalty", str(self.length_penalty)]
        options += ["--early-stopping", self.early_stopping]
        options += ["--min-length", str(self.min_new_tokens)]
        options += ["--no-repeat-ngram", str(self.no_repeat_ngram)]
        options += ["--repetition-penalty", str(self.repetition_penalty)]
        options += ["--n-best", str(self.n_best)] if self.n_best > 1 else ["--scores"]
        for id in suppressed if self.suppress else ():
            options += ["--suppress", str(id)]
        return [*options, "--target-prefix", prefixes] if self.prefix else options

    def generate_settings(self, has_encoder, suppressed=()):
        """Returns the values of a GenerationConfig. The first suppressed id is a bad word, because
        transformers has another rule for those."""
        stops = {"true": True, "false": False, "never": "never"}
        settings = {
            "num_beams": self.beams,
            "num_return_sequences": self.n_best,
            "min_new_tokens": self.min_new_tokens or None,
            "no_repeat_ngram_size": self.no_repeat_ngram,
            "repetition_penalty": float(self.repetition_penalty),
            "renormalize_logits": self.renormalize,
            "max_new_tokens": self.limit_of(has_encoder),
        }
        if self.beams > 1:
            settings["length_penalty"] = float(self.length_penalty)
            settings["early_stopping"] = stops[self.early_stopping]
        if self.suppress and suppressed:
            settings["bad_words_ids"] = [[suppressed[0]]]
            settings["suppress_tokens"] = list(suppressed[1:])
        return settings


COMBINATIONS = {
    "greedy": Combination(),
    "greedy, penalty 1.2, 2-grams, minimum 10": Combination(
        repetition_penalty=1.2, no_repeat_ngram=2, min_new_tokens=10
    ),
    "greedy, prefix, penalty 1.3, minimum 5": Combination(
        prefix=True, repetition_penalty=1.3, min_new_tokens=5
    ),
    "beam 4": Combination(beams=4),
    "beam 4, minimum 8, length penalty 0": Combination(beams=4, min_new_tokens=8, length_penalty=0),
    "beam 4, penalty 1.3": Combination(beams=4, repetition_penalty=1.3),
    "beam 3, 3-grams, penalty 1.2": Combination(beams=3, no_repeat_ngram=3, repetition_penalty=1.2),
    "beam 5, stops at true": Combination(beams=5, early_stopping="true"),
    "beam 4, never stops early, length penalty 2": Combination(
        beams=4, early_stopping="never", length_penalty=2
    ),
    "beam 4, never stops early, length penalty −0.5": Combination(
        beams=4, early_stopping="never", length_penalty=-0.5
    ),
    "beam 4, prefix, minimum 6, 2-grams": Combination(
        beams=4, prefix=True, min_new_tokens=6, no_repeat_ngram=2
    ),
    "beam 4, two tokens suppressed": Combination(beams=4, suppress=True),
    "beam 3, suppressed, prefix, penalty 0.8, stops at true": Combination(
        beams=3, suppress=True, prefix=True, repetition_penalty=0.8, early_stopping="true"
    ),
    "beam 4, forced first token, prefix, never stops early": Combination(
        beams=4, forced_first=True, prefix=True, early_stopping="never"
    ),
    "beam 4, forced first token, minimum 4, 1-grams": Combination(
        beams=4, forced_first=True, min_new_tokens=4, no_repeat_ngram=1
    ),
    "beam 4, renormalized, penalty 1.2, suppressed": Combination(
        beams=4, renormalize=True, repetition_penalty=1.2, suppress=True
    ),
    "4 best of beam 4, length penalty 0.6": Combination(beams=4, n_best=4, length_penalty=0.6),
    "6 best of beam 6, limit 12, minimum 5, 3-grams": Combination(
        beams=6, n_best=6, limit=12, min_new_tokens=5, no_repeat_ngram=3, early_stopping="true"
    ),
}


def read_rows(rows, n_best):
    """Returns the hypotheses of each line that xlate has printed, best first, as (ids, score)."""
    if n_best == 1:
        found = [row.split(" ||| ") for row in rows]
        return [[([int(id) for id in ids.split()], float(score))] for score, ids in found]
    lines = []
    for row in rows:
        number, ids, _, score = row.split(" ||| ")
        while len(lines) <= int(number):
            lines.append([])
        lines[int(number)].append(([int(id) for id in ids.split()], float(score)))
    return lines


def compare_line(expected, found, score_of):
    """Compares the hypotheses of a line, which are lists of (ids, score), best first. score_of(ids)
    returns the score that transformers gives a hypothesis. Returns EQUAL, NEAR_TIE or DIFFERENT,
    and a story of the first pair of hypotheses that is to blame."""
    if len(expected) != len(found):
        return DIFFERENT, "%d hypotheses, expected %d" % (len(found), len(expected))
    kind, story = EQUAL, ""
    for rank, ((ids, score), (my_ids, my_score)) in enumerate(zip(expected, found)):
        own, mine = score, score
        if my_ids != ids:
            own, mine = score_of(ids), score_of(my_ids)
        near = abs(own - mine) < TIE and abs(mine - my_score) <= SCORE_APART
        if my_ids == ids and near:
            continue
        told = "rank %d:\n  expected %.6f, own score %.6f: %s\n  found    %.6f, own score %.6f: %s"
        told %= (rank + 1, score, own, ids, my_score, mine, my_ids)
        if not near:
            return DIFFERENT, told
        if kind == EQUAL:
            kind, story = NEAR_TIE, told
    return kind, story


def is_tie_inside(found, others):
    """Says whether one of other searches of a line gives the ids that were found, although the
    search of transformers does not. Two candidates are nearly tied in the middle of the search
    then, and what follows depends on which of them is kept."""
    ids = [each for each, _ in found]
    return any(ids == [each for each, _ in other] for other in others)


def count_cell(counts):
    """Returns the cell of the table for the number of lines of each kind."""
    equal, ties, different = (counts.get(kind, 0) for kind in (EQUAL, NEAR_TIE, DIFFERENT))
    if different:
        return "%d / %d / **%d**" % (equal, ties, different)
    return "%d / %d" % (equal, ties) if ties else str(equal)
