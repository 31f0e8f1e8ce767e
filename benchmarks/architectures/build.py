"""Small random models of every architecture in transformers.

A configuration is made small by the names of its numbers: whatever is called a width, a number of
heads or layers or experts, a vocabulary or an image's side becomes the same small number in all
parts of a model, so that the parts still fit each other.
"""

import importlib
import inspect
import math
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

SEED = 5
WIDTH, HEADS, HEAD_DIM, INNER, LAYERS = 64, 4, 16, 128, 2
LARGEST = 300  # million parameters
VOCABULARY, IMAGE, QUERIES, WINDOW, FRAMES = 256, 64, 12, 4, 40

EXCEPTIONS: dict[str, dict[str, Any]] = {  # numbers that must fit others, by model_type
    "time_series_transformer": {"prediction_length": 8, "context_length": 16},
    "informer": {"prediction_length": 8, "context_length": 16},
    "autoformer": {"prediction_length": 8, "context_length": 16},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "esmc": {"num_key_value_heads": HEADS},
    "xmod": {"default_language": "en_XX", "languages": ("en_XX",)},
    "mamba2": {"num_heads": 8},
    "falcon_h1": {"mamba_d_ssm": 8 * HEAD_DIM, "mamba_n_heads": 8, "mamba_d_head": HEAD_DIM},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    **{name: {"image_token_index": 150} for name in ("blip-2", "instructblip")},
    "vits": {"speaking_rate": 100.0},  # or random weights speak for minutes
    "step3p5": {"sliding_window": WINDOW},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "nemotron": {"num_key_value_heads": HEADS // 2},
    "llama4_vision_model": {"intermediate_size": 4 * WIDTH},
}

_FEW = (  # the first pattern that is found in a name gives the largest its number may be
    (r"codebook_size", VOCABULARY // 2),
    (r"vocab|num_embeddings$", VOCABULARY),
    (r"kv_shared_layers", 0),
    (r"layer_offset$", LAYERS - 1),
    (r"(norm|feature|every_n|conv|group)_layers?$", None),
    (r"(_layers|n_layer|^layers|^depth|num_blocks|n_blocks|resampler_depth)$", LAYERS),
    (r"position_embeddings|n_positions|max_seq|context_length|n_ctx|max_ep_len", 512),
    (r"max_source_positions", FRAMES),
    (r"per_tok|top_?k$|moe_k$", 2),
    (r"^(n_group|topk_group)$", 1),
    (r"experts$", 4),
    (r"num_quer|query_tokens|num_latents|num_proposals|num_denoising", QUERIES),
    (r"sliding_window$|attention_window|chunk_length$", WINDOW),
    (r"^window_size$", WINDOW // 2),
    (r"interval|period|window_pattern|every_n_layers|pattern$", LAYERS),
)
_NARROW = (
    (r"mamba_(n|num)_heads|n_mamba_heads", 8),
    (r"(key_value|kv)\w*_heads$|kv_n_heads", HEADS // 2),
    (r"(heads|n_head|heads_per_layer)$", HEADS),
    (r"qk_head_dim", 2 * HEAD_DIM),
    (r"head_dim|dim_head|d_kv|d_head$|kv_channels|head_size$|_headdim|rope_dim", HEAD_DIM),
    (r"rotary_dim", HEAD_DIM // 2),
    (r"lora_rank", WIDTH // 2),
    (r"(intermediate|inner|ffn|feed_?forward|mlp|_ff$|ff_dim)", INNER),
    (r"(hidden_size|d_model|n_embd|width|embed\w*_size|projection_size|project_dim)$", WIDTH),
    (r"(_dim|^dim|dimension|d_latents|hidden_channels|pooler_output_size)$", WIDTH),
    (r"(adapter|projector|output_hidden|vision_output)\w*(size|dim)$", WIDTH),
    (r"output_channels$|upsample_groups", WIDTH),
)
_IMAGE = re.compile(r"(image|img|input|crop|pretrain_image|train)_size$|^size$|resolution$")
_TOKEN = re.compile(r"(token_ids?|token_index|_idx|_id|_index)$")
_WIDTHS = re.compile(r"(hidden_sizes|dims?|widths|sizes|dim_per_stage)$")
_INDICES = re.compile(r"(index|indexes|indices|idx|idxs|(?<!proj_)layers|_ids)$")
_KINDS = re.compile(r"(layer_types|block_types?|layers_block_type|attention_types)$")
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers")
_THREE_AXES = re.compile(r"vl|4v|46v|omni|glm_image|glmga|paddleocr")
_BASE = {f.name for f in fields(PreTrainedConfig)}


# --- the configuration ----------------------------------------------------------------------------


def small_config(config: PreTrainedConfig, narrow: bool = True) -> PreTrainedConfig:
    """A configuration of the same kind whose model is small.

    narrow: make widths and heads small as well, not only layers, experts and vocabularies.
    """
    chosen = _chosen_layers(config)
    arguments = {}
    for f in fields(config):
        value = _value(config, f.name)
        if not f.init or (f.name in _BASE and not _TOKEN.search(f.name)):
            continue
        made = _small(f.name, value, chosen, narrow)
        if made is not None or value is None:
            arguments[f.name] = made
    if narrow and "head_dim" in arguments:
        arguments["head_dim"] = HEAD_DIM
    if narrow and arguments.get("kv_lora_rank"):  # latent attention has as many keys as queries
        arguments["num_key_value_heads"] = arguments["num_attention_heads"]
    if narrow and _THREE_AXES.search(config.model_type) and arguments.get("rope_parameters"):
        arguments["rope_parameters"] = _with_axes(arguments["rope_parameters"])
    outputs = getattr(config, "out_indices", None)  # of a backbone
    in_depth = outputs and len(outputs) > 1 and "num_hidden_layers" in arguments
    if in_depth:
        outputs = list(range(1, len(outputs) + 1))
        arguments["num_hidden_layers"] = len(outputs)
    made = type(config)(**arguments | EXCEPTIONS.get(config.model_type, {}))
    if outputs:
        made.out_indices = outputs if in_depth or len(outputs) > 1 else [-1]
    return made


def _value(config: PreTrainedConfig, name: str) -> Any:
    """A value of a configuration; that of most layers where it is not the same in all."""
    config.allow_global_per_layer_attribute_access = True
    try:
        return getattr(config, name, None)
    except Exception:  # transformers has one of its own for this
        return None


def _small(name: str, value: Any, chosen: tuple[int, list[int]], narrow: bool) -> Any:
    if isinstance(value, PreTrainedConfig):
        return small_config(value, narrow)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return _small_number(name, value, narrow)
    if isinstance(value, list | tuple):
        return type(value)(_small_list(name, list(value), chosen, narrow))
    if name == "rope_parameters" and narrow:
        return _small_rope(value)
    return value


def _small_number(name: str, value: int, narrow: bool) -> int:
    if _TOKEN.search(name):
        return value if value < VOCABULARY - 40 else VOCABULARY - 1 - sum(map(ord, name)) % 37
    if _IMAGE.search(name):
        return min(value, IMAGE)
    if name == "patch_size" and IMAGE % value:
        return HEAD_DIM
    for pattern, most in (*_FEW, *(_NARROW if narrow else ())):
        if re.search(pattern, name):
            return value if most is None else min(value, most)
    return value


def _small_list(name: str, value: list, chosen: tuple[int, list[int]], narrow: bool) -> list:
    count, layers = chosen
    if name == "depths":
        return [min(n, LAYERS) for n in value]
    if len(value) == count and count > LAYERS and not _INDICES.search(name):
        value = [value[i] for i in layers]
    numbers = value and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    if not numbers:
        return value
    if _INDICES.search(name) and count:
        return [n for n in value if n < len(layers)] or [len(layers) - 1]
    if name.endswith("heads") and narrow:
        return [max(1, n // min(value)) for n in value]
    if _WIDTHS.search(name) and min(value) > HEAD_DIM and narrow and not _IMAGE.search(name):
        return [n * HEAD_DIM // min(value) for n in value]
    return [_small_number(name, n, narrow) for n in value]


def _small_rope(value: Any) -> Any:
    """Rotary positions for heads of width HEAD_DIM, in all kinds of layers."""
    if not isinstance(value, dict):
        return value
    made = {key: _small_rope(inner) for key, inner in value.items()}
    for key in ("short_factor", "long_factor"):
        if made.get(key):
            made[key] = made[key][: HEAD_DIM // 2]
    return _with_axes(made) if made.get("mrope_section") else made


def _with_axes(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions of several axes, which share what is rotated of a head."""
    parts = len(rope.get("mrope_section", range(3)))
    half = int(HEAD_DIM * rope.get("partial_rotary_factor", 1)) // 2
    section = [half // parts + (i >= parts - half % parts) for i in range(parts)]
    return rope | {"mrope_section": section}


def _chosen_layers(config: PreTrainedConfig) -> tuple[int, list[int]]:
    """How many layers there are, and which are kept: at least one of each kind."""
    own = {f.name for f in fields(config)}
    if "depths" in own:  # of stages, each with layers of its own
        return 0, []
    found = (_value(config, name) for name in _COUNTS if name in own)
    count = next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), 0)
    kinds = [v for k, v in vars(config).items() if _KINDS.search(k) and isinstance(v, list | tuple)]
    kinds = next((v for v in kinds if len(v) == count), [0] * count)
    kept = sorted({kinds.index(kind) for kind in kinds})
    kept += [i for i in range(count) if i not in kept][: max(0, LAYERS - len(kept))]
    return count, sorted(kept)


# --- the model ------------------------------------------------------------------------------------


def model_class(name: str) -> type[PreTrainedModel]:
    """The model that belongs to a model_type: AutoModel's, or else the one nearest to it."""
    config = CONFIG_MAPPING[name]
    for mapping in _mappings():
        if name in mapping:
            found = mapping[name]
            found = found if isinstance(found, str) else found[0]
            if hasattr(transformers, found):
                return getattr(transformers, found)
    module = importlib.import_module(config.__module__.replace("configuration_", "modeling_"))
    fitting = [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, PreTrainedModel)
        and getattr(found, "config_class", None) is config
        and not found.__name__.endswith("PreTrainedModel")
    ]
    if not fitting:
        raise LookupError("transformers has no model of this configuration alone")
    return min(fitting, key=lambda found: (len(found.__mro__), len(found.__name__)))


def _mappings() -> Iterator[dict[str, Any]]:
    yield modeling_auto.MODEL_MAPPING_NAMES
    for name in sorted(vars(modeling_auto)):
        if re.fullmatch(r"MODEL_\w*MAPPING_NAMES", name):
            yield getattr(modeling_auto, name)


def configs(name: str) -> Iterator[PreTrainedConfig]:
    """Small configurations of a model_type, the smallest first."""
    try:
        default = CONFIG_MAPPING[name]()
    except Exception:  # some have to be told a number
        default = CONFIG_MAPPING[name](**EXCEPTIONS.get(name, {}))
    for narrow in (True, False):
        yield small_config(default, narrow)


def build(
    kind: type[PreTrainedModel], config: PreTrainedConfig, kernel: str, peaks: bool = True
) -> nn.Module:
    """A model with random weights, the same for each kernel, and attention with clear peaks."""
    torch.manual_seed(SEED)
    config = type(config).from_dict(config.to_dict())
    _check_size(kind, config)
    model = kind._from_config(config, attn_implementation=kernel).eval()
    return with_peaks(model) if peaks else model


def _check_size(kind: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """Raise MemoryError for a model that did not become small."""
    try:
        with torch.device("meta"):
            model = kind._from_config(type(config).from_dict(config.to_dict()))
    except Exception:  # not every model can be built without numbers
        return
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    if millions > LARGEST:
        raise MemoryError(f"{millions:.0f} million parameters, as small as it could be made")


def with_peaks(model: nn.Module) -> nn.Module:
    """The model with weights large enough that attention is far from uniform, and none zero."""
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and parameter.numel() and parameter.is_floating_point():
            std = 1.0 / math.sqrt(parameter[0].numel())
            nn.init.normal_(parameter, std=std, generator=generator)
        elif name.endswith("weight") and not parameter.any():  # of a norm at the end of a branch
            nn.init.ones_(parameter)
    return model
