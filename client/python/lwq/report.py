"""What lies beside an artifact for people and programs: lwq-report.json, the whole record of its job (formats/report.md of the documentation), and
README.md, a model card."""
from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Mapping

from google.protobuf.json_format import MessageToDict

from lwq.types import Artifact, Budget, EvaluationResult, Job

REPORT, CARD = "lwq-report.json", "README.md"


def write(job: Job, artifact: Artifact, folder: pathlib.Path, titles: Mapping[str, str]) -> None:
    """Neither where the artifact brings it. titles: what people call the model and the datasets, by name."""
    names = {file.name for file in artifact.files}
    if REPORT not in names:
        report = {"lwq_report": 1, "job": _record(job), "artifact": _record(artifact)}
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    if CARD not in names:
        (folder / CARD).write_text(model_card(job, artifact, titles))


def _record(message: Job | Artifact) -> object:
    return MessageToDict(message, preserving_proto_field_name=True)


def model_card(job: Job, artifact: Artifact, titles: Mapping[str, str] | None = None) -> str:
    """Markdown with the front matter that model hubs read."""
    plan, spec = job.plan, job.spec.quantize
    titles = titles or {}
    model = titles.get(spec.model, spec.model.removeprefix("models/"))
    kind = plan.artifact_format or "compressed-tensors"
    formats = collections.Counter(unit.format or "dropped" for unit in plan.units)
    lines = ["---", f"tags: [lwq, quantized, {kind}]", "---", "",
             f"# {_line(model)} at {plan.bits_per_weight:.3f} bits per weight", "",
             f"Made by lwq from {_line(model)} within a budget of {budget_text(spec.budget)}: {plan.weight_file_bytes:,} bytes of weights"
             + (f", {plan.weight_file_bytes / plan.source_bytes:.1%} of the source's" if plan.source_bytes else "") + ".", "",
             "| weights | units |", "| --- | --- |", *(f"| {name} | {count} |" for name, count in sorted(formats.items()))]
    if plan.explanation:
        lines += ["", f"How the formats were chosen: {_line(plan.explanation)}"]
    rows = _measures(job, titles)
    if rows:
        subjects = sorted({subject for row in rows.values() for subject in row}, reverse=True)  # the source first
        lines += ["", "| measure | " + " | ".join(subjects) + " |", "| --- |" + " --- |" * len(subjects)]
        lines += [f"| {measure} | " + " | ".join(row.get(subject, "-") for subject in subjects) + " |" for measure, row in rows.items()]
    lines += [f"\nWarning: {_line(warning)}" for warning in job.warnings]
    lines += ["", "How it was made: " + ", ".join(f"{name} {value}" for name, value in (
        ("method", spec.method), ("scorer", spec.scorer), ("allocator", spec.allocator), ("profile", spec.profile)) if value)
        + f"; job `{job.name}`. `{REPORT}` holds the whole record, `lwq-manifest.json` the SHA-256 of each file.", "",
        "| file | bytes | SHA-256 |", "| --- | --- | --- |",
        *(f"| {file.name} | {file.blob.size_bytes:,} | `{file.blob.sha256}` |" for file in artifact.files), ""]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def budget_text(budget: Budget) -> str:
    match budget.WhichOneof("kind"):
        case "file_bytes":
            return f"{budget.file_bytes:,} bytes"
        case "bits_per_weight":
            return f"{budget.bits_per_weight:g} bits per weight"
        case "device":
            return f"{budget.device.bytes:,} bytes of device memory at {budget.device.context_length} tokens x {budget.device.batch_size}"
        case "source_percent":
            return f"{budget.source_percent:g} % of the source"
        case "recipe":
            return f"llama.cpp's {budget.recipe}"
        case _:
            return "none"


def _measures(job: Job, titles: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """measure -> subject -> text."""
    rows: dict[str, dict[str, str]] = {}
    for result in job.evaluations:
        for measure, text in _of(result, _line(titles.get(result.dataset, result.dataset.removeprefix("datasets/")))):
            rows.setdefault(measure, {})[result.subject] = text
    return rows


def _of(result: EvaluationResult, name: str) -> list[tuple[str, str]]:
    if result.HasField("choice"):
        return [(f"accuracy, {name} ({result.choice.num_items} items)", f"{result.choice.acc:.1%}")]
    found = [(f"perplexity per token, {name}", f"{result.text.token_perplexity:.4f}"),
             (f"perplexity per word, {name}", f"{result.text.word_perplexity:.4f}")]
    if result.text.HasField("kl"):
        kl = result.text.kl
        found += [(f"KL to the source, {name}: mean", f"{kl.mean:.5f}"), (f"KL to the source, {name}: 99th percentile", f"{kl.p99:.4f}"),
                  (f"same first choice, {name}", f"{kl.top1_agreement:.1%}")]
    return found
