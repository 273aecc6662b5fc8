#!/usr/bin/env python3
"""Generates the dashboards in `dashboards/` from the panels in `panels.py`. Owns what all dashboards share: variables,
annotations, the grid, the look of a panel. Must not know what a panel shows.

usage: generate.py            writes the dashboards
       generate.py --check    fails if a dashboard differs from what would be written
"""

import json
import pathlib
import sys

from panels import DASHBOARDS

HERE = pathlib.Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


def variables():
    def query(name, label, expression):
        return {
            "name": name, "label": label, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1,
            "multi": True, "includeAll": True, "current": {"text": ["All"], "value": ["$__all"]},
            "query": {"query": expression, "refId": name}, "definition": expression,
        }  # fmt: skip

    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
        query("job", "Job", "label_values(ticketlog_build_info, job)"),
        query("queue", "Queue", 'label_values(ticketlog_build_info{job=~"$job"}, queue)'),
        query("instance", "Worker", 'label_values(ticketlog_build_info{job=~"$job",queue=~"$queue"}, instance)'),
        {
            "name": "runbooks", "label": "Runbooks", "type": "textbox", "query": "/docs/operate/runbooks", "hide": 2,
            "current": {"text": "/docs/operate/runbooks", "value": "/docs/operate/runbooks"},
            "description": "Where docs/operate/runbooks of the repository is published.",
        },
    ]  # fmt: skip


def annotations():
    def changes(name, color, metric, text):
        expression = 'changes(%s{job=~"$job",queue=~"$queue",instance=~"$instance"}[$__rate_interval]) > 0' % metric
        return {
            "name": name, "datasource": SOURCE, "enable": True, "iconColor": color, "expr": expression,
            "titleFormat": name, "textFormat": text, "step": "60s",
        }  # fmt: skip

    return [
        changes("Restart", "blue", "process_start_time_seconds", "{{instance}} restarted"),
        changes("Breaker", "red", "ticketlog_breaker_open", "{{instance}}: the circuit breaker opened or closed"),
    ]


def thresholds(steps):
    """`steps` are pairs of a colour and the value from which it applies; the first has none."""
    made = [{"color": color, "value": value} for color, value in steps or [("green", None)]]
    return {"mode": "absolute", "steps": made}


# Colours by meaning: the same series has the same colour in every panel.
COLOURS = {
    "stored": "green", "ok": "green", "new": "green", "up": "green", "duplicate": "blue", "redelivered": "purple",
    "returned": "purple", "dead_lettered": "orange", "partial": "orange", "p50": "green", "p99": "orange", "p99.9": "red",
    "error": "red", "failed": "red", "lost": "red", "warn": "yellow", "info": "blue", "debug": "text", "trace": "text",
    "work": "blue", "dead_letter": "orange", "parked": "purple", "limit": "text", "requeue": "red",
}  # fmt: skip


def overrides():
    def coloured(name, colour):
        return {"matcher": {"id": "byName", "options": name},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}  # fmt: skip

    return [coloured(name, colour) for name, colour in COLOURS.items()]


OPTIONS = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"colorMode": "background", "graphMode": "none", "textMode": "auto", "orientation": "auto",
             "reduceOptions": {"calcs": ["lastNotNull"]}},
    "state-timeline": {"mergeValues": True, "showValue": "never", "legend": {"displayMode": "list", "placement": "bottom"}},
    "bargauge": {"orientation": "horizontal", "displayMode": "basic", "namePlacement": "top", "text": {"titleSize": 13, "valueSize": 16},
                 "reduceOptions": {"calcs": ["lastNotNull"]}},
}  # fmt: skip


def panel(number, place, spec):
    custom = {}
    if spec["kind"] == "timeseries":
        custom = {"fillOpacity": 25 if spec.get("stack") else 5, "showPoints": "never",
                  "stacking": {"mode": "normal" if spec.get("stack") else "none"}}  # fmt: skip
        if spec.get("thresholds"):
            custom["thresholdsStyle"] = {"mode": "line"}
    defaults = {
        "unit": spec["unit"], "custom": custom, "thresholds": thresholds(spec.get("thresholds")),
        "color": {"mode": "palette-classic" if spec["kind"] == "timeseries" else "thresholds"},
    }  # fmt: skip
    # A queue whose length is not known has the value NaN.
    defaults["mappings"] = [{"type": "special", "options": {"match": "null+nan", "result": {"text": "unknown", "color": "#6e7079", "index": 9}}}]
    if spec.get("mappings"):
        pairs = {value: one if isinstance(one, tuple) else (one, None) for value, one in spec["mappings"].items()}
        shown = {value: {"text": text, "index": at, **({"color": color} if color else {})}
                 for at, (value, (text, color)) in enumerate(pairs.items())}  # fmt: skip
        defaults["mappings"].append({"type": "value", "options": shown})
    if "min" in spec:
        defaults["min"] = spec["min"]
    if spec["unit"] == "short" and spec["kind"] != "timeseries" or spec.get("whole"):
        defaults["decimals"] = 0
    if spec.get("empty"):
        defaults["noValue"] = spec["empty"]
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend,
         "instant": spec["kind"] in ("stat", "bargauge")}
        for at, (expression, legend) in enumerate(spec["targets"])
    ]  # fmt: skip
    options = dict(OPTIONS[spec["kind"]], **({"textMode": "value_and_name"} if spec.get("names") else {}))
    links = [
        {"title": "Runbook: " + name, "url": "${runbooks}/%s.md" % name, "targetBlank": True}
        for name in spec.get("runbooks", [])
    ]
    return {
        "id": number, "type": spec["kind"], "title": spec["title"], "description": spec["description"],
        "datasource": SOURCE, "gridPos": place, "targets": targets, "links": links,
        "fieldConfig": {"defaults": defaults, "overrides": overrides() if spec["kind"] == "timeseries" else []}, "options": options,
    }  # fmt: skip


def laid_out(rows):
    """The panels of all rows with their positions: side by side, each row below its title."""
    panels, y, number = [], 0, 1
    for title, specs in rows:
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})  # fmt: skip
        number, y, x, height = number + 1, y + 1, 0, 0
        for spec in specs:
            wide, high = spec.get("w", 8), spec.get("h", 8)
            if x + wide > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append(panel(number, {"x": x, "y": y, "w": wide, "h": high}, spec))
            number, x, height = number + 1, x + wide, max(height, high)
        y += height
    return panels


def dashboard(uid, title, description, rows):
    return {
        "uid": uid, "title": title, "description": description, "tags": ["ticketlog"], "schemaVersion": 39,
        "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"title": "ticketlog", "type": "dashboards", "tags": ["ticketlog"], "asDropdown": True,
                   "includeVars": True, "keepTime": True}],
        "templating": {"list": variables()}, "annotations": {"list": annotations()}, "panels": laid_out(rows),
    }  # fmt: skip


def main():
    stale = []
    for name, (title, description, rows) in DASHBOARDS.items():
        text = json.dumps(dashboard("ticketlog-" + name, title, description, rows), indent=1, ensure_ascii=False) + "\n"
        path = HERE / (name + ".json")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        sys.exit("out of date: %s; run `make docs`" % ", ".join(stale))


main()
