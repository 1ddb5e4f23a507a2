"""A pair of real Alertmanagers, as the benchmark has it, once."""

from benchmarks.highavailability import GRACE_SECONDS, SCENES, play

PEER_TIMEOUT = 1.0


def test_healthy_cut_apart_and_without_its_leader_a_pair_has_every_action_done_once(tmp_path):
    scenes = {scene.name: scene for scene in play(peer_timeout=PEER_TIMEOUT, logs=tmp_path)}
    assert tuple(scenes) == SCENES
    assert {name: scene.acts for name, scene in scenes.items() if not scene.once} == {}
    assert scenes["cut apart"].deliveries >= 2, "the cut was none"
    assert scenes["leader killed"].seconds < PEER_TIMEOUT + GRACE_SECONDS
