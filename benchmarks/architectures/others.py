"""Models of other libraries than transformers, as far as these are installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

Builder = Callable[[], tuple[nn.Module, tuple[tuple, dict[str, Any]]]]


def _floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _ids(*shape: int, high: int = 100) -> Tensor:
    return torch.randint(1, high, shape, generator=torch.Generator().manual_seed(1))


# --- timm -----------------------------------------------------------------------------------------

_TIMM = (  # name, side of the image
    ("vit_tiny_patch16_224", 224),
    ("vit_base_patch16_siglip_224", 224),
    ("vit_relpos_small_patch16_224", 224),
    ("vit_small_patch14_reg4_dinov2", 518),
    ("deit_tiny_distilled_patch16_224", 224),
    ("deit3_small_patch16_224", 224),
    ("beit_base_patch16_224", 224),
    ("eva02_tiny_patch14_224", 224),
    ("cait_xxs24_224", 224),
    ("convit_tiny", 224),
    ("tnt_s_patch16_224", 224),
    ("pit_ti_224", 224),
    ("volo_d1_224", 224),
    ("crossvit_tiny_240", 240),
    ("coat_lite_tiny", 224),
    ("levit_128s", 224),
    ("visformer_tiny", 224),
    ("twins_pcpvt_small", 224),
    ("twins_svt_small", 224),
    ("pvt_v2_b0", 224),
    ("mvitv2_tiny", 224),
    ("hiera_tiny_224", 224),
    ("swin_tiny_patch4_window7_224", 224),
    ("swinv2_tiny_window8_256", 256),
    ("swinv2_cr_tiny_ns_224", 224),
    ("gcvit_xxtiny", 224),
    ("maxvit_rmlp_pico_rw_256", 256),
    ("coatnet_pico_rw_224", 224),
    ("davit_tiny", 224),
    ("xcit_nano_12_p16_224", 224),
    ("edgenext_xx_small", 256),
    ("mobilevit_xxs", 256),
    ("mobilevitv2_050", 256),
    ("mobilenetv4_hybrid_medium", 256),
    ("efficientformer_l1", 224),
    ("efficientvit_b0", 224),
    ("fastvit_sa12", 256),
    ("nextvit_small", 224),
    ("tiny_vit_5m_224", 224),
    ("botnet26t_256", 256),
    ("halonet26t", 256),
    ("lambda_resnet26t", 256),
    ("resnet18", 224),
)


def _timm(name: str, side: int) -> Builder:
    def build() -> Any:
        import timm

        return timm.create_model(name, pretrained=False), ((_floats(1, 3, side, side),), {})

    return build


# --- torchvision ----------------------------------------------------------------------------------


def _torchvision(name: str) -> Builder:
    def build() -> Any:
        import torchvision.models as models

        if name == "vit":
            model = models.VisionTransformer(64, 16, 2, 4, 64, 128)
            return model, ((_floats(2, 3, 64, 64),), {})
        model = getattr(models, name)(weights=None)
        return model, ((_floats(1, 3, 224, 224),), {})

    return build


# --- diffusers ------------------------------------------------------------------------------------

_BLOCK = {"num_attention_heads": 4, "attention_head_dim": 16}
_UNET = {"sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1}
_IMAGE = {"hidden_states": (2, 4, 8, 8), "timestep": None}
_DIFFUSERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "UNet2DModel": (
        {
            **_UNET,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 16,
        },
        {"sample": (2, 3, 16, 16), "timestep": None},
    ),
    "UNet2DConditionModel": (
        {
            **_UNET,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
        },
        {"sample": (2, 4, 16, 16), "timestep": None, "encoder_hidden_states": (2, 5, 32)},
    ),
    "AutoencoderKL": (
        {"block_out_channels": (32,), "norm_num_groups": 8},
        {"sample": (1, 3, 16, 16)},
    ),
    "Transformer2DModel": (
        {**_BLOCK, "in_channels": 32, "norm_num_groups": 8, "cross_attention_dim": 32},
        {"hidden_states": (2, 32, 6, 6), "encoder_hidden_states": (2, 5, 32)},
    ),
    "DiTTransformer2DModel": (
        {**_BLOCK, "in_channels": 4, "num_layers": 2, "sample_size": 8},
        {**_IMAGE, "class_labels": None},
    ),
    "PixArtTransformer2DModel": (
        {
            **_BLOCK,
            "in_channels": 4,
            "num_layers": 2,
            "sample_size": 8,
            "cross_attention_dim": 64,
            "caption_channels": 32,
            "use_additional_conditions": False,
        },
        {**_IMAGE, "encoder_hidden_states": (2, 5, 32)},
    ),
    "SD3Transformer2DModel": (
        {
            **_BLOCK,
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "joint_attention_dim": 32,
            "caption_projection_dim": 64,
            "pooled_projection_dim": 32,
            "out_channels": 4,
        },
        {**_IMAGE, "encoder_hidden_states": (2, 5, 32), "pooled_projections": (2, 32)},
    ),
    "SanaTransformer2DModel": (
        {
            **_BLOCK,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_cross_attention_heads": 4,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 64,
            "caption_channels": 32,
            "sample_size": 8,
        },
        {**_IMAGE, "encoder_hidden_states": (2, 5, 32)},
    ),
    "AuraFlowTransformer2DModel": (
        {
            **_BLOCK,
            "sample_size": 8,
            "in_channels": 4,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "joint_attention_dim": 32,
            "caption_projection_dim": 64,
            "out_channels": 4,
            "pos_embed_max_size": 32,
        },
        {**_IMAGE, "encoder_hidden_states": (2, 5, 32)},
    ),
    "PriorTransformer": (
        {
            **_BLOCK,
            "num_layers": 2,
            "embedding_dim": 32,
            "num_embeddings": 5,
            "additional_embeddings": 4,
        },
        {
            "hidden_states": (2, 32),
            "timestep": None,
            "proj_embedding": (2, 32),
            "encoder_hidden_states": (2, 5, 32),
        },
    ),
    "VQModel": (
        {"block_out_channels": (32,), "norm_num_groups": 8},
        {"sample": (1, 3, 16, 16)},
    ),
}


def _diffusers(name: str) -> Builder:
    options, shapes = _DIFFUSERS[name]

    def build() -> Any:
        import diffusers

        inputs = {k: torch.tensor([3, 3]) if v is None else _floats(*v) for k, v in shapes.items()}
        if name in ("UNet2DModel", "UNet2DConditionModel"):
            inputs["timestep"] = torch.tensor(3)
        return getattr(diffusers, name)(**options), ((), {**inputs, "return_dict": False})

    return build


# --- open_clip ------------------------------------------------------------------------------------

_VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
_TEXT = {"context_length": 8, "vocab_size": 100, "width": 64, "heads": 4, "layers": 2}


def _open_clip(name: str) -> Builder:
    def build() -> Any:
        from open_clip import CLIP, CoCa

        image, text = _floats(2, 3, 32, 32), _ids(2, 8)
        if name == "coca":
            vision = {
                **_VISION,
                "attentional_pool": True,
                "attn_pooler_heads": 4,
                "output_tokens": True,
            }
            text_options = {**_TEXT, "embed_cls": True, "output_tokens": True}
            decoder = {"width": 64, "heads": 4, "layers": 2, "context_length": 9}
            return CoCa(64, decoder, text_options, vision), ((image, text), {})
        extra = {
            "pooling": {"attentional_pool": True, "attn_pooler_heads": 4},
            "resnet": {"layers": (1, 1, 1, 1), "head_width": 16},
        }
        return CLIP(64, {**_VISION, **extra.get(name, {})}, _TEXT), ((image, text), {})

    return build


# --- x-transformers -------------------------------------------------------------------------------

_X: dict[str, dict[str, Any]] = {
    "plain": {},
    "flash": {"attn_flash": True},
    "rotary": {"rotary_pos_emb": True},
    "alibi": {"alibi_pos_bias": True, "alibi_num_heads": 2},
    "T5 bias": {"rel_pos_bias": True},
    "one key head": {"attn_one_kv_head": True},
    "grouped": {"attn_kv_heads": 2},
    "grouped, flash": {"attn_kv_heads": 2, "attn_flash": True},
    "talking heads, before": {"attn_pre_talking_heads": True},
    "talking heads, after": {"attn_post_talking_heads": True},
    "sinks": {"attn_head_learned_sink": True},
    "softclamped": {"attn_softclamp_logits": True},
    "memories": {"attn_num_mem_kv": 3},
    "memories, flash": {"attn_num_mem_kv": 3, "attn_flash": True},
    "sparse": {"attn_sparse_topk": 3},
    "zero key": {"attn_add_zero_kv": True},
    "gates": {"attn_gate_values": True},
    "cosine": {"attn_qk_norm": True},
    "head scales": {"attn_head_scale": True},
    "sandwich": {"sandwich_coef": 1},
    "macaron": {"macaron": True},
}


def _x(name: str) -> Builder:
    def build() -> Any:
        from x_transformers import Decoder, TransformerWrapper

        layers = Decoder(dim=64, depth=2, heads=4, attn_dim_head=16, **_X[name])
        model = TransformerWrapper(num_tokens=100, max_seq_len=32, attn_layers=layers)
        return model, ((_ids(2, 8),), {})

    return build


def _x_pair() -> Any:
    from x_transformers import XTransformer

    sides = {"num_tokens": 100, "depth": 2, "heads": 4, "attn_dim_head": 16, "max_seq_len": 32}
    options = {f"{side}_{k}": v for side in ("enc", "dec") for k, v in sides.items()}
    return XTransformer(dim=64, **options), ((_ids(2, 8), _ids(2, 7)), {})


def _x_image() -> Any:
    from x_transformers import Encoder, ViTransformerWrapper

    layers = Encoder(dim=64, depth=2, heads=4, attn_dim_head=16)
    model = ViTransformerWrapper(image_size=32, patch_size=8, num_classes=10, attn_layers=layers)
    return model, ((_floats(2, 3, 32, 32),), {})


def _builders() -> dict[str, Builder]:
    found: dict[str, Builder] = {}
    if find_spec("timm"):
        found |= {f"timm {name}": _timm(name, side) for name, side in _TIMM}
    if find_spec("torchvision"):
        names = ("vit", "swin_t", "swin_v2_t", "maxvit_t")
        found |= {f"torchvision {name}": _torchvision(name) for name in names}
    if find_spec("diffusers"):
        found |= {f"diffusers {name}": _diffusers(name) for name in _DIFFUSERS}
    if find_spec("open_clip"):
        names = ("vit", "pooling", "resnet", "coca")
        found |= {f"open_clip {name}": _open_clip(name) for name in names}
    if find_spec("x_transformers"):
        found |= {f"x-transformers {name}": _x(name) for name in _X}
        found |= {"x-transformers pair": _x_pair, "x-transformers image": _x_image}
    return found


BUILDERS = _builders()
