"""attnviz: build attention, and look at it.

Names load when they are first used, so that `import attnviz` stays cheap.
"""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path

__version__ = version("attnviz")

_HOME = {  # public name: the module that defines it
    "ExploreView": "attnviz.apps",
    "FlowView": "attnviz.views.flow",
    "HeadsView": "attnviz.views.heads",
    "HeatmapView": "attnviz.views.heatmap",
    "OverlayView": "attnviz.views.overlay",
    "ScoresView": "attnviz.views.scores",
    "ScrubberView": "attnviz.views.scrubber",
    "TokensView": "attnviz.views.tokens",
    "about": "attnviz.machine",
    "capture": "attnviz.seeing",
    "device": "attnviz.machine",
    "edit": "attnviz.seeing",
    "explore": "attnviz.apps",
    "flow": "attnviz.views.flow",
    "heads": "attnviz.views.heads",
    "heatmap": "attnviz.views.heatmap",
    "mask": "attnviz.seeing",
    "most_memory": "attnviz.timing",
    "native_bf16": "attnviz.machine",
    "off": "attnviz.seeing",
    "only": "attnviz.seeing",
    "overlay": "attnviz.views.overlay",
    "plot_heatmap": "attnviz.views.figures",
    "rollout": "attnviz.seeing",
    "scores": "attnviz.views.scores",
    "scrubber": "attnviz.views.scrubber",
    "seed": "attnviz.machine",
    "show": "attnviz.views.figures",
    "temperature": "attnviz.seeing",
    "timeit": "attnviz.timing",
    "tokenizer": "attnviz.views.tokens",
    "uniform": "attnviz.seeing",
}
_ROOMS = ["apps", "data", "layers", "models", "seeing", "training", "views"]
if Path(__file__).with_name("lessons").is_dir():  # in a clone; what is installed has none
    _ROOMS.append("lessons")

__all__ = [*_HOME, *_ROOMS]


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module 'attnviz' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
