# ruff: noqa: E501 - a table of lines as people read them
"""Layers, types and refusals of the config, and what configs/ shows of it."""

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from stages.common import config, contract, section, yaml
from stages.common.config import Config, Pinned
from stages.common.errors import ConfigError
from workflows import options


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "my.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def load(path: Path, *sets: str, **environment: str) -> Config:
    return config.load(path, sets, environment)


# --- a config given as JSON ---


def test_a_config_may_be_given_as_json(write: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the chart writes it: on one line, with < as an escape, and paths relative to where the command runs."""
    monkeypatch.chdir(tmp_path)
    own = {
        "profile": "production",
        "prepare": {"source": "file", "path": "a <b>.csv", "label": "y", "split": "order"},
        "train": {"seed": 3},
    }
    text = json.dumps({"name": "weekly", **own}, separators=(",", ":")).replace("<", "\\u003c")
    given = config.inline(text, ["train.rounds=5"], {"SUREFOOT__SEARCH__SEED": "4"})
    assert given == load(write(json.dumps(own), "weekly.yaml"), "train.rounds=5", SUREFOOT__SEARCH__SEED="4")
    assert given["prepare"].path == str(tmp_path / "a <b>.csv")
    assert config.inline("{}", (), {}).name == "inline"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"prepare":{"lable":"y"}}', "unknown key prepare.lable; did you mean prepare.label?"),
        ('{"prepar":{}}', "unknown section 'prepar'; did you mean prepare?"),
        ('{"train":{"seed":"x"}}', "train.seed: Input should be a valid integer, found 'x'."),
        ('{"train":{"seed":1},"train":{}}', "line 1, column 21: key 'train' stands twice."),
        ('{"train":', "line 1, column 10: expected the node content, but found '<stream end>'."),
        ('{"name":"a/b"}', "name 'a/b' must be a word of letters, digits and ._-"),
        ('{"name":7}', "name 7 must be a word of letters, digits and ._-"),
        ('{"profile":"fast"}', "profile 'fast' is neither development nor production."),
        ("{" + " " * 300_000 + "}", "more than 262144 bytes: this is no config file."),
    ],
    ids=range(9),
)
def test_a_refused_one_is_told_as_a_file_is(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config.inline(text, (), {})
    assert str(raised.value) == f"the config given as JSON: {line}"


# --- layers ---


def test_an_empty_file_gives_the_defaults(write: Any) -> None:
    loaded = load(write(""))
    assert loaded.sections == {name: kind() for name, kind in config.section_types().items()}
    assert loaded.name == "my"
    assert loaded.pinned is None


def test_each_layer_wins_over_the_one_before(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every layer but one say the seed, from the last to the first."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "base.yaml").write_text("train: {seed: 1, rounds: 11}\n")
    (configs / "production.yaml").write_text("train: {seed: 2}\n")
    monkeypatch.setattr(config, "CONFIGS", configs)
    own = write("profile: production\ntrain: {seed: 3}\n")

    assert load(own, "train.seed=5", SUREFOOT__TRAIN__SEED="4")["train"].seed == 5
    assert load(own, SUREFOOT__TRAIN__SEED="4")["train"].seed == 4
    assert load(own)["train"].seed == 3
    assert load(write("profile: production\n"))["train"].seed == 2
    assert load(write(""))["train"].seed == 1
    (configs / "base.yaml").unlink()
    assert load(write(""))["train"].seed == 0
    assert load(own)["train"].rounds == 2000


def test_layers_are_laid_key_by_key(write: Any) -> None:
    loaded = load(write("search: {n_trials: 3}\n"), "search.seed=7")
    assert (loaded["search"].n_trials, loaded["search"].seed, loaded["search"].rounds) == (3, 7, 400)


def test_the_last_of_several_sets_wins(write: Any) -> None:
    assert load(write(""), "train.seed=1", "train.seed=2")["train"].seed == 2


def test_a_profile_is_named_by_file_environment_or_set(write: Any) -> None:
    assert load(write("profile: production\n"))["search"].n_trials == 500
    assert load(write(""), SUREFOOT__PROFILE="development")["search"].n_trials == 20
    assert load(write("profile: production\n"), "profile=development")["search"].n_trials == 20
    assert load(write("profile: production\n"), "profile=null")["search"].n_trials == 200


def test_a_value_set_in_a_shell_is_read_as_yaml(write: Any) -> None:
    loaded = load(
        write(""), "train.seed=7", "search.pruning_enabled=false", "prepare.drop=[a, b]", 'prepare.positive="1"', "prepare.sample_size=null"
    )
    assert loaded["train"].seed == 7
    assert loaded["search"].pruning_enabled is False
    assert loaded["prepare"].drop == ["a", "b"]
    assert loaded["prepare"].positive == "1"
    assert loaded["prepare"].sample_size is None


def test_a_path_is_relative_to_the_file_that_names_it_or_to_where_the_command_runs(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    own = write("prepare: {source: file, path: data/t.csv, label: y, split: order}\n")
    digest = "0" * 64

    assert load(own)["prepare"].path == str(tmp_path / "data/t.csv")
    assert load(own, "prepare.path=t.csv")["prepare"].path == str(tmp_path / "elsewhere/t.csv")
    assert load(own, "prepare.path=/abs/t.csv")["prepare"].path == "/abs/t.csv"
    assert load(own, f"prepare.path=raw/{digest}")["prepare"].path == f"raw/{digest}"
    # A folder that is called raw, as many are, is a folder.
    assert load(own, "prepare.path=raw/t.csv")["prepare"].path == str(tmp_path / "elsewhere/raw/t.csv")


def test_a_number_may_be_written_as_an_integer_but_not_the_other_way_round(write: Any) -> None:
    assert load(write("validate: {memory_mb: 300}\n"))["validate"].memory_mb == 300.0
    with pytest.raises(ConfigError, match="valid integer"):
        load(write("train: {seed: 1.0}\n"))


# --- refusals: the line that a person reads ---

BASE = config.CONFIGS / "base.yaml"
REFUSED: dict[str, tuple[str, tuple[str, ...], dict[str, str], str]] = {
    # name: file, --set, environment, line ({f} is the file)
    "section": ("trian: {seed: 1}", (), {}, "{f}: unknown section 'trian'; did you mean train?"),
    "section unlike any": ("qqq: 1", (), {}, "{f}: unknown section 'qqq'; known: common, plan, prepare, search, train, evaluate, validate, deploy."),
    "key": ("train: {sed: 1}", (), {}, "{f}: unknown key train.sed; did you mean train.seed?"),
    "key of deploy": ("deploy: {seed: 1}", (), {}, "{f}: unknown key deploy.seed; known: none."),
    "key unlike any": ("train: {qqq: 1}", (), {}, "{f}: unknown key train.qqq; known: train.seed, train.rounds, train.early_stopping_rounds, train.gpu_enabled."),
    "key of two lines": ('train: {"a\\nb": 1}', (), {}, "{f}: unknown key train.a b; known: "),
    "key by --set": ("", ("train.sed=1",), {}, "--set train.sed=1: unknown key train.sed; did you mean train.seed?"),
    "key by environment": ("", (), {"SUREFOOT__TRAIN__SED": "1"}, "environment SUREFOOT__TRAIN__SED: unknown key train.sed; did you mean train.seed?"),
    "section by environment": ("", (), {"SUREFOOT__TRIAN__SEED": "1"}, "environment SUREFOOT__TRIAN__SEED: unknown section 'trian'; did you mean train?"),
    "environment without key": ("", (), {"SUREFOOT__TRAIN": "1"}, "environment SUREFOOT__TRAIN: write SUREFOOT__SECTION__KEY, such as SUREFOOT__TRAIN__SEED=1."),
    "no equals": ("", ("train.seed",), {}, "--set train.seed: write section.key=value, such as train.seed=1."),
    "no section": ("", ("seed=1",), {}, "--set seed=1: write section.key=value, such as train.seed=1."),
    "three words": ("", ("a.b.c=1",), {}, "--set a.b.c=1: write section.key=value, such as train.seed=1."),
    "yaml by --set": ("", ("train.seed=[",), {}, "--set train.seed=[: line 1, column 2: "),
    "list at top": ("- a", (), {}, "{f}: expected sections such as `prepare:`, found list."),
    "word at top": ("a", (), {}, "{f}: expected sections such as `prepare:`, found str."),
    "list as section": ("train: [1]", (), {}, "{f}: train: expected keys and values, found list."),
    "value as section": ("train: 1", (), {}, "{f}: train: expected keys and values, found int."),
    "words for a number": ('search: {n_trials: "20"}', (), {}, "{f}: search.n_trials: Input should be a valid integer, found '20'."),
    "boolean for a number": ("search: {n_trials: true}", (), {}, "{f}: search.n_trials: Input should be a valid integer, found True."),
    "number for a boolean": ("search: {gpu_enabled: 1}", (), {}, "{f}: search.gpu_enabled: Input should be a valid boolean, found 1."),
    "no for a boolean": ("search: {gpu_enabled: no}", (), {}, "{f}: search.gpu_enabled: Input should be a valid boolean, found 'no'."),
    "number for a word": ("common: {store: 1}", (), {}, "{f}: common.store: Input should be a valid string, found 1."),
    "nothing": ("train: {seed: }", (), {}, "{f}: train.seed: Input should be a valid integer, found None."),
    "leading zero": ("train: {seed: 010}", (), {}, "{f}: train.seed: Input should be a valid integer, found '010'."),
    "negative": ("train: {seed: -1}", (), {}, "{f}: train.seed: Input should be greater than or equal to 0, found -1."),
    "too many": ("search: {workers: 65}", (), {}, "{f}: search.workers: Input should be less than or equal to 64, found 65."),
    "too large a seed": (
        "train: {seed: 4294967296}",
        (),
        {},
        "{f}: train.seed: Input should be less than or equal to 4294967295, found 4294967296.",
    ),
    "family twice": (
        "search: {families: [catboost, catboost]}",
        (),
        {},
        "{f}: search: families names one of them twice: catboost, catboost.",
    ),
    "monotone weights": (
        "search: {families: [logistic], monotone: {amount: 1}}",
        (),
        {},
        "{f}: search: monotone cannot be kept by logistic: leave one of them out.",
    ),
    "other word": ("search: {metric: acc}", (), {}, "{f}: search.metric: Input should be 'average_precision', 'auc' or 'log_loss', found 'acc'."),
    "not a number": ("train: {seed: .nan}", (), {}, "{f}: train.seed: Input should be a valid integer, found '.nan'."),
    "infinite": ("plan: {memory_limit_gb: 1e999}", (), {}, "{f}: line 1, column 25: 1e999 is larger than any number that a computer keeps."),
    "infinite in a space": ("search: {space: {xgboost: {eta: [0, 1e999]}}}", (), {}, "{f}: line 1, column 37: 1e999 is larger than any number"),
    "in a list": ("prepare: {drop: [a, 1]}", (), {}, "{f}: prepare.drop.1: Input should be a valid string, found 1."),
    "empty list": ("search: {families: []}", (), {}, "{f}: search.families: "),
    "by --set": ("", ("train.seed=x",), {}, "--set train.seed=x: train.seed: Input should be a valid integer, found 'x'."),
    "by environment": ("", (), {"SUREFOOT__TRAIN__SEED": "x"}, "environment SUREFOOT__TRAIN__SEED: train.seed: Input should be a valid integer, found 'x'."),
    "several": ("train: {seed: x, rounds: y}", (), {}, "{f}: train.seed: Input should be a valid integer, found 'x' (1 more wrong)."),
    "huge value": (f"train: {{seed: {'x' * 9000}}}", (), {}, "{f}: train.seed: Input should be a valid integer, found 'xxxxxxxxxx"),
    "profile": ("profile: prod", (), {}, "{f}: profile 'prod' is neither development nor production."),
    "profile as a list": ("profile: [production]", (), {}, "{f}: profile ['production'] is neither development nor production."),
    "profile by --set": ("", ("profile=x",), {}, "--set profile=x: profile 'x' is neither development nor production."),
    "no path": ("prepare: {source: file, label: y}", (), {}, "{f}: prepare: source is file, but path names none (surefoot init my.csv writes a config for a table)."),
    "no rows left": ("prepare: {test_split: .9, validation_split: .1}", (), {}, "{f}: prepare: validation_split 0.1 and test_split 0.9 leave no rows to train on."),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sets", "environment", "line"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_one_line_that_names_who_said_it_and_the_key(
    write: Any, text: str, sets: tuple[str, ...], environment: dict[str, str], line: str
) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as raised:
        load(path, *sets, **environment)
    said = str(raised.value)
    assert said == line.format(f=path) if line.endswith((".", "?")) else said.startswith(line.format(f=path))
    assert "\n" not in said
    assert len(said) < 500
    assert raised.value.code == 78


def test_a_refusal_names_the_layer_that_said_it(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text("train: {seed: x}\n")
    monkeypatch.setattr(config, "CONFIGS", tmp_path)
    with pytest.raises(ConfigError, match=r"base\.yaml: train\.seed: "):
        load(write(""))


@pytest.mark.parametrize("place", ["missing.yaml", ".", "my.yaml/below"])
def test_a_file_that_cannot_be_read_is_refused_with_the_way_to_one(write: Any, place: str) -> None:
    folder = write("").parent
    with pytest.raises(ConfigError, match=r"Give --config a YAML file; `surefoot init my.csv` writes one\.$"):
        load(folder / place)


def test_a_table_given_as_config_is_refused_without_reading_it(tmp_path: Path) -> None:
    """Take a file of 100 GB, of which no byte is on the disk."""
    with (tmp_path / "table.csv").open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(ConfigError, match="this is no config file"):
        load(tmp_path / "table.csv")


# --- options ---


def fields() -> list[tuple[str, str]]:
    return [(name, key) for name, kind in config.section_types().items() for key in kind.model_fields]


@pytest.mark.parametrize(("name", "key"), fields())
def test_every_option_says_what_it_is_and_whether_it_can_change_a_result(name: str, key: str) -> None:
    field = config.section_types()[name].model_fields[key]
    assert isinstance(section.changes_result(field), bool)
    assert field.description
    assert "\n" not in field.description


def test_memory_workers_log_level_and_timeouts_change_no_result() -> None:
    changing = {f"{name}.{key}" for name, kind in config.section_types().items() for key in kind.result_fields()}
    others = {f"{name}.{key}" for name, key in fields()} - changing
    assert others >= {"common.store", "common.log_level", "common.threads", "common.checkpoint_interval_minutes", "common.accept_degraded"}
    assert others >= {"plan.memory_limit_gb", "plan.disk_space_required_gb", "prepare.path", "search.families", "search.workers"}
    assert changing >= {"prepare.label", "search.n_trials", "train.seed", "evaluate.seed", "validate.auc_floor"}


def test_a_field_that_does_not_say_is_a_bug() -> None:
    class Silent(section.Section):
        seed: int = 0

    with pytest.raises(TypeError, match=r"state the field with result\(\) or other\(\)"):
        Silent.result_fields()


def test_every_default_passes_its_own_checks_and_a_section_cannot_be_changed() -> None:
    for kind in config.section_types().values():
        made = kind()
        for key in kind.model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(made, key, getattr(made, key))


def test_base_yaml_is_what_the_stages_state() -> None:
    assert BASE.read_text() == options.base(), "run `make render`"


def test_base_yaml_shows_every_option_with_its_default() -> None:
    shown = yaml.load(BASE.read_bytes(), "base.yaml")
    typed = config._typed(shown, {}, "base.yaml")
    assert {(name, key) for name, keys in shown.items() for key in keys or {}} == set(fields())
    assert typed == {name: kind() for name, kind in config.section_types().items()}
    # The environment or a profile cannot hide behind it: what is written is the default, not merely equal to it after validation.
    for name, key in fields():
        default = config.section_types()[name].model_fields[key].default
        assert shown[name][key] == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize("path", sorted(config.CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_that_is_shipped_is_accepted(path: Path) -> None:
    assert load(path)


def test_each_stage_has_a_section_of_its_name() -> None:
    stages = {step.stage for step in contract.STEPS.values()} | {"plan"}
    assert set(config.STAGES) == stages
    for stage in stages:
        assert issubclass(importlib.import_module(f"stages.{stage}.config").Config, section.Section)


def test_the_schema_for_editors_knows_every_option_and_nothing_else() -> None:
    schema = options.schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"].pop("profile")["enum"] == ["development", "production"]
    known = {(name, key) for name, part in schema["properties"].items() for key in part["properties"]}
    assert known == set(fields())
    assert all(part["additionalProperties"] is False and "required" not in part for part in schema["properties"].values())
    assert schema["properties"]["search"]["properties"]["n_trials"] | {"title": ""} == {
        "type": "integer",
        "minimum": 1,
        "maximum": 100_000,
        "default": 200,
        "description": "finished trials (complete or pruned) of each family",
        "result": True,
        "title": "",
    }
    references = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert references
    assert set(references) <= schema["$defs"].keys()


def test_who_set_an_option_is_told_in_the_order_that_they_win(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("profile: development\nsearch: {n_trials: 7}\nprepare: {path: t.csv}\n")
    found = {option.name: option for option in config.explain(path, ["search.n_trials=9"], {"SUREFOOT__SEARCH__N_TRIALS": "8"})}
    assert found.keys() == {f"{name}.{key}" for name, key in fields()}
    trials = found["search.n_trials"]
    assert (trials.value, trials.changes_result) == (9, True)
    assert [Path(who).name for who, _ in trials.said] == [
        "base.yaml", "development.yaml", path.name, "environment SUREFOOT__SEARCH__N_TRIALS", "--set search.n_trials=9",
    ]  # fmt: skip
    assert [what for _, what in trials.said] == [200, 20, 7, 8, 9]
    assert found["prepare.path"].value == str(path.parent / "t.csv")
    assert not found["search.families"].changes_result
    monkeypatch.setattr(config, "CONFIGS", path.parent)
    assert next(option for option in config.explain(path, (), {}) if option.name == "train.seed").said == []


# --- the resolved config ---


def test_what_is_written_is_read_back(write: Any) -> None:
    text = "prepare: {source: file, path: t.csv, label: y, split: order, positive: 1, drop: [ä, b]}\nsearch: {space: {xgboost: {max_depth: [3, 8]}}}\n"
    loaded = load(write(text), "plan.memory_limit_gb=3")
    pinned = dataclasses.replace(loaded, pinned=Pinned("run-1", {"table": "0" * 64}, {"version": "v", "generation": 3}))

    for one in (loaded, pinned):
        assert config.parse(one.dump(), "config/x") == one
        assert config.parse(one.dump(), "config/x").dump() == one.dump()


def test_equal_configs_are_equal_bytes_however_they_were_written(write: Any) -> None:
    one = load(write("train: {seed: 1}\nsearch: {n_trials: 2}\n")).dump()
    other = load(write("# a comment\nsearch:\n  n_trials: 2\n"), "train.seed=1").dump()
    assert one == other


def test_a_resolved_config_of_another_version_is_refused_by_its_name(write: Any) -> None:
    document = json.loads(load(write("")).dump())
    document["sections"]["train"]["gone"] = 1
    with pytest.raises(ConfigError, match=r"^config/x: train\.gone: Extra inputs are not permitted, found 1\.$"):
        config.parse(json.dumps(document).encode(), "config/x")


def test_items_are_one_per_family_for_steps_that_have_them(write: Any) -> None:
    loaded = load(write(""))
    assert loaded.items("train") == [{"family": family} for family in loaded["search"].families]
    assert loaded.items("prepare") == [{}]
