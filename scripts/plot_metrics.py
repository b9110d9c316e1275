#!/usr/bin/env python3
"""Draws the loss curve of a run as an SVG: python3 scripts/plot_metrics.py runs/NAME [OUT.svg]

Reads runs/NAME/metrics.jsonl; training bits per byte as a line, validation as dots. Standard library only.
"""
import json
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 360, 60, 20, 40, 44


def read(path):
    train, validation = [], []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row.get("bpb") is not None:
            train.append((row["step"], row["bpb"]))
        if row.get("validation_bpb") is not None:
            validation.append((row["step"], row["validation_bpb"]))
    return train, validation


def smooth(points, count=300):
    """Means of at most `count` consecutive groups, so that the curve shows rather than the noise."""
    size = max(1, len(points) // count)
    groups = [points[i:i + size] for i in range(0, len(points), size)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def ticks(low, high, count=5):
    """About `count` round numbers between low and high."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    size = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / size)
    return [i * size for i in range(first, math.floor(high / size) + 1)]


def draw(run, train, validation):
    values = [v for _, v in train[len(train) // 50:]] + [v for _, v in validation]
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    last = max(s for s, _ in train + validation) or 1

    def x(step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(value, high)) / (high - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15" fill="#222">{run.name}: bits per byte</text>',
    ]
    for value in ticks(low, high):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e5e5e5"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>')
    for step in ticks(0, last):
        out.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 20}" text-anchor="middle" fill="#555">{step:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle" fill="#555">step</text>')
    line = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in smooth(train))
    out.append(f'<polyline points="{line}" fill="none" stroke="#2b6cb0" stroke-width="1.5"/>')
    out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="4" fill="#c05621"/>' for s, v in validation]
    legend = WIDTH - 210
    out.append(f'<line x1="{legend}" x2="{legend + 24}" y1="20" y2="20" stroke="#2b6cb0" stroke-width="2"/>')
    out.append(f'<text x="{legend + 30}" y="24" fill="#222">training</text>')
    out.append(f'<circle cx="{legend + 105}" cy="20" r="4" fill="#c05621"/>')
    out.append(f'<text x="{legend + 115}" y="24" fill="#222">validation</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    run = pathlib.Path(sys.argv[1])
    train, validation = read(run / "metrics.jsonl")
    if len(train) < 2:
        sys.exit(f"{run}/metrics.jsonl: no training steps to draw")
    target = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else run / "loss.svg"
    target.write_text(draw(run, train, validation))
    print(target)


if __name__ == "__main__":
    main()
