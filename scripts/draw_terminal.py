#!/usr/bin/env python3
"""Draws what a command shows in a terminal, as an SVG: the pictures in docs/images/terminal-*.svg. pip install pyte rich

usage: scripts/draw_terminal.py TO.svg [--columns N] [--rows N] [--after SECONDS] [--title TEXT] -- COMMAND...
  --after SECONDS  the picture of that moment, after which the command is ended (default: when it has ended)"""
import argparse
import fcntl
import itertools
import os
import pathlib
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pyte
import rich.console
import rich.text
from rich.terminal_theme import MONOKAI


def run(command, columns, rows, after):
    """The screen of the command's terminal, in the end or after so long."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    end = None if after is None else time.monotonic() + after
    while end is None or time.monotonic() < end:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        stream.feed(data)
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    return screen


def style(character):
    """pyte's colors and attributes in rich's words."""
    color, ground = (f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name.replace("brown", "yellow") for name in (character.fg, character.bg))
    words = [word for has, word in ((character.bold, "bold"), (character.reverse, "reverse"), (character.underscore, "underline")) if has]
    return " ".join([*words, color, "on", ground])


def draw(screen, title, path):
    lines = [screen.buffer[y] for y in range(screen.lines)]
    while lines and not "".join(lines[-1][x].data for x in range(screen.columns)).strip():
        lines.pop()
    console = rich.console.Console(record=True, width=screen.columns, file=open(os.devnull, "w"), force_terminal=True, color_system="truecolor")
    for line in lines:
        text = rich.text.Text(no_wrap=True)
        for how, cells in itertools.groupby((line[x] for x in range(screen.columns)), style):
            text.append("".join(cell.data for cell in cells), how)
        text.rstrip()
        console.print(text)
    svg = console.export_svg(title=title, theme=MONOKAI, unique_id="lwq")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)  # a picture that fetches nothing
    path.write_text(svg.replace("Fira Code, monospace", "DejaVu Sans Mono, Menlo, Consolas, monospace"))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ", 1)[1])
    parser.add_argument("to", type=pathlib.Path)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--after", type=float)
    parser.add_argument("--title", default="")
    if "--" not in sys.argv or sys.argv[-1] == "--":
        sys.exit(__doc__)
    begin = sys.argv.index("--")
    given, command = parser.parse_args(sys.argv[1:begin]), sys.argv[begin + 1:]
    draw(run(command, given.columns, given.rows, given.after), given.title or " ".join(command), given.to)


if __name__ == "__main__":
    main()
