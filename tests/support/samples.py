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
