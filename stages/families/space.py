"""Search spaces as data: [low, high] with integers or numbers, "log" for a log scale, words for one of them."""

from typing import Any, Protocol

from stages.common.errors import ConfigError


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


def _draw(trial: Asks, name: str, bounds: list[Any]) -> Any:
    match bounds:
        case [str(), *_]:
            return trial.suggest_categorical(name, bounds)
        case [int() as low, int() as high]:
            return trial.suggest_int(name, low, high)
        case [low, high, *log]:
            return trial.suggest_float(name, low, high, log=bool(log))
    raise AssertionError(bounds)


def merged(family: str, own: dict[str, list[Any]], changes: dict[str, Any]) -> dict[str, list[Any]]:
    """Lay a config's changes over a family's own space.

    Raises:
        ConfigError: a parameter that the family does not have, or bounds that are none.

    """
    for name, bounds in changes.items():
        if name not in own:
            raise ConfigError(f"search.space.{family}.{name}: not a parameter of the space; known: {', '.join(own)}.")
        if not _is_space(bounds):
            raise ConfigError(f"search.space.{family}.{name}: {bounds!r} is not [low, high], [low, high, log] or a list of words.")
    return {**own, **changes}


def _is_space(bounds: Any) -> bool:
    match bounds:
        case [str(), *more]:
            return all(isinstance(word, str) for word in more)
        case [int() | float() as low, int() | float() as high]:
            return low < high
        case [int() | float() as low, int() | float() as high, "log"]:
            return 0 < low < high
    return False
