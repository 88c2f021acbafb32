"""What llama-quantize makes of a small model: types chosen, and bytes of each type, for tests/quantize.rs.

    python scripts/fixtures_quantize.py PATH/TO/llama-quantize [-o tests/fixtures/quantize]

Writes
    source.gguf    one layer, three matrices [512, 8] as F32, F16 and BF16, small tables
    imatrix.gguf   weights for them
    bytes.txt      TYPE SOURCE plain|imatrix SHA-256 of the tensor's data
    choices.txt    MODEL LAYERS tied|untied plain|imatrix PRESET, then CLASS=TYPE*n,TYPE*n,… in the order of layers,
                   for classes of tensors of which one at least changes; `refused` where llama-quantize ends
"""
import argparse
import hashlib
import re
import struct
import subprocess
import tempfile
from pathlib import Path

import gguf
import numpy as np

E, F, P, A, R, V, D = 256, 512, 256, 4, 64, 8, 32
PRESETS = ("F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS MXFP4_MOE Q3_K_L Q3_K_M "
           "Q3_K_S IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_S Q2_0 IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0 Q1_0").split()
TYPES = ("F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS MXFP4 NVFP4 Q3_K IQ3_S IQ3_XXS Q2_K Q2_0 IQ2_S "
         "IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0 Q1_0").split()
SOURCES = {"ffn_up": "F32", "ffn_gate": "F16", "ffn_down": "BF16"}
IMATRIX_KEYS = {"imatrix.chunk_count": 7, "imatrix.chunk_size": 512}


def as_type(values, name):
    """Values of an array in a plain type, and the type where numpy does not have it."""
    if name == "F32":
        return values.astype(np.float32), None
    if name == "F16":
        return values.astype(np.float16), None
    # Halves away from zero: any BF16 numbers will do.
    bits = values.astype(np.float32).view(np.uint32) + np.uint32(0x8000)
    return (bits >> 16).astype(np.uint16).view(np.uint8), gguf.GGMLQuantizationType.BF16


def text_writer(path, layers):
    writer = gguf.GGUFWriter(path, "gemma3n")
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(E)
    writer.add_feed_forward_length([F] * layers)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    writer.add_key_length(D)
    writer.add_value_length(D)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(512)
    writer.add_array("gemma3n.attention.sliding_window_pattern", [i % 5 != 4 for i in range(layers)])
    writer.add_uint32("gemma3n.attention.shared_kv_layers", max(0, layers - 20))
    writer.add_uint32("gemma3n.embedding_length_per_layer_input", P)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def source(path):
    """Rows with what is hard to pack: outliers, zeros, one value throughout, very small and very large ones."""
    rng = np.random.default_rng(20240626)
    writer = text_writer(path, 1)
    for name, ty in SOURCES.items():
        values = rng.standard_normal((8, 512)) * 0.05
        values[1] = rng.laplace(size=512) * 0.02
        values[2, rng.integers(0, 512, 5)] *= 30
        values[3, :256] = 0
        values[4, 256:] = -0.37
        values[5] = np.abs(values[5])
        values[6] *= 1e-4
        values[7] *= 200
        data, raw = as_type(values, ty)
        writer.add_tensor(f"blk.0.{name}.weight", data, raw_dtype=raw)
    # What sizes are taken from where there are no keys.
    for name, rows in [("token_embd", V), ("per_layer_token_embd", V), ("blk.0.laurel_l", 4)]:
        writer.add_tensor(f"{name}.weight", (rng.standard_normal((rows, E)) * 0.05).astype(np.float16))
    finish(writer)


def imatrix(path, tensors):
    rng = np.random.default_rng(20240627)
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.kv_data[0].pop("general.architecture")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["words.txt"])
    for key, value in IMATRIX_KEYS.items():
        writer.add_uint32(key, value)
    for name, columns in tensors:
        writer.add_tensor(f"{name}.in_sum2", (rng.gamma(0.5, size=(1, columns)) * 3584).astype(np.float32))
        writer.add_tensor(f"{name}.counts", np.full((1, 1), 3584, dtype=np.float32))
    finish(writer)


def text_model(path, layers, untied):
    """All names of a real model; shapes are small, their rows whole blocks where the real ones are."""
    writer = text_writer(path, layers)
    layer = dict(attn_norm=[E], attn_q=[E, 8 * D], attn_k=[E, 2 * D], attn_v=[E, 2 * D], attn_q_norm=[D], attn_k_norm=[D],
                 attn_output=[8 * D, E], post_attention_norm=[E], ffn_norm=[E], ffn_gate=[E, F], ffn_up=[E, F],
                 ffn_down=[F, E], post_ffw_norm=[E], inp_gate=[E, P], proj=[P, E], post_norm=[E],
                 altup_correct_coef=[A, A], altup_correct_scale=[E], altup_predict_coef=[A, A * A], altup_router=[E, A],
                 altup_router_norm=[E], laurel_l=[E, R], laurel_r=[R, E], laurel_post_norm=[E])
    tensors = dict(token_embd=[E, V], per_layer_token_embd=[P * layers, V], per_layer_model_proj=[E, P * layers],
                   per_layer_proj_norm=[P], altup_proj=[E, E, A - 1], altup_unembd_proj=[E, E, A - 1], output_norm=[E])
    if untied:
        tensors["output"] = [E, V]
    tensors |= {f"blk.{i}.{name}": ne for i in range(layers) for name, ne in layer.items()}
    for name, ne in tensors.items():
        plain = np.float32 if len(ne) == 1 or "coef" in name else np.float16
        writer.add_tensor(f"{name}.weight", np.zeros(ne[::-1], dtype=plain))
    finish(writer)
    return [(f"{name}.weight", ne[0]) for name, ne in tensors.items()]


def towers(path):
    """A tensor of each kind that a file of towers has, in F16, some in F32; two conformer blocks."""
    writer = gguf.GGUFWriter(path, "clip")
    d = 1536
    audio = dict(ffn_norm=[d], ffn_up=[d, 4], ffn_down=[6144, 4], ffn_post_norm=[d], attn_q=[d, 4], attn_k=[d, 4],
                 attn_v=[d, 4], linear_pos=[d, 4], attn_out=[d, 4], conv_norm=[d], conv_pw1=[d, 4], conv_pw2=[d, 4],
                 conv_dw=[5, 1, 8], ffn_up_1=[d, 4], ffn_down_1=[6144, 4], layer_pre_norm=[d])
    vision = {"conv_stem.conv.weight": [3, 3, 3, 4], "conv_stem.conv.bias": [1, 1, 4, 1], "conv_stem.bn.weight": [4],
              "blk.0.0.conv_exp.weight": [3, 3, 4, 4], "blk.0.0.conv_pwl.weight": [1, 1, 4, 4],
              "blk.1.0.dw_start.conv.weight": [3, 3, 1, 4], "blk.1.0.pw_exp.conv.weight": [1, 1, 4, 4],
              "blk.1.0.layer_scale.gamma": [1, 1, 4, 1], "blk.2.9.attn.query.proj.weight": [1, 1, 4, 4],
              "msfa.ffn.pw_exp.conv.weight": [1, 1, 4, 4], "msfa.norm.weight": [4]}
    tensors = {f"v.{name}": ne for name, ne in vision.items()}
    tensors |= {f"a.blk.{i}.{name}.weight": ne for i in range(2) for name, ne in audio.items()}
    tensors |= {"a.blk.0.per_dim_scale": [192], "a.conv1d.0.weight": [3, 3, 1, 4], "a.conv1d.1.weight": [3, 3, 4, 4],
                "a.pre_encode.out.weight": [1024, 4], "mm.input_projection.weight": [2048, 4], "mm.embedding.weight": [2048, 4],
                "mm.a.embedding.weight": [d, 4], "mm.a.input_projection.weight": [d, 4], "mm.soft_emb_norm.weight": [2048]}
    for name, ne in tensors.items():
        plain = np.float32 if len(ne) == 1 or "stem" in name or "conv1d" in name or "_dw" in name else np.float16
        writer.add_tensor(name, np.zeros(ne[::-1], dtype=plain))
    finish(writer)


def quantized(tool, arguments, inputs):
    run = subprocess.run([tool, *arguments, *inputs], capture_output=True, text=True)
    return (run.returncode == 0, run.stdout + run.stderr)


def tensor_data(path):
    """A file's tensors by name; the gguf package does not know the newest types."""
    raw = path.read_bytes()
    at = 8

    def take(form):
        nonlocal at
        (value,) = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize(form)
        return value

    def text():
        nonlocal at
        length = take("Q")
        at += length
        return raw[at - length:at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner, count = take("i"), take("Q")
            return [value(inner) for _ in range(count)]
        return take("BbHhIif?--Qqd"[kind])

    tensors, pairs = take("q"), take("q")
    for _ in range(pairs):
        text()
        value(take("i"))
    infos = []
    for _ in range(tensors):
        name = text()
        for _ in range(take("I")):
            take("q")
        take("i")
        infos.append((take("Q"), name))
    start = -(-at // 32) * 32
    infos.sort()
    ends = [offset for offset, _ in infos[1:]] + [len(raw) - start]
    return {name: raw[start + offset:start + end] for (offset, name), end in zip(infos, ends)}


def byte_lines(tool, folder, target):
    for ty in TYPES:
        for case in ("plain", "imatrix"):
            extra = ["--imatrix", str(target / "imatrix.gguf")] if case == "imatrix" else []
            out = folder / "out.gguf"
            done, _ = quantized(tool, [*extra, "--tensor-type", f"ffn={ty}"], [str(target / "source.gguf"), str(out), "Q8_0"])
            if not done:
                continue
            tensors = tensor_data(out)
            for name, was in SOURCES.items():
                # Sizes here are multiples of 32, so there is no padding.
                data = tensors[f"blk.0.{name}.weight"]
                yield f"{ty} {was} {case} {hashlib.sha256(data).hexdigest()}"


def run_lengths(types):
    runs = []
    for ty in types:
        if runs and runs[-1][0] == ty:
            runs[-1][1] += 1
        else:
            runs.append([ty, 1])
    return ",".join(f"{ty}*{n}" if n > 1 else ty for ty, n in runs)


def choice_lines(tool, folder):
    models = [("text", 30, False), ("text", 35, False), ("text", 35, True), ("towers", 0, False)]
    for model, layers, untied in models:
        path, weights = folder / "model.gguf", folder / "weights.gguf"
        if model == "text":
            imatrix(weights, text_model(path, layers, untied))
        else:
            towers(path)
        for case in ("plain", "imatrix") if layers == 35 else ("plain",):
            for preset in PRESETS:
                extra = ["--imatrix", str(weights)] if case == "imatrix" else []
                done, output = quantized(tool, ["--dry-run", *extra], [str(path), preset])
                head = f"{model} {layers} {'untied' if untied else 'tied'} {case} {preset}"
                if not done:
                    yield f"{head} refused"
                    continue
                classes = {}
                for name, was, now in re.findall(r"\] (\S+) +- \[.*type = +(\w+), size = .*?MiB(?: -> .*MiB \((\w+)\))?", output):
                    found = re.fullmatch(r"((?:[av]\.)?blk)\.\d+\.(.*)", name)
                    kind = f"{found[1]}.{found[2]}" if found and model == "text" else name
                    classes.setdefault(kind, []).append(((now or was).upper(), now != ""))
                yield head + "".join(f" {kind.removesuffix('.weight')}={run_lengths([ty for ty, _ in types])}"
                                     for kind, types in classes.items() if any(changed for _, changed in types))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", help="llama-quantize")
    parser.add_argument("-o", "--output", type=Path, default=Path("tests/fixtures/quantize"))
    options = parser.parse_args()
    target = options.output
    target.mkdir(parents=True, exist_ok=True)
    source(target / "source.gguf")
    imatrix(target / "imatrix.gguf", [(f"blk.0.{name}.weight", 512) for name in SOURCES])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (target / "bytes.txt").write_text("".join(line + "\n" for line in byte_lines(options.tool, folder, target)))
        (target / "choices.txt").write_text("".join(line + "\n" for line in choice_lines(options.tool, folder)))


if __name__ == "__main__":
    main()
