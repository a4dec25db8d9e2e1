"""What a job is asked, from keyword arguments that are named as the flags of `lwqctl quantize`."""
from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TypedDict, Union

from lwq.budget import parse_budget, parse_bytes
from lwq.types import Budget, QuantizeSpec

Path = Union[str, "PathLike[str]"]


class Options(TypedDict, total=False):
    """Options of a job; each may be left out. Files are of this machine, and are sent to the server."""

    method: str  # gptq, rtn
    scorer: str  # kl, kl-full, lim, zd
    allocator: str  # lwq, knapsack, two-level, three-level, ranges, uniform
    profile: str  # vllm-lowbit, portable, transformers
    compute: str  # f32, bf16
    asymmetric: bool
    bits: Sequence[int]  # candidate widths; 16: as in the source
    formats: Sequence[str]  # candidate weight formats by id
    group_size: int | str | Sequence[int | str]  # "row" for one group per row
    quantize_head: bool
    max_shard_size: int | str
    memory: int | str  # ceiling of a worker
    no_act_order: bool
    no_scale_search: bool
    no_refinement: bool
    no_cache: bool
    seed: int
    calibration: Path
    calibration_tokens: int
    score_tokens: int
    trial_tokens: int
    judge_tokens: int
    eval_text: Path
    eval_tokens: int
    eval_tasks: Sequence[Path]
    eval_limit: int


_AS_IT_IS = ("method", "scorer", "allocator", "profile", "compute", "asymmetric", "quantize_head", "no_act_order",
             "no_scale_search", "no_refinement", "no_cache", "seed")
_TOKENS = {"calibration_tokens": "num_tokens", "score_tokens": "score_tokens", "trial_tokens": "trial_tokens",
           "judge_tokens": "judge_tokens"}


def make_spec(model: str, budget: str | int | Budget, options: Options) -> QuantizeSpec:
    """All but the datasets, which have to be sent first."""
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(Options.__annotations__)}")
    spec = QuantizeSpec(model=model, budget=parse_budget(budget))
    for name in _AS_IT_IS:
        if name in options:
            setattr(spec, name, options[name])  # type: ignore[literal-required]
    spec.formats.extend("dense" if bits == 16 else f"int{bits}" for bits in options.get("bits", ()))
    spec.formats.extend(options.get("formats", ()))
    groups = options.get("group_size", ())
    for group in (groups,) if isinstance(groups, (int, str)) else groups:
        spec.group_sizes.append(0 if group == "row" else int(group))
    if "max_shard_size" in options:
        spec.max_shard_bytes = parse_bytes(options["max_shard_size"])
    if "memory" in options:
        spec.memory_bytes = parse_bytes(options["memory"])
    for name, field in _TOKENS.items():
        if name in options:
            setattr(spec.calibration, field, options[name])  # type: ignore[literal-required]
    if "eval_tokens" in options:
        spec.evaluation.text_tokens = options["eval_tokens"]
    if "eval_limit" in options:
        spec.evaluation.limit = options["eval_limit"]
    return spec
