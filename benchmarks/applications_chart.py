"""The drawing of applications.py: a bar per way to render, whose parts are encoding, network and the rest."""

from __future__ import annotations

from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 235, 110, 17, 64
COLORS = {"encoding": "#2b66c9", "network": "#d1711a", "rest": "#9a9a9a"}
NAMES = {"nerf": "NeRF", "sdf": "signed distance", "image": "image", "volume": "volume"}
STYLE = "text{font:12px sans-serif;fill:#222}.end{text-anchor:end}.bold{font-weight:bold}.small{fill:#666}"


def chart(figures: dict, applications: list[str]) -> str:
    """The figures of applications.py as an SVG that stands alone; each application has its own scale."""
    width, height = figures["size"]
    parts, v = [], TOP
    for name in applications:
        rows = figures[name]
        longest = max(row[f"{way}_ms"] for row in rows.values() for way in ("separate", "fused") if f"{way}_ms" in row)
        parts.append(_text(8, v + 12, NAMES[name], "bold"))
        v += ROW + 3
        for encoding, row in rows.items():
            for way in ("separate", "fused"):
                if f"{way}_ms" in row:
                    parts.append(_bar(v, encoding if way == "separate" else "", way, row, longest))
                    v += ROW
            v += 5
        v += 8
    title = f"Milliseconds per frame of {width} x {height} ({figures['precision']}): separate passes and fused"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {v}" role="img" aria-label="{escape(title)}">'
    back = f'<style>{STYLE}</style><rect width="{WIDTH}" height="{v}" fill="#fff"/>{_text(8, 20, title, "bold")}'
    return head + back + _legend() + "".join(parts) + "</svg>\n"


def _legend() -> str:
    found = ""
    for i, (stage, color) in enumerate(COLORS.items()):
        found += f'<rect x="{8 + 110 * i}" y="33" width="12" height="12" fill="{color}"/>'
        found += _text(26 + 110 * i, 43, stage)
    return found + _text(350, 43, "each application has its own scale", "small")


def _bar(v: int, encoding: str, way: str, row: dict, longest: float) -> str:
    milliseconds, shares = row[f"{way}_ms"], row.get(f"{way}_shares_percent", {"rest": 100.0})
    found = _text(8, v + 12, encoding) + _text(LEFT - 8, v + 12, way, "end small")
    u = float(LEFT)
    for stage, color in COLORS.items():
        part = (WIDTH - LEFT - RIGHT) * milliseconds / longest * shares.get(stage, 0.0) / 100
        found += f'<rect x="{u:.1f}" y="{v + 2}" width="{part:.1f}" height="{ROW - 4}" fill="{color}"><title>'
        found += f"{stage}: {shares.get(stage, 0.0)} %</title></rect>"
        u += part
    more = f" ({row['speed_up']:.1f}x)" if way == "fused" else ""
    return found + _text(u + 6, v + 12, f"{milliseconds:.{0 if milliseconds >= 10 else 1}f} ms{more}")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}">{escape(text)}</text>'
