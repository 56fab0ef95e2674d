"""The picture of a terminal in the README: `python -m tools.terminal_picture FILE.svg`.

Trains the model of `examples/iris`, serves it in a pseudo-terminal on the default ports, sends one
request with curl, and writes what both printed as SVG.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
LAST_LINE = "Ctrl-C stops the server."
START_LIMIT = 120.0  # seconds
CURL = """curl -s localhost:8080/invocations -H 'content-type: application/json' -d '{
  "dataframe_records": [{"sepal length (cm)": 5.1, "sepal width (cm)": 3.5,
                         "petal length (cm)": 1.4, "petal width (cm)": 0.2}]}'"""
COMMAND, OUTPUT, RESULT, COMMENT = "#e8eef2", "#b9c6cf", "#7fd6a2", "#7c8b96"
WIDTH, TOP, LINE = 860, 58, 22  # pixels
COLUMNS = 94  # of a line; longer ones are cut


def capture_start(folder: Path) -> tuple[subprocess.Popen[bytes], list[str]]:
    """Start a server in a pseudo-terminal; return it and the lines until it is ready."""
    terminal, child_end = pty.openpty()
    command = [sys.executable, "-m", "mlserver", "start", "iris"]
    process = subprocess.Popen(command, cwd=folder, stdout=child_end, stderr=child_end)
    os.close(child_end)
    deadline = time.monotonic() + START_LIMIT
    output = b""
    while LAST_LINE.encode() not in output:
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            raise SystemExit(f"the server did not become ready: {output.decode()}")
        if select.select([terminal], [], [], 0.1)[0]:
            output += os.read(terminal, 65536)
    return process, output.decode().replace("\r", "").splitlines()


def list_lines(start: list[str], answer: str) -> list[tuple[str, str]]:
    """Return the picture's lines with their colours."""
    lines = [(COMMAND, "$ mlserver start iris")]
    for text in start:
        lines.append((RESULT if "Ready in" in text else OUTPUT, text))
    lines += [(COMMENT, "# in another terminal")]
    commands = f"$ {CURL}".splitlines()
    lines += [(COMMAND, text) for text in commands]
    return [*lines, (RESULT, answer)]


def draw(lines: list[tuple[str, str]]) -> str:
    """Return the SVG document."""
    height = TOP + LINE * len(lines)
    label = "Terminal: mlserver start serves an MLflow model, and curl gets a prediction"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{label}">',
        f'  <rect width="{WIDTH}" height="{height}" rx="10" fill="#182127"/>',
        '  <circle cx="22" cy="20" r="6" fill="#e0655c"/>',
        '  <circle cx="42" cy="20" r="6" fill="#e0b34f"/>',
        '  <circle cx="62" cy="20" r="6" fill="#63b563"/>',
        '  <g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" '
        'font-size="14" style="white-space: pre">',
    ]
    for index, (color, text) in enumerate(lines):
        content = escape(text if len(text) <= COLUMNS else text[: COLUMNS - 2] + " …")
        content = content.replace(" ", "&#160;")
        y = TOP + LINE * index
        parts.append(f'    <text x="20" y="{y}" fill="{color}">{content}</text>')
    return "\n".join([*parts, "  </g>", "</svg>", ""])


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, ROOT / "examples/iris/train.py"], cwd=folder, check=True)
        process, start = capture_start(folder)
        try:
            answer = subprocess.run(
                ["bash", "-c", CURL], capture_output=True, check=True, text=True
            )
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    target.write_text(draw(list_lines(start, answer.stdout.strip())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
