"""Does the search of docs/search.md in Python, over the logits of a network of
emulated_network.py. Sentences are decoded together, in batches."""

import dataclasses
import math

import numpy
import torch

from emulated_network import Caches

# engine/cuda/search/advance.cuh.
DEAD, WORTHLESS = -1e9, -1e8
LIMIT_EXTRA = 10
# A batch has this many sentences of similar lengths.
BATCH = 30


@dataclasses.dataclass
class Rules:
    """The rules of a run, as SearchRules in engine/search_state.h. −1 stands for no token."""

    beams: int
    length_penalty: float
    early_stopping: str
    start: int
    ends: list
    forced_first: int
    forced_end: int
    renormalize: bool
    never_chosen: list
    min_length: int
    no_repeat_ngram: int
    repetition_penalty: float
    n_best: int
    max_length: int
    max_length_factor: float

    @property
    def candidates(self):
        return 1 if self.beams == 1 else self.beams * max(2, 1 + len(self.ends))

    @property
    def has_row_rules(self):
        return self.min_length > 0 or self.no_repeat_ngram > 0 or self.repetition_penalty != 1

    def limit_of(self, source):
        return min(self.max_length, math.floor(self.max_length_factor * len(source)) + LIMIT_EXTRA)

    def forced(self, n, limit):
        """Returns the only choice for the nth token, or −1."""
        if n == limit and self.forced_end >= 0:
            return self.forced_end
        return self.forced_first if n == 1 else -1

    def final_score(self, total, n):
        return float(numpy.float32(total) / numpy.float32(n**self.length_penalty))


def rules_of(header, options):
    """Makes the rules of a model and of xlate's options, by name, as rules_of in
    app/resolve_options.cpp does."""
    tokens, generation = header["tokens"], header["generation"]

    def value(option, key, usual, convert):
        return convert(options[option]) if option in options else generation.get(key, usual)

    first = generation.get("forced_first", -1)
    if "--target-lang" in options:
        first = tokens["languages"][options["--target-lang"]]
    return Rules(
        beams=value("-b", "beam_size", 4, int),
        length_penalty=value("--length-penalty", "length_penalty", 1.0, float),
        early_stopping=value("--early-stopping", "early_stopping", "false", str),
        start=tokens["start"],
        ends=generation.get("ends", [tokens["end"]]),
        forced_first=first,
        forced_end=generation.get("forced_end", -1),
        renormalize=generation.get("renormalize", False),
        never_chosen=generation["never_chosen"],
        min_length=value("--min-length", "min_length", 0, int),
        no_repeat_ngram=value("--no-repeat-ngram", "no_repeat_ngram", 0, int),
        repetition_penalty=value("--repetition-penalty", "repetition_penalty", 1.0, float),
        n_best=int(options.get("--n-best", 1)),
        max_length=value("--max-length", "max_length", 512, int),
        max_length_factor=float(options.get("--max-length-factor", 3)),
    )


def repeats(ids, n):
    """Returns the ids that would complete n consecutive ids which `ids` has already."""
    suffix = ids[len(ids) - n + 1 :]
    return [ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == suffix]


def apply_row_rules(values, histories, rules):
    """Changes rows [rows, vocabulary] by the ids that the decoder has had for each."""
    penalty = numpy.float32(rules.repetition_penalty)
    for row, ids in zip(values.numpy(), histories):
        if penalty != 1:
            had = list(set(ids))
            row[had] = numpy.where(row[had] < 0, row[had] * penalty, row[had] / penalty)
        if rules.no_repeat_ngram > 0:
            row[repeats(ids, rules.no_repeat_ngram)] = -numpy.inf
        # The start token is not one of the tokens that the minimum counts.
        if len(ids) - 1 < rules.min_length:
            row[rules.ends] = -numpy.inf


def choices_of(logits, histories, rules):
    """Returns what is added to a hypothesis's score for each next token: the row rules and
    log-softmax, applied to rows [rows, vocabulary]."""
    greedy = rules.beams == 1
    values = logits.clone() if greedy else logits.log_softmax(-1)
    if rules.has_row_rules:
        apply_row_rules(values, histories, rules)
    if rules.renormalize:
        values[:, rules.never_chosen] = -math.inf
    if greedy or rules.renormalize:
        values = values.log_softmax(-1)
    values[:, rules.never_chosen] = -math.inf
    return values


class Sentence:
    """The search of one sentence: the live hypotheses and the finished list."""

    def __init__(self, source, rules):
        self.rules, self.limit = rules, rules.limit_of(source)
        self.scores = [0.0] + [DEAD] * (rules.beams - 1)
        # A history begins with the start token.
        self.histories = [[rules.start]] * rules.beams
        self.parents = [0] * rules.beams
        self.finished = []  # (final score, ids) in descending order of scores
        self.done = False

    def advance(self, candidates):
        """Advances by one token. Candidates are (score, beam, token), best first."""
        rules, n = self.rules, len(self.histories[0])
        at_limit, live = n == self.limit, []
        for i, (score, beam, token) in enumerate(candidates):
            if not at_limit and token not in rules.ends:
                live.append((score, beam, token))
            elif i < rules.beams and score > WORTHLESS:
                ids = self.histories[beam][1:] + ([] if token in rules.ends else [token])
                self.finished.append((rules.final_score(score, n), ids))
        # sort() is stable, so that among equal scores the older one stays ahead.
        self.finished.sort(key=lambda entry: -entry[0])
        del self.finished[rules.beams :]
        del live[rules.beams :]
        self.done = at_limit or self.is_done(live[0][0] if live else -math.inf, n)
        live += [(DEAD, 0, rules.start)] * (rules.beams - len(live))
        self.scores = [score for score, _, _ in live]
        self.histories = [self.histories[beam] + [token] for _, beam, token in live]
        self.parents = [beam for _, beam, _ in live]

    def is_done(self, best, n):
        rules = self.rules
        if len(self.finished) < rules.beams:
            return False
        if rules.beams == 1 or rules.early_stopping == "true":
            return True
        if rules.early_stopping == "never" and rules.length_penalty > 0:
            n = self.limit
        return rules.final_score(best, n) <= self.finished[-1][0]


def best_candidates(choices, sentences, rules):
    """Returns the candidates of each sentence, best first, from choices [sentences, beams,
    vocabulary]."""
    scores = torch.tensor([sentence.scores for sentence in sentences])
    sums = (scores[..., None] + choices).flatten(1)
    # A few more than are needed, because topk() does not order those of equal sums.
    values, places = sums.topk(min(rules.candidates + 8, sums.shape[1]))
    vocabulary, result = choices.shape[-1], []
    for row, places_of_row in zip(values.tolist(), places.tolist()):
        ordered = sorted(zip(row, places_of_row), key=lambda item: (-item[0], item[1]))
        result.append(
            [
                (value, place // vocabulary, place % vocabulary)
                for value, place in ordered[: rules.candidates]
                if value > -math.inf
            ]
        )
    return result


def search(network, encoded, sources, rules):
    """Translates sources, of which `encoded` has the results of encode(). Returns the finished list
    of each: (score, ids) in descending order of scores."""
    sentences = [Sentence(source, rules) for source in sources]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        caches = Caches([encoded[i] for i in batch], rules.beams)
        search_batch(network, [sentences[i] for i in batch], caches, rules)
    return [sentence.finished for sentence in sentences]


def search_batch(network, active, caches, rules):
    """Does the search of all sentences of a batch."""
    n = 0
    while active:
        ids = torch.tensor([[h[-1] for h in sentence.histories] for sentence in active])
        logits = network.step(ids, n, caches)
        n += 1
        histories = [history for sentence in active for history in sentence.histories]
        choices = choices_of(logits.flatten(0, 1), histories, rules).view(logits.shape)
        for sentence, candidates in zip(active, best_candidates(choices, active, rules)):
            forced = rules.forced(n, sentence.limit)
            if forced >= 0:
                order = sorted(enumerate(sentence.scores), key=lambda item: -item[1])
                candidates = [(score, beam, forced) for beam, score in order]
            sentence.advance(candidates)
        kept = [i for i, sentence in enumerate(active) if not sentence.done]
        active = [active[i] for i in kept]
        if active:
            parents = torch.tensor([sentence.parents for sentence in active])
            caches.keep(torch.tensor(kept), parents)


def weigh(network, encoded, hypotheses, rules):
    """Gives what search() would add for each token of given hypotheses, which are (index into
    `encoded`, tokens, limit). Returns for each a tensor [tokens, vocabulary]; a forced token is the
    only one that is not −∞."""
    caches = Caches([encoded[at] for at, _, _ in hypotheses], 1)
    active, n = list(range(len(hypotheses))), 0
    tables = [[] for _ in hypotheses]
    while active:
        histories = [[rules.start, *hypotheses[i][1][:n]] for i in active]
        logits = network.step(torch.tensor([[h[-1]] for h in histories]), n, caches)
        n += 1
        for i, row in zip(active, choices_of(logits.flatten(0, 1), histories, rules)):
            if (forced := rules.forced(n, hypotheses[i][2])) >= 0:
                row = torch.full_like(row, -math.inf)
                row[forced] = 0
            tables[i].append(row)
        kept = [at for at, i in enumerate(active) if n < len(hypotheses[i][1])]
        active = [active[at] for at in kept]
        if active:
            caches.keep(torch.tensor(kept), torch.zeros(len(kept), 1, dtype=torch.long))
    return [torch.stack(rows) for rows in tables]
