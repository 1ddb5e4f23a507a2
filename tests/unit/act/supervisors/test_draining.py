import pytest

from mempressure.act.supervisors.base import reason_not_to_end

GRACE = (30.0, "gunicorn's graceful_timeout")


@pytest.mark.parametrize(
    ("work", "grace", "longest", "running", "reason"),
    [
        ([], GRACE, 0.0, 0.0, ""),
        ([], GRACE, 30.0, 30.0, ""),
        ([], GRACE, 31.0, 0.0, "may take 31 s (MEMPRESSURE_LONGEST_REQUEST), and gunicorn's graceful_timeout is 30 s"),
        ([], GRACE, 0.0, 31.0, "has run for 31 s already, and gunicorn's graceful_timeout is 30 s"),
        ([], None, 1e4, 1e4, ""),
        (["flusher", "mailer"], None, 0.0, 0.0, "would cut: flusher, mailer"),
    ],
)
def test_what_the_end_of_a_worker_would_cut_is_named(work, grace, longest, running, reason):
    found = reason_not_to_end(work=work, grace=grace, longest_request=longest, running=running)
    assert found.endswith(reason)
    assert bool(found) is bool(reason)
