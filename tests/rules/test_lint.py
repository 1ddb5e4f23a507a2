"""What Cloudflare's pint checks in rules, as functions; each is seen to find a mistake planted in the real rules."""

import re
from pathlib import Path

import promql_parser
import pytest
import yaml

RULES = Path(__file__).parents[2] / "rules/memory_pressure.yml"
SLOWEST_SCRAPE_SECONDS = 10
"""As deploy/prometheus/prometheus.yml allows."""
RUNBOOKS = "https://github.com/mempressure/mempressure/blob/main/docs/runbooks/"


def load():
    return yaml.safe_load(RULES.read_text())


def rules(document):
    return [rule for group in document["groups"] for rule in group["rules"]]


def name_of(rule):
    return rule.get("alert") or rule["record"]


def nodes(expression):
    """Yield every node of a parsed expression."""
    waiting = [promql_parser.parse(expression) if isinstance(expression, str) else expression]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in ("lhs", "rhs", "expr", "vector_selector", "param"):
            child = getattr(node, attribute, None)
            if child is not None and type(child).__module__ == "promql_parser":
                waiting.append(child)
        waiting.extend(getattr(node, "args", ()))


def selectors(expression):
    return [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def calls(expression, *names):
    return [node for node in nodes(expression) if isinstance(node, promql_parser.Call) and node.func.name in names]


# Each check takes the rules and yields the names of those that it finds at fault, after pint's name of the check.


def alerts_annotation(document):
    """Every alert says what is the matter, where to look and what to do; the summary is one sentence of fixed text."""
    for rule in rules(document):
        if "alert" in rule:
            annotations = rule.get("annotations", {})
            summary = annotations.get("summary", "")
            told = {"summary", "description", "dashboard", "runbook_url"} <= set(annotations)
            if not told or not summary.endswith(".") or "{{" in summary or "\n" in summary:
                yield rule["alert"]


def alerts_comparison(document):
    """An alert compares with something: without, it fires for every series."""
    compares = {"==", "!=", "<", "<=", ">", ">=", "unless"}
    for rule in rules(document):
        if "alert" in rule:
            compared = any(
                isinstance(node, promql_parser.BinaryExpr) and str(node.op) in compares for node in nodes(rule["expr"])
            )
            if not compared and not calls(rule["expr"], "vector", "absent"):
                yield rule["alert"]


def alerts_template(document):
    """No value in a label: each evaluation would be another alert. `humanize` what people read."""
    for rule in rules(document):
        labels = " ".join(map(str, rule.get("labels", {}).values()))
        bare = re.search(r"\{\{ *\$value *\}\}", " ".join(rule.get("annotations", {}).values()))
        counts_scopes = name_of(rule) == "MemoryPressureThresholdsMissing"  # a small whole number
        if "$value" in labels or ".Value" in labels or (bare and not counts_scopes):
            yield name_of(rule)


def alerts_absent(document):
    """`absent` fires at Prometheus' first evaluation, before the first scrape: it waits for longer than one."""
    for rule in rules(document):
        if "alert" in rule and calls(rule["expr"], "absent", "absent_over_time"):
            waits = promql_parser.parse_duration(rule["for"]).total_seconds() if "for" in rule else 0
            if waits < 2 * SLOWEST_SCRAPE_SECONDS:
                yield rule["alert"]


def alerts_for(document):
    """`for` and `keep_firing_for` say something, in one unit."""
    for rule in rules(document):
        for key in ("for", "keep_firing_for"):
            if key in rule and not re.fullmatch(r"[1-9]\d*[smhd]", str(rule[key])):
                yield name_of(rule)


def promql_regexp(document):
    """A regular expression matches more than one word, and is not anchored: it is already."""
    for rule in rules(document):
        for selector in selectors(rule["expr"]):
            for matcher in selector.matchers.matchers:
                plain = not re.search(r"[|.*+?()\[\]\\^$]", matcher.value)
                anchored = matcher.value.startswith("^") or matcher.value.endswith("$")
                if "~" in operator(matcher) and (plain or anchored):
                    yield name_of(rule)


def operator(matcher):
    return {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}[str(matcher.op).rpartition(".")[2]]


def promql_counter(document):
    """A counter is read through rate or increase, and only a counter is."""
    for rule in rules(document):
        rated = [
            selector.name for call in calls(rule["expr"], "rate", "increase", "irate") for selector in selectors(call)
        ]
        counters = [
            selector.name
            for selector in selectors(rule["expr"])
            if selector.name and re.search(r"_(total|count|sum|bucket)$", selector.name)
        ]
        if sorted(rated) != sorted(counters):
            yield name_of(rule)


def promql_rate(document):
    """A rate sees four scrapes at least, so that one may fail."""
    for rule in rules(document):
        for call in calls(rule["expr"], "rate", "increase", "irate"):
            if any(seconds(node) < 4 * SLOWEST_SCRAPE_SECONDS for node in nodes(call) if hasattr(node, "range")):
                yield name_of(rule)


def seconds(selector):
    return selector.range.total_seconds()


def promql_aggregation(document):
    """What is aggregated keeps the labels that tell whose it is."""
    for rule in rules(document):
        for node in nodes(rule["expr"]):
            if isinstance(node, promql_parser.AggregateExpr):
                kept = set(node.modifier.labels) if node.modifier else set()
                if not kept & {"node", "instance"}:
                    yield name_of(rule)


def rule_duplicate(document):
    """No two rules are one, and no two alerts have one name."""
    seen = set()
    for rule in rules(document):
        key = rule.get("alert") or (rule["record"], *sorted(rule.get("labels", {}).items()))
        if key in seen:
            yield name_of(rule)
        seen.add(key)


def rule_dependency(document):
    """A record is made in the group that uses it, before it is used: else it is of another evaluation."""
    for group in document["groups"]:
        made = set()
        for rule in group["rules"]:
            if {name for name in names_used(rule) if ":" in name} - made - {rule.get("record")}:
                yield name_of(rule)
            made.add(rule.get("record"))


def names_used(rule):
    return {selector.name for selector in selectors(rule["expr"]) if selector.name}


def rule_name(document):
    """Alerts share a prefix; records are level:metric:operations."""
    for rule in rules(document):
        if "alert" in rule and rule["alert"] != "Watchdog" and not rule["alert"].startswith("MemoryPressure"):
            yield rule["alert"]
        if "record" in rule and not re.fullmatch(r"[a-z]+:mempressure_[a-z_]+:[a-z0-9_]+", rule["record"]):
            yield rule["record"]


def rule_label(document):
    """Every alert has a severity that a route knows."""
    for rule in rules(document):
        known = {"critical", "warning", "info", "none"}
        if "alert" in rule and rule.get("labels", {}).get("severity") not in known:
            yield rule["alert"]


def rule_link(document):
    """Every alert's page is its own and is there."""
    for rule in rules(document):
        if "alert" in rule:
            page = RULES.parents[1] / f"docs/runbooks/{rule['alert']}.md"
            url = rule.get("annotations", {}).get("runbook_url")
            if url != f"{RUNBOOKS}{rule['alert']}.md" or not page.is_file():
                yield rule["alert"]


CHECKS = [
    *(alerts_annotation, alerts_comparison, alerts_template, alerts_absent, alerts_for),
    *(promql_regexp, promql_counter, promql_rate, promql_aggregation),
    *(rule_duplicate, rule_dependency, rule_name, rule_label, rule_link),
]


def of(document, name):
    return next(rule for rule in rules(document) if name_of(rule) == name)


def replace(name, old, new, *, key="expr"):
    def plant(document):
        rule = of(document, name)
        assert old in rule[key], f"{old!r} is not in {rule[key]!r}: bring it in line with the rules"
        rule[key] = rule[key].replace(old, new)

    return plant


def put(name, key, value, *, below=None):
    def plant(document):
        (of(document, name)[below] if below else of(document, name))[key] = value

    return plant


def move_to_the_end(name):
    def plant(document):
        rule = of(document, name)
        document["groups"][0]["rules"].remove(rule)
        document["groups"][1]["rules"].append(rule)

    return plant


EXPORTER_DOWN, STALLING, STALLED = (
    "MemoryPressureExporterDown",
    "MemoryPressureStalling",
    "scope:mempressure_stalled:rate1m",
)
PLANTED = [
    (alerts_annotation, put(STALLING, "annotations", {"summary": "No more."})),
    (alerts_annotation, put(STALLING, "summary", "Stalls for {{ $value }}.", below="annotations")),
    (alerts_comparison, put(STALLING, "expr", STALLED)),
    (alerts_template, put(STALLING, "value", "{{ $value }}", below="labels")),
    (alerts_template, put(STALLING, "description", "Stalls for {{ $value }}.", below="annotations")),
    (alerts_absent, put(EXPORTER_DOWN, "for", "5s")),
    (alerts_for, put(EXPORTER_DOWN, "for", "0s")),
    (promql_regexp, replace(EXPORTER_DOWN, 'job="mempressure-exporter"', 'job=~"mempressure-exporter"')),
    (promql_regexp, replace(EXPORTER_DOWN, 'job="mempressure-exporter"', 'job=~"^mempressure-.*"')),
    (promql_counter, replace(STALLED, "rate(", "max_over_time(")),
    (promql_counter, replace(STALLED, "pressure_stalled_seconds_total", "memory_used_bytes")),
    (promql_rate, replace(STALLED, "[1m]", "[30s]")),
    (promql_aggregation, replace(STALLED, "max by (node)", "max")),
    (rule_duplicate, put(STALLING, "alert", EXPORTER_DOWN)),
    (rule_duplicate, put(STALLED, "record", "scope:mempressure_waiting:rate1m")),
    (rule_dependency, move_to_the_end(STALLING)),
    (rule_dependency, replace("mechanism:mempressure_reclaimed_bytes:rate5m", ") mempressure_node_info", ") a:b:c")),
    (rule_name, put(STALLING, "alert", "Stalling")),
    (rule_name, put(STALLED, "record", "stalled_rate")),
    (rule_label, put(STALLING, "severity", "page", below="labels")),
    (rule_link, put(STALLING, "runbook_url", f"{RUNBOOKS}MemoryPressureHigh.md", below="annotations")),
    (rule_link, put(STALLING, "alert", "MemoryPressureNew")),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_rules_have_no(check):
    assert list(check(load())) == []


@pytest.mark.parametrize(("check", "plant"), PLANTED, ids=[check.__name__ for check, _ in PLANTED])
def test_a_planted_mistake_is_found_by(check, plant):
    document = load()
    plant(document)
    assert list(check(document))


def test_every_check_has_been_seen_to_find():
    assert {check for check, _ in PLANTED} == set(CHECKS)
