"""Search spaces as data: [low, high] with integers or numbers, "log" for a log scale, words for one of them."""

from typing import Any, Protocol

from stages.common.errors import ConfigError
from stages.common.yaml import shown


class Asks(Protocol):
    """What draws a value: an Optuna trial."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Draw an integer."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Draw one of several."""


def suggest(trial: Asks, space: dict[str, list[Any]]) -> dict[str, Any]:
    """Draw one value for each parameter of a space."""
    return {name: _draw(trial, name, bounds) for name, bounds in space.items()}


def nearest(params: dict[str, Any], space: dict[str, list[Any]]) -> dict[str, Any]:
    """Give the values of a space that come closest: a number or its bound, a word or the first one."""
    return {name: _nearest(params[name], bounds) for name, bounds in space.items()}


def _nearest(value: Any, bounds: list[Any]) -> Any:
    if isinstance(value, str):
        return value if value in bounds else bounds[0]
    return min(max(value, bounds[0]), bounds[1])


def _draw(trial: Asks, name: str, bounds: list[Any]) -> Any:
    match bounds:
        case [str(), *_]:
            return trial.suggest_categorical(name, bounds)
        case [int() as low, int() as high, *log]:
            return trial.suggest_int(name, low, high, log=bool(log))
        case [low, high, *log]:
            return trial.suggest_float(name, low, high, log=bool(log))
    raise AssertionError(bounds)


def merged(family: str, own: dict[str, list[Any]], changes: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Lay a config's changes over a family's own space, which says what kind a parameter is: ``[0, 1]`` for a number means 0.0 to 1.0.

    Raises:
        ConfigError: a parameter that the family does not have, or bounds of another kind than its own.

    """
    space = dict(own)
    for name, bounds in changes.items():
        where = shown(f"search.space.{family}.{name}")
        if name not in own:
            raise ConfigError(f"{where}: not a parameter of the space; known: {', '.join(own)}.")
        numbers = [bound for bound in bounds[:2] if not isinstance(bound, str)]
        if (kind := type(own[name][0])) is str or not numbers:
            if kind is not str or numbers:
                raise ConfigError(f"{where}: {bounds!r} is of another kind than its own {own[name]!r}.")
            space[name] = bounds
        elif kind is int and any(not float(bound).is_integer() for bound in numbers):
            raise ConfigError(f"{where}: {bounds!r} are no integers, as {name} needs.")
        elif own[name][1] == 1.0 and numbers[1] > 1:
            raise ConfigError(f"{where}: {bounds!r} is a share of rows or columns: at most 1.")
        else:
            space[name] = [*map(kind, numbers), *bounds[2:]]
    return space
