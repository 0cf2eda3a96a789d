"""The borders of a fit: where it is scored, reported, saved, and ended.

What is computed depends on rounds alone: every BORDER rounds there is a border, for early stopping and pruning too. Which of them are
saved depends on time.
"""

import json
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from stages.common import log
from stages.common.checkpoint import Checkpoint
from stages.common.errors import Interrupted
from stages.families import metrics
from stages.features.features import Table

BORDER = 10  # rounds


class Borders:
    """How far one fit is, and how good it was at each border."""

    def __init__(
        self,
        valid: Table | None,
        metric: str,
        rounds: int,
        patience: int,
        checkpoint: Checkpoint | None = None,
        report: Callable[[int, float | None], None] | None = None,
        place: str = "cpu",
    ) -> None:
        self.rounds = 0  # of the last border
        self.best_rounds = 0
        self.best: float | None = None
        self.is_exact = False  # the model that is cut there gives this very score, bit for bit
        self._scores: list[tuple[int, float | None]] = []
        self._valid = valid
        self._metric = metric
        self._most = rounds
        self._patience = patience
        self._checkpoint = checkpoint
        self._report = report
        self._place = place

    def load(self) -> bytes | None:
        """Go on from the last saved border: give what the family left there; None where there is nothing, or what another place left."""
        if self._checkpoint is None or (saved := self._checkpoint.load()) is None:
            return None
        head, _, model = saved.partition(b"\n")
        scores, best_rounds, best, *place = json.loads(head)
        if place != [self._place]:
            log.warning("checkpoint.elsewhere", name=self._checkpoint.name, so=f"a fit on {self._place} begins anew")
            return None
        self._scores, self.best_rounds, self.best = scores, best_rounds, best
        self.rounds = self._checkpoint.began = self._scores[-1][0]
        for rounds, score in self._scores if self._report else []:
            self._report(rounds, score)  # type: ignore[misc]
        return model

    def ahead(self) -> int | None:
        """Give the rounds of the next border; None where the fit is over."""
        is_over = self._valid is not None and self.rounds - self.best_rounds >= self._patience
        return None if is_over or self.rounds >= self._most else min(self.rounds + BORDER, self._most)

    def reach(self, rounds: int, probability: NDArray[Any] | None, dump: Callable[[], bytes]) -> None:
        """Score a border with valid's probabilities, report it, and save what ``dump`` gives if it is time to.

        Raises:
            Interrupted: the step was told to stop, and the border is saved.

        """
        score = None if probability is None else self.score(probability)
        self.rounds = rounds
        if score is None or self.best is None or score > self.best:
            self.best_rounds, self.best = rounds, score
        self._scores.append((rounds, score))
        try:
            if self._report:
                self._report(rounds, score)
        except Interrupted:  # while it waited for a server: the border is there, and is not lost for that
            self._save(dump)
            raise
        self._save(dump)

    def _save(self, dump: Callable[[], bytes]) -> None:
        if self._checkpoint:
            self._checkpoint.border(lambda: self._head() + b"\n" + dump())

    def _head(self) -> bytes:
        return json.dumps([self._scores, self.best_rounds, self.best, self._place]).encode()

    def score(self, probability: NDArray[Any]) -> float:
        """Score valid's probabilities; the larger, the better."""
        assert self._valid
        return metrics.score(self._metric, self._valid.y, probability)
