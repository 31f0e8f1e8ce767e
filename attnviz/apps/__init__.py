"""Views that run a model: change the text or the attention, and see what it says."""

from attnviz.apps.explore import ExploreView, explore

__all__ = ["ExploreView", "explore"]
