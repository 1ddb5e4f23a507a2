"""Notifications as Alertmanager sends them."""


def alert(name="MemoryPressureEmergency", *, status="firing", starts_at="2026-01-01T00:00:00Z", **labels):
    defaults = {"alertname": name, "node": "n1", "scope": "app", "app": "shop", "level": name[14:].lower()}
    return {
        "status": status,
        "labels": defaults | labels,
        "annotations": {},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": "0123456789abcdef",
    }


def heartbeat():
    return alert("MemoryPressureHeartbeat")


def notification(*alerts):
    return {"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "actuator", "alerts": list(alerts)}
