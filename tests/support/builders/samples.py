"""What an exporter's collectors return, read back from the text that Prometheus would get."""

from prometheus_client.parser import text_string_to_metric_families

from mempressure_exporter.exposition import Exposition
from mempressure_exporter.metrics import FAMILIES

_LABELS = {family.name: family.labels for family in FAMILIES}


def printed(collected):
    """Return (family name, label values in the family's order, value) of every sample."""
    text = Exposition(FAMILIES).render(collected).decode()
    return [
        (sample.name, tuple(map(sample.labels.get, _LABELS[sample.name])), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def series_of(collectors):
    """Scrape once; return the value of each series by (name without "mempressure_", *label values)."""
    samples = printed(collectors.collect())
    found = {(name.removeprefix("mempressure_"), *labels): value for name, labels, value in samples}
    assert len(found) == len(samples), "a series was there twice"
    return found


def succeeded(series):
    """Return the names of the collectors that succeeded in a scrape."""
    return {name[1] for name, value in series.items() if name[0] == "scrape_collector_success" and value}
