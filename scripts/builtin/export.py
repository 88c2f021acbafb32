"""The trained model as a Hugging Face checkpoint, in the published checkpoints' form."""
import json
import shutil
import subprocess

from safetensors.torch import save_file

import config
import tokenizer as tokens


# The checkpoint's folder, by which `convert` names the model.
NAME = "gemma3n-builtin"
CARD = """---
license: mit
---
A small Gemma 3n with every mechanism of the published models, trained from nothing by scripts/builtin of gemma3n.
"""


def processor_config():
    return {"audio_seq_length": config.AUDIO_TOKENS, "image_seq_length": config.IMAGE_TOKENS,
            "processor_class": "Gemma3nProcessor"}


def preprocessor_config():
    size = config.IMAGE_SIZE
    return {
        **processor_config(),
        "do_convert_rgb": True, "do_normalize": False, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": "SiglipImageProcessorFast",
        "resample": 2, "rescale_factor": 1 / 255, "size": {"height": size, "width": size},
        "feature_extractor_type": "Gemma3nAudioFeatureExtractor", "feature_size": 128,
        "sampling_rate": 16000, "padding_value": 0.0, "padding_side": "right",
        "return_attention_mask": True, "frame_length_ms": 32.0, "hop_length_ms": 10.0,
        "min_frequency": 125.0, "max_frequency": 7600.0, "preemphasis": 0.97,
        "preemphasis_htk_flavor": True, "fft_overdrive": True, "dither": 0.0,
        "input_scale_factor": 1.0, "mel_floor": 1e-05, "per_bin_mean": None, "per_bin_stddev": None,
        "frame_length": 512, "hop_length": 160, "fft_length": 1024}


def generation_config():
    """Greedy, by top_k 1: a model this small should not be asked for its second choice."""
    return {"_from_model_config": True, "bos_token_id": config.BOS,
            "eos_token_id": [config.EOS, config.END_OF_TURN], "pad_token_id": config.PAD,
            "do_sample": False, "top_k": 1, "temperature": 1.0}


def write(run, stage, folder):
    """Writes the checkpoint of what the stage left."""
    folder.mkdir(parents=True, exist_ok=True)
    model = run.model(stage)
    weights = {name: value.detach().contiguous() for name, value in model.named_parameters()
               if name != "lm_head.weight"}  # tied to embed_tokens
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    files = {"config.json": config.config_dict(), "generation_config.json": generation_config(),
             "preprocessor_config.json": preprocessor_config(), "processor_config.json": processor_config(),
             "tokenizer_config.json": tokens.tokenizer_config()}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(tokens.CHAT_TEMPLATE)
    shutil.copy(run.folder / "tokenizer.json", folder / "tokenizer.json")
    (folder / "README.md").write_text(CARD)
    return sum(value.numel() for value in weights.values())


# Text model and towers of the files that are measured; the last is the one to ship, if its figures
# are those of the first.
KINDS = [("F32", "F32"), ("Q8_0-small8", "Q8_0"), ("Q4_K_M-small8", "Q8_0")]


def convert(binary, checkpoint, folder):
    """The program's own files, by its own `convert`, `quantize` and `slice`. Returns their text
    models; the towers lie beside each."""
    def run(*arguments):
        subprocess.run([binary, *map(str, arguments), "--force", "--quiet"], check=True)

    out = []
    for text, towers in KINDS:
        place = folder / text
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{NAME}.gguf"
        run("convert", checkpoint, "-o", path, "--type", "F32" if text == "F32" else "F16",
            "--mmproj-type", towers)
        if text != "F32":
            whole = path.rename(place / "f16.gguf")
            run("quantize", whole, path, text)
            whole.unlink()
        out.append(path)
    left_out = sorted(set(range(config.TEXT["num_hidden_layers"])) - set(config.SLICE_LAYERS))
    for path in list(out):
        place = folder / (path.parent.name + "-half")
        place.mkdir(exist_ok=True)
        run("slice", path, "--ffn", config.SLICE_WIDTH, "--skip-layers", ",".join(map(str, left_out)),
            "-o", place / path.name)
        for towers in path.parent.glob("mmproj-*.gguf"):
            shutil.copy(towers, place / towers.name)
        out.append(place / path.name)
    return out
