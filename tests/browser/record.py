#!/usr/bin/env python3
"""Records a program in a terminal of a fixed size as an SVG of a few frames, which browsers play without a script.

    record.py OUT.svg COLUMNSxROWS SECONDS:KEYS ... -- PROGRAM ARGUMENT ...

A frame is taken after each wait of SECONDS; then its KEYS are typed (`\\r` is Enter, `\\t` Tab, `\\e[A` an arrow). The last
KEYS should end the program. pyte (see requirements.txt) is the terminal.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from html import escape

import pyte

# xterm's colors, somewhat softer; names as pyte has them.
COLORS = {
    "black": "#1c1c1c", "red": "#f07171", "green": "#86c978", "brown": "#dcb862", "blue": "#6ea8fe", "magenta": "#c792ea",
    "cyan": "#62c4cf", "white": "#d0d0d0", "brightblack": "#8a8a8a", "brightred": "#ff8f8f", "brightgreen": "#a5e39a",
    "brightbrown": "#f5d785", "brightblue": "#9cc4ff", "brightmagenta": "#dcb3f5", "brightcyan": "#8fe0e8", "brightwhite": "#ffffff",
}
INK, PAPER = "#d0d0d0", "#1c1c1c"
# Pixels of a cell, and seconds that a frame is shown.
WIDTH, HEIGHT, SHOWN = 8, 17, 2.5


def color(name, default):
    if name == "default":
        return default
    return COLORS.get(name) or f"#{name}"


def style(cell):
    """Foreground, background and weight of a cell."""
    ink, paper = color(cell.fg, INK), color(cell.bg, PAPER)
    return (paper, ink, cell.bold) if cell.reverse else (ink, paper, cell.bold)


def frame(screen):
    """The screen as SVG: per row one run for each style."""
    parts = []
    for y in range(screen.lines):
        row = [screen.buffer[y][x] for x in range(screen.columns)]
        start = 0
        for x in range(1, screen.columns + 1):
            if x < screen.columns and style(row[x]) == style(row[start]):
                continue
            ink, paper, bold = style(row[start])
            text = "".join(cell.data for cell in row[start:x])
            left, top, wide = start * WIDTH, y * HEIGHT, (x - start) * WIDTH
            if paper != PAPER:
                parts.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{HEIGHT}" fill="{paper}"/>')
            if text.strip():
                # Where a font is wider or narrower, columns stay below each other.
                kept = text.strip()
                left += (len(text) - len(text.lstrip())) * WIDTH
                extra = (f' fill="{ink}"' if ink != INK else "") + (' font-weight="bold"' if bold else "")
                parts.append(f'<text x="{left}" y="{top + 13}" textLength="{len(kept) * WIDTH}"{extra}>{escape(kept)}</text>')
            start = x
    return "".join(parts)


def svg(frames, columns, rows, title):
    total = SHOWN * len(frames)
    rules = [f"text{{font:13px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre}}"]
    if len(frames) > 1:
        rules.append(f".f{{animation:{total}s step-end infinite}}.f:not(:first-of-type){{visibility:hidden}}")
        for number in range(len(frames)):
            begin, end = 100 * number / len(frames), 100 * (number + 1) / len(frames)
            before = "" if number == 0 else "0%{visibility:hidden}"
            after = "" if number + 1 == len(frames) else f"{end:.2f}%{{visibility:hidden}}"
            rules.append(f"@keyframes f{number}{{{before}{begin:.2f}%{{visibility:visible}}{after}}}#f{number}{{animation-name:f{number}}}")
        rules.append("@media (prefers-reduced-motion:reduce){.f{animation:none}}")
    groups = "\n".join(f'<g class="f" id="f{number}">{content}</g>' for number, content in enumerate(frames))
    wide, high = columns * WIDTH, rows * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -10 {wide + 24} {high + 20}" width="{wide + 24}" height="{high + 20}" '
        f'role="img" fill="{INK}"><title>{escape(title)}</title><style>{"".join(rules)}</style>\n'
        f'<rect x="-12" y="-10" width="100%" height="100%" rx="8" fill="{PAPER}"/>\n{groups}\n</svg>\n'
    )


def play(program, columns, rows, steps):
    """Runs the program and returns a frame for each step."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = dict(os.environ, TERM="xterm-256color", COLUMNS=str(columns), LINES=str(rows))
    process = subprocess.Popen(
        program, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True, close_fds=True,
    )
    os.close(follower)
    screen = pyte.Screen(columns, rows)
    # Terminals are asked where the cursor is, and what they are.
    screen.write_process_input = lambda answer: os.write(leader, answer.encode())
    stream = pyte.ByteStream(screen)
    frames = []
    try:
        for seconds, keys in steps:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                if select.select([leader], [], [], left)[0]:
                    try:
                        stream.feed(os.read(leader, 65536))
                    except OSError:
                        sys.exit(f"{program[0]} ended early:\n" + "\n".join(screen.display))
            frames.append(frame(screen))
            os.write(leader, keys.encode())
        return frames, process.wait(timeout=30)
    finally:
        process.kill()
        os.close(leader)


def main(arguments):
    split = arguments.index("--")
    (out, size, *script), program = arguments[:split], arguments[split + 1 :]
    columns, rows = map(int, size.split("x"))
    steps = []
    for step in script:
        seconds, keys = step.split(":", 1)
        steps.append((float(seconds), keys.replace("\\e", "\x1b").replace("\\r", "\r").replace("\\t", "\t")))
    frames, code = play(program, columns, rows, steps)
    if code != 0:
        sys.exit(f"{program[0]} ended with {code}")
    with open(out, "w", encoding="utf-8") as file:
        file.write(svg(frames, columns, rows, " ".join([os.path.basename(program[0]), *program[1:]])))
    print(f"{out}: {len(frames)} frames, {os.path.getsize(out) // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
