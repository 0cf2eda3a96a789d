"""HTML without a script: everything is escaped that is not markup already."""

import html
import math
from collections.abc import Callable, Sequence
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
    """One line of a picture, or dots of one kind."""

    name: str  # in the legend; lines of one name and kind are told there once
    points: Sequence[Sequence[Any]]
    kind: str  # main, other, guide, faint, lost or best: how it looks
    has_dots: bool = False
    has_line: bool = True
    notes: Sequence[str] = ()  # of each dot, seen under the pointer


class Axis(NamedTuple):
    """One side of a picture."""

    title: str
    place: Callable[[Any], float]  # where a value is, from 0 to 1
    ticks: list[tuple[Any, str]]  # values that are written beside it


class Frame(NamedTuple):
    """A picture's size and margins."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


LARGE = Frame(340, 260, 52, 14, 10, 40)
SMALL = Frame(190, 130, 44, 10, 8, 20)


def shares(title: str, most: float = 1.0, *, is_stretched: bool = False) -> Axis:
    """Measure shares from 0 to ``most``; stretched, what is near 0 gets more room (square roots)."""
    power = 0.5 if is_stretched else 1.0
    values = [most * quarter ** (1 / power) for quarter in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return Axis(title, lambda value: (value / most) ** power, [(value, f"{100 * value:.3g} %") for value in values])


def numbers(
    title: str, low: float, high: float, *, is_log: bool = False, is_whole: bool = False, said: Callable[[float], str] = "{:.6g}".format
) -> Axis:
    """Measure numbers from ``low`` to ``high``, with round ones beside it; what is farther out is at the edge."""
    scale: Callable[[float], float] = math.log10 if is_log else float
    first, last = scale(low), scale(high)
    margin = (last - first) * 0.04 or 0.5
    first, last = first - margin, last + margin
    if is_log:
        powers = [10.0**power for power in range(math.floor(first), math.ceil(last) + 1)]
        ticks = [digit * power for power in powers for digit in (1, 2, 5)] if last - first < 2 else powers
    else:
        rough = math.log10((last - first) / 5)
        step = next(one for one in (1, 2, 5, 10) if one >= 10 ** (rough % 1)) * 10.0 ** math.floor(rough)
        step = max(step, 1.0) if is_whole else step
        ticks = [round(times * step, 12) for times in range(math.ceil(first / step), math.floor(last / step) + 1)]
    within = [(tick, said(tick)) for tick in ticks if first <= scale(tick) <= last]
    return Axis(title, lambda value: min(max((scale(value) - first) / (last - first), 0.0), 1.0), within)


def choices(title: str, words: list[str]) -> Axis:
    """Give each of some words a place of its own."""
    return Axis(title, lambda word: (words.index(word) + 0.5) / len(words), [(word, word) for word in words])


def plot(title: str, lines: list[Line], across: Axis, up: Axis, frame: Frame = LARGE) -> Html:
    """Draw lines between two axes."""
    right, floor = frame.width - frame.right, frame.height - frame.bottom

    def place(x: Any, y: Any) -> tuple[float, float]:
        return frame.left + (right - frame.left) * across.place(x), floor - (floor - frame.top) * up.place(y)

    parts = []
    for value, text in up.ticks:
        y = floor - (floor - frame.top) * up.place(value)
        parts.append(tag("line", x1=frame.left, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(tag("text", text, x=frame.left - 5, y=f"{y + 4:.1f}", text_anchor="end"))
    for value, text in across.ticks:
        x = frame.left + (right - frame.left) * across.place(value)
        parts.append(tag("text", text, x=f"{x:.1f}", y=floor + 15, text_anchor="end" if across.place(value) == 1 else "middle"))
    if across.title:
        parts.append(tag("text", across.title, x=(frame.left + right) / 2, y=frame.height - 6, text_anchor="middle"))
    for line in lines:
        spots = [place(x, y) for x, y in line.points]
        if line.has_line:
            parts.append(tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in spots), class_=line.kind))
        for (x, y), note in zip(spots, line.notes or [""] * len(spots), strict=True):
            if line.has_dots:
                parts.append(tag("circle", *([tag("title", note)] if note else []), cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=line.kind))
    picture = tag("svg", parts, viewBox=f"0 0 {frame.width} {frame.height}", role="img", aria_label=title, class_="plot")
    told = {line.name: f"key {line.kind}" + ("" if line.has_line else " dots") for line in lines if line.name}
    legend = [tag("span", name, class_=looks) for name, looks in told.items()]
    caption = tag("figcaption", tag("b", title), tag("span", up.title, class_="small"))
    return tag("figure", caption, picture, tag("div", legend, class_="keys"))


def side_by_side(*pictures: Html, are_many: bool = False) -> Html:
    """Put pictures beside each other where the screen is wide enough."""
    return tag("div", *pictures, class_="pictures many" if are_many else "pictures")


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
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
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
.pictures.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0 1rem }
.pictures.many figure { margin: .5rem 0; font-size: .875rem }
figcaption b { display: block; font-weight: 500 }
.plot { display: block; width: 100% }
.plot text { fill: var(--quiet); font-size: 11px }
.plot .grid { stroke: var(--line) }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
polyline.main { stroke: var(--bar) }
polyline.other { stroke: var(--second); stroke-dasharray: 5 3 }
polyline.guide { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 2 3 }
polyline.faint { stroke: var(--quiet); stroke-width: 1; opacity: .35 }
polyline.lost { stroke: var(--second); stroke-width: 1; opacity: .6 }
circle.main { fill: var(--bar) }
circle.other { fill: var(--second) }
circle.faint { fill: var(--bar); opacity: .7 }
circle.lost { fill: none; stroke: var(--second); stroke-width: 1.2 }
circle.best { fill: var(--bar); stroke: var(--text); stroke-width: 2 }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .875rem }
.key::before { content: ""; display: inline-block; width: 1.25rem; margin-right: .4rem; vertical-align: .25rem; border-top: 2px solid }
.key.main::before { border-color: var(--bar) }
.key.other::before { border-top: 2px dashed var(--second) }
.key.guide::before { border-top: 1px dotted var(--quiet) }
.key.faint::before { border-top: 1px solid var(--quiet) }
.key.lost::before { border-top: 1px solid var(--second) }
.key.dots::before { width: .5rem; height: .5rem; vertical-align: 0; border: 1.5px solid; border-radius: 50% }
.key.dots.faint::before { background: var(--bar); border-color: var(--bar) }
.key.dots.lost::before { border-color: var(--second) }
.key.dots.best::before { background: var(--bar); border-color: var(--text) }
details { margin: .5rem 0 }
summary { cursor: pointer }
"""
