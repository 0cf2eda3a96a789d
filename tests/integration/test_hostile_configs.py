# ruff: noqa: E501 - tables of lines as people read them
"""Configs that people, editors and attackers write: one line that a person can act on, at once, and nothing left behind.

The expected lines were written before they were seen. Half of the configs are real ones, mutated by a seed that stands in
the name of the test: ``pytest -k`` with it gives the same config again.
"""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common import config
from stages.common.errors import ConfigError
from stages.common.store import open_store
from tests import programs

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
FILE = "prepare: {{source: file, path: '{}', label: y, split: order}}\n"
SEEDS = range(20)

# --- written by hand: text, more arguments, environment, exit code, and a piece of the line; {f} is the file ---

Hostile = tuple[str | bytes, tuple[str, ...], dict[str, str], int, str]
HOSTILE: dict[str, Hostile] = {
    "list at top": ("- prepare\n", (), {}, 78, "{f}: expected sections such as `prepare:`, found list."),
    "bomb": (BOMB, (), {}, 78, "{f}: line 1, column 4: anchors and aliases are not allowed."),
    "code in a tag": ("prepare: !!python/object/apply:os.system ['touch harm']\n", (), {}, 78, "{f}: line 1, column 10: tags are not allowed"),
    "duplicate key": ("train:\n  seed: 1\n  seed: 2\n", (), {}, 78, "{f}: line 3, column 3: key 'seed' stands twice."),
    "tab": ("train:\n\tseed: 1\n", (), {}, 78, "{f}: line 2, column 1: found character '\\t' that cannot start any token."),
    "latin-1": ("prepare: {label: betrüg}\n".encode("latin-1"), (), {}, 78, "{f}: not UTF-8 (byte 21). Save it as UTF-8."),
    "nul": (b"train: {seed: 1\0}\n", (), {}, 78, "{f}: unacceptable character #x0000"),
    "nul by escape": ('prepare: {source: file, path: "a\\0b", label: y, split: order}\n', (), {}, 78, "{f}: line 1, column 31: 'a\\x00b' holds a character that is no text."),
    "300 KB": ("# " + "x" * 300_000, (), {}, 78, "{f}: more than 262144 bytes: this is no config file."),
    "nested": ("train: " + "[" * 5000, (), {}, 78, "{f}: line 1, column 27: nested deeper than 20."),
    "not a number": ("train: {seed: .NaN}\n", (), {}, 78, "{f}: train.seed: Input should be a valid integer, found '.NaN'."),
    "infinite": ("plan: {memory_limit_gb: 1e999}\n", (), {}, 78, "{f}: line 1, column 25: 1e999 is larger than any number"),
    "number in quotes": ('search: {n_trials: "20"}\n', (), {}, 78, "{f}: search.n_trials: Input should be a valid integer, found '20'."),
    "true for a number": ("search: {n_trials: true}\n", (), {}, 78, "{f}: search.n_trials: Input should be a valid integer, found True."),
    "negative": ("prepare: {sample_size: -5}\n", (), {}, 78, "{f}: prepare.sample_size: Input should be greater than or equal to 1, found -5."),
    "shares of more than all": ("prepare: {test_split: 0.7, validation_split: 0.7}\n", (), {}, 78, "{f}: prepare: validation_split 0.7 and test_split 0.7 leave no rows to train on."),
    "unknown section": ("prepair: {label: y}\n", (), {}, 78, "{f}: unknown section 'prepair'; did you mean prepare?"),
    "unknown in search": ("search: {trials: 1}\n", (), {}, 78, "{f}: unknown key search.trials; did you mean search.n_trials?"),
    "unknown in train": ("train: {random_seed: 1}\n", (), {}, 78, "{f}: unknown key train.random_seed; did you mean train.seed?"),
    "no path": ("prepare: {source: file, label: y, split: order}\n", (), {}, 78, "{f}: prepare: source is file, but path names none"),
    "--set without =": ("", ("--set", "train.seed"), {}, 78, "--set train.seed: write section.key=value, such as train.seed=1."),
    "--set of an unknown key": ("", ("--set", "train.sed=1"), {}, 78, "--set train.sed=1: unknown key train.sed; did you mean train.seed?"),
    "environment of an unknown key": ("", (), {"SUREFOOT__TRAIN__SED": "1"}, 78, "environment SUREFOOT__TRAIN__SED: unknown key train.sed; did you mean train.seed?"),
    "path of no table": (FILE.format("../../../../../../../../../../etc/hostname"), (), {}, 65, "/etc/hostname"),
    "path of a folder that the store is in": (FILE.format("."), (), {}, 78, "Set prepare.path to a folder of tables alone."),
    "path out of the store": (FILE.format("raw/../../etc/passwd"), (), {}, 66, "raw/../../etc/passwd: the table is not there. Set prepare.path in the config."),
    "path of 5000 letters": (FILE.format("x" * 5000), (), {}, 66, ": the table cannot be read (File name too long). Set prepare.path to a file."),
}  # fmt: skip


def check(ended: programs.Ended, store: Path, code: int, line: str) -> None:
    """One line with the right words, nothing on stdout, nothing half-written."""
    assert "Traceback" not in ended.err
    assert ended.code == code, ended.err
    assert ended.seconds < 5
    assert ended.out == ""
    failures = ended.named("step.failed")
    assert len(failures) == 1
    assert failures[0]["exit"] == code
    assert line in failures[0]["message"], failures[0]["message"]
    assert len(failures[0]["message"]) < 6000
    assert "raw" not in {event["event"] for event in ended.events}
    if store.exists():
        keys = open_store(str(store)).list("")
        assert [key for key in keys if not key.startswith("scratch/raw/")] == ["store.json"]
        assert list((store / "tmp").iterdir()) == []


def prepare(path: Path, *arguments: str, **more: str) -> programs.Ended:
    return programs.python("-m", "stages.prepare", "--config", path, "--store", path.parent / "store", *arguments, more=more)


@pytest.mark.parametrize(("text", "arguments", "more", "code", "line"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_config_is_refused_by_the_step(
    tmp_path: Path, text: str | bytes, arguments: tuple[str, ...], more: dict[str, str], code: int, line: str
) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    check(prepare(path, *arguments, **more), tmp_path / "store", code, line.format(f=path))
    assert not (programs.ROOT / "harm").exists()


@pytest.mark.parametrize(
    ("place", "code", "line"),
    [
        ("missing.yaml", 78, "missing.yaml: No such file or directory. Give --config a YAML file"),
        (".", 78, ": Is a directory. Give --config a YAML file"),
        ("../" * 40 + "etc/shadow/x", 78, "Give --config a YAML file"),
        ("x" * 300, 78, "File name too long. Give --config a YAML file"),
        (f"config/{'0' * 64}.json", 66, ": this config is not in "),
        (f"config/../{'0' * 64}.json", 78, "No such file or directory. Give --config a YAML file"),
    ],
)
def test_a_place_where_no_config_is_is_said(tmp_path: Path, place: str, code: int, line: str) -> None:
    given = place if place.startswith("config/") else tmp_path / place
    ended = programs.python("-m", "stages.prepare", "--config", given, "--store", tmp_path / "store")
    check(ended, tmp_path / "store", code, line)


@pytest.mark.parametrize(("command", "name"), [("plan", "unknown in search"), ("run", "bomb"), ("run", "path out of the store")])
def test_the_surefoot_command_says_the_same(tmp_path: Path, command: str, name: str) -> None:
    text, arguments, more, code, line = HOSTILE[name]
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    ended = programs.surefoot(command, path, "--store", tmp_path / "store", *arguments, more=more)
    check(ended, tmp_path / "store", code, line.format(f=path))


@pytest.mark.parametrize("section", config.section_types())
def test_an_unknown_key_is_refused_in_each_section(tmp_path: Path, section: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"{section}: {{zebra: 1}}\n")
    with pytest.raises(ConfigError, match=rf"my\.yaml: unknown key {section}\.zebra; "):
        config.load(path, (), {})


def test_an_empty_config_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("")
    ended = programs.surefoot("plan", tmp_path / "my.yaml", "--store", tmp_path / "store", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["steps"][0]["state"] == "run"


# --- real ones, mutated where the effect is known ---

BASE = (config.CONFIGS / "base.yaml").read_text()
KEYS = {f"{name}.{key}" for name, kind in config.section_types().items() for key in kind.model_fields}
Mutation = Callable[[random.Random, list[str], int, str, str], tuple[str | bytes, str]]


def typo(rng: random.Random, lines: list[str], at: int, section: str, key: str) -> tuple[str | bytes, str]:
    wrong = "x" + key + rng.choice("xyz")
    lines[at] = lines[at].replace(key, wrong, 1)
    return "".join(lines), f"{{f}}: unknown key {section}.{wrong}; did you mean {section}."


def doubled(_rng: random.Random, lines: list[str], at: int, _section: str, key: str) -> tuple[str | bytes, str]:
    lines.insert(at, lines[at])
    return "".join(lines), f"{{f}}: line {at + 2}, column 3: key '{key}' stands twice."


def tabbed(_rng: random.Random, lines: list[str], at: int, _section: str, _key: str) -> tuple[str | bytes, str]:
    lines[at] = "\t" + lines[at].lstrip()
    return "".join(lines), f"{{f}}: line {at + 1}, column 1: found character '\\t' that cannot start any token."


def listed(_rng: random.Random, lines: list[str], at: int, section: str, key: str) -> tuple[str | bytes, str]:
    lines[at] = f"  {key}: [[1]]\n"
    return "".join(lines), f"{{f}}: {section}.{key}"


def tagged(_rng: random.Random, lines: list[str], at: int, _section: str, key: str) -> tuple[str | bytes, str]:
    lines[at] = lines[at].replace(": ", ": !!python/name:os.system ", 1)
    return "".join(lines), f"{{f}}: line {at + 1}, column {len(key) + 5}: tags are not allowed (tag:yaml.org,2002:python/name:os.system)."


def anchored(_rng: random.Random, lines: list[str], at: int, _section: str, key: str) -> tuple[str | bytes, str]:
    lines[at] = lines[at].replace(": ", ": &it ", 1)
    return "".join(lines), f"{{f}}: line {at + 1}, column {len(key) + 5}: anchors and aliases are not allowed."


def endless(rng: random.Random, lines: list[str], at: int, _section: str, key: str) -> tuple[str | bytes, str]:
    lines[at] = f"  {key}: {rng.choice('+-')}1e{rng.randint(309, 9999)}\n"
    return "".join(lines), f"{{f}}: line {at + 1}, column {len(key) + 5}: "


def nul(rng: random.Random, lines: list[str], _at: int, _section: str, _key: str) -> tuple[str | bytes, str]:
    text = "".join(lines)
    at = rng.randrange(len(text))
    return text[:at] + "\0" + text[at + 1 :], "{f}: unacceptable character #x0000"


def latin(rng: random.Random, lines: list[str], _at: int, _section: str, _key: str) -> tuple[str | bytes, str]:
    data = "".join(lines).encode()
    at = rng.randrange(len(data))
    return data[:at] + b"\xe9" + data[at + 1 :], f"{{f}}: not UTF-8 (byte {at}). Save it as UTF-8."


def renamed(rng: random.Random, lines: list[str], _at: int, section: str, _key: str) -> tuple[str | bytes, str]:
    wrong = section + rng.choice("xyz")
    return "".join(lines).replace(f"\n{section}:", f"\n{wrong}:"), f"{{f}}: unknown section '{wrong}'; did you mean {section}?"


MUTATIONS: tuple[Mutation, ...] = (typo, doubled, tabbed, listed, tagged, anchored, endless, nul, latin, renamed)


def mutated(seed: int) -> tuple[str | bytes, str]:
    """Give base.yaml with one thing wrong, and the piece of the line that says so."""
    rng = random.Random(seed)
    lines = BASE.splitlines(keepends=True)
    at = rng.choice([number for number, line in enumerate(lines) if re.match(r"  [a-z_0-9]+: ", line)])
    section = next(line for line in reversed(lines[:at]) if re.match(r"[a-z]+:", line)).partition(":")[0]
    key = lines[at].split(":")[0].strip()
    assert f"{section}.{key}" in KEYS
    return MUTATIONS[seed % len(MUTATIONS)](rng, lines, at, section, key)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{MUTATIONS[seed % len(MUTATIONS)].__name__}-{seed}")
def test_a_mutated_config_is_refused_where_it_is_wrong(tmp_path: Path, seed: int) -> None:
    text, line = mutated(seed)
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    check(prepare(path), tmp_path / "store", 78, line.format(f=path))


def test_more_of_them_are_refused_where_they_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    for seed in range(100, 400):
        text, line = mutated(seed)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as raised:
            config.load(path, (), {})
        assert line.format(f=path) in str(raised.value), seed
        assert "\n" not in str(raised.value), seed


# --- real ones, mutated anyhow: taken or refused, but never a traceback ---


def scrambled(seed: int) -> bytes:
    """Give a real config with characters flipped, lines doubled, moved or lost, or cut."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(sorted(config.CONFIGS.glob("*.yaml"))).read_bytes())
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        lines = bytes(data).splitlines(keepends=True) or [b""]
        match rng.randrange(6):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                data[:] = data[: rng.randrange(len(data) + 1)]
            case 2:
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
                data[:] = b"".join(lines)
            case 3:
                del lines[rng.randrange(len(lines))]
                data[:] = b"".join(lines)
            case 4:
                at = rng.randrange(len(data) + 1)
                data[at:at] = rng.choice(
                    [b"[", b"{", b"'", b'"', b": ", b"- ", b"|\n", b"&a ", b"*a", b"!!int ", b"\xff", b"\t", b"1e99", b"%", b"? "]
                )
            case 5:
                rng.shuffle(lines)
                data[:] = b"".join(lines)
    return bytes(data)


def test_a_scrambled_config_is_taken_or_refused_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    outcomes: dict[str, int] = {"taken": 0, "refused": 0}
    for seed in range(600):
        path.write_bytes(scrambled(seed))
        try:
            loaded: Any = config.load(path, (), {})
        except ConfigError as error:
            assert str(error).startswith(str(path)), seed  # noqa: PT017 - it may be taken
            assert "\n" not in str(error), seed  # noqa: PT017
            outcomes["refused"] += 1
        else:
            assert config.parse(loaded.dump(), "x") == loaded, seed
            outcomes["taken"] += 1
    assert min(outcomes.values()) > 50, outcomes


@pytest.mark.parametrize("seed", range(3), ids=str)
def test_a_scrambled_config_ends_a_program_in_one_of_two_ways(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(scrambled(seed))
    ended = programs.surefoot("plan", path, "--store", tmp_path / "store")
    assert ended.code in {0, 78}, ended.err
    assert "Traceback" not in ended.err
    assert len(ended.named("step.failed")) == (1 if ended.code else 0)
