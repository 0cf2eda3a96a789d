"""Package the winner and promote it, over the very champion that this run was judged against."""

import shutil
from typing import Any

from stages.common import artifact, contract, log, registry
from stages.common.errors import MissingInput
from stages.common.step import Run
from stages.deploy.config import Config


def deploy(_config: Config, run: Run) -> dict[str, Any]:
    """Make the package, upload it whole, then make it the live one."""
    package = pack(run)
    for path in sorted(run.out.iterdir()):
        artifact.put(run.store, path)  # a generation must never name a file that is not there
    return {"version": package["version"], **promote(run, package)}


def pack(run: Run) -> dict[str, Any]:
    """Copy everything that scoring needs, and what is known of the model, into one artifact."""
    evaluation = run.input("evaluate").read_json("evaluation.json")
    prepared, trained = run.input("prepare"), run.input("train", family=evaluation["winner"])
    parts = [(trained, name) for name in trained.manifest.files]
    parts += [(prepared, "features.json"), (run.input("evaluate"), "evaluation.json"), (run.input("validate"), "checks.json")]
    for part, name in parts:
        shutil.copyfile(part.path(name), run.out / name)
    files = {name: part.manifest.files[name]["sha256"] for part, name in parts}
    champion = run.pinned.champion
    lasts = [split["last"] for split in prepared.read_json("data.json")["splits"].values() if "last" in split]
    package = {
        # By what is served alone: a version that was rolled back stays barred whatever its checks say.
        "version": contract.digest({name: sha256 for name, sha256 in files.items() if name not in ("evaluation.json", "checks.json")})[:12],
        "family": evaluation["winner"],
        "files": files,
        "test": evaluation["test"],
        "trained_until": max(lasts, default=None),  # the shipped model saw all splits; ns since 1970, or the table's own number
        "champion": champion["version"] if champion else None,
    }
    (run.out / "package.json").write_bytes(contract.dump(package))
    return package


def promote(run: Run, package: dict[str, Any]) -> dict[str, Any]:
    """Write the next generation; where this version is live already, or barred, do nothing.

    Raises:
        MissingInput: another package than the champion of this run is live.

    """
    version, over = package["version"], run.pinned.champion
    while True:
        live = registry.live(run.store)
        number = live["generation"] if live else 0
        if live and live["version"] == version:  # a crash between generation and manifest, or a second run
            log.info("deploy.is_live", version=version, generation=number)
            return {"generation": number, "promoted": True}
        if version in registry.barred(run.store):
            log.warning("deploy.barred", version=version, so="it was rolled back and stays out of production")
            return {"generation": number or None, "promoted": False, "reason": f"version {version} was rolled back and is barred"}
        now = registry.champion(run.addresses)
        if _version(now) != _version(over):
            moved = f"production moved from {_version(over)} to {_version(now)}"
            raise MissingInput(f"{moved} since this run was planned; run the same command again.")
        generation = {
            "generation": number + 1,
            "kind": "promote",
            "version": version,
            "files": {**package["files"], "package.json": contract.file_digest(run.out / "package.json")},
            "package": run.address,
            "train": run.addresses.plan_key("train", {"family": package["family"]}),
            "over": over,
            "run": run.pinned.run,
        }
        if registry.add(run.store, generation):
            log.info("deploy.promoted", version=version, generation=number + 1, over=_version(over))
            return {"generation": number + 1, "promoted": True}


def _version(champion: dict[str, Any] | None) -> str:
    return str(champion["version"]) if champion else "nothing"
