"""Budgets and sizes as text, by the same rules as lwqctl."""
from __future__ import annotations

import re
from decimal import Decimal

from lwq.errors import InvalidArgument, invalid
from lwq.types import Budget

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30,
          "TIB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")
_PRESETS = {"2bit": "2.25bpw", "3bit": "3.25bpw", "4bit": "4.25bpw", "8bit": "8.25bpw"}
_NUMBER = r"(\d+(?:\.\d+)?)"
_FORMS = "expected for example 3.25bpw, 900MiB, 5200000, 50% (of the source), 20GB@8192x4, 4bit or Q4_K_M"
_RECIPE = re.compile(r"I?Q\d_[A-Z0-9_]{0,5}")  # which there are the server knows


def parse_bytes(text: str | int) -> int:
    """5200000, "900MB", "4 GiB". Raises InvalidArgument SIZE_INVALID."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise invalid("SIZE_INVALID", f'size "{text}": expected for example 5200000, 900MB or 4 GiB')
    return int(Decimal(match[1]) * _UNITS[match[2].upper()])  # 2.3 GB are not a byte less for being no float


def parse_budget(text: str | int | Budget) -> Budget:
    """"3.25bpw", "900MiB", 5200000 (bytes of the weight files), "50%" of the source's, "20GB@8192x4" (device memory at a context length
    and batch), a preset: 2bit, 3bit, 4bit, 8bit, or, for GGUF, "no larger than llama.cpp's": "Q4_K_M". Raises InvalidArgument BUDGET_INVALID."""
    if isinstance(text, Budget):
        return text
    if isinstance(text, int):
        return Budget(file_bytes=text)
    wrong = invalid("BUDGET_INVALID", f'budget "{text}": {_FORMS}')
    if not isinstance(text, str):  # 3.25 alone does not say of what
        raise wrong
    if _RECIPE.fullmatch(text.upper()):
        return Budget(recipe=text.upper())
    text = _PRESETS.get(text, text)
    for unit, most in (("bpw", 64), ("%", 100)):
        if match := re.fullmatch(_NUMBER + " ?" + unit, text):
            value = float(match[1])
            if not 0 < value <= most:
                raise wrong
            return Budget(source_percent=value) if unit == "%" else Budget(bits_per_weight=value)
    size, at, shape = text.partition("@")
    try:
        size_bytes = parse_bytes(size)
    except InvalidArgument:
        raise wrong from None
    if not at:
        return Budget(file_bytes=size_bytes)
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", shape)
    if match is None:
        raise wrong
    budget = Budget()
    budget.device.bytes, budget.device.context_length, budget.device.batch_size = size_bytes, int(match[1]), int(match[2] or 1)
    return budget
