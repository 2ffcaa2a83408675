"""Runs transformers' generate with a combination of rules (search_combinations.py) on lines of ids,
and computes the score that its model gives any hypothesis. It needs PyTorch and transformers."""

import collections
import copy
import itertools

import torch
import transformers
from transformers.generation import logits_process as rules

# Models with an encoder decode this many lines of similar length at a time.
BATCH = 24
PREFIX_TOKENS = 2
# So many copies of a network have weights that are changed by this share, as standard deviation.
CHANGES, CHANGE = 10, 1e-6


class Family:
    """Is the network of a checkpoint, with the lines that it decodes. `language` is the id of the
    target language of a multilingual model, or None."""

    def __init__(self, folder, sources, language):
        config = transformers.AutoConfig.from_pretrained(folder)
        self.has_encoder = config.is_encoder_decoder
        kind = (
            transformers.AutoModelForSeq2SeqLM
            if self.has_encoder
            else transformers.AutoModelForCausalLM
        )
        self.network = kind.from_pretrained(folder, dtype=torch.float32).eval()
        generation = self.network.generation_config
        self.start, self.pad = generation.decoder_start_token_id, generation.pad_token_id
        ends = generation.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]
        self.own_first = generation.forced_bos_token_id if language is None else language
        self.forced_end = generation.forced_eos_token_id
        self.sources = sources

    def learn_outputs(self, outputs):
        """Takes the greedy outputs, from which come the suppressed ids, the forced first token of a
        model that has none, and the prefixes."""
        bodies = [ids[1:] if self.own_first is not None else ids for ids in outputs]
        counts = collections.Counter(itertools.chain(*bodies))
        common = [id for id, _ in counts.most_common() if id not in (*self.ends, self.pad)]
        self.suppressed, self.common = common[:2], common[:3][-1]
        self.prefixes = [ids[:PREFIX_TOKENS] for ids in bodies[1:] + bodies[:1]]

    def first_of(self, combination):
        """Returns the forced first token, or None."""
        if self.own_first is not None or not combination.forced_first:
            return self.own_first
        return self.common

    def given_of(self, combination, line):
        """Returns the ids that the decoder reads before it chooses one: the start token and a
        prefix behind it, or the prompt."""
        if not self.has_encoder:
            return self.sources[line]
        prefix = self.prefixes[line] if combination.prefix else []
        first = self.first_of(combination)
        return [self.start, *([first] if prefix and first is not None else []), *prefix]

    def batches_of(self, combination):
        """Yields lists of lines that are decoded together. What the decoder reads is never padded,
        because the rules would see the padding."""

        def length(line):
            return len(self.given_of(combination, line))

        def order(line):
            return length(line), len(self.sources[line])

        for _, lines in itertools.groupby(sorted(range(len(self.sources)), key=order), length):
            lines = list(lines)
            for at in range(0, len(lines), BATCH):
                yield lines[at : at + BATCH]

    def settings_of(self, combination):
        suppressed = self.suppressed if combination.suppress else ()
        settings = combination.generate_settings(self.has_encoder, suppressed)
        return transformers.GenerationConfig(
            **settings,
            do_sample=False,
            decoder_start_token_id=self.start,
            eos_token_id=self.ends,
            pad_token_id=self.ends[0] if self.pad is None else self.pad,
            forced_bos_token_id=self.first_of(combination),
            forced_eos_token_id=self.forced_end,
            return_dict_in_generate=True,
            output_scores=True,
        )

    def inputs_of(self, lines, given):
        """Returns the arguments of the network for lines of sources and what the decoder reads."""
        decoder = torch.tensor(given)
        if not self.has_encoder:
            return {"input_ids": decoder, "attention_mask": torch.ones_like(decoder)}
        sources = [torch.tensor(self.sources[line]) for line in lines]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(sources, batch_first=True, padding_value=self.pad),
            "attention_mask": pad([torch.ones_like(ids) for ids in sources], batch_first=True),
            "decoder_input_ids": decoder,
        }

    def printed_of(self, ids, given):
        """Returns the part of a sequence that xlate prints: without the start token or the prompt,
        and up to an end token behind the given ones."""
        end = next((i for i in range(given, len(ids)) if ids[i] in self.ends), len(ids))
        return ids[1 if self.has_encoder else given : end]

    @torch.no_grad()
    def search(self, combination):
        """Returns the hypotheses of each line, best first, as (ids, score)."""
        found = [[] for _ in self.sources]
        settings = self.settings_of(combination)
        # Otherwise generate takes what these settings leave open from the checkpoint.
        self.network.generation_config = settings
        for lines in self.batches_of(combination):
            given = [self.given_of(combination, line) for line in lines]
            out = self.network.generate(**self.inputs_of(lines, given), generation_config=settings)
            if combination.beams == 1:
                scores = self.greedy_scores(out, len(given[0]))
            else:
                scores = out.sequences_scores.tolist()
            for row, (ids, score) in enumerate(zip(out.sequences.tolist(), scores)):
                line = lines[row // combination.n_best]
                found[line].append((self.printed_of(ids, len(given[0])), score))
        return found

    def searches_of_changed_weights(self, combination, line):
        """Yields the hypotheses of a line for networks whose weights differ by about as much as
        rounding in float32 makes of sums over them."""
        alone = copy.copy(self)
        alone.sources, alone.prefixes = [self.sources[line]], [self.prefixes[line]]
        for seed in range(CHANGES):
            alone.network = copy.deepcopy(self.network)
            random = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for weights in alone.network.parameters():
                    noise = torch.randn(weights.shape, generator=random)
                    weights.mul_(1 + CHANGE * noise)
            yield alone.search(combination)[0]

    def greedy_scores(self, out, given):
        """Returns the mean log-probability of each row's tokens, the end token included."""
        means = []
        for row, ids in enumerate(out.sequences.tolist()):
            total, tokens = 0.0, 0
            for id, scores in zip(ids[given:], out.scores):
                total += scores[row].log_softmax(-1)[id].item()
                tokens += 1
                if id in self.ends:
                    break
            means.append(total / tokens)
        return means

    def processors_of(self, combination, given):
        """Returns the rules in the order in which generate applies them."""
        limit = combination.limit_of(self.has_encoder)
        processors = transformers.LogitsProcessorList()
        if combination.repetition_penalty != 1:
            penalty = float(combination.repetition_penalty)
            processors.append(rules.RepetitionPenaltyLogitsProcessor(penalty))
        if combination.no_repeat_ngram:
            processors.append(rules.NoRepeatNGramLogitsProcessor(combination.no_repeat_ngram))
        if combination.suppress:
            processors.append(rules.SuppressTokensLogitsProcessor(self.suppressed))
        if combination.min_new_tokens:
            least = combination.min_new_tokens
            processors.append(rules.MinNewTokensLengthLogitsProcessor(given, least, self.ends))
        if self.first_of(combination) is not None:
            processors.append(rules.ForcedBOSTokenLogitsProcessor(self.first_of(combination)))
        if self.forced_end is not None:
            processors.append(rules.ForcedEOSTokenLogitsProcessor(given + limit, self.forced_end))
        if combination.renormalize:
            processors.append(rules.LogitNormalization())
        return processors

    @torch.no_grad()
    def score(self, combination, line, ids):
        """Returns the final score of a hypothesis under the rules, whichever search has found
        it."""
        given = self.given_of(combination, line)
        printed = given[1:] if self.has_encoder else []
        chosen = ids[len(printed) :]
        if ids[: len(printed)] != printed:
            return -float("inf")
        ends = self.ends if len(chosen) < combination.limit_of(self.has_encoder) else [None]
        processors = self.processors_of(combination, len(given))
        decoder = torch.tensor([given + chosen])
        logits = self.network(**self.inputs_of([line], decoder.tolist())).logits[0].float()
        total = 0.0
        for step, id in enumerate([*chosen, ends]):
            if id == [None]:
                break
            at = len(given) + step
            row = logits[at - 1 : at]
            values = row if combination.beams == 1 else row.log_softmax(-1)
            values = processors(decoder[:, :at], values.clone())
            if combination.beams == 1:
                values = values.log_softmax(-1)
            total += values[0, id].max().item()
        tokens = len(chosen) + (ends != [None])
        return total / tokens**combination.length_penalty
