"""The service that embeds sentences, with its model isolated: FastAPI without torch."""

from embedding_model import embedding
from fastapi import FastAPI

app = FastAPI()


@app.get("/ping")
def ping() -> str:
    """Answer without the model."""
    return "pong"


@app.get("/embed")
def embed(text: str) -> list[float]:
    """Return the embedding of a text."""
    return embedding(text)
