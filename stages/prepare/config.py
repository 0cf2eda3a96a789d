import re
from typing import Any, ClassVar, Literal, get_args

from pydantic import field_validator, model_validator

from stages.common.section import Section, result
from stages.common.section import path as file  # path is an option of its own here

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "null", "NULL")
Engineered = Literal["clock", "cents", "start_days", "frequency", "missing", "past", "label_rates"]
GENERATED: dict[str, dict[str, Any]] = {  # the roles of its columns, which are known
    "payments": {"label": "is_fraud", "positive": 1, "time": "time", "id": "transaction", "entity": "customer"},
    "ieee-cis": {
        "label": "isFraud",
        "positive": 1,
        "time": "TransactionDT",
        "id": "TransactionID",
        "amount": "TransactionAmt",
        "start_days": ["D1", "D2", "D4", "D10", "D11", "D15"],
        "keys": {"client": ["card1", "addr1", "D1"], "card": ["card1"], "email": ["P_emaildomain", "addr1"]},
    },
}


def plain_name(name: str) -> str:
    """Give a column's name without blanks around it, and with underscores for hyphens: Kaggle's id-01 is its other file's id_01."""
    return name.strip().replace("-", "_")


class Config(Section):
    """Options of prepare."""

    RAW: ClassVar = {"table": "path", "joined": "join_path", "features": "features_file"}  # the raw files, and the options that name them
    MAY_LACK: ClassVar = {"joined"}

    source: Literal["file", "generated"] = result("generated", "a table of your own, or one that the project makes for trying out")
    path: str | None = file(
        None,
        "CSV or Parquet file, or a folder of them, relative to the config file; or s3://bucket/name of the store's server "
        "(a folder's ends in a slash), looked at by each run; its bytes count, not its place; "
        f"missing is what is empty, {', '.join(MISSING[1:])}",
    )
    join_path: str | None = file(
        None, "a second file with at most one row per id, joined to the first by prepare.id; where it is not there, the run goes on without"
    )
    delimiter: Literal[",", ";", "\t", "|"] = result(",", "what separates the fields of a CSV file")
    expected_rows: int | None = result(None, "number of data rows, checked; then a CSV file may end without a newline", ge=1)

    label: str | None = result(None, "column with the two-valued answer")
    positive: str | int | float | bool | None = result(
        None, "the label's value to look for; null: 1 against 0 or -1, true, yes or the like, else the rarer"
    )
    time: str | None = result(None, "column with the event time (ISO 8601 or a number): gives hour and weekday, is no feature itself")
    id: str | None = result(None, "column that names the row: no value twice, never a feature")
    entity: str | None = result(None, "column that names who acts (a customer): kept together by a random split, never a feature")
    drop: list[str] = result([], "columns that are left out, such as those known only after the event")

    time_unit: Literal["s", "ms", "us", "ns", "day"] = result("s", "unit of an event time that is a number")
    amount: str | None = result(None, "column with the amount: gives its thousandths, and what an entity usually spends")
    keys: dict[str, list[str]] = result(
        {},
        "who acts, by columns together, such as {client: [card1, addr1, D1]}: what each did before makes features; entity is one of them",
    )
    start_days: list[str] = result([], "columns that count days since something began: features, and in keys, take the day it began")
    label_delay_days: float = result(30.0, "days after which a row's label is known: only such count in an entity's past", ge=0)
    engineered: list[Engineered] = result(list(get_args(Engineered)), "kinds of features that are made besides the columns themselves")

    features_file: str | None = file(
        None, "a Python file whose functions, from a table to a value per row, are features of your own: see stages/features/own.py"
    )

    max_correlation: float = result(
        1.0,
        "of number columns that are missing together, one is left out that follows another more closely (rank correlation); 1: none",
        gt=0,
        le=1,
    )

    max_column_auc: float = result(0.95, "a single column that tells the label better than this (AUC on train) is refused", ge=0.5, le=1)
    allow: list[str] = result([], "columns that may do so all the same")

    split: Literal["time", "order", "random"] = result("time", "test is what comes last in time, last in the file, or rows at random")
    validation_split: float = result(0.2, "share of the rows to choose settings by", gt=0, lt=1)
    calibration_share: float = result(
        0.25, "share of valid, its last rows, that is kept back to calibrate and to choose the threshold on; 0: none", ge=0, lt=1
    )
    test_split: float = result(0.1, "share of the rows to score the winner on", gt=0, lt=1)
    min_per_class: int = result(5, "positives, and negatives, that train, valid and test must each have", ge=1)
    seed: int = result(0, "seed of the random split and of the sample", ge=0, le=2**32 - 1)
    sample_size: int | None = result(None, "rows drawn at random from the table; null: all", ge=1)
    max_categories: int = result(256, "values kept per text column, the most frequent; others count as missing", ge=2, le=10_000)

    generated_table: Literal["payments", "ieee-cis"] = result(
        "payments", "which table is made: small payments, or the 434 columns of IEEE-CIS with its gaps, drift and clients"
    )
    generated_rows: int = result(20_000, "rows of the generated table", ge=100, le=10_000_000)
    generated_seed: int = result(0, "seed of the generated table", ge=0, le=2**32 - 1)

    @field_validator("label", "time", "id", "entity", "amount", "drop", "allow", "start_days", "keys")
    @classmethod
    def _as_read(cls, named: Any) -> Any:
        """Name columns as they are read, however they are written."""
        if isinstance(named, dict):
            return {key: [*map(plain_name, columns)] for key, columns in named.items()}
        return [*map(plain_name, named)] if isinstance(named, list) else named and plain_name(named)

    @model_validator(mode="before")
    @classmethod
    def _generated_roles(cls, given: Any) -> Any:
        """Name the generated table's columns, which are known."""
        if not isinstance(given, dict) or given.get("source", "generated") != "generated":
            return given
        known = GENERATED.get(str(given.get("generated_table", "payments")), {})
        return given | {name: column for name, column in known.items() if not given.get(name)}

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.source == "file" and not self.path:
            raise ValueError("source is file, but path names none (surefoot init my.csv writes a config for a table)")
        if not self.label:
            raise ValueError("label names no column (surefoot init my.csv guesses it)")
        if self.split == "time" and self.time is None:
            raise ValueError("split is time, but time names no column: name it, or set split to order or random")
        if self.validation_split + self.test_split >= 1:
            raise ValueError(f"validation_split {self.validation_split} and test_split {self.test_split} leave no rows to train on")
        if self.join_path and not self.id:
            raise ValueError("join_path needs an id to join by: name the column in id")
        if self.keys and self.time is None:
            raise ValueError("keys need an event time: name it in time")
        if empty := [name for name, columns in self.keys.items() if not columns or not re.fullmatch(r"[A-Za-z0-9_]+", name)]:
            raise ValueError(f"keys.{empty[0]}: give it a name of letters, digits and _, and a list of columns")
        named = [name for name in (self.label, self.time, self.id, self.entity, *self.drop) if name is not None]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"column {twice[0]!r} is named twice among label, time, id, entity and drop")
        return self

    def raw(self) -> dict[str, str]:
        """Give the raw files that prepare reads, by name."""
        given = {name: getattr(self, option) for name, option in self.RAW.items() if self.source == "file" or name == "features"}
        return {name: place for name, place in given.items() if place}
