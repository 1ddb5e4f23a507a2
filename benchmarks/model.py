"""Model: the memory of a service with a language model, isolated in one process for all workers, beside itself without.

FastAPI with all-MiniLM-L6-v2 on torch under uvicorn with two workers, the service `embeddings` of the benchmark
`services`. Ways: `plain`, the model in each worker, loaded at the first request for it; `isolated`, with
`loader.isolated(..., processes=1)` on the function that embeds a text. Sixteen clients ask for embeddings of texts of a
hundred words, each time on a new connection, and compare each answer with that of `plain`. Memory is measured as in the
benchmark `newcomer`. What the plain service holds before it has loaded the model is told too: no way comes below that.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.newcomer import MIB, known, of_plain, table, told
from benchmarks.relieved import Outcome, serve
from benchmarks.services.applications import WORKERS
from benchmarks.services.environments import PROGRAMS, Environment
from benchmarks.services.rounds import CLEAN
from benchmarks.targets import Target, as_dicts
from benchmarks.traffic import Page
from stack.engines import ROOT
from stack.processes import free_port

ROUNDS = 2
CLIENTS = 16
WARM_SECONDS, SECONDS = 10.0, 8.0
PROGRAM = {"plain": "embeddings:app", "isolated": "isolated_embeddings:app"}
_WORDS = "+".join(["a", "sentence", "of", "a", "few", "words", "and", "one", "of", "more"] * 10)
PATHS = {"/ping": 0.2, **{f"/embed?text={number}+{_WORDS}": 0.08 for number in range(10)}}


def run(say: Callable[[str], None], *, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure both ways; return the promised figures and what they come from."""
    environment = Environment("embeddings")
    environment.make(say)
    outcomes: dict[str, list[Outcome]] = {way: [] for way in PROGRAM}
    pages: list[Page] = []
    fresh = 0
    for _ in range(rounds):
        for way in PROGRAM:
            held, outcome = _played(environment, way, pages, seconds)
            fresh = fresh or held
            outcomes[way].append(outcome)
            say(f"model, {way}: " + ", ".join(f"{name} {cell}" for name, cell in told(outcomes[way][-1]).items()))
    ratios = of_plain(outcomes)["isolated"]
    bad = sum(outcome.bad for outcome in outcomes["isolated"])
    targets = [
        Target("peak of memory, one process, against the model in each worker", ratios["peak"], 0.62, "x"),
        Target("memory at rest, against the model in each worker", ratios["rest"], 0.1, "x"),
        Target(f"failed or wrong answers of {sum(each.requests for each in outcomes['isolated']):,}", bad, 0),
    ]
    versions = environment.versions("fastapi", "uvicorn", "torch", "sentence-transformers")
    return {
        "what": "a service with a language model, isolated in one process",
        "how": __doc__,
        "targets": as_dicts(targets),
        "notes": [
            ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
            f"Before it has loaded the model the plain service holds {fresh / MIB:.0f} MiB.",
        ],
        "tables": [table(outcomes)],
    }


def _played(environment: Environment, way: str, pages: list[Page], seconds: float) -> tuple[int, Outcome]:
    """Return what the service held before its first request for an embedding, in bytes, and what it came to."""
    port = free_port()
    words = [environment.program("uvicorn"), PROGRAM[way], "--app-dir", str(PROGRAMS), "--no-access-log"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(WORKERS)]
    # A worker that loads the model on a busy machine does not answer its supervisor for longer than 5 s.
    words += ["--timeout-worker-healthcheck", "60"]
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    library = {} if way == "plain" else {"PYTHONPATH": str(ROOT)}
    with serve(way, words, port=port, environ={**CLEAN, **settings, **library}, name="model", budget="4GiB") as service:
        fresh = service.held()
        pages[:] = pages or known(port, PATHS)
        return fresh, service.play(pages, clients=CLIENTS, warm_seconds=WARM_SECONDS, seconds=seconds)
