import logging

from mempressure.act import self_check
from tests.support.builders.samples import succeeded


def supported(found):
    return {name[1]: value for name, value in found.items() if name[0] == "feature_supported"}


def test_a_feature_is_supported_where_every_worker_supports_it(scrape, proc, publish_worker):
    proc.process(101)
    proc.process(102)
    assert not self_check.CHECKS.keys() & supported(scrape()).keys()  # there is no worker
    publish_worker(pid=101)
    assert {supported(scrape())[name] for name in self_check.CHECKS} == {1}
    publish_worker(pid=102, unsupported={"trim": "no malloc_trim"})
    found = supported(scrape())
    assert {name for name in self_check.CHECKS if not found[name]} == {"trim"}


def test_a_feature_that_the_machine_lacks_is_shown_and_logged_once(scrape, proc, caplog):
    caplog.set_level(logging.INFO)
    (proc.root / "pressure" / "memory").unlink()
    for _ in range(3):
        found = supported(scrape())
        assert (found["psi"], found["runtime_directory"]) == (0, 1)
    assert len([text for text in caplog.messages if "feature=psi" in text]) == 1


def test_an_unsafe_runtime_directory_is_a_missing_feature(scrape, runtime_dir):
    assert supported(scrape())["runtime_directory"] == 1
    runtime_dir.chmod(0o777)
    found = scrape()
    assert supported(found)["runtime_directory"] == 0
    assert "features" in succeeded(found)
    assert "apps" not in succeeded(found)
