"""Makes tiny checkpoints of T5 and mT5, which the tests of the converter change and write."""

from checkpoint_fixture import Fixture


class T5Fixture(Fixture):
    """A T5Fixture is a tiny random checkpoint of T5 whose heads are wider than the network."""

    def __init__(self, kind="t5", gated=False, own_output=False, layers=(2, 1), buckets=8):
        super().__init__(layers=(0, 0))
        self.files, self.tokenizer, self.vocab = {}, None, None
        self.config = {
            "model_type": kind,
            "d_model": 8,
            "d_kv": 6,
            "d_ff": 10,
            "num_heads": 2,
            "num_layers": layers[0],
            "num_decoder_layers": layers[1],
            "feed_forward_proj": "gated-gelu" if gated else "relu",
            "relative_attention_num_buckets": buckets,
            "relative_attention_max_distance": 20,
            "vocab_size": 11,
        }
        self.generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
        self.tensors = {"shared.weight": self.values(11, 8)}
        if own_output:
            self.tensors["lm_head.weight"] = self.values(11, 8)
        for stack, count in zip(("encoder", "decoder"), layers):
            self.add_stack(stack, count, gated, buckets)

    def add_stack(self, stack, count, gated, buckets):
        put = lambda name, *shape: self.tensors.update(
            {f"{stack}.{name}.weight": self.values(*shape)}
        )
        attentions = ["SelfAttention", "EncDecAttention"][: 1 + (stack == "decoder")]
        for n in range(count):
            for place, attention in enumerate(attentions):
                layer = f"block.{n}.layer.{place}"
                put(f"{layer}.layer_norm", 8)
                for part in "qkv":
                    put(f"{layer}.{attention}.{part}", 12, 8)
                put(f"{layer}.{attention}.o", 8, 12)
            layer = f"block.{n}.layer.{len(attentions)}"
            put(f"{layer}.layer_norm", 8)
            for part in ("wi_0", "wi_1") if gated else ("wi",):
                put(f"{layer}.DenseReluDense.{part}", 10, 8)
            put(f"{layer}.DenseReluDense.wo", 8, 10)
        put("block.0.layer.0.SelfAttention.relative_attention_bias", buckets, 2)
        put("final_layer_norm", 8)
