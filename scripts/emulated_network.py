"""Computes the network of a model.bin on the CPU with PyTorch, with the roundings that the CUDA
backend makes in float16 or bfloat16, or in float32 without any.

Every number is held in float32, and round() puts it onto the grid of the 16-bit type. Each rounding
names the file that it was read from. Sums are in float32 but in another order than a GPU's, and
exponentials are PyTorch's. So a sum next to the middle of two 16-bit numbers may be rounded the
other way.

It was written for PyTorch 2.11 and needs numpy besides.
"""

import dataclasses
import math

import torch

ACTIVATIONS = {
    "relu": torch.relu,
    "swish": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}
TYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
# kLowBitsShift in engine/cuda/norms/residual.cuh.
LOW_BITS_SHIFT = {torch.float16: 5, torch.bfloat16: 8}
# Attention on tensor cores processes this many keys at once: kTileKeys in
# engine/cuda/attention/attention.h.
TILE_KEYS = 16
# The kernels on tensor cores have heads of these widths: tile_attention_fits() in
# engine/cuda/attention/tile.cuh.
TILE_HEADS = (32, 64, 128)
# The most beams whose keys are in one list: kTileBeams in engine/cuda/attention/attention.h.
TILE_BEAMS = 8


@dataclasses.dataclass
class Stream:
    """The residual stream. Products read `rounded`, norms and additions read `wide`, which is what
    the rounded values and their low bits stand for."""

    rounded: torch.Tensor
    wide: torch.Tensor


class Caches:
    """The keys and values of a batch of sentences in their decoding. A sentence has K beams."""

    def __init__(self, sources, beams):
        """`sources` has the result of encode() for each sentence."""
        lengths = torch.tensor([source.shape[3] for source in sources])
        longest = int(lengths.max())
        pad = lambda x: torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[3]))
        # [layers, 2, sentences, heads, tokens, columns]
        self.cross = torch.stack([pad(source) for source in sources], dim=2)
        self.cross_hidden = torch.arange(longest) >= lengths[:, None]  # [sentences, tokens]
        layers, _, sentences, heads, _, columns = self.cross.shape
        # Each layer has a tensor of [2, sentences, beams, heads, tokens, columns].
        self.own = [torch.zeros(2, sentences, beams, heads, 0, columns)] * layers
        # [sentences, tokens, beams]: the beam under which the key of each beam is stored
        # (SearchState::ancestor in engine/search_state.h).
        self.ancestor = torch.zeros(sentences, 0, beams, dtype=torch.long)

    def begin_step(self):
        """Each beam stores its new key under its own number."""
        sentences, _, beams = self.ancestor.shape
        new = torch.arange(beams).expand(sentences, 1, beams)
        self.ancestor = torch.cat([self.ancestor, new], dim=1)

    def add(self, layer, keys_values):
        """Adds keys and values, [2, sentences, beams, heads, 1, columns], and returns all."""
        self.own[layer] = torch.cat([self.own[layer], keys_values], dim=4)
        return self.own[layer]

    def keep(self, sentences, parents):
        """Keeps the given sentences. Beam k of the i-th of them continues beam parents[i, k]."""
        if len(sentences) < len(self.cross_hidden):
            self.cross, self.cross_hidden = (
                self.cross[:, :, sentences],
                self.cross_hidden[sentences],
            )
        self.own = [own[:, sentences[:, None], parents] for own in self.own]
        ancestor = self.ancestor[sentences]
        self.ancestor = ancestor.gather(2, parents[:, None].expand(-1, ancestor.shape[1], -1))


def groups_of(ancestor):
    """Returns the number of the group of 16 keys that each key of each beam is in: [sentences,
    beams, tokens]. A list has the distinct keys of all beams of a sentence, in the order of
    positions (engine/cuda/attention/key_lists.cuh)."""
    beams = ancestor.shape[2]
    if beams > TILE_BEAMS:
        raise ValueError(f"{beams} beams, expected at most {TILE_BEAMS} with heads of {TILE_HEADS}")
    same = ancestor[..., :, None] == ancestor[..., None, :]
    # The first beam that has the key.
    first = same.to(torch.uint8).argmax(-1)
    is_first = first == torch.arange(beams)
    rank = (is_first.cumsum(-1) - 1).gather(-1, first)
    begin = is_first.sum(-1).cumsum(-1) - is_first.sum(-1)
    return ((begin[..., None] + rank) // TILE_KEYS).transpose(1, 2)


class Network:
    """A network with its weights. `header` and `tensors` are those of a ModelBin
    (tests/model_bin_reader.py), and `precision` is fp32, fp16 or bf16. `order` numbers the order in
    which products are summed. Every order is as right as the others."""

    def __init__(self, header, tensors, precision, order=0):
        self.described, self.type = header["network"], TYPES[precision]
        self.weights = {
            name: self.weight_of(name, torch.tensor(values)) for name, values in tensors.items()
        }
        shuffled = torch.Generator().manual_seed(order)
        # The inner dimensions of products, by their length, in another order.
        self.orders = {
            size: torch.randperm(size, generator=shuffled)
            for size in sorted({w.shape[1] for w in self.weights.values() if w.dim() == 2})
            if order > 0
        }
        # The scale of the logits goes into the decoder's final norm and into the projection's bias
        # (models/network.cpp).
        scale = self.described["output"]["scale"]
        for name in ("decoder.norm.weight", "decoder.norm.bias", "decoder.projection.bias"):
            if scale != 1 and name in self.weights:
                self.weights[name] = self.weights[name] * scale

    def weight_of(self, name, values):
        """Rounds matrices and the biases of products to the type. Norms, positions, biases by
        distance and the bias of the logits stay in float32 (models/weights.cpp)."""
        stay = ".norm" in name or name.endswith((".distance_bias", ".positions.weight"))
        return values if stay or name == "decoder.projection.bias" else self.round(values)

    def round(self, x):
        """Rounds to the nearest number of the type, of two that are as near to the even one: the
        instructions that from_float() of engine/cuda/device.cuh stands for."""
        return x if self.type is None else x.to(self.type).float()

    def store(self, exact):
        """Stores values in the residual stream with their low bits: low_bits_of(), clamp_low_bits()
        and widened() of engine/cuda/norms/residual.cuh."""
        rounded = self.round(exact)
        if self.type is None:
            return Stream(exact, exact)
        shift = LOW_BITS_SHIFT[self.type]
        bits, rounded_bits = exact.view(torch.int32), rounded.view(torch.int32)
        low = (bits - rounded_bits + (1 << shift) // 2) >> shift
        low = low.clamp(-128, 127)
        return Stream(rounded, (rounded_bits + (low << shift)).view(torch.float32))

    def bias(self, name):
        return self.weights.get(name + ".bias")

    def sums(self, x, name):
        """Returns x·Wᵀ + b in float32, as a product before a norm leaves it. The sums are in
        float32 (CUBLAS_COMPUTE_32F in engine/cuda/products/gemm.cpp), and the bias is added to them
        unrounded (linear_then_norm in engine/cuda/products/linear.cpp)."""
        bias, weight = self.bias(name), self.weights[name + ".weight"]
        if self.orders:
            order = self.orders[weight.shape[1]]
            x, weight = x[..., order], weight[:, order]
        y = x @ weight.T
        return y if bias is None else y + bias

    def linear(self, x, name):
        """Returns a product that is stored in the type. cuBLASLt adds the bias in its epilogue, so
        that there is one rounding (engine/cuda/products/linear.cpp)."""
        return self.round(self.sums(x, name))

    def norm(self, x, name, stack):
        """Returns the norm in float32 (engine/cuda/norms/norm.cuh)."""
        norm = stack["norm"]
        if norm["kind"] == "layer":
            x = x - x.mean(-1, keepdim=True)
        variance = x.square().mean(-1, keepdim=True)
        y = x * torch.rsqrt(variance + norm["epsilon"]) * self.weights[name + ".weight"]
        shift = self.bias(name)
        return y if shift is None else y + shift

    def add_norm(self, stream, sums, after, before, stack):
        """Computes AddNorm: returns the stream and the rows that the next product reads. `after`
        and `before` name norms or are None. A norm starts from float32 sums. With two norms the
        second one starts from what the first has stored (add_norm in
        engine/cuda/products/linear.cpp, norm_vector_kernel in engine/cuda/norms/layer_norm.cu)."""
        exact = stream.wide if sums is None else sums + stream.wide
        if after:
            stream = self.store(self.norm(exact, after, stack))
            exact = stream.wide
        elif sums is not None:
            stream = self.store(exact)
        return stream, self.round(self.norm(exact, before, stack)) if before else stream.rounded

    def feed_forward(self, x, name, stack):
        """Returns the sums of the second product. An activation reads a rounded product and is
        rounded again, because a kernel of its own computes it (engine/cuda/products/epilogue.cu).
        cuBLASLt computes only ReLU by itself, which does not change with a rounding before it."""
        described = stack["feed_forward"]
        activate = ACTIVATIONS[described["activation"]]
        up = self.linear(x, name + ".up")
        if described["gated"]:
            gate, up = up.chunk(2, -1)
            return self.sums(self.round(activate(gate) * up), name + ".down")
        return self.sums(self.round(activate(up)), name + ".down")

    def on_tensor_cores(self, stack):
        """Whether attention runs on tensor cores: tile_attention_fits() of
        engine/cuda/attention/tile.cuh."""
        described = stack["attention"]
        heads, head = described["heads"], described["head"]
        return self.type is not None and head in TILE_HEADS and heads * head % 8 == 0

    def attend(self, scores, values, groups):
        """Returns softmax(scores)·values, [..., queries, columns]. The scores are [..., queries,
        keys], and hidden keys have −∞. The softmax is in float32, and only the result is rounded
        (engine/cuda/attention/rows.cuh). On tensor cores the keys come in `groups` of 16. The
        weights of a group, which are relative to the largest score so far, are rounded before they
        multiply the values. The divisor is the sum of the weights before that rounding
        (engine/cuda/attention/beam_tile.cuh, packed.cu)."""
        if groups is None:
            return self.round(scores.softmax(-1) @ values)
        last = (groups[..., None, :] <= groups[..., :, None]).sum(-1) - 1
        largest = scores.cummax(-1)[0].gather(-1, last.expand(scores.shape))
        weights = (scores - largest).exp()
        factors = (largest - largest[..., -1:]).exp()
        divisor = (weights * factors).sum(-1, keepdim=True)
        return self.round((self.round(weights) * factors) @ values / divisor)

    def distance_bias(self, name, queries, keys, stack):
        """Returns the bias of each head, query and key, or None. It is in float32 and is added
        before the softmax (HeadBias in engine/cuda/attention/rows.cuh)."""
        most = stack["attention"].get("distances", 0)
        if not most:
            return None
        distances = (torch.arange(keys) - queries[:, None]).clamp(-most, most) + most
        return self.weights[name + ".self.distance_bias"][:, distances]

    def embed(self, name, ids, positions):
        """Begins a residual stream: row · scale + position in float32, as one fused
        multiplication and addition (engine/cuda/embedding/embedding.cu). A position of −1 adds
        nothing."""
        described = self.described[name]["embedding"]
        rows = self.weights[name + ".embedding.weight"][ids].double() * described["scale"]
        if described["positions"] == "learned":
            rows = rows + self.weights[name + ".positions.weight"][positions].double()
        elif described["positions"] == "sinusoidal":
            rows = rows + self.sinusoids(name, positions).double()
        return self.store(rows.float())

    def sinusoids(self, name, positions):
        """Returns the sinusoids: doubles, rounded to float32 (models/sinusoids.cpp)."""
        described, half = self.described[name]["embedding"], self.described[name]["width"] // 2
        divisors = 10000 ** (torch.arange(half, dtype=torch.float64) / described["rate"])
        angles = (positions[..., None].double() + described["offset"]) / divisors
        rows = torch.cat([angles.sin(), angles.cos()], -1).float()
        return rows.where(positions[..., None] >= 0, torch.zeros(()))

    def encode(self, ids):
        """Encodes a source and returns the keys and values that the decoder attends to: [layers,
        2, heads, tokens, columns]."""
        stack = self.described["encoder"]
        ids = torch.tensor(ids)
        counts = ids != stack["embedding"].get("unplaced", -1)
        positions = (counts.cumsum(0) - 1).where(counts, -1)
        stack_pass = Pass(self, "encoder", self.embed("encoder", ids, positions))
        for layer in range(stack["layers"]):
            stack_pass.attend_packed(layer)
            stack_pass.feed_forward(layer)
        rows = self.linear(stack_pass.end(), "decoder.cross.keys_values")
        heads = self.described["decoder"]["attention"]["heads"]
        layers = self.described["decoder"]["layers"]
        return rows.view(len(ids), layers, 2, heads, -1).permute(1, 2, 3, 0, 4)

    def step(self, ids, position, caches):
        """Does a decoding step with the last token of each beam, [sentences, beams], and returns
        the logits in float32 (find_best in engine/cuda/cuda_backend.cpp)."""
        stack_pass = Pass(self, "decoder", self.embed("decoder", ids, torch.tensor(position)))
        caches.begin_step()
        for layer in range(self.described["decoder"]["layers"]):
            stack_pass.attend_step(layer, caches, position)
            stack_pass.attend_cross(layer, caches)
            stack_pass.feed_forward(layer)
        return self.sums(stack_pass.end(), "decoder.projection")


class Pass:
    """One pass over a stack, with its operations in the order in which StackProgram of
    models/programs.cpp lists them. The sums of a sublayer are added to the stream where the next
    sublayer begins."""

    def __init__(self, network, name, stream):
        self.network, self.name, self.stack = network, name, network.described[name]
        self.stream, self.sums = stream, None
        self.after = name + ".embedding.norm" if self.stack["embedding"]["norm"] else None

    def begin(self, before):
        """Returns the rows that the products of a sublayer read."""
        rows = self.stream.rounded
        if self.sums is not None or self.after or before:
            self.stream, rows = self.network.add_norm(
                self.stream, self.sums, self.after, before, self.stack
            )
        self.sums = self.after = None
        return rows

    def end(self):
        return self.begin(self.name + ".norm" if self.stack["norm"]["final"] else None)

    def norm_name(self, sublayer, place):
        return f"{sublayer}.norm_{place}" if place in self.stack["norm"]["places"] else None

    def begin_sublayer(self, layer, what):
        name = f"{self.name}.{layer}.{what}"
        return name, self.begin(self.norm_name(name, "before"))

    def end_sublayer(self, name, sums):
        self.sums, self.after = sums, self.norm_name(name, "after")

    def feed_forward(self, layer):
        name, rows = self.begin_sublayer(layer, "feed_forward")
        self.end_sublayer(name, self.network.feed_forward(rows, name, self.stack))

    def heads_of(self, rows, parts):
        """Splits rows [..., parts·heads·columns] into [parts, ..., heads, 1, columns]."""
        heads, columns = (self.stack["attention"][key] for key in ("heads", "head"))
        return rows.unflatten(-1, (parts, heads, 1, columns)).movedim(-4, 0)

    def context(self, queries, keys, values, bias, groups, hidden=None):
        """Returns the attention of queries [..., heads, queries, columns]."""
        network = self.network
        scores = queries @ keys.mT * self.stack["attention"]["scale"]
        if bias is not None:
            scores = scores + bias
        if hidden is not None:
            scores = scores.masked_fill(hidden, -math.inf)
        on_tensor_cores = network.on_tensor_cores(self.stack)
        return network.attend(scores, values, groups() if on_tensor_cores else None)

    def attend_packed(self, layer):
        """Lets the tokens of one sentence attend to each other. The rows are [tokens, width]."""
        name, rows = self.begin_sublayer(layer, "self")
        parts = self.heads_of(self.network.linear(rows, name + ".qkv"), 3)
        queries, keys, values = parts.squeeze(-2).transpose(-2, -3)
        positions = torch.arange(len(rows))
        bias = self.network.distance_bias(self.name, positions, len(rows), self.stack)
        context = self.context(queries, keys, values, bias, lambda: positions // TILE_KEYS)
        self.end_sublayer(
            name, self.network.sums(context.transpose(0, 1).flatten(1), name + ".out")
        )

    def attend_step(self, layer, caches, position):
        """Lets each beam attend to its own tokens. The rows are [sentences, beams, width]."""
        name, rows = self.begin_sublayer(layer, "self")
        parts = self.heads_of(self.network.linear(rows, name + ".qkv"), 3)
        keys, values = caches.add(layer, parts[1:])
        bias = self.network.distance_bias(
            self.name, torch.tensor([position]), position + 1, self.stack
        )
        groups = lambda: groups_of(caches.ancestor)[:, :, None, None]
        context = self.context(parts[0], keys, values, bias, groups)
        self.end_sublayer(name, self.network.sums(context.flatten(2), name + ".out"))

    def attend_cross(self, layer, caches):
        """Lets each beam attend to its source."""
        name, rows = self.begin_sublayer(layer, "cross")
        (queries,) = self.heads_of(self.network.linear(rows, name + ".query"), 1)
        keys, values = caches.cross[layer]
        context = self.context(
            queries.squeeze(-2).transpose(1, 2),
            keys,
            values,
            None,
            lambda: torch.arange(keys.shape[-2]) // TILE_KEYS,
            caches.cross_hidden[:, None, None],
        )
        self.end_sublayer(
            name, self.network.sums(context.transpose(1, 2).flatten(2), name + ".out")
        )
