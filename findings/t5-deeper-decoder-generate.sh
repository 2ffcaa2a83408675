#!/usr/bin/env bash
# transformers 5.17.0 (torch 2.11.0, CPU): T5, mT5 and UMT5 with 2 encoder layers and 4 decoder
# layers.
# Guess: generate() works, because the configuration has num_layers for the encoder and
#   num_decoder_layers for the decoder. Marian with 2 and 4 layers works.
# Seen: generate() raises "IndexError: list index out of range" in the cache. generate() makes as
#   many cache layers as num_hidden_layers says, and that name means num_layers, the encoder's
#   number. A forward pass returns logits with and without use_cache, because the decoder then makes
#   its own cache of 4 layers. generate() works with use_cache=False, and with an
#   EncoderDecoderCache of two DynamicCache() that are made without a configuration. A decoder with
#   fewer layers than the encoder works. (transformers 4.57.1 raises the same error for T5. This
#   script does not check that.)
# Matters: no reference translation of such a model can be made with the default settings. A check
#   with forward passes alone does not show it.
# Needs about 6 GB in the temp folder (torch), some minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0 \
  transformers==5.17.0 tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import torch
from transformers import (DynamicCache, EncoderDecoderCache, MarianConfig, MarianMTModel,
    MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration, UMT5Config,
    UMT5ForConditionalGeneration)
x, y = torch.tensor([[3, 4, 5, 1]]), torch.tensor([[0, 7, 8]])
def made(config, model, encoder, decoder):
    torch.manual_seed(0)
    return model(config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=encoder,
        num_decoder_layers=decoder, num_heads=2, decoder_start_token_id=0)).eval()
def generate(m, **settings):
    try:
        return m.generate(x, max_new_tokens=4, do_sample=False, **settings)[0].tolist()
    except IndexError as e:
        return "IndexError: " + str(e)
for config, model in ((T5Config, T5ForConditionalGeneration),
        (MT5Config, MT5ForConditionalGeneration), (UMT5Config, UMT5ForConditionalGeneration)):
    m = made(config, model, 2, 4)
    for use in (True, False):
        logits = m(input_ids=x, decoder_input_ids=y, use_cache=use).logits
        assert logits.shape == (1, 3, 20)
    cached, uncached = generate(m), generate(m, use_cache=False)
    own = generate(m, past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()))
    print(config.model_type, "2 and 4 layers: generate", cached, "| use_cache=False", uncached,
        "| own cache", own)
    assert cached == "IndexError: list index out of range"
    assert uncached == own and len(own) == 5
    for encoder, decoder in ((4, 2), (4, 4)):
        m = made(config, model, encoder, decoder)
        assert generate(m) == generate(m, use_cache=False) and type(generate(m)) is list
torch.manual_seed(0)
m = MarianMTModel(MarianConfig(vocab_size=20, d_model=8, encoder_layers=2, decoder_layers=4,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    max_position_embeddings=16, pad_token_id=19, eos_token_id=0, decoder_start_token_id=19)).eval()
print("marian 2 and 4 layers: generate", generate(m))
assert type(generate(m)) is list
P
"$t/v/bin/python" "$t/a.py" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
echo "as described"
