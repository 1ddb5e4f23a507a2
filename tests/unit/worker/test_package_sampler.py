"""Residents in the state of their worker: as packages, and as late memory; the rest is tested with the loader."""

import pytest

from mempressure.config.configuration import load_configuration
from mempressure.measure.reading import UNKNOWN
from mempressure.residents.resident import Resident
from mempressure.worker.package_sampler import PackageSampler
from mempressure.worker.registry import Packages


@pytest.fixture
def packages():
    """The declared packages of a process: residents of 5 and 7 bytes."""
    packages = Packages(
        load_configuration(environ={}), on_change=lambda: None, emergency=lambda: 0.9, unloading=lambda: 0.8
    )
    for name, size in (("shop.model", 5), ("shop.<locals>.table", 7)):
        packages.residents[name] = Resident(object, name=name, timeout=60.0)
        packages.residents[name]()
        packages.residents[name].size_bytes = size
    return packages


def sampled(packages, tmp_path, make_worker, *, baseline):
    (tmp_path / "verdicts").mkdir(exist_ok=True)
    sampler = PackageSampler(packages, cache_directory=tmp_path)
    return sampler.sample(lambda _: (make_worker(baseline_bytes=baseline), {}), tracker=None)


def test_they_are_published_like_packages(packages, tmp_path, make_worker):
    worker = sampled(packages, tmp_path, make_worker, baseline=UNKNOWN)
    assert [(each.name, each.source, each.memory_bytes, each.verdict) for each in worker.packages] == [
        ("shop.model", "resident", 5, ""),
        ("shop.<locals>.table", "resident", 7, ""),
    ]
    assert worker.late_bytes == UNKNOWN


def test_what_was_loaded_since_the_worker_serves_is_late_memory(packages, tmp_path, make_worker):
    assert sampled(packages, tmp_path, make_worker, baseline=100.0).late_bytes == 12
    packages.begin_serving()
    assert sampled(packages, tmp_path, make_worker, baseline=100.0).late_bytes == 0
    model = packages.residents["shop.model"]
    model.release()
    assert sampled(packages, tmp_path, make_worker, baseline=100.0).late_bytes == 0
    model()
    model.size_bytes = 6
    assert sampled(packages, tmp_path, make_worker, baseline=100.0).late_bytes == 6
