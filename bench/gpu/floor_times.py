#!/usr/bin/env python3
"""Bytes and operations of a job on the CUDA device, counted from its shapes, and the time that a GPU
needs for them at least: each call takes the longer of its memory traffic and its arithmetic at the
card's peak. What a call moves is what its kernel reads and writes once (caches hold the rest); see
worker/engine/device/cuda. Nothing here is measured.

usage: floor_times.py [tokens]      (default 32768, as jobs have)"""
import sys

# H100 SXM: device memory, tensor cores in bf16, F32 outside of them, F64, the bus, bytes and
# operations a second.
MEMORY, BF16, F32, F64, BUS = 3.35e12, 990e12, 67e12, 33e12, 55e9

MODELS = {  # layers, hidden, intermediate, heads, key-value heads, head, vocabulary
    "7B (Llama 2)": (32, 4096, 11008, 32, 32, 128, 32000),
    "1B (Llama 3.2)": (16, 2048, 8192, 32, 8, 64, 128256),
}
SEQUENCE = 2048
WIDTHS, REFINED = 4, 3  # 2, 3, 4 and 8 bits; up to 4 they are refined
SMALL, LARGE = 128, 1024  # GPTQ's blocks
CANDIDATES = 70  # scales tried a group


class Phase:
    def __init__(self):
        self.calls = {}

    def add(self, name, bytes_moved, operations=0, peak=F32, times=1):
        """`times` calls of one kind."""
        entry = self.calls.setdefault(name, [0, 0, 0, 0.0])
        entry[0] += times
        entry[1] += times * bytes_moved
        entry[2] += times * operations
        entry[3] += times * max(bytes_moved / MEMORY, operations / peak)

    def linear(self, name, rows, cols, out, times=1):
        self.add("round to bf16", 6 * rows * cols, times=times)
        self.add(name, 2 * rows * cols + 2 * cols * out + 4 * rows * out, 2 * rows * cols * out,
                 BF16, times)

    def seconds(self):
        return sum(entry[3] for entry in self.calls.values())


def linears(model):
    """(out, in, whether its input's second moments are its own) of one layer."""
    _, hidden, inner, heads, kv, head, _ = model
    return [(heads * head, hidden, True), (kv * head, hidden, False), (kv * head, hidden, False),
            (hidden, heads * head, True), (inner, hidden, True), (inner, hidden, False),
            (hidden, inner, True)]


def load(phase, model):
    for out, cols, _ in linears(model):
        phase.add("move and widen", 10 * out * cols)  # landing to place, bf16 to f32
        phase.add("prepare weight", 6 * out * cols)


def forward(phase, model, tokens):
    _, hidden, inner, heads, kv, head, _ = model
    load(phase, model)
    phase.add("norm", 8 * tokens * hidden, times=2)
    phase.add("rope", 8 * tokens * (heads + kv) * head)
    width = heads * head
    phase.add("attention", 8 * tokens * (width + kv * head),
              4 * tokens * (SEQUENCE / 2) * width, F32)
    for out, cols, _ in linears(model):
        phase.linear("linear", tokens, cols, out)
    phase.add("gate", 12 * tokens * inner)


def calibrate(model, tokens):
    phase = Phase()
    for _ in range(model[0]):
        forward(phase, model, tokens)
        for _, cols, own in linears(model):
            if own:
                phase.add("round to bf16", 6 * tokens * cols)
                phase.add("second moments", 2 * tokens * cols + 8 * cols * cols,
                          tokens * cols * (cols + LARGE), BF16)
        phase.add("cosine", 8 * tokens * model[1], 6 * tokens * model[1], F64)
    return phase


def quantize(model):
    phase = Phase()
    for _ in range(model[0]):
        load(phase, model)
        for _, cols, own in linears(model):
            if own:
                phase.add("permute, mirror", 16 * cols * cols)
                phase.add("factor and inverse", 16 * cols * cols, 2 * cols ** 3 / 3)
        for out, cols, _ in linears(model):
            size = out * cols
            for width in range(WIDTHS):
                phase.add("gather columns", 8 * size)
                phase.add("fit grids", 4 * size, 6 * CANDIDATES * size)
                phase.add("GPTQ's columns", 13 * size, size * SMALL)
                phase.add("inside large blocks", 4 * size * (2 + LARGE / SMALL), size * LARGE)
                phase.add("behind large blocks", 4 * size * (cols / LARGE), size * cols, BF16)
                if width < REFINED:
                    phase.add("refinement's products", 8 * size + 4 * cols * cols,
                              3 * size * cols, BF16)
                    phase.add("refinement's columns", 2 * 14 * size, 2 * 3 * size * SMALL)
                    phase.add("inside large blocks", 8 * size * (2 + LARGE / SMALL),
                              2 * size * LARGE)
                phase.add("errors", 5 * size, 6 * size, F64)
    return phase


def evaluate(model, tokens):
    phase = Phase()
    for _ in range(model[0]):
        forward(phase, model, tokens)
    hidden, vocabulary = model[1], model[6]
    for _ in range(2):  # source and candidate
        phase.linear("head", tokens, hidden, vocabulary)
        phase.add("log-softmax", 12 * tokens * vocabulary)
    phase.add("divergence", 8 * tokens * vocabulary, 4 * tokens * vocabulary, F64)
    return phase


def show(name, phase, uploaded):
    print(f"\n{name}: {phase.seconds():.2f} s on the device; over the bus {uploaded / 1e9:.1f} GB, "
          f"{uploaded / BUS:.2f} s, while it computes")
    print(f"{'call':24}{'calls':>8}{'GB':>10}{'Tops':>10}{'s':>9}")
    for call, (times, moved, operations, seconds) in sorted(
            phase.calls.items(), key=lambda entry: -entry[1][3]):
        print(f"{call:24}{times:8}{moved / 1e9:10.1f}{operations / 1e12:10.2f}{seconds:9.3f}")


def main():
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 32768
    for name, model in MODELS.items():
        weights = 2 * model[0] * sum(out * cols for out, cols, _ in linears(model))
        phases = {"calibrate": calibrate(model, tokens), "quantize, four widths": quantize(model),
                  "evaluate": evaluate(model, tokens)}
        print(f"\n== {name}, {tokens} tokens: "
              f"{sum(phase.seconds() for phase in phases.values()):.2f} s")
        for phase_name, phase in phases.items():
            show(phase_name, phase, weights)


if __name__ == "__main__":
    main()
