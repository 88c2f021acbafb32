"""Sizes of the built-in model, its special ids, and its initial weights.

One place for every number that other files must agree on. The classes are the reference
implementation's own (transformers, timm); only sizes differ from the published models, and the
initial weights, because the reference's defaults are for loading weights, not for making them.
"""
from functools import lru_cache

import torch
import timm
import timm.layers
from timm.layers import RmsNorm2d
from timm.models import register_model
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.mobilenetv5 import _GELU, MobileNetV5Encoder, MobileNetV5MultiScaleFusionAdapter
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

timm.layers.set_fused_attn(False)

SLIDING, FULL = "sliding_attention", "full_attention"

# Vocabulary: text pieces, then ids that belong to pictures, then ids that belong to sound.
TEXT_VOCAB = 1216
VISION_VOCAB = AUDIO_VOCAB = 32
VOCAB = TEXT_VOCAB + VISION_VOCAB + AUDIO_VOCAB
PAD, EOS, BOS, START_OF_TURN, END_OF_TURN = 0, 1, 2, 14, 15
START_OF_IMAGE, START_OF_AUDIO = TEXT_VOCAB - 8, TEXT_VOCAB - 7
END_OF_IMAGE, IMAGE_TOKEN = TEXT_VOCAB, TEXT_VOCAB + 1
END_OF_AUDIO, AUDIO_TOKEN = TEXT_VOCAB + VISION_VOCAB, TEXT_VOCAB + VISION_VOCAB + 1

# A soft token of sound is 160 ms: 50 are 8 seconds, the longest segment of `transcribe`.
AUDIO_TOKENS = 50
IMAGE_SIZE = 96
IMAGE_GRID = 6
IMAGE_TOKENS = IMAGE_GRID**2

# With eight layers of 32 values the per-layer table has rows of 256, which K-quants need.
LAYER_TYPES = [SLIDING, SLIDING, FULL, SLIDING, FULL, SLIDING, SLIDING, FULL]
TEXT = dict(
    vocab_size=VOCAB, vocab_size_per_layer_input=TEXT_VOCAB, hidden_size=256,
    hidden_size_per_layer_input=32, intermediate_size=[512] * 8, num_hidden_layers=8,
    num_attention_heads=4, num_key_value_heads=1, head_dim=64, laurel_rank=32,
    altup_num_inputs=4, altup_active_idx=0, altup_correct_scale=True, altup_coef_clip=120.0,
    activation_sparsity_pattern=[0.95] * 2 + [0.0] * 6, layer_types=LAYER_TYPES,
    sliding_window=128, num_kv_shared_layers=3, final_logit_softcapping=30.0, rms_norm_eps=1e-6,
    max_position_embeddings=2048, hidden_activation="gelu_pytorch_tanh", attention_bias=False,
    attention_dropout=0.0, initializer_range=0.02, use_cache=True,
    pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS, tie_word_embeddings=True)

# The slice inside: half the feed-forward width, without the first two of the sharing layers.
SLICE_WIDTH = 256
SLICE_LAYERS = [0, 1, 2, 3, 4, 7]

# Inputs of 1×1 convolutions are multiples of 32, so that they can be quantized.
VISION_WIDTH = 128
VISION_STAGES = [
    ["er_r1_k3_s2_e4_c32"],
    ["uir_r1_a3_k3_s2_e3_c64", "uir_r1_a3_k0_s1_e3_c64"],
    ["uir_r1_a3_k5_s2_e4_c96", "uir_r1_a5_k0_s1_e3_c96", "mqa_r1_k3_h4_v2_s1_d32_c96",
     "uir_r1_a0_k0_s1_e2_c96", "uir_r1_a5_k0_s1_e3_c96"],
    ["uir_r1_a3_k3_s2_e3_c128", "mqa_r1_k3_h4_s1_d32_c128", "uir_r1_a0_k0_s1_e2_c128",
     "mqa_r1_k3_h4_s1_d32_c128", "uir_r1_a0_k0_s1_e2_c128"],
]
VISION = dict(
    model_type="gemma3n_vision", architecture="mobilenetv5_gemma3n_builtin", do_pooling=False,
    hidden_size=VISION_WIDTH, initializer_range=0.02, rms_norm_eps=1e-6, num_classes=2,
    label_names=["LABEL_0", "LABEL_1"],
    vocab_offset=TEXT_VOCAB, vocab_size=VISION_VOCAB,
    model_args=dict(arch_def=VISION_STAGES, stem_size=16, num_features=VISION_WIDTH,
                    msfa_output_resolution=IMAGE_GRID))

AUDIO = dict(
    model_type="gemma3n_audio", hidden_size=128, vocab_size=AUDIO_VOCAB,
    vocab_offset=TEXT_VOCAB + VISION_VOCAB, input_feat_size=128,
    conf_num_attention_heads=4, conf_num_hidden_layers=5, conf_attention_chunk_size=12,
    conf_attention_context_left=13, conf_attention_context_right=0,
    conf_attention_logit_cap=50.0, conf_conv_kernel_size=5, conf_reduction_factor=4,
    conf_residual_weight=0.5, gradient_clipping=1e10, rms_norm_eps=1e-6,
    sscp_conv_channel_size=[16, 16], sscp_conv_kernel_size=[[3, 3], [3, 3]],
    sscp_conv_stride_size=[[2, 2], [2, 2]], sscp_conv_group_norm_eps=1e-3)


class BuiltinEncoder(MobileNetV5Encoder):
    """timm's encoder with our list of blocks.

    timm hard-codes 2048 channels after the fusion, so the fusion is built again, with ours.
    """

    def __init__(self, arch_def, stem_size, num_features, msfa_output_resolution):
        super().__init__(
            block_args=decode_arch_def(arch_def), stem_size=stem_size, fix_stem=False,
            pad_type="same", msfa_output_resolution=msfa_output_resolution,
            round_chs_fn=round_channels, norm_layer=RmsNorm2d, act_layer=_GELU,
            layer_scale_init_value=1e-5)
        self.num_features = self.head_hidden_size = num_features
        self.msfa = MobileNetV5MultiScaleFusionAdapter(
            in_chs=self.msfa_in_chs, out_chs=num_features,
            output_resolution=msfa_output_resolution, norm_layer=RmsNorm2d, act_layer=_GELU)


@register_model
def mobilenetv5_gemma3n_builtin(pretrained=False, **kwargs):
    """`vision_config.architecture`; the sizes are in `vision_config.model_args`."""
    names = ("arch_def", "stem_size", "num_features", "msfa_output_resolution")
    return BuiltinEncoder(**{name: kwargs[name] for name in names})


def config_dict():
    """config.json in the style of the published checkpoints."""
    text = dict(TEXT, model_type="gemma3n_text", rope_theta=1e6, rope_local_base_freq=1e4,
                rope_scaling=None, torch_dtype="float32")
    return dict(
        architectures=["Gemma3nForConditionalGeneration"], model_type="gemma3n",
        audio_soft_tokens_per_image=AUDIO_TOKENS, vision_soft_tokens_per_image=IMAGE_TOKENS,
        boi_token_id=START_OF_IMAGE, boa_token_id=START_OF_AUDIO,
        eoi_token_id=END_OF_IMAGE, image_token_id=IMAGE_TOKEN,
        eoa_token_id=END_OF_AUDIO, audio_token_id=AUDIO_TOKEN,
        eos_token_id=[EOS, END_OF_TURN], pad_token_id=PAD, bos_token_id=BOS,
        initializer_range=0.02, tie_word_embeddings=True, torch_dtype="float32",
        text_config=text, vision_config=dict(VISION, torch_dtype="float32"),
        audio_config=dict(AUDIO, torch_dtype="float32"))


def make_model(seed=0):
    """The whole model with fresh weights."""
    torch.manual_seed(seed)
    config = Gemma3nConfig(**config_dict())
    config._attn_implementation = "eager"
    model = Gemma3nForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "lm_head.weight":
                initialize(name, parameter)
    return model


def initialize(name, p):
    """Fresh values for one parameter, where the reference's default does not train well."""
    fan_in = p[0].numel() if p.dim() > 1 else 1
    parts = name.split(".")
    if name.endswith("correct_output_scale"):
        # The default 0 makes the per-layer gate's output 0, and the norm behind it then
        # multiplies its gradient by 1000.
        p.fill_(1.0)
    elif parts[-2] in ("q_norm", "k_norm"):
        # The attention scale is 1: with ones, logits have a spread of sqrt(head_dim).
        p.fill_(p.numel() ** -0.25)
    elif name.endswith("modality_router.weight"):
        p.normal_(0, 1.0)  # its input is scaled by 1/hidden_size
    elif name.endswith("embed_tokens_per_layer.weight"):
        p.normal_(0, TEXT["hidden_size_per_layer_input"] ** -0.5)
    elif name.endswith("layer_scale.gamma"):
        # It stands on blocks without a skip too, where the default 1e-5 kills the signal.
        block = name.removeprefix("model.vision_tower.timm_model.").removesuffix(".layer_scale.gamma")
        p.fill_(0.5 if block in blocks_with_skip() else 1.0)
    elif name.endswith("conv_stem.conv.bias"):
        # Without it the norm behind removes brightness: black, grey and white look alike.
        p.normal_(0, 0.5)
    elif p.dim() > 1 and ("vision_tower" in name or "audio_tower" in name or "embed_" in name
                          and "projection" in name):
        p.normal_(0, fan_in**-0.5)


@lru_cache
def blocks_with_skip():
    """Names of the picture tower's blocks that add to their input."""
    tower = timm.create_model(VISION["architecture"], **VISION["model_args"])
    return {f"blocks.{stage}.{index}" for stage, blocks in enumerate(tower.blocks)
            for index, block in enumerate(blocks) if block.has_skip}
