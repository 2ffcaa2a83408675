#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.17.0 (torch 2.11.0, CPU): LoRA on a tied matrix of T5, with the
# target lm_head or shared.
# Guess: merge_and_unload() gives the same logits as the adapter, as it does for the target q. An
#   adapter on shared changes the embeddings.
# Seen: with lm_head the adapter changes only the output matrix, and the merged matrix is used for
#   the embeddings too, so the logits differ. PEFT warns of complications. With shared the adapter
#   changes no logit and gets no gradient, because the encoder and the decoder call their own
#   embed_tokens. The merge then changes the output matrix and both embeddings, and no warning comes
#   at any step. The file of the lm_head adapter also holds lm_head.base_layer.weight, the whole
#   base matrix without the update.
# Matters: a converter that adds the update to the tied matrix, as PEFT's own merge does, changes
#   the model. An update of lm_head needs an output matrix of its own, and one of shared must be
#   left out.
# Needs about 6 GB in the temp folder (torch), some minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0 \
  transformers==5.17.0 tokenizers==0.23.3 peft==0.21.2 accelerate==1.15.0
cat > "$t/a.py" <<'P'
import sys, torch, warnings
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration
x, y = torch.tensor([[3, 4, 5, 1]]), torch.tensor([[0, 7, 8]])
def base():
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16,
        num_layers=1, num_heads=2, decoder_start_token_id=0)).eval()
def logits(m):
    return m(input_ids=x, decoder_input_ids=y).logits.detach()
for target in ("q", "lm_head", "shared"):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        m = get_peft_model(base(), LoraConfig(r=2, lora_alpha=4, init_lora_weights=False,
            target_modules=[target])).eval()
        with_adapter, loss = logits(m), m(input_ids=x, labels=y).loss
        if loss.requires_grad:
            loss.backward()
        learns = [p.grad is not None for n, p in m.named_parameters() if "lora" in n]
        m.save_pretrained(sys.argv[1] + target)
        merged = m.merge_and_unload()
    names = load_file(sys.argv[1] + target + "/adapter_model.safetensors")
    complications = any("complications" in str(w.message) for w in warned)
    assert target == "lm_head" or not any(w.category is UserWarning for w in warned)
    effect = (with_adapter - logits(base())).abs().max().item()
    error = (logits(merged) - with_adapter).abs().max().item()
    whole = [n for n in names if "lora" not in n]
    print(f"{target}: effect of the adapter {effect:.5f}, merged against adapter {error:.5f},",
        f"has gradients {all(learns)}, warning {complications}, stored beside it {whole}")
    tied = (merged.shared.weight, merged.encoder.embed_tokens.weight,
        merged.decoder.embed_tokens.weight, merged.lm_head.weight)
    assert all(w is tied[0] for w in tied)
    changed = not torch.equal(tied[0], base().shared.weight)
    assert changed == (target != "q") and complications == (target == "lm_head")
    assert (effect < 1e-4) == (target == "shared") and (error < 1e-4) == (target == "q")
    assert all(learns) == (target != "shared") and any(learns) == all(learns)
    assert whole == (["base_model.model.lm_head.base_layer.weight"] * (target == "lm_head"))
    if whole:
        assert torch.equal(names[whole[0]], base().lm_head.weight)
P
"$t/v/bin/python" "$t/a.py" "$t/" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
echo "as described"
