#!/usr/bin/env python3
"""Draws the dashboards from what a Prometheus answers, one picture each, for the documentation and to look at them without Grafana.
Needs matplotlib.
usage: draw_dashboards.py http://HOST:PORT FOLDER [MINUTES]   (the last MINUTES: 10)"""
import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

import make_dashboards  # noqa: E402

COLUMNS = 3
MOST_SERIES = 8  # of a panel


def ask(server, path, **parameters):
    with urllib.request.urlopen(f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def shown(value, unit):
    """As Grafana's units show it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"
    if unit in ("bytes", "Bps"):
        for name in ("", "k", "M", "G", "T"):
            if abs(value) < 1000 or name == "T":
                return f"{value:.3g} {name}B" + ("/s" if unit == "Bps" else "")
            value /= 1000
    return f"{value:.4g}" + ("/s" if unit in ("ops", "reqps") else "")


def legend(template, metric):
    for name, value in metric.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def series(server, queries, minutes):
    """[(legend, times, values)] of a panel's queries over the last minutes, without gaps of NaN."""
    end, found = time.time(), []
    for query, template in queries:
        expression = query.replace("$__rate_interval", "30s")
        for one in ask(server, "query_range", query=expression, start=end - 60 * minutes, end=end, step=max(1, minutes / 4)):
            points = [(t - end, float(v)) for t, v in one["values"] if math.isfinite(float(v))]
            if points:
                found.append((legend(template, one["metric"]), *zip(*points)))
    return found


def worth_a_line(found):
    """The largest ones; those that are 0 all the time only where all are."""
    found = sorted(found, key=lambda one: -max(one[2]))
    return [one for one in found if max(one[2]) > 0][:MOST_SERIES] or found[:MOST_SERIES]


def draw_panel(axes, panel, server, minutes):
    title, unit, kind, queries = panel
    axes.set_title(title, fontsize=9, loc="left")
    found = series(server, queries, minutes)
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color="red")
    elif kind == "timeseries":
        for name, times, values in worth_a_line(found):
            axes.plot([t / 60 for t in times], values, linewidth=1, label=name)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
        axes.margins(y=0.3)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=6, ncols=2, frameon=False, loc="upper left")
    elif kind == "bargauge":
        found.sort(key=lambda one: float(one[0].rsplit(" ", 1)[-1].replace("+Inf", "inf")))
        axes.barh([name for name, *_ in found], [values[-1] for *_, values in found], color="tab:green")
    else:
        axes.axis("off")
        axes.set_title(title, fontsize=9, loc="left")
        count = all(make_dashboards.is_count(unit, kind, query) for query, _ in queries)
        words = [f"{shown(round(values[-1]) if count else values[-1], unit)}  {name}" for name, _, values in found]
        axes.text(0.05, 0.5, "\n".join(words), fontsize=14 if len(words) < 4 else 9, va="center", transform=axes.transAxes)
    axes.tick_params(labelsize=7)


def draw(server, name, folder, minutes):
    title, panels = make_dashboards.DASHBOARDS[name]
    rows = math.ceil(len(panels) / COLUMNS)
    figure, grid = pyplot.subplots(rows, COLUMNS, figsize=(13, 2.3 * rows), layout="constrained", squeeze=False)
    figure.suptitle(title)
    for axes in grid.flat[len(panels):]:
        axes.axis("off")
    for axes, panel in zip(grid.flat, panels):
        draw_panel(axes, panel, server, minutes)
    figure.savefig(folder / f"dashboard-{name}.png", dpi=75, pil_kwargs={"optimize": True})
    pyplot.close(figure)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for name in make_dashboards.DASHBOARDS:
        draw(sys.argv[1], name, pathlib.Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 10)
