"""Parts of the rules: promtool needs for all of them ten times as long as for one alert and what it rests on."""

import re
from pathlib import Path

import yaml

RULES = Path(__file__).parents[2] / "rules/memory_pressure.yml"


def excerpt(*alerts):
    """Return the rules of these alerts, without annotations, and all that their expressions ask for."""
    content = yaml.safe_load(RULES.read_text())
    wanted, size = set(alerts), 0
    every = [rule for group in content["groups"] for rule in group["rules"]]
    while len(wanted) > size:
        size = len(wanted)
        for rule in every:
            if name_of(rule) in wanted:
                wanted |= set(re.findall(r'\w+:\w+:\w+|(?<=alertname=")\w+', rule["expr"]))
    for group in content["groups"]:
        group["rules"] = [rule for rule in group["rules"] if name_of(rule) in wanted]
        for rule in group["rules"]:
            rule.pop("annotations", None)
    content["groups"] = [group for group in content["groups"] if group["rules"]]
    return content


def name_of(rule):
    return rule.get("alert") or rule["record"]
