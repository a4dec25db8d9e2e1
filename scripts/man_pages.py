#!/usr/bin/env python3
"""Writes man pages of lwq's programs from their own --help, which the command line is parsed by: lwqctl.1, a page for each of its
commands, lwq-server.8 and lwq-worker.8.

usage: scripts/man_pages.py BIN_DIR TO_DIR     (then: man -l TO_DIR/lwqctl-quantize.1)"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def help_of(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def roff(text):
    """Text in which nothing is a command of roff's; dashes stay dashes that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def entries(block):
    """[(what is given, what it does)] of the lines of a help text, of which long ones go on below."""
    found = []
    for line in block.splitlines():
        match = re.match(r"  (\S.*?)(?:  +(\S.*))?$", line)
        if match and not line.startswith("   "):
            found.append([match[1], match[2] or ""])
        elif found and line.strip():
            found[-1][1] = f"{found[-1][1]} {line.strip()}".strip()
    return found


def page(name, section, summary, usage, parts):
    version = re.search(r"project\(lwq VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    lines = [f'.TH {roff(name.upper())} {section} "" "lwq {version}" "lwq"', ".SH NAME", f"{roff(name)} \\- {roff(summary)}",
             ".SH SYNOPSIS", f".B {roff(usage)}"]
    for heading, body in parts:
        lines.append(f'.SH "{roff(heading.upper())}"')
        if isinstance(body, str):
            lines += [".nf", roff(body.strip("\n")), ".fi"] if heading == "Examples" else [roff(body.strip())]
        else:
            for given, does in body:
                lines += [".TP", f".B {roff(given)}", roff(does)]
    return "\n".join(lines) + "\n"


def sections(text):
    """[(heading, text)] of a help text; the first has the heading ""."""
    pieces = re.split(r"^([A-Z][^\n]*):\n", text, flags=re.M)
    return [("", pieces[0]), *zip(pieces[1::2], pieces[2::2])]


def lwqctl_pages(program):
    (_, first), (_, commands_and_rest) = sections(help_of(program, "--help"))
    commands, _, rest = commands_and_rest.partition("\n\n")
    summary = first.split(":", 1)[1].strip()
    also = ", ".join(f"lwqctl-{name}(1)" for name, _ in entries(commands))
    made = {"lwqctl.1": page("lwqctl", 1, summary, "lwqctl COMMAND [flags]",
                             [("Commands", entries(commands)), ("Description", rest), ("See also", f"{also}, lwq-server(8), lwq-worker(8)")])}
    for name, short in entries(commands):
        (_, begin), *others = sections(help_of(program, "help", name))
        parts = [("Description", begin.split("\n", 1)[1])]
        parts += [(heading, body if heading == "Examples" else entries(body)) for heading, body in others]
        made[f"lwqctl-{name}.1"] = page(f"lwqctl-{name}", 1, short, begin.split("\n", 1)[0].strip(), [*parts, ("See also", "lwqctl(1)")])
    return made


def daemon_page(program):
    name = program.name
    text = help_of(program, "--help")
    summary = text.split("\n", 1)[0].removeprefix(f"{name}: ").rstrip(".")
    options, _, rest = dict(sections(text))["Options"].partition("\n\n")
    return {f"{name}.8": page(name, 8, summary, f"{name} [options]", [("Options", entries(options)), ("Settings", rest), ("See also", "lwqctl(1)")])}


def pages(folder):
    """{file name: text}."""
    folder = pathlib.Path(folder)
    return {**lwqctl_pages(folder / "lwqctl"), **daemon_page(folder / "lwq-server"), **daemon_page(folder / "lwq-worker")}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    to = pathlib.Path(sys.argv[2])
    to.mkdir(parents=True, exist_ok=True)
    for name, text in pages(sys.argv[1]).items():
        (to / name).write_text(text)


if __name__ == "__main__":
    main()
