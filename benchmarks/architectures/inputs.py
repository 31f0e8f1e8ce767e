"""What a model can be given to read, guessed from the names in its forward's signature."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .build import FRAMES, IMAGE, QUERIES, SEED, VOCABULARY

BATCH, TOKENS, TARGET, REGIONS, SAMPLES = 2, 8, 6, 5, 4_000
_IMAGE_TOKENS = re.compile(r"(image|img|video|audio|speech)_(token_id|token_index|pad_id)$")
_FEATURES = re.compile(r"do not match.*features:?\s*(?:torch\.Size\(\[)?(\d+)", re.DOTALL)
_NORM = re.compile(r"Given normalized_shape=\[(\d+)\], expected input")
_PRODUCT = re.compile(r"shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)")

Inputs = dict[str, Any]


class Sizes:
    """Numbers looked up in a model's configuration and its parts, by any of several names."""

    def __init__(self, model: nn.Module):
        self.parts = [c for m in model.modules() if (c := vars(m).get("config")) is not None]
        self.random = torch.Generator().manual_seed(SEED)

    def find(self, *names: str, default: Any = None) -> Any:
        for name in names:
            for part in self.parts:
                value = getattr(part, name, None)
                if value is not None and not isinstance(value, bool):
                    return value
        return default

    def number(self, *names: str, default: int) -> int:
        value = self.find(*names, default=default)
        while isinstance(value, list | tuple) and value:
            value = value[0]
        return value if isinstance(value, int) else default

    def floats(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def ids(self, n: int, high: int | None = None, batch: int = BATCH) -> Tensor:
        high = high or min(self.number("vocab_size", default=VOCABULARY), VOCABULARY - 40)
        return torch.randint(min(5, high - 1), high, (batch, n), generator=self.random)

    def image(self) -> tuple[int, int]:
        size = self.find("image_size", "img_size", "input_size", "crop_size", default=IMAGE)
        size = [size, size] if isinstance(size, int) else list(size)[-2:]
        return size[0], size[-1]


def _pixels(sizes: Sizes) -> Tensor:
    channels = sizes.number("num_channels", "in_channels", "in_chans", default=3)
    return sizes.floats(BATCH, channels, *sizes.image())


def _video(sizes: Sizes) -> Tensor:
    frames = sizes.number("num_frames", "frames", "tubelet_size", default=2)
    channels = sizes.number("num_channels", "in_channels", default=3)
    return sizes.floats(BATCH, max(2, frames), channels, *sizes.image())


def _features(sizes: Sizes) -> Tensor:
    """A spectrogram (batch, frame, bin)."""
    return sizes.floats(BATCH, 2 * FRAMES, _bins(sizes))


def _spectrogram(sizes: Sizes) -> Tensor:
    """A spectrogram (batch, bin, frame), as Whisper reads it."""
    frames = 2 * sizes.number("max_source_positions", default=FRAMES)
    return sizes.floats(BATCH, _bins(sizes), frames)


def _bins(sizes: Sizes) -> int:
    names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel", "mel_dim")
    return sizes.number(*names, "input_dim", "num_mel", "n_mels", "feature_size", default=80)


def _boxes(sizes: Sizes, n: int = TOKENS) -> Tensor:
    corners = torch.randint(0, 400, (BATCH, n, 2, 2), generator=sizes.random)
    return torch.cat([corners.amin(2), corners.amax(2)], -1)


def _patches(sizes: Sizes) -> Tensor:
    """The pixels of flattened patches: for each item a grid of 1 × 4 × 4."""
    patch = sizes.number("patch_size", default=16)
    time = sizes.number("temporal_patch_size", "patch_temporal", default=1)
    channels = sizes.number("num_channels", "in_channels", "in_chans", default=3)
    return sizes.floats(BATCH * 16, channels * time * patch * patch)


def _in_rows(sizes: Sizes) -> Tensor:
    """The same patches, in a row for each item."""
    return _patches(sizes).unflatten(0, (BATCH, 16))


def _tiles(sizes: Sizes) -> Tensor:
    """The same patches, not flattened."""
    patch = sizes.number("patch_size", default=16)
    return sizes.floats(1, BATCH * 16, sizes.number("num_channels", default=3), patch, patch)


def _codes(sizes: Sizes) -> Tensor:
    """The tokens of several codebooks, folded into the batch."""
    return sizes.ids(TOKENS, batch=BATCH * sizes.number("num_codebooks", default=1))


def _codes_beside(sizes: Sizes) -> Tensor:
    """The tokens of a text and of several codebooks, beside each other."""
    books = sizes.find("num_codebooks")
    if books is None:
        return sizes.ids(TOKENS)
    return sizes.ids(TOKENS * (books + 1)).unflatten(1, (TOKENS, books + 1))


def _grid(sizes: Sizes) -> Tensor:
    return torch.tensor([[1, 4, 4]] * BATCH)


def _past(sizes: Sizes) -> int:
    lags = sizes.find("lags_sequence", default=[0])
    return sizes.number("context_length", "prediction_length", default=32) + max(lags)


def _series(sizes: Sizes, length: int, values: bool = False) -> Tensor:
    """A time series, (batch, time), or what is known of each time."""
    if not values:
        return sizes.floats(BATCH, length, sizes.number("num_time_features", default=0))
    channels = sizes.find("num_input_channels")  # where time series have several
    return sizes.floats(BATCH, length, *([] if channels is None else [channels]))


MAKERS: dict[str, list[Callable[[Sizes], Any]]] = {
    "input_ids": [lambda s: s.ids(TOKENS), _codes, _codes_beside],
    "decoder_input_ids": [lambda s: s.ids(TARGET)],
    "decoder_input_values": [
        lambda s: s.floats(BATCH, TARGET, s.number("hidden_size", default=64))
    ],
    "bbox": [_boxes],
    "pixel_values": [_pixels, _video, _patches, lambda s: _pixels(s)[:, None], _tiles, _in_rows],
    "pixel_values_videos": [_video, _patches],
    "image_grid_thw": [_grid],
    "grid_thw": [_grid],
    "image_attention_mask": [lambda s: torch.ones(BATCH, TOKENS, 2, dtype=torch.long)],
    "pixel_attention_mask": [lambda s: torch.ones(BATCH, 16, dtype=torch.long)],
    "spatial_shapes": [lambda s: torch.tensor([[4, 4]] * BATCH)],
    "qformer_input_ids": [lambda s: s.ids(TOKENS)],
    "target_sizes": [lambda s: torch.tensor([[4, 4]] * BATCH)],
    "hidden_states": [
        lambda s: s.floats(BATCH, TOKENS, s.number("hidden_size", "d_model", default=64)),
        _patches,
    ],
    "inputs_embeds": [
        lambda s: s.floats(BATCH, TOKENS, s.number("hidden_size", "d_model", default=64))
    ],
    "input_features": [_spectrogram, _features, lambda s: _features(s)[:, None]],
    "input_values": [
        lambda s: s.floats(BATCH, SAMPLES),
        lambda s: s.floats(BATCH, 1, SAMPLES),
        lambda s: s.floats(BATCH, s.number("max_length", default=64), _bins(s)),
        _features,
    ],
    "audio_values": [lambda s: s.floats(BATCH, 2 * FRAMES, _bins(s))],
    "visual_feats": [lambda s: s.floats(BATCH, REGIONS, s.number("visual_feat_dim", default=64))],
    "visual_pos": [lambda s: s.floats(BATCH, REGIONS, 4)],
    "visual_embeds": [
        lambda s: s.floats(BATCH, REGIONS, s.number("visual_embedding_dim", default=64))
    ],
    "encoder_hidden_states": [
        lambda s: s.floats(
            BATCH,
            REGIONS,
            s.number(
                "encoder_hidden_size",
                "cross_attention_hidden_size",
                "hidden_size",
                "d_model",
                default=64,
            ),
        )
    ],
    "attention_mask": [lambda s: torch.ones(BATCH, TOKENS, dtype=torch.long)],
    "task_inputs": [lambda s: s.ids(TOKENS)],
    "past_values": [lambda s: _series(s, _past(s), values=True)],
    "past_time_features": [lambda s: _series(s, _past(s))],
    "past_observed_mask": [lambda s: torch.ones(BATCH, _past(s))],
    "future_values": [lambda s: _series(s, s.number("prediction_length", default=8), values=True)],
    "future_time_features": [lambda s: _series(s, s.number("prediction_length", default=8))],
    "states": [lambda s: s.floats(BATCH, TOKENS, s.number("state_dim", default=17))],
    "actions": [lambda s: s.floats(BATCH, TOKENS, s.number("act_dim", default=4))],
    "rewards": [lambda s: s.floats(BATCH, TOKENS, 1)],
    "returns_to_go": [lambda s: s.floats(BATCH, TOKENS, 1)],
    "timesteps": [lambda s: torch.arange(TOKENS).expand(BATCH, TOKENS)],
    "inputs": [
        lambda s: s.floats(BATCH, TOKENS, s.number("d_model", "hidden_size", default=64)),
        lambda s: s.ids(TOKENS),
    ],
    "query_embeds": [lambda s: s.floats(BATCH, QUERIES, s.number("hidden_size", default=64))],
}
_BESIDE = (
    *("image_grid_thw", "grid_thw", "spatial_shapes", "target_sizes", "image_attention_mask"),
    *("actions", "rewards", "returns_to_go", "timesteps", "qformer_input_ids"),
    *("visual_pos", "future_values", "future_time_features"),
)
_SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_MEDIA = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "visual_feats")


def recipes(model: nn.Module) -> Iterator[Inputs]:
    """Inputs that the model may accept, those first with which most of it would run."""
    accepted = inspect.signature(model.forward).parameters
    required = [n for n, p in accepted.items() if p.default is p.empty and p.kind not in _SEVERAL]
    named = getattr(model, "main_input_name", None)
    main = [n for n in (named if isinstance(named, list) else [named]) if n in accepted]
    media = [name for name in _MEDIA if name in accepted]
    text = [name for name in ("input_ids", "bbox") if name in accepted]
    decoder = [n for n in ("decoder_input_ids", "decoder_input_values") if n in accepted]
    more = [n for n in _BESIDE if n in accepted]
    more += ["pixel_attention_mask"] if "spatial_shapes" in accepted else []
    tried = []
    for chosen in (
        [*text, *media[:1], *more, *decoder],
        [*text, *media, *more, *decoder],
        [*main, *more, *decoder],
        [*main, *decoder],
        [*media[:1], *more, *decoder],
        [*text, *decoder],
        main,
        [],
    ):
        names = list(dict.fromkeys([*chosen, *required]))
        if not names or names in tried or not all(name in MAKERS for name in names):
            continue
        tried.append(names)
        for number in range(max(len(MAKERS[name]) for name in names)):
            yield {
                name: MAKERS[name][min(number, len(MAKERS[name]) - 1)](Sizes(model))
                for name in names
            }


def adapted(model: nn.Module, inputs: Inputs, error: str) -> Inputs | None:
    """The inputs changed as an error asks for; None where it asks for nothing that is known."""
    if "input_ids" in inputs and (found := _FEATURES.search(error)):
        return _with_places(model, inputs, int(found[1]))
    if "mm_token_type_ids" in error and "input_ids" in inputs:
        return inputs | {"mm_token_type_ids": _is_place(model, inputs["input_ids"]).long()}
    if found := _NORM.search(error):
        wanted = {n: v for n, v in inputs.items() if f"[{', '.join(map(str, v.shape))}]" in error}
        return inputs | {n: Sizes(model).floats(BATCH, TOKENS, int(found[1])) for n in wanted}
    if found := _PRODUCT.search(error):
        given, wanted = int(found[1]), int(found[2])
        for name, value in inputs.items():
            if isinstance(value, Tensor) and value.shape[-1] == given:
                sizes = Sizes(model)
                longer = sizes.floats(*value.shape[:-1], wanted)
                return inputs | {name: longer if value.is_floating_point() else sizes.ids(wanted)}
    return None


def _with_places(model: nn.Module, inputs: Inputs, features: int) -> Inputs | None:
    """The inputs with as many tokens in the place of an image as it has features."""
    tokens = _place_tokens(model)
    if not tokens or features > 4_000:
        return None
    per_item = -(-features // BATCH)
    ids = torch.cat([torch.full((BATCH, per_item), tokens[0]), Sizes(model).ids(TOKENS)], 1)
    made = inputs | {"input_ids": ids}
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        made["mm_token_type_ids"] = _is_place(model, ids).long()
    return made


def _place_tokens(model: nn.Module) -> list[int]:
    named = vars(model.config).items()
    return [v for k, v in named if _IMAGE_TOKENS.search(k) and isinstance(v, int)]


def _is_place(model: nn.Module, ids: Tensor) -> Tensor:
    return torch.isin(ids, torch.tensor(_place_tokens(model)))
