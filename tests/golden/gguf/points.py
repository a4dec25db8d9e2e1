"""Writes the tables of points of ggml's codebooks, worker/engine/gguf/<type>_points.inc, from the gguf package.

usage: points.py FOLDER   (gguf 0.19.0, numpy)
"""
import os
import sys

from gguf import quants

for name, size in (("IQ2_XXS", 8), ("IQ2_XS", 8), ("IQ2_S", 8), ("IQ3_XXS", 4), ("IQ3_S", 4)):
    kind = getattr(quants, name)
    kind.init_grid()
    magnitudes = list(kind.grid_map)
    bits = 16 // size
    points = [sum(magnitudes.index(int(value)) << bits * i for i, value in enumerate(point)) for point in kind.grid.reshape(kind.grid_shape)]
    assert points == sorted(set(points))
    with open(os.path.join(sys.argv[1], f"{name.lower()}_points.inc"), "w") as out:
        out.write(f"// The {len(points)} points of {name}'s codebook in ggml's order: of {size} values which magnitude each has, {bits} bits, the\n"
                  "// first value's lowest. tests/golden/gguf/points.py makes it; block_type_test.cc compares it with the gguf package.\n")
        for i in range(0, len(points), 12):
            out.write(", ".join(f"0x{p:04x}" for p in points[i:i + 12]) + ",\n")
