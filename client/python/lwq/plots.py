"""Pictures of a job for notebooks; needs matplotlib: pip install "lwq[plots]". Each function draws into `axes`, or a figure of its
own, and returns the axes."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lwq.errors import invalid
from lwq.types import Job

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAYER_NAME = re.compile(r"^.*?layers\.\d+\.")


def _axes(axes: Axes | None, width: float, height: float) -> Any:
    if axes is not None:
        return axes
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def plan(job: Job, axes: Axes | None = None) -> Axes:
    """The format of every unit: layers from left to right, the units of a layer from bottom to top."""
    if not job.plan.units:
        raise invalid("STATE_CONFLICT", f"{job.name} has no plan yet: it is {Job.State.Name(job.state)}")
    kinds = list(dict.fromkeys(_LAYER_NAME.sub("", unit.unit) for unit in job.plan.units))
    formats = sorted({unit.format or "dropped" for unit in job.plan.units}, key=_by_width)
    layers = sorted({unit.layer for unit in job.plan.units}, key=lambda layer: (layer < 0, layer))  # the head and the embedding last
    cells = [[float("nan")] * len(layers) for _ in kinds]
    for unit in job.plan.units:
        cells[kinds.index(_LAYER_NAME.sub("", unit.unit))][layers.index(unit.layer)] = formats.index(unit.format or "dropped")

    drawn = _axes(axes, max(4, 0.3 * len(layers) + 2.5), max(2.5, 0.4 * len(kinds) + 1.2))
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colors = [colormaps["viridis"](i / max(1, len(formats) - 1)) for i in range(len(formats))]
    drawn.pcolormesh(range(len(layers) + 1), range(len(kinds) + 1), cells, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(formats) - 0.5,
                     edgecolors="white", linewidth=0.5)
    step = max(1, len(layers) // 16)
    drawn.set_xticks([i + 0.5 for i in range(0, len(layers), step)], [_layer(layers[i]) for i in range(0, len(layers), step)])
    drawn.set_yticks([i + 0.5 for i in range(len(kinds))], kinds)
    drawn.set_xlabel("layer")
    drawn.set_title(f"{job.plan.bits_per_weight:.3f} bits per weight, {job.plan.weight_file_bytes:,} bytes")
    drawn.legend([Patch(color=color) for color in colors], formats, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    found: Axes = drawn
    return found


def trials(job: Job, axes: Axes | None = None) -> Axes:
    """The plans that a job measured before it chose: size against KL divergence to the source, with the standard error."""
    tried = [trial for trial in job.trials if trial.kl > 0 and not trial.judged]
    if not tried:
        raise invalid("STATE_CONFLICT", f"{job.name} has measured no plans: its allocator is {job.spec.quantize.allocator or 'another'}")
    drawn = _axes(axes, 6, 4)
    drawn.errorbar([trial.plan_bytes / 1e6 for trial in tried], [trial.kl for trial in tried], yerr=[trial.standard_error for trial in tried],
                   fmt="o", markersize=4, capsize=2, label="tried")
    # Larger ones were tried to learn from.
    within = [trial for trial in tried if trial.plan_bytes <= job.plan.budget_bytes]
    if within:
        best = min(within, key=lambda trial: trial.kl)
        drawn.plot([best.plan_bytes / 1e6], [best.kl], "o", markersize=12, fillstyle="none", label="least within the budget")
    drawn.axvline(job.plan.budget_bytes / 1e6, linestyle="--", color="grey", label="budget")
    return _labelled(drawn, "MB of the plan, in the budget's measure")


def frontier(jobs: Sequence[Job], axes: Axes | None = None) -> Axes:
    """Jobs of one model at several budgets: bits per weight against measured KL divergence to the source."""
    points = sorted((job.plan.bits_per_weight, result.text.kl.mean) for job in jobs for result in job.evaluations
                    if result.subject == "artifact" and result.text.HasField("kl"))
    if not points:
        raise invalid("STATE_CONFLICT", "none of the jobs has measured a KL divergence: leave no_eval out")
    drawn = _axes(axes, 6, 4)
    drawn.plot([bits for bits, _ in points], [kl for _, kl in points], "o-", label="jobs")
    return _labelled(drawn, "bits per weight")


def _labelled(axes: Any, what: str) -> Axes:
    axes.set_yscale("log")
    axes.set_xlabel(what)
    axes.set_ylabel("KL to the source, nats")
    axes.legend(frameon=False)
    found: Axes = axes
    return found


def _by_width(name: str) -> tuple[int, str]:
    if name == "dropped":
        return -1, name
    if name == "dense":
        return 99, name
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else 98), name


def _layer(layer: int) -> str:
    return {-1: "head", -3: "embedding"}.get(layer, str(layer))
