"""HTML without a script: everything is escaped that is not markup already."""

import html
from typing import Any, NamedTuple


class Html(str):
    """Text that is markup already; all other text is escaped."""

    __slots__ = ()


class Number(str):
    """A number that is written already."""

    __slots__ = ()


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
    """Write one element; ``class_`` loses its underscore."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{words}>{''.join(_markup(one) for one in inside)}</{name}>")


def _markup(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "".join(map(_markup, value))
    return value if isinstance(value, Html) else html.escape(said(value))


def said(value: Any) -> str:
    """Say a value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def folded(title: str, inside: Html) -> Html:
    """Hide what few want to read behind its title."""
    return tag("details", tag("summary", title), inside)


def table(head: list[str], rows: list[list[Any]]) -> Html:
    """Write a table that scrolls sideways by itself where the screen is narrow."""
    cells = [
        tag("tr", [tag("td", cell, class_="number" if isinstance(cell, int | float | Number) else "text") for cell in row]) for row in rows
    ]
    return tag("div", tag("table", tag("thead", tag("tr", [tag("th", one) for one in head])), tag("tbody", cells)), class_="wide")


def bars(values: list[tuple[str, float]], *, percent: bool = False) -> Html:
    """Draw one bar per value, against the largest."""
    most = max((value for _, value in values), default=0) or 1
    rows = []
    for name, value in values:
        length = f"{100 * value / most:.2f}"
        bar = tag("svg", tag("rect", width=length, height=10), viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")
        rows.append(tag("div", tag("span", name), bar, tag("span", f"{value:.1%}" if percent else value, class_="number"), class_="bar"))
    return tag("div", rows, class_="bars")


class Line(NamedTuple):
    """One line of a picture."""

    name: str
    points: list[list[float]]
    kind: str  # main, other, or guide: how it looks
    has_dots: bool = False


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 260, 52, 14, 10, 40  # of a picture and its margins
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def plot(title: str, lines: list[Line], across: str, up: str, *, most: float = 1.0, is_stretched: bool = False) -> Html:
    """Draw lines between 0 and ``most`` along both axes; stretched, what is near 0 gets more room (square roots)."""
    power = 0.5 if is_stretched else 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        inner = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
        return LEFT + inner[0] * (x / most) ** power, HEIGHT - BOTTOM - inner[1] * (y / most) ** power

    parts = []
    for tick in TICKS:
        value = most * tick ** (1 / power)
        (x, y), said_tick = place(value, value), f"{100 * value:.3g} %"
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(tag("text", said_tick, x=LEFT - 5, y=f"{y + 4:.1f}", text_anchor="end"))
        parts.append(tag("text", said_tick, x=f"{x:.1f}", y=HEIGHT - BOTTOM + 15, text_anchor="end" if tick == 1 else "middle"))
    parts.append(tag("text", across, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle"))
    for line in lines:
        spots = [place(x, y) for x, y in line.points]
        parts.append(tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in spots), class_=line.kind))
        parts += [tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=line.kind) for x, y in spots if line.has_dots]
    picture = tag("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title, class_="plot")
    legend = [tag("span", line.name, class_=f"key {line.kind}") for line in lines]
    return tag("figure", tag("figcaption", tag("b", title), tag("span", up, class_="small")), picture, tag("div", legend, class_="keys"))


def side_by_side(*pictures: Html) -> Html:
    """Put pictures beside each other where the screen is wide enough."""
    return tag("div", *pictures, class_="pictures")


STYLE = """
:root {
  color-scheme: light dark;
  --text: #1c2126; --quiet: #5c6670; --line: #d9dee3; --page: #fff; --bar: #3b6ea5; --second: #b0541e;
  --good: #1a7040; --bad: #b3261e; --open: #8a5a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e7ea; --quiet: #9aa4ae; --line: #363d44; --page: #15181b; --bar: #6fa3dc; --second: #e69a5c;
    --good: #5cc98a; --bad: #ff8a80; --open: #e6b450;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 66rem; margin: 0 auto; padding: 1.25rem 1rem 3rem }
h1, p, li, summary, .bar { overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .25rem 0 .75rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line) }
p, ul { margin: .5rem 0; max-width: 46rem }
.small { color: var(--quiet); font-size: .875rem }
.good { color: var(--good) }
.bad { color: var(--bad) }
.open { color: var(--open) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.25rem .3rem 0; border-bottom: 1px solid var(--line) }
th { color: var(--quiet); font-weight: 500 }
td:last-child { min-width: 9rem; padding-right: 0 }
td.number:last-child { min-width: 0 }
.number { font-variant-numeric: tabular-nums; white-space: nowrap }
.bars { margin: .75rem 0; max-width: 46rem }
.bar { display: grid; grid-template-columns: 36% 1fr 3.5rem; gap: .75rem; align-items: center; font-size: .9rem }
.bar svg { width: 100%; height: .7rem; fill: var(--bar) }
.bar .number { text-align: right }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem 2rem }
figure { flex: 1 1 17rem; max-width: 28rem; margin: .75rem 0 }
figcaption b { display: block; font-weight: 500 }
.plot { display: block; width: 100% }
.plot text { fill: var(--quiet); font-size: 11px }
.plot .grid { stroke: var(--line) }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
polyline.main { stroke: var(--bar) }
polyline.other { stroke: var(--second); stroke-dasharray: 5 3 }
polyline.guide { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 2 3 }
circle.main { fill: var(--bar) }
circle.other { fill: var(--second) }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .875rem }
.key::before { content: ""; display: inline-block; width: 1.25rem; margin-right: .4rem; vertical-align: .25rem; border-top: 2px solid }
.key.main::before { border-color: var(--bar) }
.key.other::before { border-top: 2px dashed var(--second) }
.key.guide::before { border-top: 1px dotted var(--quiet) }
details { margin: .5rem 0 }
summary { cursor: pointer }
"""
