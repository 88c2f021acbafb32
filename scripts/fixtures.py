#!/usr/bin/env python3
"""Makes tests/fixtures: micro Gemma 3n checkpoints with random weights and the reference's values for them.

    python scripts/fixtures.py            # everything, over what is there
    python scripts/fixtures.py --check    # makes it in a temporary folder and compares

Needs the packages of scripts/requirements.txt and cargo. Weights are bfloat16 and are widened to float32 before anything
is computed; nothing is computed here: all values are recorded inside transformers, with eager attention and one thread.
Two runs on one kind of machine give the same bytes.
"""
import argparse
import contextlib
import filecmp
import json
import os
import re
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.dont_write_bytecode = True

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Gemma3nForCausalLM, Gemma3nTextConfig
from transformers.models.gemma3n import modeling_gemma3n

import fixtures_tokenizer as tokenizer

ROOT = Path(__file__).resolve().parent.parent
SLIDING, FULL = "sliding_attention", "full_attention"
STEPS = 16
# The gap between the two best logits that keeps greedy ids the same under rounding.
MARGIN = 0.02

PROMPTS = {
    "short": "Who reads",
    "long": "Write a short story about the lighthouse keeper.\n\n\nTake 250 grams of salt;   wait 7 minutes. Möwen, 灯台 & 🚢",
    # Ids that have no row in the per-layer table.
    "beyond": "The model <end_of_image> asks<unused7> and <end_of_audio><image_soft_token> answers",
}
ROPE = {SLIDING: 10_000.0, FULL: 1_000_000.0}


@dataclass
class Fixture:
    seed: int
    config: dict
    inner: dict  # case → layers whose inner values are recorded
    slices: dict = field(default_factory=dict)  # case → prompt, layers left out, FFN widths of those that stay


FIXTURES = {
    "tiny": Fixture(
        seed=1, inner={"short": (0, 4, 5, 6), "long": (2, 6), "beyond": ()},
        # An owner of K/V that nobody else reads and a sharing layer go.
        slices={"sliced": ("long", (1, 5), (96, 96, 64, 96, 96)), "sliced-first": ("beyond", (0, 5), (64, 96, 32, 96, 96))},
        config=dict(hidden_size=96, num_hidden_layers=7, num_attention_heads=6, num_key_value_heads=3, head_dim=16,
                    intermediate_size=[96, 64, 128, 64, 96, 64, 128], layer_types=[SLIDING, SLIDING, FULL, SLIDING, FULL, SLIDING, FULL],
                    sliding_window=8, num_kv_shared_layers=2, activation_sparsity_pattern=[0.55, 0.95, 0.8, 0.0, 0.6, 0.0, 0.0],
                    altup_num_inputs=3, altup_active_idx=0, laurel_rank=16, hidden_size_per_layer_input=16,
                    final_logit_softcapping=25.0)),
    "active1": Fixture(
        seed=1, inner={"short": (0, 4), "long": (1,)},
        config=dict(hidden_size=64, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=1, head_dim=16,
                    intermediate_size=[64, 96, 32, 64, 96], layer_types=[SLIDING, FULL, SLIDING, SLIDING, FULL],
                    sliding_window=5, num_kv_shared_layers=2, activation_sparsity_pattern=[0.95, 0.7, 0.0, 0.0, 0.0],
                    altup_num_inputs=4, altup_active_idx=1, laurel_rank=8, hidden_size_per_layer_input=8,
                    final_logit_softcapping=30.0)),
    # Rows of 256: every quantized type fits. Every layer has its own keys and values.
    "wide": Fixture(
        seed=1, inner={"short": (0,), "long": (1,)},
        config=dict(hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=64,
                    intermediate_size=[256, 256], layer_types=[SLIDING, FULL], sliding_window=12, num_kv_shared_layers=0,
                    activation_sparsity_pattern=[0.9, 0.0], altup_num_inputs=2, altup_active_idx=0, laurel_rank=32,
                    hidden_size_per_layer_input=128, final_logit_softcapping=30.0)),
}


# ------------------------------------------------------------------ weights
# Name → (centre, spread, sign): gaussian around 0 when the centre is None, else uniform in centre ± spread. A spread of
# None stands for 1/sqrt(columns). Every term gets weights that make it matter.
WEIGHTS = [
    (r"embed_tokens_per_layer", (None, "per_layer", False)),
    (r"embed_tokens", (None, None, False)),
    (r"per_layer_model_projection", (None, 1.0, False)),
    (r"correct_output_scale", (1.0, 0.4, False)),
    (r"prediction_coefs", (None, 0.08, False)),
    (r"correction_coefs", (None, 0.25, False)),
    (r"modality_router", (None, "router", False)),
    (r"[qk]_norm", (0.5, 0.2, False)),
    (r"post_(attention|feedforward)_layernorm|post_laurel_norm|post_per_layer_input_norm", (0.5, 0.25, False)),
    # Random signs: otherwise the tied embedding makes every token its own likeliest successor.
    (r"^model\.norm", (9.0, 4.0, True)),
    (r"norm", (1.0, 0.5, False)),
    (r"", (None, None, False)),
]


def weight(name, shape, seed, config):
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    centre, spread, sign = next(rule for pattern, rule in WEIGHTS if re.search(pattern, name))
    spread = {None: shape[-1] ** -0.5, "per_layer": config.hidden_size_per_layer_input ** -0.5,
              "router": 0.8 * shape[-1] ** 0.5}.get(spread, spread)
    if centre is None:
        values = rng.standard_normal(shape) * spread
    else:
        values = centre + rng.uniform(-spread, spread, shape)
    if sign:
        values *= rng.choice([-1.0, 1.0], shape)
    if re.search(r"embed_tokens\.", name):
        values[[0, 1, 3, 11]] *= 0.2  # an answer should not end at once
        values[tokenizer.TEXT_PIECES:] *= 0.5
    return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)


def write_checkpoint(folder, fixture):
    folder.mkdir(parents=True, exist_ok=True)
    config = Gemma3nTextConfig(
        vocab_size=tokenizer.ALL_PIECES, vocab_size_per_layer_input=tokenizer.TEXT_PIECES, rms_norm_eps=1e-6,
        max_position_embeddings=512, altup_correct_scale=True, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        rope_parameters={kind: {"rope_type": "default", "rope_theta": base} for kind, base in ROPE.items()}, **fixture.config)
    model = Gemma3nForCausalLM(config)
    state = {name: weight(name, tuple(p.shape), fixture.seed, config)
             for name, p in sorted(model.named_parameters()) if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {key: value for key, value in config.to_dict().items() if key not in ("_name_or_path", "id2label", "label2id")}
    settings.update(architectures=["Gemma3nForCausalLM"], dtype="bfloat16")
    write_json(folder / "config.json", settings)
    write_json(folder / "generation_config.json", dict(bos_token_id=2, eos_token_id=[1, 11], pad_token_id=0, do_sample=True,
                                                       top_k=64, top_p=0.95, temperature=1.0))
    tokenizer.write(folder)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------ MatFormer
def sliced(model, left_out, widths):
    """The reference's own smaller model, with weights taken out of the bigger one."""
    config = model.config
    kept = [i for i in range(config.num_hidden_layers) if i not in left_out]
    owners = config.num_hidden_layers - config.num_kv_shared_layers
    smaller = Gemma3nForCausalLM(Gemma3nTextConfig(**{
        **config.to_dict(), "num_hidden_layers": len(kept), "intermediate_size": list(widths),
        "layer_types": [config.layer_types[i] for i in kept],
        "activation_sparsity_pattern": [config.activation_sparsity_pattern[i] for i in kept],
        "num_kv_shared_layers": sum(i >= owners for i in kept), "attn_implementation": "eager"})).eval()
    weights, p = model.state_dict(), config.hidden_size_per_layer_input
    groups = torch.cat([torch.arange(i * p, (i + 1) * p) for i in kept])

    def source(name):
        layer = re.match(r"model\.layers\.(\d+)\.(.*)", name)
        if layer:
            values = weights[f"model.layers.{kept[int(layer[1])]}.{layer[2]}"]
            width = widths[int(layer[1])]
            if "gate_proj" in name or "up_proj" in name:
                return values[:width]
            return values[:, :width] if "down_proj" in name else values
        if "embed_tokens_per_layer" in name:
            return weights[name][:, groups]
        return weights[name][groups] if "per_layer_model_projection" in name else weights[name]
    with torch.no_grad():
        for name, parameter in smaller.named_parameters():
            parameter.copy_(source(name))
    return smaller


# ------------------------------------------------------------------ values inside the reference
class Recorder(contextlib.AbstractContextManager):
    """Keeps values while the model runs, without its batch axis: [T, …], streams of AltUp [A, T, D]."""

    STREAMS = ("altup_init", "out", "predictions", "corrected")

    def __init__(self, model, inner):
        self.text, self.inner, self.values, self.undo = model.model, inner, {}, contextlib.ExitStack()

    def keep(self, name, value):
        assert name not in self.values, name
        batch = 1 if name.rsplit(".")[-1] in self.STREAMS else 0
        self.values[name] = value.detach().squeeze(batch).clone().numpy()

    def module(self, module, out=None, into=None):
        """Records what goes into a module and what comes out of it."""
        def hook(_, args, kwargs, result):
            if into:
                self.keep(into, args[0] if args else kwargs["hidden_states"])
            if out:
                self.keep(out, result[0] if isinstance(result, tuple) else result)
        self.undo.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

    def method(self, owner, name, record):
        """Calls record(result, *arguments) after a method or function."""
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            result = original(*args, **kwargs)
            record(result, *args)
            return result
        shadowed = name in vars(owner)
        setattr(owner, name, wrapped)
        self.undo.callback(lambda: setattr(owner, name, original) if shadowed else delattr(owner, name))

    def __enter__(self):
        text = self.text
        self.module(text.per_layer_model_projection, into="embeds")
        self.method(text, "get_per_layer_inputs", lambda result, *_: self.keep("per_layer_token_embeds", result))
        self.method(text, "project_per_layer_inputs", lambda result, *_: self.keep("per_layer_inputs", result))
        self.module(text.layers[0], into="altup_init")
        for i, layer in enumerate(text.layers):
            if i in self.inner:
                self.layer(f"layer{i:02d}.", layer)
            self.module(layer, f"layer{i:02d}.out")
        self.module(text.norm, "final_hidden", "pre_final_norm")
        self.method(modeling_gemma3n, "eager_attention_forward", self.attention)
        return self

    def __exit__(self, *_):
        self.undo.close()

    def attention(self, result, module, query, key, value, *_):
        if module.layer_idx in self.inner:
            prefix = f"layer{module.layer_idx:02d}."
            for name, x in (("q", query), ("k", key), ("v", value), ("attn_probs", result[1])):
                self.keep(prefix + name, x.transpose(1, 2))

    def layer(self, prefix, layer):
        altup, routed = layer.altup, iter(("modalities_predict", "modalities_correct"))
        self.method(altup, "compute_router_modalities", lambda result, *_: self.keep(prefix + next(routed), result))
        self.method(altup, "predict", lambda result, *_: self.keep(prefix + "predictions", result))

        def corrected(result, _, activated):
            self.keep(prefix + "activated", activated)
            self.keep(prefix + "corrected", result)
        self.method(altup, "correct", corrected)
        self.method(altup, "scale_corrected_output", lambda result, *_: self.keep(prefix + "corrected_scaled", result))
        for module, out, into in (
                (layer.input_layernorm, "attn_in", None), (layer.laurel, "laurel_out", None),
                (layer.self_attn.o_proj, "attn_out", "attn_context"),
                (layer.post_attention_layernorm, "attn_out_normed", None),
                (layer.pre_feedforward_layernorm, "ffn_in", "attn_laurel"),
                (layer.mlp.gate_proj, "gate_raw", None), (layer.mlp.up_proj, "up", None),
                (layer.mlp.down_proj, "ffn_out", "gated_up"), (layer.post_feedforward_layernorm, "ffn_out_normed", None),
                (layer.per_layer_input_gate, "ple_gate", None), (layer.per_layer_projection, "ple_proj", "ple_gated"),
                (layer.post_per_layer_input_norm, "ple_out", None)):
            self.module(module, prefix + out, prefix + into if into else None)
        if layer.mlp.activation_sparsity > 0:
            self.method(layer.mlp, "_gaussian_topk", lambda result, *_: self.keep(prefix + "gate_sparse", result))


def record(model, ids, inner, window, whole):
    """The arrays of one case. Inner values of a prompt longer than the window are kept at a few positions only."""
    tokens = torch.tensor([ids])
    with torch.no_grad(), Recorder(model, inner) as recorder:
        logits = model(input_ids=tokens, use_cache=False).logits[0]
    arrays = {"input_ids": np.array(ids, np.int32)}
    rows = sorted({1, window, len(ids) - 1})
    if not whole:
        arrays["positions"] = np.array(rows, np.int32)
    for name, value in recorder.values.items():
        leaf = name.rsplit(".")[-1]
        if whole or leaf in ("k", "v"):
            arrays[name] = value
        elif leaf in Recorder.STREAMS:
            arrays[name + ".at"] = value[:, rows]
        else:
            arrays[name + ".at"] = value[rows]
    arrays.update(logits_last=logits[-2:].numpy(), argmax=logits.argmax(-1).to(torch.int32).numpy(),
                  logits_lse=torch.logsumexp(logits, -1).numpy(), logits_l2=logits.norm(dim=-1).numpy())
    arrays.update(continuation(model, tokens))
    assert all(np.isfinite(value).all() for value in arrays.values())
    return arrays


def continuation(model, tokens):
    """STEPS greedy steps with the KV cache, never stopped."""
    with torch.no_grad():
        result = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=STEPS,
                                eos_token_id=-1, pad_token_id=0, top_k=None, top_p=None, temperature=None, use_cache=True,
                                return_dict_in_generate=True, output_logits=True)
    logits = torch.cat(result.logits)
    best = logits.topk(2).values
    steps = [0, 1, STEPS - 1]
    return dict(greedy_ids=result.sequences[:, -STEPS:].to(torch.int32).numpy(), greedy_margin=(best[:, 0] - best[:, 1])[None].numpy(),
                greedy_steps=np.array(steps, np.int32), greedy_logits=logits[None, steps].numpy())


# ------------------------------------------------------------------ all of it
def cargo(*arguments):
    subprocess.run(["cargo", "run", "--quiet", *map(str, arguments)], cwd=ROOT, check=True)


def make(out):
    """`out` takes the place of tests/fixtures."""
    for name, fixture in FIXTURES.items():
        folder = out / name
        write_checkpoint(folder, fixture)
        model = Gemma3nForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        encode = AutoTokenizer.from_pretrained(folder)
        cases = {case: (case, inner, model) for case, inner in fixture.inner.items()}
        cases.update({case: (prompt, (), sliced(model, *cut)) for case, (prompt, *cut) in fixture.slices.items()})
        for case, (prompt, inner, model) in cases.items():
            ids = encode(PROMPTS[prompt]).input_ids
            arrays = record(model, ids, inner, fixture.config["sliding_window"], case == "short")
            margin = arrays["greedy_margin"].min()
            distinct = len(set(arrays["greedy_ids"].ravel()))
            print(f"{name} {case}: {len(ids)} tokens, margin {margin:.4f}, {distinct} different ids of {STEPS}")
            assert margin > MARGIN, f"{name} {case}: greedy ids are not stable; take another seed"
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / f"{name}_{case}.npz"
                np.savez_compressed(path, **arrays)
                target = folder.resolve() / ("slices" if case in fixture.slices else "")
                target.mkdir(exist_ok=True)
                cargo("--example", "npz-to-reference", "--", path, "-o", target / f"{case}.reference.gguf")
    tiny = (out / "tiny").resolve()
    cargo("--bin", "gemma3n", "--", "convert", tiny, "-o", tiny / "tiny-f16.gguf", "--type", "f16", "--force")


def compare(made, kept):
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    different = [str(path) for path in files if not (kept / path).is_file() or not filecmp.cmp(made / path, kept / path, shallow=False)]
    sys.exit("different: " + ", ".join(different) if different else 0)


def main():
    parser = argparse.ArgumentParser(description="Makes tests/fixtures")
    parser.add_argument("--check", action="store_true", help="compare with what is there instead of writing it")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    fixtures = ROOT / "tests" / "fixtures"
    if not parser.parse_args().check:
        make(fixtures)
        return
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch))
        compare(Path(scratch), fixtures)


if __name__ == "__main__":
    main()
