"""Options that do not fit together are refused before anything is read."""

from typing import Any

import pydantic
import pytest

from stages.prepare.config import Config

FILE: dict[str, Any] = {"source": "file", "path": "t.csv", "label": "y", "split": "random"}


def test_the_generated_table_needs_no_options() -> None:
    config = Config()

    assert (config.label, config.time, config.id, config.entity) == ("is_fraud", "time", "transaction", "customer")
    assert config.raw() == {}


def test_a_file_is_a_raw_file_by_its_place() -> None:
    assert Config(**FILE).raw() == {"table": "t.csv"}
    assert "path" not in Config.result_fields()


def test_columns_are_named_as_they_are_read() -> None:
    roles = {"label": "is-bad", "time": "tx-date ", "drop": ["a-b", "c"], "keys": {"client": ["card-1", "D1"]}}
    config = Config(**{**FILE, **roles})

    assert (config.label, config.time, config.drop, config.keys) == ("is_bad", "tx_date", ["a_b", "c"], {"client": ["card_1", "D1"]})


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"path": None}, "source is file, but path names none"),
        ({"label": None}, "label names no column"),
        ({"split": "time"}, "split is time, but time names no column"),
        ({"validation_split": 0.5, "test_split": 0.5}, "leave no rows to train on"),
        ({"drop": ["y"]}, "column 'y' is named twice"),
        ({"delimiter": "x"}, "delimiter"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=line):
        Config(**{**FILE, **options})
