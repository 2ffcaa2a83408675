"""Computes the logits of a model.bin whose network is a decoder alone, in float64 with numpy. It is
written from docs/model-format.md alone, so that it is a second opinion of that page, of the
converter and of the engine. It computes the whole text anew for each question, without caches."""

import math

import numpy as np


def erf(x):
    """Returns the error function of each element."""
    return np.vectorize(math.erf, otypes=[float])(x)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def bounded(x, softcap):
    return softcap * np.tanh(x / softcap) if softcap else x


class Decoder:
    """Holds a network with its weights. `header` and `tensors` are those of a ModelBin
    (tests/model_bin_reader.py)."""

    def __init__(self, header, tensors):
        self.network = header["network"]
        self.decoder = self.network["decoder"]
        self.weights = {name: values.astype(np.float64) for name, values in tensors.items()}

    def linear(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights.get(name + ".bias", 0)

    def norm(self, x, name):
        described = self.decoder["norm"]
        if described["kind"] == "layer":
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + described["epsilon"])
        return x * self.weights[name + ".weight"] + self.weights.get(name + ".bias", 0)

    def norm_if(self, x, name):
        """Applies a norm at one of the three places of a sublayer, if there is one."""
        place = name.rsplit("norm_", 1)[1]
        return self.norm(x, name) if place in self.decoder["norm"]["places"] else x

    def embed(self, ids):
        described = self.decoder["embedding"]
        x = self.weights["decoder.embedding.weight"][ids] * described["scale"]
        if described["positions"] == "learned":
            x = x + self.weights["decoder.positions.weight"][: len(ids)]
        return self.norm(x, "decoder.embedding.norm") if described["norm"] else x

    def rotate(self, x, layer):
        """Rotates [tokens, heads, columns] by the position."""
        attention = self.decoder["attention"]
        dims = attention.get("rotary_dims", 0)
        row = attention.get("rates", [0] * self.decoder["layers"])[layer]
        if dims == 0 or row < 0:
            return x
        rates = self.weights["decoder.rotary.rates"][row]
        angles = np.arange(len(x))[:, None, None] * rates
        first, second, rest = np.split(x, [dims // 2, dims], axis=-1)
        return np.concatenate(
            [
                first * np.cos(angles) - second * np.sin(angles),
                second * np.cos(angles) + first * np.sin(angles),
                rest,
            ],
            axis=-1,
        )

    def attend(self, x, layer):
        attention, name = self.decoder["attention"], f"decoder.{layer}.self"
        heads, kv_heads, head = (attention[key] for key in ("heads", "kv_heads", "head"))
        rows = self.linear(x, name + ".qkv").reshape(len(x), heads + 2 * kv_heads, head)
        queries, keys, values = np.split(rows, [heads, heads + kv_heads], axis=1)
        if attention.get("query_key_norm"):
            queries, keys = (
                self.norm(queries, name + ".query_norm"),
                self.norm(keys, name + ".key_norm"),
            )
        queries, keys = self.rotate(queries, layer), self.rotate(keys, layer)
        # Each key head serves heads / kv_heads neighbouring query heads.
        keys, values = (np.repeat(part, heads // kv_heads, axis=1) for part in (keys, values))
        scores = np.einsum("qhc,khc->hqk", queries, keys) * attention["scale"]
        scores = bounded(scores, attention.get("softcap"))
        # They are positions of keys less those of queries.
        distances = np.arange(len(x)) - np.arange(len(x))[:, None]
        if attention.get("slope"):
            scores = scores + self.weights["decoder.self.slopes"][:, None, None] * distances
        window = attention.get("windows", [0] * self.decoder["layers"])[layer]
        hidden = distances > 0
        if window:
            hidden |= distances <= -window
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        context = np.einsum("hqk,khc->qhc", weights, values).reshape(len(x), -1)
        return self.linear(context, name + ".out")

    def feed_forward(self, x, layer):
        described, name = self.decoder["feed_forward"], f"decoder.{layer}.feed_forward"
        activate, y = ACTIVATIONS[described["activation"]], self.linear(x, name + ".up")
        if described["gated"]:
            gate, y = np.split(y, 2, axis=-1)
            return self.linear(activate(gate) * y, name + ".down")
        return self.linear(activate(y), name + ".down")

    def sublayer(self, x, name, function, layer):
        """Returns inside(f(before(x)))."""
        name = f"decoder.{layer}.{name}"
        return self.norm_if(
            function(self.norm_if(x, name + ".norm_before"), layer), name + ".norm_inside"
        )

    def logits(self, ids):
        """Returns the logits after each of the ids, [tokens, vocabulary]."""
        x, scale = self.embed(np.array(ids)), self.decoder["residual_scale"]
        sublayers = (("self", self.attend), ("feed_forward", self.feed_forward))
        for layer in range(self.decoder["layers"]):
            if self.decoder["parallel"]:
                x = x + scale * sum(self.sublayer(x, *named, layer) for named in sublayers)
                continue
            for name, function in sublayers:
                x = x + scale * self.sublayer(x, name, function, layer)
                x = self.norm_if(x, f"decoder.{layer}.{name}.norm_after")
        if self.decoder["norm"]["final"]:
            x = self.norm(x, "decoder.norm")
        output = self.network["output"]
        logits = self.linear(x, "decoder.projection") * output["scale"]
        return bounded(logits, output.get("softcap"))

    def continue_greedily(self, prompt, ends, most):
        """Returns the most likely next ids, up to one of `ends` or `most` of them, and whether an
        end was found."""
        ids = list(prompt)
        while len(ids) < len(prompt) + most:
            best = int(self.logits(ids)[-1].argmax())
            if best in ends:
                return ids[len(prompt) :], True
            ids.append(best)
        return ids[len(prompt) :], False
