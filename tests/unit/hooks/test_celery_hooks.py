import billiard
import pytest
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool

from mempressure.hooks.celery import reason_not_to_freeze


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (TaskPool, ""),
        (type("OurPool", (TaskPool,), {"__module__": "shop.pools"}), ""),
        (get_implementation("solo"), "Celery's solo pool forks no children"),
        (get_implementation("threads"), "Celery's thread pool forks no children"),
    ],
)
def test_a_pool_shares_where_it_forks(pool, reason):
    assert reason_not_to_freeze(pool) == reason


def test_children_that_are_spawned_share_nothing(monkeypatch):
    monkeypatch.setattr(billiard, "get_start_method", lambda: "spawn")
    assert reason_not_to_freeze(TaskPool) == "Celery does not fork its children here"
