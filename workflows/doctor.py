"""What a machine and a config give, before anything is run: one finding each, with what to do. Nothing that is written stays."""

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from stages.common import artifact, config, database, memory, raw, recipe
from stages.common.address import Addresses
from stages.common.config import Config
from stages.common.contract import STEPS
from stages.common.errors import ConfigError, MissingInput, NotNow, SurefootError
from stages.common.store import Store, on_disk, open_store

PYTHON = (3, 12)  # the images'
CONNECTIONS = 3  # to the study database, of each process, at most
SKEW, REFUSED = 10, 900  # seconds; an S3 server takes no request whose clock is further off
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "lustre")
LOADED = 300e6  # bytes of a process that has loaded the libraries of a fit
TOOLS = ("argo", "kubectl", "helm")


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    state: str  # ok, warn, fail
    said: str
    do: str = ""  # what to do about it
    code: int = 0  # the exit code of a step that would fail of it


@dataclass(frozen=True)
class _Asked:
    """What is looked at."""

    config: Config
    address: str  # of the store
    proven: list[Store]  # the store, once it was found to be one


def examine(path: str | None, address: str | None, sets: list[str]) -> list[Finding]:
    """Make all checks, in their order; what one of them raises is its finding."""
    findings: list[Finding] = []
    try:
        resolved = config.load(Path(path) if path else config.CONFIGS / "base.yaml", sets)
    except ConfigError as error:
        resolved = config.load(config.CONFIGS / "base.yaml", (), {})
        findings.append(Finding("config", "fail", str(error).rstrip("."), "What follows goes by the defaults.", error.code))
    else:
        findings += _raw(resolved) if path else []
    asked = _Asked(resolved, address or resolved["common"].store, [])
    for check in CHECKS:
        try:
            findings += check(asked)
        except SurefootError as error:
            findings.append(Finding(check.__name__, "fail", str(error).rstrip("."), code=error.code))
    return findings


def _raw(resolved: Config) -> Iterator[Finding]:
    places = {
        place: f"{title}.{resolved[title].RAW[name]}"
        for title in raw.SECTIONS
        for name, place in raw.files(resolved[title]).items()
        if name not in resolved[title].MAY_LACK
    }
    gone = [place for place in places if not place.startswith(raw.NO_FILE) and not Path(place).exists()]
    try:
        for place in (place for place in places if place.startswith("s3://")):
            raw.objects(place, places[place])
    except SurefootError as error:
        yield Finding("config", "fail", str(error).rstrip("."), code=error.code)
        return
    if gone:
        yield Finding("config", "fail", f"{gone[0]} is not there", "Set prepare.path to the table.", MissingInput.code)
    else:
        yield Finding("config", "ok", f"{resolved.name}: read, and its tables are there")


def python(_asked: _Asked) -> Iterator[Finding]:
    """Compare Python with the images': its minor version is a part of each address."""
    here = sys.version.split()[0]
    if sys.version_info[:2] == PYTHON:
        yield Finding("python", "ok", here)
    else:  # with an older one nobody comes as far as this
        do = f"Python {PYTHON[0]}.{PYTHON[1]} has the same."
        yield Finding("python", "warn", f"{here}: what is made here has other addresses than in an image", do)


def libraries(_asked: _Asked) -> Iterator[Finding]:
    """Compare the libraries with the lock."""
    base, extras = recipe.declared()
    needed = sorted(base.union(*(extras[one.stage] for one in STEPS.values())))
    have = {name: recipe.installed(recipe.SAME.get(name, name)) or recipe.installed(name) for name in needed}
    lacking = [name for name, version in have.items() if version is None]
    other = [
        f"{name} {version} (locked: {recipe.locked()[name][0]})" for name, version in have.items() if version != recipe.locked()[name][0]
    ]
    if lacking:
        yield Finding("libraries", "fail", f"not installed: {', '.join(lacking)}", "make setup", ConfigError.code)
    elif other:
        yield Finding(
            "libraries", "warn", f"unlike the lock: {', '.join(other)}", "Steps work at addresses of their own; make setup has the same."
        )
    else:
        yield Finding("libraries", "ok", f"{len(needed)} are as locked")


def cores(asked: _Asked) -> Iterator[Finding]:
    """Count the cores that a step may use."""
    may = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = asked.config["common"].threads or may
    if threads > may:
        yield Finding("cores", "warn", f"{may} may be used, common.threads is {threads}", "More threads than cores wait for each other.")
    else:
        yield Finding("cores", "ok", f"{may} may be used")


def disk(asked: _Asked) -> Iterator[Finding]:
    """Compare what is free with what the config asks for."""
    wanted = asked.config["plan"].disk_space_required_gb
    for folder in dict.fromkeys([tempfile.gettempdir(), *_there(asked.address)]):
        free = shutil.disk_usage(folder).free / 1e9
        said = f"{free:.1f} GB are free in {folder}"
        if free < wanted:
            do = f"plan.disk_space_required_gb asks for {wanted}: free some, or lower it."
            yield Finding("disk", "fail", said, do, ConfigError.code)
        else:
            yield Finding("disk", "ok", said)


def gpus(asked: _Asked) -> Iterator[Finding]:
    """Count the GPUs, and name the config's families that can use them."""
    from stages import families
    from stages.families import device

    count, free = device.gpus(), device.free()
    if not count:
        yield Finding("gpus", "ok", "none: everything is fitted on CPUs")
        return
    wanted = asked.config["search"].families
    can = [name for name in wanted if families.can_use_gpu(name)]
    said = (
        f"{count}"
        + (f", {free / 1e9:.1f} GB free on the first" if free is not None else "")
        + f"; used by: {', '.join(can) or 'no family'}"
    )
    if missed := [name for name in wanted if name in families.ON_GPU and name not in can]:
        do = f"{missed[0]} comes to none: gpu.broken says why, or install its GPU build. Else its results are degraded."
        yield Finding("gpus", "warn", said, do)
    else:
        yield Finding("gpus", "ok", said)


def store(asked: _Asked) -> Iterator[Finding]:
    """Write to the store, which must refuse a second write, read, and take it away again."""
    opened, key = open_store(asked.address, prove=False), f"scratch/doctor-{secrets.token_hex(8)}"
    new = [folder for folder in _folders(asked.address) if not folder.exists()]
    try:
        started = time.time()
        is_new = opened.create(key, b"1")
        try:
            is_once = is_new and not opened.create(key, b"2") and opened.read(key) == b"1"
            path, head = opened.local(key), opened.head(key)
            skew = path.stat().st_mtime - started if path else _server_skew(str(getattr(opened, "endpoint", "")))
        finally:
            opened.drop(key)
    finally:
        for folder in new:
            with suppress(OSError):  # somebody began to work there meanwhile
                folder.rmdir()
    if not is_once:
        do = "Results would get lost: use a server or a file system with conditional writes."
        yield Finding("store", "fail", f"{opened.address} overwrites what is there", do, ConfigError.code)
        return
    asked.proven.append(opened)
    yield Finding("store", "ok", f"{opened.address} is written and read, and refuses a second write")
    if not path and not (head and head.sha256):
        do = "Damage is then found when a file is read, not when plan looks; surefoot verify reads them all."
        yield Finding("store", "warn", "its server keeps no checksums", do)
    yield from _clock("the store's", skew)


def study(asked: _Asked) -> Iterator[Finding]:
    """Ask the study database whether it has room for all workers; look where SQLite's file is, and how it is kept."""
    opened = open_store(asked.address, prove=False)
    url = database.url(opened)
    yield from _postgres(asked.config, url) if url.startswith("postgresql") else _sqlite(Path(url.removeprefix("sqlite:///")))


def _postgres(resolved: Config, url: str) -> Iterator[Finding]:
    from stages.families import device

    connection = database.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), current_setting('max_connections')::int, "
                "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
                "has_schema_privilege(current_schema(), 'CREATE'), extract(epoch FROM clock_timestamp())::float8"
            )
            version, most, used, may_create, now = cursor.fetchone()
            skew = now - time.time()
    finally:
        connection.close()
    search = resolved["search"]
    workers = (search.workers or max(1, device.gpus())) * len(search.families)
    said = f"Postgres {version}: {used} of {most} connections are used, {workers} workers take up to {CONNECTIONS * workers}"
    if not may_create:
        do = "Grant the user CREATE on its schema: search-create makes tables."
        yield Finding("study", "fail", f"{said}; no table may be made", do, ConfigError.code)
    elif used - 1 + CONNECTIONS * workers > most:
        yield Finding("study", "warn", said, "Lower search.workers, or raise max_connections.")
    else:
        yield Finding("study", "ok", said)
    yield from _clock("the database's", skew)


def _sqlite(path: Path) -> Iterator[Finding]:
    kind = _file_system(path)
    if kind in NETWORK:
        do = "SQLite's locks do not hold there: set SUREFOOT_STUDY to a Postgres, or to a file on a disk of this machine."
        yield Finding("study", "fail", f"{path} is on a network file system ({kind})", do, ConfigError.code)
    elif not path.exists():
        yield Finding("study", "ok", f"SQLite: {path} is not there yet, and is made by the first search")
    elif (head := _head(path))[:6] != b"SQLite":
        yield Finding("study", "fail", f"{path} is no SQLite database", "Move it away: it is made again from the store.", ConfigError.code)
    elif head[18] != 2:  # https://sqlite.org/fileformat.html: 1 is a rollback journal, 2 is WAL
        yield Finding("study", "warn", f"SQLite: {path} is not in WAL mode", "The next search-create sets it.")
    else:
        yield Finding("study", "ok", f"SQLite: {path}, in WAL mode")


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    with on_disk(path), path.open("rb") as file:
        return file.read(20).ljust(20)


def room(asked: _Asked) -> Iterator[Finding]:
    """Compare the memory that is allowed with what fits of the config's table need, if it is prepared."""
    from stages import families
    from stages.families import need, space

    most, by = memory.allowed()
    said = f"{most / 1e9:.1f} GB are allowed by {by}"
    sizes = _sizes(asked)
    if sizes is None:
        yield Finding("memory", "ok", f"{said}; what fits need is told once the table is prepared")
        return
    search = asked.config["search"]
    for name in search.families:
        spaces = space.merged(name, families.load(name).SPACE, search.space.get(name, {}))
        gpu = search.gpu_enabled and families.can_use_gpu(name)
        fits = need.Fits(name, sizes, balanced=search.balanced, shipped=True, gpu=gpu, held=LOADED)
        small, large = (fits.need(params, 0) for params in (need.least(spaces), need.most(spaces)))
        told = f"{said}; {name} needs about {small / 1e9:.1f} to {large / 1e9:.1f}"
        rungs = families.rungs(name, gpu=search.gpu_enabled, accept_degraded=asked.config["common"].accept_degraded)
        rung, why = need.first_rung(fits, need.least(spaces), 0, rungs)
        if rung is None:
            yield Finding("memory", "fail", told, need.ADVICE, need.refused(fits, need.least(spaces), rungs, why).code)
        elif large > most:
            yield Finding("memory", "warn", told, "The largest trees are fitted with fewer bins, or not at all.")
        else:
            yield Finding("memory", "ok", told)


def _sizes(asked: _Asked) -> Any:
    """Give the sizes of the table that the config's last run prepared; None where there is none."""
    from stages.families import need
    from stages.plan import plan as plans

    for opened in asked.proven:
        record = plans.last_record(opened, asked.config.name)
        with suppress(KeyError, SurefootError), tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
            pinned = config.parse(opened.read(record["config"]), record["config"])
            if manifest := Addresses(pinned, opened).find("prepare", {}):
                return need.Sizes.of(artifact.Artifact(opened, manifest, Path(folder)), look=opened.local("any") is not None)
    return None


def tools(_asked: _Asked) -> Iterator[Finding]:
    """Look for the programs of the cluster."""
    lacking = [name for name in TOOLS if shutil.which(name) is None]
    if lacking:
        yield Finding("tools", "warn", f"not found: {', '.join(lacking)}", "Only the cluster needs them.")
    else:
        yield Finding("tools", "ok", f"{', '.join(TOOLS)} are found")


CHECKS: tuple[Callable[[_Asked], Iterator[Finding]], ...] = (python, libraries, cores, disk, gpus, store, study, room, tools)


# --- what they share ------------------------------------------------------------------------------


def _folders(address: str) -> list[Path]:
    """Give the folders that a folder store's scratch needs, innermost first; none of S3."""
    root = Path(address).expanduser().resolve()
    return [] if address.startswith("s3://") else [root / "scratch", root / "tmp", root, *root.parents]


def _there(address: str) -> list[str]:
    """Give the innermost folder of a folder store that is there."""
    return [str(folder) for folder in _folders(address)[2:] if folder.is_dir()][:1]


def _server_skew(endpoint: str) -> float | None:
    """Ask an S3 server for its time: seconds that it is ahead of ours, None where it does not say."""
    import urllib3

    with suppress(urllib3.exceptions.HTTPError):
        said = urllib3.request("HEAD", endpoint, timeout=5, retries=False).headers.get("Date")
        return parsedate_to_datetime(said).timestamp() - time.time() if said else None
    return None


def _clock(whose: str, skew: float | None) -> Iterator[Finding]:
    if skew is None:
        return
    said = f"{whose} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours" if abs(skew) >= 1 else f"{whose} is ours"
    if abs(skew) >= REFUSED:
        yield Finding("clock", "fail", said, "Set this machine's clock: an S3 server refuses such requests.", NotNow.code)
    else:
        yield Finding("clock", "ok" if abs(skew) < SKEW else "warn", said, "" if abs(skew) < SKEW else "Set this machine's clock.")


def _file_system(path: Path) -> str:
    """Name the kind of file system that a path is on, or would be; nothing where nobody tells."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    inside = [(len(Path(point).parts), kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    return max(inside, key=lambda one: one[0], default=(0, ""))[1]
