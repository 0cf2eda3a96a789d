"""Raw files: the tables that a run begins with, on this machine, in the store as ``raw/<sha256>``, or in a bucket.

What is in a bucket is copied into the store before it is read, as what was submitted is there already.
"""

import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stages.common import artifact, contract, log
from stages.common.errors import ConfigError, DataError, MissingInput, NotNow
from stages.common.store import Store

if TYPE_CHECKING:
    from stages.common.s3 import Bucket, Seen

LISTING = b'{"files":{'  # how the document of a folder's files begins; no table does
LONGEST = 10_000_000  # bytes of such a document that are read to learn of its files' sizes
SECTIONS = ("prepare", "evaluate")  # of the config: they name raw files
NO_FILE = ("raw/", "s3://")  # how the place of a raw file begins that is no file of this machine
UNCHANGED = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")  # of a file; the last two show one that was put in place with its time kept


def files(section: Any) -> dict[str, str]:
    """Give the raw files of a run by name, without one that may lack and does."""
    places: dict[str, str] = section.raw()
    for name in section.MAY_LACK & places.keys():
        if not places[name].startswith(NO_FILE) and not Path(places[name]).exists():
            log.warning("raw.missing", path=places.pop(name), so="the run goes on without it")
    return places


def digest(store: Store, place: str, option: str = "prepare.path") -> str:
    """SHA-256 of a raw file, remembered by path, size, inode and times; ``raw/<sha256>`` in the store says it itself."""
    if place.startswith("raw/"):
        return place.removeprefix("raw/")
    path = Path(place)
    try:
        stat = path.stat()
        if path.is_dir():
            return contract.digest(listing(store, path))
        key = f"scratch/raw/{contract.digest([str(path.resolve()), *(getattr(stat, name) for name in UNCHANGED)])}"
        if remembered := artifact.unsealed(store, key):
            return str(remembered["sha256"])
        found = contract.file_digest(path)
    except FileNotFoundError as error:
        raise MissingInput(f"{path}: the table is not there. Set {option} in the config.") from error
    except OSError as error:
        raise MissingInput(f"{path}: the table cannot be read ({error.strerror}). Set {option} to a file.") from error
    store.replace(key, artifact.seal(key, {"sha256": found}))
    return found


def copied(store: Store, title: str, section: Any, *, copy: bool) -> Any:
    """Copy a section's raw files that are in buckets, or only look at them; give the section with their addresses in the store."""
    for name, place in section.raw().items():
        if place.startswith("s3://"):
            option = section.RAW[name]
            try:
                found = _copy(store, place, f"{title}.{option}", copy=copy)
            except MissingInput:
                if name not in section.MAY_LACK:
                    raise
                log.warning("raw.missing", path=place, so="the run goes on without it")
                found = None
            section = section.model_copy(update={option: found})
    return section


def objects(place: str, option: str) -> "tuple[Bucket, dict[str, Seen]]":
    """Look at an object, or at all of a folder but those that ``shown`` leaves out.

    Raises:
        ConfigError: it can be neither.
        MissingInput: there is none.
        DataError: an object's name is none of a file.

    """
    from stages.common.s3 import open_bucket  # Here, since the client costs half a second, and most runs do without

    name, slash, key = place.removeprefix("s3://").partition("/")
    parts = key.split("/")
    if not slash or "" in parts[:-1] or not {".", ".."}.isdisjoint(parts):
        raise ConfigError(f"{place}: no place of a bucket. Set {option} to s3://bucket/name, or to s3://bucket/folder/ with a slash.")
    bucket = open_bucket(name)
    if parts[-1]:
        seen = bucket.look(key)
        if seen is None:
            raise MissingInput(f"{place}: the table is not there. Set {option} to an object, or to a folder with a slash at its end.")
        return bucket, {key: seen}
    found = {
        each: seen for each, seen in bucket.under(key).items() if not re.search(r"(^|/)[._]", each.removeprefix(key)) and each[-1] != "/"
    }
    if not found:
        raise MissingInput(f"{place}: the folder holds no file. Set {option} to a table, or to a folder of tables.")
    names = [each.removeprefix(key) for each in found]
    folders = {folder for name in names for folder in PurePosixPath(name).parents}
    if odd := [name for name in names if not _is_name(name, folders) or str(PurePosixPath(name)) != name]:
        raise DataError(f"{place}: {odd[0]!a} can be no file of a folder. Rename it.")
    return bucket, found


def sizes(store: Store, place: str, option: str) -> dict[str, int]:
    """Give the bytes of a raw file, or of each of a folder's, by name; a file that was submitted has none. None of what cannot be seen.

    Raises:
        ConfigError, DataError: as ``objects``.

    """
    with suppress(MissingInput, OSError):
        if place.startswith("s3://"):
            return {name: seen.size for name, seen in objects(place, option)[1].items()}
        if not place.startswith("raw/"):
            path = Path(place)
            return {str(file): file.stat().st_size for file in ([path] if path.is_file() else shown(path))}
        if head := store.head(place):
            if (listed := _listed(store.read(place)) if head.size < LONGEST else None) is None:
                return {"": head.size}
            return {name: found.size for name, sha256 in listed.items() if (found := store.head(f"raw/{sha256}"))}
    return {}


def _copy(store: Store, place: str, option: str, *, copy: bool) -> str:
    """Copy what a bucket holds into the store, as ``surefoot submit`` does with files; give its address there."""
    if place.endswith("/") and f"{store.address}/".startswith(place):
        raise ConfigError(f"{place}: the store is in that folder ({store.address}). Set {option} to a folder of tables alone.")
    bucket, found = objects(place, option)
    digests = {name: _copy_object(store, bucket, name, seen, copy=copy) for name, seen in found.items()}
    folder = place.removeprefix(f"{bucket.address}/")
    if folder in digests:
        return f"raw/{digests[folder]}"
    document = contract.dump({"files": {name.removeprefix(folder): sha256 for name, sha256 in digests.items()}})
    key = f"raw/{artifact.sha256(document)}"
    if copy:
        artifact.keep(store, key, document, artifact.sha256(document))
    return key


def _copy_object(store: Store, bucket: "Bucket", name: str, seen: "Seen", *, copy: bool) -> str:
    """Copy an object, unless it was and is there; give its digest, or what stands for that of bytes that were not copied."""
    identity = contract.digest(bucket.identity(name, seen))
    note = f"scratch/raw/{identity}"
    if remembered := artifact.unsealed(store, note):
        sha256 = str(remembered["sha256"])
        if (head := store.head(f"raw/{sha256}")) and head.size == seen.size and head.sha256 in (None, sha256):
            return sha256
    if not copy:
        return identity
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        path = Path(folder) / "raw"
        try:
            sha256 = bucket.download(name, path)
        except KeyError:
            sha256 = ""
        if not sha256 or bucket.look(name) != seen:
            raise NotNow(f"{bucket.address}/{name}: it changed while it was copied. Run the same command again.")
        artifact.keep(store, f"raw/{sha256}", path, sha256)
    store.replace(note, artifact.seal(note, {"sha256": sha256}))
    log.info("raw.copied", path=f"{bucket.address}/{name}", to=f"raw/{sha256}")
    return sha256


def shown(folder: Path) -> list[Path]:
    """Give a folder's files in the order of their names, without those that begin, or lie in a folder that begins, with ``.`` or ``_``."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)]


def listing(store: Store, folder: Path) -> dict[str, dict[str, str]]:
    """Give the digests of a folder's files; its own digest is this document's.

    Raises:
        MissingInput: there is no file.
        ConfigError: the store is in it.
        DataError: a file's name is no text.

    """
    found = shown(folder)
    if any(path.resolve().is_relative_to(Path(store.address).resolve()) for path in found):
        raise ConfigError(f"{folder}: the store is in that folder ({store.address}). Set prepare.path to a folder of tables alone.")
    if not found:
        raise MissingInput(f"{folder}: the folder holds no file. Set prepare.path to a table, or to a folder of tables.")
    if odd := [path for path in found if re.search("[\ud800-\udfff]", str(path))]:
        raise DataError(f"{folder}: the name of {odd[0].name!a} is no UTF-8. Rename it.")
    return {"files": {path.relative_to(folder).as_posix(): digest(store, str(path)) for path in found}}


def fetch(store: Store, key: str, path: Path) -> str:
    """Fetch a raw file, or a folder by its listing; give the digest of what came."""
    try:
        found = store.download(key, path)
        with path.open("rb") as file:
            if file.read(len(LISTING)) != LISTING or found != key.removeprefix("raw/"):
                return found
        if (listed := _listed(path.read_bytes())) is None:
            return found
        path.unlink()
        for name, sha256 in listed.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if store.download(f"raw/{sha256}", target) != sha256:
                return ""
    except KeyError as error:
        raise MissingInput(f"{store.address}/{key}: the table is not there. Upload it again with `surefoot submit`.") from error
    return found


def _listed(document: bytes) -> dict[str, str] | None:
    """Give the digests that a listing names; None where it is none: a table of JSON, which prepare refuses."""
    try:
        listed: dict[str, str] = json.loads(document)["files"]
        folders = {folder for name in listed for folder in PurePosixPath(name).parents}
        is_one = all(_is_name(name, folders) and re.fullmatch("[0-9a-f]{64}", sha256) for name, sha256 in listed.items())
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return listed if is_one else None


def _is_name(name: str, folders: set[PurePosixPath]) -> bool:
    """Tell whether a file of a folder can have this name: it leads nowhere else, and is no folder of another one."""
    parts = PurePosixPath(name).parts
    is_inside = bool(parts) and parts[0] != "/" and ".." not in parts and PurePosixPath(name) not in folders
    return is_inside and b"\0" not in os.fsencode(name) and len(name) < 1000 and all(len(os.fsencode(part)) < 256 for part in parts)
