"""What Grafana knows by name: units, reducers, matchers, colour modes, transformers; the file says from where."""

import json
from pathlib import Path

IDS = json.loads((Path(__file__).parent / "grafana_ids.json").read_text())
