"""The search in pictures: whatever it was like, all that is drawn can be told apart and stays in its frame."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from stages.common import contract
from stages.evaluate import markup, report, trials
from stages.evaluate.markup import Frame, numbers
from tests.unit.evaluate.test_report import Page, read
from tests.unit.pipelines import TRIALS, XGBOOST, Pipeline, honest_table, new_pipeline, publish

METRIC = "average precision"
LARGE = ("Value of each slot", "How the trials learned")


def told(count: int, *, pruned: int = 0, sign: int = 1) -> list[dict[str, Any]]:
    """Make up what search-collect tells of a search whose learning rate decides; the last of the slots but one are pruned."""
    rng, made = np.random.default_rng(0), []
    for slot in range(count):
        rate = 10 ** float(rng.uniform(-3, 0))
        params = {"learning_rate": rate, "depth": int(rng.integers(3, 9)), "policy": str(rng.choice(["deep", "wide"]))}
        best = 0.5 + 0.1 * math.log10(rate) + float(rng.normal(0, 0.01))
        is_pruned = count - 1 - pruned <= slot < count - 1
        rounds = [*range(10, 40 if is_pruned else 410, 10)]
        reports = {str(at): sign * best * (1 - 0.9**at) - (sign < 0) for at in rounds}
        value = reports[str(rounds[-1])]
        made.append({"slot": slot, "params": params, "state": "pruned" if is_pruned else "complete", "value": value, "reports": reports})
    return made


def pictures(made: list[dict[str, Any]], metric: str = METRIC) -> list[tuple[str, str]]:
    """Draw; give each picture's title and markup."""
    page = "".join(trials.pictures(trials.read(json.loads(json.dumps(made))), metric))
    Page(page)
    return [(re.findall(r"<b>(.*?)</b>", one)[0], one) for one in re.findall(r"<figure>.*?</figure>", page)]


@pytest.mark.parametrize(
    ("made", "titles"),
    [
        (told(1), ["Value of each slot", "How the trials learned"]),
        (told(30, pruned=29), ["Value of each slot", "How the trials learned", "depth", "learning_rate", "policy"]),
        (told(200, pruned=100), ["Value of each slot", "How the trials learned", "learning_rate", "depth", "policy"]),
        (told(60, sign=-1), ["Value of each slot", "How the trials learned", "learning_rate", "depth", "policy"]),
        ([{**one, "reports": {"1": one["value"]}} for one in told(3)], ["Value of each slot", "depth", "learning_rate", "policy"]),
        ([{**one, "value": 0.5, "params": {"C": 1.0}} for one in told(5)], ["Value of each slot", "How the trials learned"]),
    ],
    ids=["one", "all pruned but one", "two hundred", "a loss", "of one round", "all equal"],
)
def test_every_search_can_be_drawn(made: list[dict[str, Any]], titles: list[str]) -> None:
    drawn = pictures(made)
    assert sorted(title for title, _ in drawn) == sorted(titles)
    assert [title for title, _ in drawn[:3]] == titles[:3], "the setting that explains most comes before the others"
    lost = sum(one["state"] == "pruned" for one in made)
    for title, one in drawn:
        _is_within(markup.LARGE if title in LARGE else markup.SMALL, one)
        shape = "polyline" if title == "How the trials learned" else "circle"
        kinds = [re.findall(rf'<{shape} [^>]*class="{kind}"', one) for kind in ("lost", "faint", "main" if shape == "polyline" else "best")]
        assert [len(some) for some in kinds] == [lost, len(made) - lost - 1, 1]


def _is_within(frame: Frame, picture: str) -> None:
    assert f'viewBox="0 0 {frame.width} {frame.height}"' in picture
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', picture)]
    corners = [tuple(map(float, one.split(","))) for line in re.findall(r'polyline points="([^"]*)"', picture) for one in line.split()]
    assert dots
    for x, y in [*dots, *corners]:
        assert frame.left <= x <= frame.width - frame.right
        assert frame.top <= y <= frame.height - frame.bottom


def test_of_thousands_some_are_drawn_and_the_best_is_among_them() -> None:
    made = told(3000)
    made[1234] |= {"value": 0.9, "reports": {"10": 0.9}}
    drawn = trials.shown(trials.read(made))
    page = "".join(one for _, one in pictures(made))

    assert len(drawn) == trials.SHOWN + 1
    assert (drawn[0].slot, drawn[-1].slot) == (0, 2999)
    assert "slot 1234: 0.9000, best at 10 of 10 rounds" in page
    assert len(page) < 200_000
    assert trials.spread(range(1001), 5) == [0, 250, 500, 750, 1000]
    assert trials.spread([1, 2], 5) == [1, 2]


def test_best_so_far_goes_up_in_steps() -> None:
    values = [0.3, 0.2, 0.6, 0.9, 0.5]
    made = [{**one, "value": value} for one, value in zip(told(5), values, strict=True)]
    made[3]["state"] = "pruned"
    (line,) = re.findall(r'polyline points="([^"]*)"', pictures(made)[0][1])
    heights = [float(one.split(",")[1]) for one in line.split()]
    assert len(heights) == 4
    assert heights[0] == heights[1] > heights[2] == heights[3], "what was pruned is never the best"


def test_a_loss_is_told_without_its_sign_and_the_better_is_above() -> None:
    made = [{**one, "value": value} for one, value in zip(told(2), (-0.5, -0.2), strict=True)]
    _, first = pictures(made, "log loss (less is better)")[0]
    heights = {text: float(y) for y, text in re.findall(r'cy="([\d.]+)"[^>]*><title>slot \d: ([\d.]+),', first)}
    assert heights["0.2000"] < heights["0.5000"]
    assert "-0." not in first


def test_what_is_far_worse_does_not_squeeze_the_others() -> None:
    made = [{**one, "value": 0.5 + slot / 1000} for slot, one in enumerate(told(50))]
    made[7]["value"] = 0.0
    page = "".join(trials.pictures(trials.read(made), METRIC))
    assert "far worse than most" in page
    assert "far worse than most" not in "".join(trials.pictures(trials.read(made[8:]), METRIC))
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', pictures(made)[0][1])]
    assert sorted(heights)[-2] - min(heights) > 100


def test_how_much_a_setting_explains() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(200).tolist()
    assert trials.explained(values, values) > 0.9
    assert trials.explained([-value for value in values], values) > 0.9
    assert trials.explained([abs(value - 0.5) for value in values], [-abs(value - 0.5) for value in values]) > 0.9
    shares = [trials.explained(rng.random(30).tolist(), values[:30]) for _ in range(300)]
    assert sum(share > 0 for share in shares) <= 8, "chance does it in one of a hundred cases"
    assert trials.explained(["a" if value > 0.5 else "b" for value in values], values) == pytest.approx(0.75, abs=0.02)
    assert trials.explained([1.0] * 200, values) == 0
    assert trials.explained(values, [0.5] * 200) == 0
    assert trials.explained([1.0], [0.5]) == 0


@pytest.mark.parametrize(
    ("low", "high", "options", "ticks"),
    [
        (0.31, 0.47, {}, ["0.35", "0.4", "0.45"]),
        (0, 199, {"is_whole": True}, ["0", "50", "100", "150", "200"]),
        (3, 5, {"is_whole": True}, ["3", "4", "5"]),
        (0.5, 0.5, {}, ["0", "0.5", "1"]),
        (0.012, 0.29, {"is_log": True}, ["0.02", "0.05", "0.1", "0.2"]),
        (0.01, 100, {"is_log": True}, ["0.01", "0.1", "1", "10", "100"]),
        (0.90001, 0.90003, {}, ["0.90001", "0.900015", "0.90002", "0.900025", "0.90003"]),
    ],
)
def test_round_numbers_stand_beside(low: float, high: float, options: dict[str, Any], ticks: list[str]) -> None:
    axis = numbers("", low, high, **options)
    assert [text for _, text in axis.ticks] == ticks
    assert all(0 <= axis.place(value) <= 1 for value, _ in axis.ticks)
    assert axis.place(low) <= axis.place(high)
    assert (axis.place(low / 9 if "is_log" in options else low - 100), axis.place(high + 100)) == (0, 1), "at the edges"


# --- in the report ---


def test_several_families_are_compared_and_a_missing_one_is_named(tmp_path: Any) -> None:
    pipeline, sets = new_pipeline(tmp_path, honest_table(300)), ("search.families=[xgboost, lightgbm, logistic]", "search.n_trials=2")
    pipeline.do("prepare", *sets)
    addresses = pipeline.addresses(*sets)
    for family in ("xgboost", "lightgbm"):
        publish(addresses, "search-collect", {"family": family}, {"trials.json": contract.dump(TRIALS), "best.json": b"{}"}, {})
    page = read(report.draw(addresses))

    assert "family finished of them pruned best average precision on valid xgboost 2 1 0.5000 lightgbm 2 1 0.5000" in page.text
    assert page.text.count("2 of 2 slots are finished, 1 of them pruned.") == 2
    assert "logistic Nothing to show: search-collect/logistic is not there." in page.text
    assert "Saved" not in page.text


def test_seconds_saved_are_read_from_the_manifest(accepted: Pipeline) -> None:
    addresses = accepted.addresses()
    results = report.Results(addresses, accepted.folder)
    label = contract.label("search-collect", XGBOOST)
    results.measured(label)["seconds_saved"] = {"pruning": 125.0, "resume": 7300.0}

    assert "Saved, by an estimate at the complete trials' pace: 2.1 minutes by pruning and 2.0 hours by resume." in read_words(results)
    results.measured(label)["seconds_saved"] = {"pruning": 0.0, "resume": 119.0}
    assert "pace: 119.0 seconds by resume." in read_words(results)


def read_words(results: report.Results) -> str:
    return Page("".join(report._search(results))).text
