"""Reads dashboards into Grafana's published schema and back: what the schema does not know is lost on the way."""
import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(before, after, path):
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                if value not in (None, [], {}):
                    yield f"{path}.{key}: not in the schema"
            else:
                yield from differences(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for n, (one, other) in enumerate(zip(before, after)):
            yield from differences(one, other, f"{path}[{n}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


register_default_plugins()
wrong = []
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        text = json.load(file)
    read = Dashboard.from_json(text)
    back = json.loads(JSONEncoder(sort_keys=True).encode(read))
    wrong += differences(text, back, name)
print("\n".join(wrong) or "fits the schema")
sys.exit(1 if wrong else 0)
