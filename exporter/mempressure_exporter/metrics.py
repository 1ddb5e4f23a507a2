"""All metric families of the exporter, in the order in which a scrape prints them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family: name as printed, type (gauge or counter), help text, and label names in order."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    counted_here: bool = False
    """Whether it starts at 0 with the exporter, so that an exporter that has just started has nothing to print."""


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"mempressure_{name}", "gauge", text, labels)


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"mempressure_{name}_total", "counter", text, labels)


def _counter_from_start(name: str, text: str, *labels: str) -> Family:
    return Family(f"mempressure_{name}_total", "counter", text, labels, counted_here=True)


FAMILIES = (
    _gauge("host_memory_total_bytes", "Memory of the host."),
    _gauge("host_memory_available_bytes", "Memory of the host available to new work without swapping."),
    _gauge("host_memory_used_bytes", "Memory of the host in use: total less available."),
    _gauge("host_memory_used_ratio", "Share of the host's memory in use, 0 to 1."),
    _gauge("host_trend_bytes_per_second", "Robust slope of the host's used memory over the last minutes."),
    _gauge("host_swap_total_bytes", "Swap space of the host."),
    _gauge("host_swap_used_bytes", "Swap space of the host in use."),
    _gauge("host_swap_free_bytes", "Swap space of the host not in use."),
    _gauge("host_swap_used_ratio", "Share of the host's swap space in use, 0 to 1; 0 without swap."),
    _gauge("host_level", "Pressure level of the host's memory: 1 for the current level, else 0.", "level"),
    _counter("host_pressure_waiting_seconds", "Time since boot in which some task waited for memory (PSI some)."),
    _counter("host_pressure_stalled_seconds", "Time since boot in which every task waited for memory (PSI full)."),
    _counter_from_start(
        "host_pressure_wakeups", "Kernel notifications of memory stalls of the host, of 150 ms within 2 s or more."
    ),
    _gauge("app_memory_limit_bytes", "Memory that the application may use: its cgroup's limit or its budget.", "app"),
    _gauge("app_memory_available_bytes", "Memory left to the application below its limit.", "app"),
    _gauge(
        "app_memory_used_bytes",
        "Memory of the application: its cgroup's working set, or the proportional memory of its processes.",
        "app",
    ),
    _gauge(
        "app_memory_used_ratio", "Share of the application's limit in use; above 1 where a budget is exceeded.", "app"
    ),
    _gauge("app_trend_bytes_per_second", "Robust slope of the application's used memory over the last minutes.", "app"),
    _gauge("app_level", "Pressure level of the application's memory: 1 for the current level, else 0.", "app", "level"),
    _counter_from_start(
        "app_pressure_waiting_seconds",
        "Time in which some task of the application's cgroups waited for memory (PSI some).",
        "app",
    ),
    _counter_from_start(
        "app_pressure_stalled_seconds",
        "Time in which every task of the application's cgroups waited for memory (PSI full).",
        "app",
    ),
    _counter_from_start(
        "app_cgroup_events",
        "Memory events that the kernel counted in the application's cgroups: low, high, max, oom, oom_kill.",
        "app",
        "event",
    ),
    _counter_from_start(
        "app_package_process_deaths", "Package processes of the application that ended unexpectedly.", "app"
    ),
    _counter_from_start(
        "app_package_process_start_failures", "Package processes of the application that failed to start.", "app"
    ),
    _gauge(
        "app_role_memory_bytes",
        "Proportional memory of the application's processes by role, and by what it consists of: shared, fresh, late, "
        "grown, unsplit.",
        "app",
        "role",
        "part",
    ),
    _gauge("app_workers", "Worker processes of the application that publish their state.", "app"),
    _gauge(
        "package_memory_bytes",
        "Memory of the package over all workers; source is process (measured now; processes that workers share count "
        "once), import (measured at import), parent (the same, before the workers were forked: counted once) or "
        "resident (measured when it was loaded).",
        "app",
        "package",
        "source",
    ),
    _gauge("package_loaded_workers", "Workers in which the package is loaded.", "app", "package"),
    _gauge(
        "package_processes",
        "Package processes of the package that run; those that workers share count once.",
        "app",
        "package",
    ),
    _gauge("package_waiting_calls", "Calls that wait for a package process of the package.", "app", "package"),
    _gauge(
        "package_result_bytes",
        "Memory that results of the package's functions have imported into workers, which keep it.",
        "app",
        "package",
    ),
    _gauge(
        "package_last_used_timestamp_seconds", "When a worker last used the package, in Unix time.", "app", "package"
    ),
    _gauge(
        "package_verdict",
        "Mildest mechanism that works for the package, as found by its rehearsal; always 1.",
        "app",
        "package",
        "mechanism",
    ),
    _counter_from_start("package_loads", "Loads of the package.", "app", "package"),
    _counter_from_start("package_refaults", "Loads of the package soon after it was unloaded.", "app", "package"),
    _counter_from_start("package_load_seconds", "Time spent loading the package.", "app", "package"),
    _counter_from_start(
        "package_unloads", "Unloads of the package inside its workers, by mechanism.", "app", "package", "mechanism"
    ),
    _counter_from_start(
        "package_reclaimed_bytes",
        "Memory that unloading the package inside its workers gave back, as measured.",
        "app",
        "package",
        "mechanism",
    ),
    _gauge(
        "threshold_ratio",
        "Usage at or above which a threshold is entered, and below which it is left.",
        "threshold",
        "edge",
    ),
    _gauge("alerts_enabled", "Whether alerts are turned on: 1 or 0."),
    _gauge("suggestions_enabled", "Whether suggestions are turned on: 1 or 0."),
    _gauge("unloading_enabled", "Whether packages are unloaded under memory pressure: 1 or 0."),
    _gauge("sample_timestamp_seconds", "When the host's memory was measured, in Unix time."),
    _gauge("node_info", "Name of the node; always 1.", "node"),
    _gauge(
        "feature_supported",
        "Whether the feature works on this machine and in every worker: 1 or 0; a worker's is absent without workers.",
        "feature",
    ),
    _counter_from_start(
        "series_dropped", "Series of applications and packages left out of scrapes because they exceeded the limit."
    ),
    _gauge("scrape_collector_success", "Whether the collector succeeded in this scrape: 1 or 0.", "collector"),
    _gauge("scrape_collector_duration_seconds", "Time that the collector took in this scrape.", "collector"),
    _counter_from_start(
        "exporter_problems",
        "Files and measurements left out because they were invalid or untrusted, by kind.",
        "kind",
    ),
    _gauge("exporter_build_info", "Version of the exporter and of its Python; always 1.", "version", "python"),
)
"""In the order of printing; docs/metrics.md is checked against it."""
