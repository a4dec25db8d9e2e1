"""Bars and pictures with the libraries that draw them; started by python_client_test.py. usage: python_client_plots.py DIR"""
import io
import pathlib
import sys

import matplotlib

matplotlib.use("agg")

import rich.progress  # noqa: E402

import lwq  # noqa: E402
import lwq.plots  # noqa: E402
import lwq.progress  # noqa: E402

DIR = pathlib.Path(sys.argv[1])
Job, Progress = lwq.types.Job, lwq.types.Progress


def ok(good, what):
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        sys.exit(1)


def example(bits=3.25, kl=0.01):
    job = Job(name="jobs/x", state=Job.SUCCEEDED)
    job.plan.bits_per_weight, job.plan.weight_file_bytes, job.plan.budget_bytes = bits, 5_966_784, 6_000_000
    for layer in range(6):
        for unit in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj"):
            job.plan.units.add(unit=f"model.layers.{layer}.{unit}", layer=layer, format="int2-g128" if layer % 2 else "int4-g128")
    job.plan.units.add(unit="lm_head", layer=-1, format="dense")
    for i in range(4):
        job.trials.add(origin=f"plan {i}", plan_bytes=5_900_000 + i, kl=0.02 - i / 1000, standard_error=0.001)
    job.trials.add(origin="to learn from", plan_bytes=6_500_000, kl=0.001)
    job.trials.add(origin="judged", plan_bytes=1, kl=9, judged=True)
    result = job.evaluations.add(subject="artifact", dataset="datasets/d")
    result.text.kl.mean = kl
    return job


def pictures():
    job = example()
    axes = lwq.plots.plan(job)
    axes.figure.savefig(DIR / "plan.png")
    ok([t.get_text() for t in axes.get_legend().get_texts()] == ["int2-g128", "int4-g128", "dense"], "the legend goes by width")
    ok([t.get_text() for t in axes.get_xticklabels()][-1] == "head" and len(axes.get_yticklabels()) == 4, "layers and kinds of units")
    cells = axes.collections[0].get_array().reshape(4, 7)
    ok(list(cells[0][:6]) == [1, 0, 1, 0, 1, 0] and cells[3][6] == 2, "each unit in its place")
    axes = lwq.plots.trials(job)
    lines = {line.get_label(): line for line in axes.lines}
    ok(len(axes.lines[0].get_xdata()) == 5, "trials, without what judged them")
    ok(list(lines["least within the budget"].get_ydata()) == [0.017], "the least that the budget allows is marked")
    axes = lwq.plots.frontier([example(4, 0.002), example(3, 0.02)], axes)
    ok(list(axes.lines[-1].get_xdata()) == [3, 4] and list(axes.lines[-1].get_ydata()) == [0.02, 0.002], "the frontier goes by size")
    for draw in (lambda: lwq.plots.plan(Job(name="jobs/y")), lambda: lwq.plots.trials(Job()), lambda: lwq.plots.frontier([Job()])):
        try:
            draw()
            ok(False, "a job with nothing to draw is refused")
        except lwq.InvalidArgument as e:
            ok(e.reason == "STATE_CONFLICT", f"nothing to draw: {e.message[:80]}")


def bars():
    sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None  # as where it is not installed
    shown = io.StringIO()
    stdout, sys.stdout = sys.stdout, shown
    try:
        with lwq.progress.shown(True) as tell:
            tell(Progress(fraction=0.25, current="layer 1/4", remaining_seconds=200))
            tell(Progress(fraction=1, current="done"))
    finally:
        sys.stdout = stdout
    ok("100%" in shown.getvalue() and "done" in shown.getvalue(), "a bar by rich")
    for seconds, text in ((200, "3m20s"), (5.4, "5s"), (7260, "2h01m")):
        ok(lwq.progress.remaining(Progress(fraction=0.5, remaining_seconds=seconds)) == text, f"{seconds} s are {text}")
    ok(lwq.progress.remaining(Progress(fraction=0.5)) == "", "nobody can say")


DIR.mkdir()
pictures()
bars()
