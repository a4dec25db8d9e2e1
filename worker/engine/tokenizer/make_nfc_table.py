#!/usr/bin/env python3
"""Writes nfc_table.inc from the Unicode data of the Python that runs it (3.11: Unicode 14).

    python3 make_nfc_table.py > nfc_table.inc
"""
import sys
import unicodedata


def emit(name, fmt, rows):
    lines, line = [], ""
    for row in rows:
        item = "{" + ", ".join(fmt % v for v in row) + "}, "
        if len(line) + len(item) > 99:
            lines.append(line.rstrip())
            line = ""
        line += item
    lines.append(line.rstrip())
    print("// %d rows" % len(rows))
    print("constexpr %s[] = {" % name)
    print("\n".join(lines))
    print("};")


def main():
    decompositions, classes, compositions = [], [], []
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if 0xAC00 <= code <= 0xD7A3 or 0xD800 <= code <= 0xDFFF:
            continue
        combining = unicodedata.combining(char)
        if combining:
            if classes and classes[-1][1] == code - 1 and classes[-1][2] == combining:
                classes[-1][1] = code
            else:
                classes.append([code, code, combining])
        canonical = unicodedata.decomposition(char)
        if canonical and not canonical.startswith("<"):
            parts = [int(p, 16) for p in canonical.split()]
            decompositions.append((code, parts[0], parts[1] if len(parts) > 1 else 0))
            if len(parts) == 2 and unicodedata.normalize("NFC", char) == char:
                compositions.append((parts[0], parts[1], code))
    print("// Made by make_nfc_table.py from Unicode %s. Do not edit." % unicodedata.unidata_version)
    print("// clang-format off")
    print("// Code point, first and second code point (0: none) of its canonical decomposition.")
    emit("Decomposition kDecompositions", "0x%X", decompositions)
    print("// First and last code point of a range, canonical combining class.")
    emit("CombiningRange kCombiningRanges", "%d", classes)
    print("// First, second, composed.")
    emit("Composition kCompositions", "0x%X", sorted(compositions))
    print("// clang-format on")


main()
