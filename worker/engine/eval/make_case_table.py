#!/usr/bin/env python3
"""Writes case_table.inc: code points whose lower or title case differs, from the Unicode data of the
Python that runs it.

    python3 make_case_table.py > case_table.inc
"""
import sys
import unicodedata

print("// Made by make_case_table.py from Unicode %s. Do not edit." % unicodedata.unidata_version)
print("// clang-format off")
for name, method in (("kLower", str.lower), ("kTitle", str.title)):
    rows = [(c, method(chr(c))) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    rows = [(c, [ord(x) for x in to]) for c, to in rows if to != chr(c)]
    print("constexpr CaseMapping %s[] = {" % name)
    line = ""
    for code, to in rows:
        item = "{0x%X, {%s}}, " % (code, ", ".join("0x%X" % x for x in to))
        if len(line) + len(item) > 99:
            print(line.rstrip())
            line = ""
        line += item
    print(line.rstrip())
    print("};")
print("// clang-format on")
