"""Six moments in the life of every alert, as series for promtool: the table that `test_lives.py` asks.

Series are in promtool's notation, one value a step; `_` is no sample, `stale` is what a failed scrape leaves.
"""

from dataclasses import dataclass, field

from mempressure.config.thresholds import ALERT_LEVELS, Thresholds

MOMENTS = ("not yet", "fires", "holds in the band", "never entered", "resolves", "data missing")
FIRING = ("fires", "holds in the band")
EXPORTER = 'job="mempressure-exporter",instance="a"'
ACTUATOR = 'job="mempressure-actuator",instance="b"'
LONG = 90
"""Steps of a series that stays as it is; no moment lies later."""


@dataclass
class Moment:
    """When to look, and the series that differ from those of the alert's life as a whole."""

    step: int
    series: dict[str, str] = field(default_factory=dict)


@dataclass
class Life:
    """One alert's moments.

    Attributes:
        seconds: of a step, between two samples and two evaluations.
        series: what is there all the time.
        without_data: whether it fires at the moment "data missing".
    """

    moments: dict[str, Moment]
    series: dict[str, str]
    seconds: int = 1
    without_data: bool = False

    def fires(self, moment):
        return moment in FIRING or (moment == "data missing" and self.without_data)

    def test(self, alert, moment):
        """Return the test that promtool is to run."""
        chosen = self.moments[moment]
        series = {name: values for name, values in (self.series | chosen.series).items() if values}
        return {
            "name": f"{alert}: {moment}",
            "interval": f"{self.seconds}s",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": f"{chosen.step * self.seconds}s",
                    "exp_samples": [{"labels": "{}", "value": 1}] if self.fires(moment) else [],
                }
            ],
        }


def always(value):
    return f"{value}x{LONG}"


def thresholds(*left_out):
    each = Thresholds()
    return {
        f'mempressure_threshold_ratio{{{EXPORTER},threshold="{name}",edge="{edge}"}}': always(getattr(each, edge)(name))
        for name in ALERT_LEVELS
        for edge in ("enter", "exit")
        if (name, edge) not in left_out
    }


INFO = {
    f'mempressure_node_info{{{EXPORTER},node="n1"}}': always(1),
    f'mempressure_node_info{{{ACTUATOR},node="n1"}}': always(1),
}
USED = f"mempressure_host_memory_used_ratio{{{EXPORTER}}}"


def of_level(threshold):
    enter, leave = Thresholds().enter(threshold), Thresholds().exit(threshold)
    band, below = round(leave + 0.0001, 4), round(leave - 0.0001, 4)
    return Life(
        {
            "not yet": Moment(1, {USED: f"0.1 {round(enter - 0.0001, 4)}"}),
            "fires": Moment(1, {USED: f"0.1 {enter}"}),
            "holds in the band": Moment(2, {USED: f"{enter} {band} {band}"}),
            "never entered": Moment(2, {USED: f"{band}x2"}),
            "resolves": Moment(2, {USED: f"{enter} {enter} {below}"}),
            "data missing": Moment(33, {USED: f"{enter} stale _x40"}),
        },
        INFO | thresholds(),
    )


def of_stalling():
    stalled = f"mempressure_host_pressure_stalled_seconds_total{{{EXPORTER}}}"
    # At steps of 5 s: 0.5 s of them are 10 %, 0.25 s are 5 %.
    return Life(
        {
            "not yet": Moment(20, {stalled: "0+0.45x30"}),
            "fires": Moment(20, {stalled: "0+0.55x30"}),
            "holds in the band": Moment(50, {stalled: "0+0.55x20 11.3+0.3x40"}),
            "never entered": Moment(50, {stalled: "0+0.3x60"}),
            "resolves": Moment(50, {stalled: "0+0.55x20 11.2+0.2x40"}),
            "data missing": Moment(40, {stalled: "0+0.55x20 stale _x40"}),
        },
        INFO,
        seconds=5,
    )


def of_exhaustion():
    available = f"mempressure_host_memory_available_bytes{{{EXPORTER}}}"
    trend = f"mempressure_host_trend_bytes_per_second{{{EXPORTER}}}"
    # At steps of 10 s, the `for` of two minutes is 12 of them. Available is 9000 bytes: 10 a second are 900 s.
    return Life(
        {
            "not yet": Moment(11, {trend: always(11)}),
            "fires": Moment(12, {trend: always(11)}),
            "holds in the band": Moment(40, {trend: "11x20 5.5x30"}),
            "never entered": Moment(40, {trend: always(5.5)}),
            "resolves": Moment(40, {trend: "11x20 4.5x30"}),
            "data missing": Moment(40, {trend: "11x20 stale _x30"}),
        },
        INFO | thresholds() | {available: always(9000), USED: always(0.7)},
        seconds=10,
    )


def of_missing_thresholds():
    last = f'mempressure_threshold_ratio{{{EXPORTER},threshold="emergency",edge="exit"}}'
    return Life(
        {
            "not yet": Moment(30, {last: "0.85 stale _x60"}),
            "fires": Moment(32, {last: "0.85 stale _x60"}),
            # Of the two that were missing one is back.
            "holds in the band": Moment(
                45,
                {
                    last: "0.85 stale _x60",
                    f'mempressure_threshold_ratio{{{EXPORTER},threshold="warning",edge="exit"}}': "0.55 _x38 0.55x50",
                },
            ),
            "never entered": Moment(60),
            "resolves": Moment(42, {last: "0.85 stale _x39 0.85x30"}),
            "data missing": Moment(40, {last: "", USED: "0.3 stale _x60"}),
        },
        INFO | thresholds() | {USED: always(0.3)},
    )


def of_service(job):
    up = f'up{{job="{job}",instance="a"}}'
    return Life(
        {
            "not yet": Moment(39, {up: "1x9 0x50"}),
            "fires": Moment(40, {up: "1x9 0x50"}),
            # Up for 20 s, then down once, then up for 20 s.
            "holds in the band": Moment(81, {up: "1x9 0x30 1x20 0 1x20"}),
            "never entered": Moment(80, {up: "1x9 0x20 1 0x20 1 0x28"}),
            "resolves": Moment(73, {up: "1x9 0x31 1x40"}),
            # No target at all is a configuration that lost its job.
            "data missing": Moment(31, {up: ""}),
        },
        INFO,
        without_data=True,
    )


def of_stale_data():
    sampled = f"mempressure_sample_timestamp_seconds{{{EXPORTER}}}"
    collected = f'mempressure_scrape_collector_success{{{EXPORTER},collector="host"}}'
    # Time begins at 0, so does a fresh timestamp; it stands still from 20 on.
    return Life(
        {
            "not yet": Moment(54, {sampled: "0+1x20 20x60"}),
            "fires": Moment(55, {sampled: "0+1x20 20x60"}),
            "holds in the band": Moment(70, {sampled: "0+1x20 20x40 45+1x20"}),
            "never entered": Moment(70, {sampled: "0x16 0+1x70"}),
            "resolves": Moment(70, {sampled: "0+1x20 20x40 50+1x20"}),
            # An exporter that answers without a sample; one that does not answer is another alert's.
            "data missing": Moment(60, {sampled: "0+1x20 stale _x60"}),
        },
        INFO | {collected: always(1)},
        without_data=True,
    )


def of_failed_actions():
    failed = f'mempressure_actuator_actions_total{{{ACTUATOR},mechanism="stop",result="failed"}}'
    # At steps of 20 s, ten minutes are 30 of them.
    return Life(
        {
            "not yet": Moment(10, {failed: "0 1 2x30"}),
            "fires": Moment(10, {failed: "0 1 2 3x30"}),
            "holds in the band": Moment(45, {failed: "0 1 2 3x27 4x50"}),
            "never entered": Moment(45, {failed: "0x30 1x50"}),
            "resolves": Moment(40, {failed: "0 1 2 3x60"}),
            "data missing": Moment(40, {failed: "0 1 2 3 stale _x60"}),
        },
        INFO,
        seconds=20,
    )


def of_failing_notifications():
    failed = 'alertmanager_notifications_failed_total{job="alertmanager",instance="am",integration="slack"}'
    # At steps of 15 s: `for` is 12 of them, the window 8, the band's 20.
    return Life(
        {
            "not yet": Moment(12, {failed: "0+1x40"}),
            "fires": Moment(13, {failed: "0+1x40"}),
            "holds in the band": Moment(40, {failed: "0+1x16 16x40"}),
            "never entered": Moment(25, {failed: "0+1x3 3x40"}),
            "resolves": Moment(46, {failed: "0+1x16 16x50"}),
            "data missing": Moment(50, {failed: "0+1x16 stale _x60"}),
        },
        {},
        seconds=15,
    )


LIVES = {
    **{f"MemoryPressure{level.capitalize()}": of_level(threshold) for threshold, level in ALERT_LEVELS.items()},
    "MemoryPressureStalling": of_stalling(),
    "MemoryPressureExhaustionPredicted": of_exhaustion(),
    "MemoryPressureThresholdsMissing": of_missing_thresholds(),
    "MemoryPressureExporterDown": of_service("mempressure-exporter"),
    "MemoryPressureActuatorDown": of_service("mempressure-actuator"),
    "MemoryPressureDataStale": of_stale_data(),
    "MemoryPressureActionFailed": of_failed_actions(),
    "MemoryPressureNotificationsFailing": of_failing_notifications(),
}
