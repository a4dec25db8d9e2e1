"""What a job is asked, from keyword arguments that are named as the flags of `lwqctl quantize`."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, path
from typing import TypedDict, Union, cast

from lwq.budget import parse_budget, parse_bytes
from lwq.errors import NotFound, invalid
from lwq.types import Budget, QuantizeSpec

Path = Union[str, "PathLike[str]"]


class Options(TypedDict, total=False):
    """Options of a job; each may be left out. Files are of this machine, and are sent to the server."""

    method: str  # awq, gptq, rtn, smoothquant
    scorer: str  # kl, kl-full, lim, zd
    allocator: str  # lwq, knapsack, two-level, three-level, ranges, uniform, drop
    engine: str  # who shall load it, `--for` of lwqctl: llama.cpp, vllm, sglang, transformers, gptqmodel
    format: str  # gguf, compressed-tensors, gptq
    profile: str  # vllm-lowbit, portable, transformers, w8a8, fp8, gptq, gptqmodel, llama.cpp
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
    no_eval: bool  # no measurement: else on eval_text, or on the server's own text
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
    method_options: Mapping[str, object]  # by name, as the method declares them
    scorer_options: Mapping[str, object]
    allocator_options: Mapping[str, object]


# The server's own text: what a job is measured on that leaves its evaluation unset, as by lwqctl.
BUILTIN_TEXT = "datasets/builtin-held-out"
_BUILTIN_TOKENS = 4096

_AS_IT_IS = ("method", "scorer", "allocator", "compute", "asymmetric", "quantize_head", "no_act_order",
             "no_scale_search", "no_refinement", "no_cache", "seed")
_TOKENS = {"calibration_tokens": "num_tokens", "score_tokens": "score_tokens", "trial_tokens": "trial_tokens",
           "judge_tokens": "judge_tokens"}
# As kTargets of lwqctl: the profile that an engine has by default in a kind of artifact; of several the first.
_TARGETS = (("llama.cpp", "gguf", "llama.cpp"), ("vllm", "compressed-tensors", "vllm-lowbit"), ("vllm", "gptq", "gptq"),
            ("sglang", "compressed-tensors", "portable"), ("sglang", "gptq", "gptq"),
            ("transformers", "compressed-tensors", "transformers"), ("gptqmodel", "gptq", "gptqmodel"))


def make_spec(model: str, budget: str | int | Budget, options: Options) -> QuantizeSpec:
    """All but the datasets, which have to be sent first."""
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(Options.__annotations__)}")
    options = given(options)
    spec = QuantizeSpec(model=model, budget=parse_budget(budget))
    for name in _AS_IT_IS:
        if name in options:
            setattr(spec, name, options[name])  # type: ignore[literal-required]
    spec.profile = _profile(options)
    spec.formats.extend(_width(bits) for bits in options.get("bits", ()))
    spec.formats.extend(options.get("formats", ()))
    groups = options.get("group_size", ())
    spec.group_sizes.extend(_group(group) for group in ((groups,) if isinstance(groups, (int, str)) else groups))
    for of, by_name in ((spec.method_options, options.get("method_options", {})), (spec.scorer_options, options.get("scorer_options", {})),
                      (spec.allocator_options, options.get("allocator_options", {}))):
        of.update({name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in by_name.items()})
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
    if options.get("no_eval"):
        if "eval_text" in options or "eval_tasks" in options:
            raise invalid("FLAG_INVALID", "no_eval contradicts eval_text and eval_tasks")
        spec.evaluation.SetInParent()
    elif "eval_text" not in options and any(name in options for name in ("eval_tokens", "eval_limit", "eval_tasks")):
        # Alone it is the server's choice: perplexity and KL on its own text.
        spec.evaluation.text_dataset = BUILTIN_TEXT
        spec.evaluation.text_tokens = options.get("eval_tokens", _BUILTIN_TOKENS)
    return spec


def given(options: Options) -> Options:
    """Without those that are None, which is as if they were left out."""
    return cast(Options, {name: value for name, value in options.items() if value is not None})


def _profile(options: Options) -> str:
    """As lwqctl reads --for, --format and --profile."""
    wanted = (options.get("engine"), options.get("format"), options.get("profile") or None)
    for name, given, column in (("engine", wanted[0], 0), ("format", wanted[1], 1)):
        known = dict.fromkeys(target[column] for target in _TARGETS)
        if given is not None and given not in known:
            raise invalid("FLAG_INVALID", f'{name} "{given}": expected one of {", ".join(known)}')
    if wanted[:2] == (None, None):
        return wanted[2] or ""
    for target in _TARGETS:
        if all(want is None or want == has for want, has in zip(wanted, target)):
            return target[2]
    raise invalid("FLAG_INVALID", "engine, format and profile contradict each other: give one")


def _width(bits: int) -> str:
    if not 1 <= bits <= 16:
        raise invalid("FLAG_INVALID", f"bits {bits}: expected widths such as 2, 3, 4, 8")
    return "dense" if bits == 16 else f"int{bits}"


def _group(group: int | str) -> int:
    if group in ("row", "channel"):
        return 0
    if not str(group).isdecimal() or int(group) < 1:
        raise invalid("FLAG_INVALID", f'group_size "{group}": expected sizes such as 32, 64, 128 or "row"')
    return int(group)


def check_files(options: Options) -> None:
    """That the files of the datasets are there. Raises NotFound FILE_NOT_FOUND."""
    for file in (options.get("calibration"), options.get("eval_text"), *options.get("eval_tasks", ())):
        if file is not None and not path.isfile(file):
            raise NotFound("NOT_FOUND", "FILE_NOT_FOUND", f"there is no file {file}")


def model_directory(model: Path) -> str:
    """The absolute path. A URL is refused: servers read models from directories."""
    if "://" in str(model):
        raise invalid("FLAG_INVALID", f'model "{model}": expected a directory of the server\'s machine; bring the files there first')
    return path.abspath(model)
