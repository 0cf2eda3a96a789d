"""The resolved config: one typed section per stage, later layers over earlier ones, unknown keys refused.

Layers: defaults, configs/base.yaml, the profile (configs/development.yaml or production.yaml), the dataset's file,
the environment (SUREFOOT__TRAIN__SEED=1), ``--set train.seed=1``.
"""

import difflib
import importlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pydantic

from stages.common import contract, yaml
from stages.common.errors import ConfigError
from stages.common.section import Section, changes_result, other

UNSAFE = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")  # in a path: of two lines, or bytes that are no UTF-8
INLINE = "the config given as JSON"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STAGES = ("plan", "prepare", "search", "train", "evaluate", "validate", "deploy")


class Common(Section):
    """Options that every stage has."""

    store: str = other("store", "folder or s3://bucket/prefix that keeps everything; a folder is relative to where the command runs")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = other("INFO", "least important log line that is written")
    threads: int = other(0, "CPU threads of one step; 0 takes all that it may use", ge=0, le=1024)
    checkpoint_interval_minutes: float = other(5.0, "minutes between saved borders of a fit", ge=0)
    accept_degraded: bool = other(True, "count a result made on a fallback (CPU for GPU) as done")


@dataclass(frozen=True)
class Pinned:
    """What plan found and every step of a run goes by."""

    run: str = ""
    raw: dict[str, str] = field(default_factory=dict)  # name of a raw file: its SHA-256
    champion: dict[str, Any] | None = None  # the live package: version, generation
    first: dict[str, dict[str, Any]] = field(default_factory=dict)  # family: settings that its search tries first


class _Document(pydantic.BaseModel):
    """What ``Config.dump`` writes."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    sections: dict[str, dict[str, Any]]
    pinned: Pinned | None


@dataclass(frozen=True)
class Config:
    """All sections, and what plan pinned (None until it did)."""

    name: str
    sections: dict[str, Any]
    pinned: Pinned | None = None

    def __getitem__(self, section: str) -> Any:
        """Give one section, typed as its stage's ``Config``."""
        return self.sections[section]

    def items(self, step: str) -> list[contract.Item]:
        """List the items of a step: one per family, or the empty item."""
        return [{"family": family} for family in self["search"].families] if contract.STEPS[step].item else [{}]

    @property
    def least_families(self) -> int:
        """Give how many families must come to a result for a run to go on: a result without one is a fallback."""
        least, families = self["search"].min_families, len(self["search"].families)
        return least if least != "all" and self["common"].accept_degraded else families

    def with_first(self, first: dict[str, dict[str, Any]]) -> "Config":
        """Give this config with other settings to try first."""
        assert self.pinned
        return replace(self, pinned=replace(self.pinned, first=first))

    def raw(self) -> dict[str, str]:
        """Give the places of all raw files, by name."""
        return {**self["prepare"].raw(), **self["evaluate"].raw()}

    def dump(self) -> bytes:
        """Write the resolved config as the document that steps of a run are given."""
        sections = {name: section.model_dump(mode="json") for name, section in self.sections.items()}
        return contract.dump({"name": self.name, "sections": sections, "pinned": vars(self.pinned) if self.pinned else None})


def section_types() -> dict[str, type[Section]]:
    """Find each section's type; imported by name, since what another stage may be told changes nothing here."""
    return {"common": Common} | {stage: importlib.import_module(f"stages.{stage}.config").Config for stage in STAGES}


def parse(document: bytes, name: str) -> Config:
    """Read what ``Config.dump`` wrote; ``name`` stands in front of messages.

    Raises:
        ConfigError: something else wrote it, or another version.

    """
    try:
        contract.dump(json.loads(document))  # no NaN, no half of a character
        known = _Document.model_validate_json(document, strict=True)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: no config that was submitted or planned ({yaml.shown(' '.join(str(error).split()))}).") from error
    if unlike := sorted(known.sections.keys() ^ section_types().keys()):
        raise ConfigError(f"{name}: section {yaml.shown(unlike[0])} is missing or unknown: another version wrote it. Submit it again.")
    return Config(known.name, _typed(known.sections, {}, name), known.pinned)


def load(path: Path, sets: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> Config:
    """Resolve a dataset's file with all layers around it.

    Raises:
        ConfigError: unreadable, an unknown key (the nearest is named), or a refused value.

    """
    return _resolved(path, sets, environment)[0]


def inline(text: str, sets: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> Config:
    """Resolve what would stand in a dataset's file, given as JSON, with all layers around it. It may say its ``name``.

    Raises:
        ConfigError: as ``load`` does.

    """
    own = _mapping(yaml.load(text, INLINE), INLINE)
    name = own.pop("name", "inline")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise ConfigError(f"{INLINE}: name {yaml.shown(repr(name), 120)} must be a word of letters, digits and ._-")
    return _layered(name, INLINE, Path.cwd(), own, sets, environment)[0]


@dataclass(frozen=True)
class Option:
    """One option of a resolved config, and who said what of it: the last one wins."""

    name: str  # section.key
    value: Any
    description: str
    changes_result: bool
    said: list[tuple[str, Any]]  # who, and what; none: it has its default


def explain(path: Path, sets: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> list[Option]:
    """Resolve as ``load`` does, and tell of each option who set it.

    Raises:
        ConfigError: as ``load`` does.

    """
    resolved, said = _resolved(path, sets, environment)
    return [
        Option(name, getattr(section, key), field.description or "", changes_result(field), said.get(name, []))
        for part, section in resolved.sections.items()
        for key, field in type(section).model_fields.items()
        if (name := f"{part}.{key}")
    ]


def _resolved(path: Path, sets: Iterable[str], environment: Mapping[str, str]) -> tuple[Config, dict[str, list[tuple[str, Any]]]]:
    if UNSAFE.search(str(path.absolute())):
        raise ConfigError(f"{yaml.shown(str(path))}: its path holds what is no text. Rename it.")
    try:
        with path.open("rb") as file:
            text = file.read(yaml.MAX_BYTES + 1)  # a table given by mistake need not be read whole
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Give --config a YAML file; `surefoot init my.csv` writes one.") from error
    own = _mapping(yaml.load(text, str(path)), str(path))
    return _layered(path.stem, str(path), path.resolve().parent, own, sets, environment)


def _layered(
    name: str, given: str, folder: Path, own: dict[str, Any], sets: Iterable[str], environment: Mapping[str, str]
) -> tuple[Config, dict[str, list[tuple[str, Any]]]]:
    """Lay all layers around a dataset's own; ``given`` stands in front of messages, and its paths are relative to ``folder``."""
    spoken = [*_environment(environment), *_sets(sets)]
    said = [(given, own.pop("profile", None)), *((where, value) for where, keys, value in spoken if keys == ["profile"])]
    where, profile = said[-1]
    if profile not in (None, "development", "production"):
        raise ConfigError(f"{where}: profile {repr(profile)[:80]} is neither development nor production.")
    layers = [(CONFIGS / f"{layer}.yaml") for layer in ("base", profile) if layer]
    values: dict[str, Any] = {}
    said_of: dict[str, list[tuple[str, Any]]] = {}
    for layer in layers:
        if layer.exists():
            _lay(values, _mapping(yaml.load(layer.read_bytes(), str(layer)), str(layer)), str(layer), said_of, layer.parent)
    _lay(values, own, given, said_of, folder)
    for where, keys, value in spoken:
        if keys != ["profile"]:
            section, key = keys
            _lay(values, {section: {key: value}}, where, said_of, Path.cwd())
    origins = {name: who[-1][0] for name, who in said_of.items()}
    return Config(name, _typed(values, origins, given)), said_of


def _mapping(document: Any, name: str, wanted: str = "sections such as `prepare:`") -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{name}: expected {wanted}, found {type(document).__name__}.")
    return document


def _environment(environment: Mapping[str, str]) -> Iterator[tuple[str, list[str], Any]]:
    """Give who says something, of which section and key, and what."""
    for name in sorted(name for name in environment if name.startswith("SUREFOOT__")):
        keys, where = name.lower().split("__")[1:], f"environment {yaml.shown(name)}"
        if len(keys) != 2 and keys != ["profile"]:
            raise ConfigError(f"{where}: write SUREFOOT__SECTION__KEY, such as SUREFOOT__TRAIN__SEED=1.")
        yield where, keys, yaml.load(environment[name], where)


def _sets(sets: Iterable[str]) -> Iterator[tuple[str, list[str], Any]]:
    for entry in sets:
        key, equals, value = entry.partition("=")
        keys, where = key.strip().split("."), f"--set {yaml.shown(entry)}"
        if not equals or (len(keys) != 2 and keys != ["profile"]):
            raise ConfigError(f"{where}: write section.key=value, such as train.seed=1.")
        yield where, keys, yaml.load(value, where)


def _lay(values: dict[str, Any], layer: dict[str, Any], name: str, said: dict[str, list[tuple[str, Any]]], folder: Path) -> None:
    """Lay one layer over the earlier ones, key by key; paths become absolute here, where their file is known."""
    types = section_types()
    for section, keys in layer.items():
        if section not in types:
            raise ConfigError(f"{name}: unknown section {section[:200]!r}{_nearest(section, types)}")
        for key, value in _mapping(keys, f"{name}: {section}", "keys and values").items():
            fields = types[section].model_fields
            if key not in fields:
                raise ConfigError(
                    f"{name}: unknown key {section}.{yaml.shown(' '.join(key.split()))}{_nearest(key, fields, section + '.')}"
                )
            extra = fields[key].json_schema_extra
            is_place = isinstance(extra, dict) and extra.get("path") and isinstance(value, str) and not _is_address(value)
            values.setdefault(section, {})[key] = str(folder / value) if is_place else value
            said.setdefault(f"{section}.{key}", []).append((name, value))


def _is_address(value: str) -> bool:
    return value.startswith("s3://") or bool(re.fullmatch(r"raw/[0-9a-f]{64}", value))


def _nearest(word: str, known: Collection[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(prefix + k for k in known) or 'none'}."


def _typed(values: Mapping[str, Any], origins: Mapping[str, str], name: str) -> dict[str, Section]:
    sections = {}
    for section, kind in section_types().items():
        try:
            # JSON, since only there pydantic's strict mode takes a list for a tuple.
            sections[section] = kind.model_validate_json(json.dumps(values.get(section, {})), strict=True)
        except pydantic.ValidationError as error:
            first, *others = error.errors()
            where = ".".join([section, *map(str, first["loc"])])
            origin = origins.get(".".join(where.split(".")[:2]), name)
            more = f" ({len(others)} more wrong)" if others else ""
            reason = first["msg"].removeprefix("Value error, ")
            found = f", found {repr(first['input'])[:80]}" if first["loc"] else ""  # else: the section as a whole
            raise ConfigError(f"{origin}: {yaml.shown(where)}: {yaml.shown(reason, 500)}{found}{more}.") from error
    for section, options in sections.items():
        for option, reason in options.unmet(sections).items():
            raise ConfigError(f"{origins.get(f'{section}.{option}', name)}: {section}.{option} {reason}.")
    return sections
