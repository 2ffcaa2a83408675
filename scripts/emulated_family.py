"""Translates with a model.bin as emulated_network.py and emulated_search.py do, and explains where
hypotheses differ from a reference."""

import collections

import torch

from emulated_network import Network
from emulated_search import rules_of, search, weigh

Difference = collections.namedtuple("Difference", "line rank expected found")


def differences(expected, found):
    """Lists the hypotheses of the reference that differ from those that were found. Both are lists
    of hypotheses by the number of their line."""
    result = []
    for line, hypotheses in expected.items():
        for rank, ids in enumerate(hypotheses):
            others = found.get(line, [])
            other = others[rank] if rank < len(others) else None
            if ids != other:
                result.append(Difference(line, rank, ids, other))
    return result


class Emulation:
    """A model with its networks: `exact` in float32, and `rounded` in a precision, once for each
    order of sums."""

    def __init__(self, file, precision, orders, threads):
        """`file` is a ModelBin (tests/model_bin_reader.py)."""
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.header = file.header
        self.exact = Network(file.header, file.tensors, "fp32")
        self.rounded = [
            Network(file.header, file.tensors, precision, order) for order in range(orders)
        ]
        self.encoded = {}

    def rules(self, options):
        return rules_of(self.header, options)

    def encode(self, network, sources):
        """Returns what the encoder gives for each source."""
        key = network, tuple(map(tuple, sources))
        if key not in self.encoded:
            self.encoded[key] = [network.encode(source) for source in sources]
        return self.encoded[key]

    def translate(self, network, sources, rules):
        """Returns the hypotheses of each line, by the line's number."""
        found = search(network, self.encode(network, sources), sources, rules)
        return {
            line: [ids for _, ids in hypotheses[: rules.n_best]]
            for line, hypotheses in enumerate(found)
        }

    def count(self, sources, rules, expected, output):
        """Returns how many hypotheses of the reference an output has, and explains the others."""
        wrong = differences(expected, output)
        there = [difference for difference in wrong if difference.found is not None]
        return {
            "equal": sum(map(len, expected.values())) - len(wrong),
            "missing": len(wrong) - len(there),
            "differences": self.explain(sources, rules, there),
        }

    def explain(self, sources, rules, found):
        """Returns the gap, the first token that differs and its lead for each difference."""
        hypotheses = []
        for difference in found:
            limit = rules.limit_of(sources[difference.line])
            for ids in (difference.expected, difference.found):
                tokens = ids + ([] if len(ids) == limit else rules.ends[:1])
                hypotheses.append((difference.line, tokens, limit))
        if not hypotheses:
            return []
        tables = weigh(self.exact, self.encode(self.exact, sources), hypotheses, rules)
        scores = [
            score_of(table, tokens, rules) for table, (_, tokens, _) in zip(tables, hypotheses)
        ]
        result = []
        for i, difference in enumerate(found):
            ours, theirs = hypotheses[2 * i][1], hypotheses[2 * i + 1][1]
            at = next(at for at, (a, b) in enumerate(zip(ours, theirs)) if a != b)
            row = tables[2 * i][at]
            result.append(
                {
                    "line": difference.line,
                    "rank": difference.rank,
                    "gap": scores[2 * i] - scores[2 * i + 1],
                    "token": at + 1,
                    "expected": ours[at],
                    "found": theirs[at],
                    "lead": float(row[ours[at]] - row[theirs[at]]),
                }
            )
        return result


def score_of(table, tokens, rules):
    """Returns the final score of a hypothesis from the result of weigh()."""
    total = table.gather(1, torch.tensor(tokens)[:, None]).sum()
    return rules.final_score(float(total), len(tokens))
