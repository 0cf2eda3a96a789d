"""A family's search in pictures: how it went, how its trials learned, which settings mattered."""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.evaluate.markup import SMALL, Axis, Html, Line, choices, numbers, plot, side_by_side, tag

SHOWN = 200  # trials that are drawn
POINTS = 25  # of a trial's curve
FEWEST = 20  # complete trials, to tell of a setting how much it explains
GROUPS = 4  # into which a number's values are cut for that
ONCE_IN_100 = 2.326  # standard deviations of a normal variable
FAR = 1.5  # quartile ranges below the lower quartile: what is worse is drawn at the edge (Tukey, 1977)
WIDE = 10  # times the smallest value: a range that is drawn on a log scale


class Trial(NamedTuple):
    """One finished trial."""

    slot: int
    is_pruned: bool
    value: float  # the larger, the better
    params: dict[str, Any]
    curve: list[tuple[int, float]]  # its value by rounds

    @property
    def rounds(self) -> int:
        """Rounds that were fitted."""
        return self.curve[-1][0]

    @property
    def best_rounds(self) -> int:
        """Rounds at which it was best: there its model is cut."""
        return max(self.curve, key=lambda point: point[1])[0]

    def __str__(self) -> str:
        ended = f"pruned at {self.rounds:,}" if self.is_pruned else f"best at {self.best_rounds:,} of {self.rounds:,}"
        return f"slot {self.slot}: {abs(self.value):.4f}, {ended} rounds"


def read(told: list[dict[str, Any]]) -> list[Trial]:
    """Read what search-collect tells, in the order of the slots."""
    return [
        Trial(one["slot"], one["state"] == "pruned", one["value"], one["params"], sorted((int(at), v) for at, v in one["reports"].items()))
        for one in told
    ]


def best(trials: list[Trial]) -> Trial:
    """Give the best complete trial: of equals, the first."""
    return max((trial for trial in trials if not trial.is_pruned), key=lambda trial: trial.value)


def shown(trials: list[Trial]) -> list[Trial]:
    """Choose those that are drawn: so many, evenly, and the best."""
    chosen = {trial.slot for trial in [*spread(trials, SHOWN), best(trials)]}
    return [trial for trial in trials if trial.slot in chosen]


def spread[T](some: Sequence[T], most: int) -> list[T]:
    """Choose evenly, with both ends, where there are too many."""
    last = len(some) - 1
    return [*some] if last < most else [some[round(place * last / (most - 1))] for place in range(most)]


def pictures(trials: list[Trial], metric: str) -> list[Html]:
    """Draw them all; the metric is said beside."""
    values = [trial.value for trial in trials]
    low = max(min(values), _edge(values)) if len(values) > 1 else values[0]
    up = numbers(metric, low, max(values), said=lambda value: f"{abs(value):.6g}")  # a loss is negated
    drawn = [_history(trials, up)]
    if any(len(trial.curve) > 1 for trial in trials):
        drawn.append(_curves(trials, up))
    note = "What is far worse than most is drawn at the lower edge."
    return [side_by_side(*drawn), *([tag("p", note, class_="small")] if min(values) < low else []), *_settings(trials, up)]


def _edge(values: list[float]) -> float:
    first, _, third = statistics.quantiles(values, method="inclusive")
    return first - FAR * (third - first)


def _history(trials: list[Trial], up: Axis) -> Html:
    first, last = trials[0].slot, trials[-1].slot
    steps: list[tuple[int, float]] = []
    for trial in trials:
        if not trial.is_pruned and (not steps or trial.value > steps[-1][1]):
            steps += [*((trial.slot, value) for _, value in steps[-1:]), (trial.slot, trial.value)]
    line = Line("best so far", [*steps, (last, steps[-1][1])], "main")
    dots = _dots(trials, {trial.slot: trial.slot for trial in trials})
    return plot("Value of each slot", [line, *dots], numbers("slot", first, last, is_whole=True), up)


def _curves(trials: list[Trial], up: Axis) -> Html:
    winner, drawn = best(trials), shown(trials)
    lines = [Line("pruned", spread(trial.curve, POINTS), "lost") for trial in drawn if trial.is_pruned]
    lines += [Line("complete", spread(trial.curve, POINTS), "faint") for trial in drawn if not trial.is_pruned and trial is not winner]
    lines.append(Line(f"the best, slot {winner.slot}", spread(winner.curve, SHOWN), "main"))
    lines.append(Line("", [(winner.best_rounds, winner.value)], "best", has_dots=True, has_line=False))
    rounds = numbers("rounds", 0, max(trial.rounds for trial in drawn), is_whole=True)
    return plot("How the trials learned", lines, rounds, up)


def _settings(trials: list[Trial], up: Axis) -> list[Html]:
    complete = [trial for trial in trials if not trial.is_pruned]
    names = [name for name in sorted(trials[0].params) if len({trial.params[name] for trial in trials}) > 1]
    shares = {name: explained([one.params[name] for one in complete], [one.value for one in complete]) for name in names}
    note = "The same values against each setting. A filled dot is complete; an empty one pruned, after fewer rounds; the framed one best."
    if is_told := len(complete) >= FEWEST:
        note += (
            " In per cent: how much of the order of the complete trials this setting alone explains, where chance hardly does as much."
            " A hint, no proof: the search looks more often where it was good before."
        )
    drawn = []
    for name in sorted(names, key=lambda name: -shares[name] if is_told else 0):
        dots = [line._replace(name="", notes=()) for line in _dots(trials, {trial.slot: trial.params[name] for trial in trials})]
        beside = up._replace(title=(f"explains {shares[name]:.0%}" if shares[name] else "no sign") if is_told else "")
        drawn.append(plot(name, dots, _across([trial.params[name] for trial in trials]), beside, SMALL))
    return [tag("p", note, class_="small"), side_by_side(*drawn, are_many=True)] if drawn else []


def _dots(trials: list[Trial], across: dict[int, Any]) -> list[Line]:
    """Give each trial a dot, at some value of its slot: an empty one where it was pruned, a framed one where it is the best."""
    winner, drawn = best(trials), shown(trials)
    kinds = (
        ("pruned", "lost", [trial for trial in drawn if trial.is_pruned]),
        ("complete", "faint", [trial for trial in drawn if not trial.is_pruned and trial is not winner]),
        ("the best", "best", [winner]),
    )
    return [
        Line(name, [(across[one.slot], one.value) for one in some], kind, has_dots=True, has_line=False, notes=[str(one) for one in some])
        for name, kind, some in kinds
        if some
    ]


def _across(values: list[Any]) -> Axis:
    if isinstance(values[0], str):
        return choices("", sorted(set(values)))
    low, high = min(values), max(values)
    return numbers("", low, high, is_log=0 < low * WIDE <= high, is_whole=all(isinstance(value, int) for value in values))


def explained(settings: list[Any], values: list[float]) -> float:
    """Tell how much of the values' order one setting explains: epsilon squared of their ranks (Kelley, 1935).

    The groups that may differ are the words, or a quarter each of the numbers. It is 0 where chance does as much once in a hundred times,
    by Kruskal and Wallis' test (1952), the limit of which is approximated (Wilson and Hilferty, 1931).
    """
    ranks, count = _ranks(values), len(values)
    groups: dict[Any, list[float]] = {}
    for setting, place, rank in zip(settings, _ranks(settings), ranks, strict=True):
        groups.setdefault(setting if isinstance(setting, str) else int(GROUPS * place / count), []).append(rank)
    total, free = count * statistics.pvariance(ranks), len(groups) - 1
    if not total or free in {0, count - 1}:
        return 0.0
    within = sum(len(group) * statistics.pvariance(group) for group in groups.values())
    limit = free * (1 - 2 / (9 * free) + ONCE_IN_100 * (2 / (9 * free)) ** 0.5) ** 3
    if (count - 1) * (total - within) / total <= limit:
        return 0.0
    return (total - within - within / (count - len(groups)) * free) / total


def _ranks(values: list[Any]) -> list[float]:
    """Rank from 0 on; equal values share the middle of their ranks."""
    order = sorted(values)
    return [(bisect_left(order, value) + bisect_right(order, value) - 1) / 2 for value in values]
