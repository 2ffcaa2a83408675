#!/usr/bin/env bash
# transformers 5.17.0 (torch 2.11.0, CPU): a Marian checkpoint that holds
# model.{encoder,decoder}.embed_positions.weight.
# Guess: loading and saving again gives the same model (either the table is ignored, or it is used
#   and kept).
# Seen: it is used when loaded, and save_pretrained leaves it out: the saved model has computed
#   sinusoids again. Of two tables each is looked up for itself: with only the encoder's in the file
#   the decoder has sinusoids. Nothing is reported at either step.
# Matters: a model with another table (trained, scaled, or rounded to float16) decodes otherwise
#   after a harmless load-and-save, e.g. the step to safetensors or another dtype; and a decoder
#   that computes sinusoids agrees with the copy but not with the original.
# Needs about 6 GB in the temp folder (torch), 2 minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0 \
  transformers==5.17.0 tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import sys, torch
from safetensors.torch import load_file, save_file
from transformers import MarianConfig, MarianMTModel
d, e = sys.argv[1:3]
torch.manual_seed(0)
MarianMTModel(MarianConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    max_position_embeddings=16, pad_token_id=19, eos_token_id=0,
    decoder_start_token_id=19)).save_pretrained(d)
x, y = torch.tensor([[3, 4, 5, 0]]), torch.tensor([[19, 7, 8]])
def run(path):
    m = MarianMTModel.from_pretrained(path).eval()
    return m, m(input_ids=x, decoder_input_ids=y).encoder_last_hidden_state.detach()
w = load_file(d + "/model.safetensors")
assert not any("embed_positions" in k for k in w)
w["model.encoder.embed_positions.weight"] = torch.randn(16, 8)
save_file(w, d + "/model.safetensors", metadata={"format": "pt"})
m, before = run(d)
m.save_pretrained(e)
n, after = run(e)
first = [p.model.encoder.embed_positions.weight[1, 0].item() for p in (m, n)]
print("row 1 of the encoder's table: stored %.4f, loaded %.4f, saved and loaded %.4f"
    % (w["model.encoder.embed_positions.weight"][1, 0], *first))
print("encoder output before and after differs by up to %.4f" % (before - after).abs().max())
assert first[0] == w["model.encoder.embed_positions.weight"][1, 0].item()
assert abs(first[1] - 0.841471) < 1e-6
assert abs(m.model.decoder.embed_positions.weight[1, 0].item() - 0.841471) < 1e-6
assert not any("embed_positions" in k for k in load_file(e + "/model.safetensors"))
assert (before - after).abs().max() > 0.1
P
"$t/v/bin/python" "$t/a.py" "$t/m" "$t/n" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
echo "as described"
