"""HTML without a script: everything is escaped that is not markup already."""

import html
from typing import Any


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


STYLE = """
:root {
  color-scheme: light dark;
  --text: #1c2126; --quiet: #5c6670; --line: #d9dee3; --page: #fff; --bar: #3b6ea5; --good: #1a7040; --bad: #b3261e; --open: #8a5a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e7ea; --quiet: #9aa4ae; --line: #363d44; --page: #15181b; --bar: #6fa3dc; --good: #5cc98a; --bad: #ff8a80; --open: #e6b450;
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
details { margin: .5rem 0 }
summary { cursor: pointer }
"""
