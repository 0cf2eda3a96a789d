"""What an image holds: its stage's code and libraries, no other's, and enough to find every step's result."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common import contract, recipe

script = runpy.run_path("images/assemble.py")
assemble, requirements = script["assemble"], script["requirements"]

STAGES = ("plan", "prepare", "search", "train", "evaluate", "validate", "deploy")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for stage in STAGES:
        assemble(stage, folder / stage)
    return folder


def sources(app: Path) -> set[str]:
    return {str(path.relative_to(app)) for path in app.rglob("*.py")}


def required(image: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (image / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_holds_its_own_stage_and_of_the_others_only_what_they_may_be_told(stage: str, images: Path) -> None:
    rooms: dict[str, set[str]] = {}
    for path in sources(images / stage / "app"):
        if path.count("/") > 1:
            rooms.setdefault(path.split("/")[1], set()).add(path.rpartition("/")[2])
    own = {path.name for path in Path("stages", stage).glob("*.py")}
    assert rooms[stage] == own
    for other in set(STAGES) - {stage}:
        assert rooms[other] == {"__init__.py", "config.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_has_the_libraries_that_its_code_imports(stage: str, images: Path) -> None:
    app = images / stage / "app"
    imported: set[str] = set()
    for path in sources(app):
        imported |= set(re.findall(r"^\s*(?:import|from) (\w+)", (app / path).read_text(encoding="utf-8"), re.MULTILINE))
    tops = imported - set(sys.stdlib_module_names) - {"stages"}
    assert {recipe.DISTRIBUTIONS.get(top, top) for top in tops} <= required(images / stage)


def test_no_image_has_the_tools_of_the_workshop(images: Path) -> None:
    for stage in STAGES:
        assert not required(images / stage) & {"hera", "pytest", "ruff", "mypy", "uv", "requests"}
    assert not required(images / "deploy") & {"numpy", "pandas", "scikit-learn", "xgboost-cpu", "optuna"}


def test_every_image_knows_the_recipes_of_all_steps(images: Path) -> None:
    known = {stage: (images / stage / "app" / "recipes.json").read_bytes() for stage in STAGES}
    assert len(set(known.values())) == 1
    assert json.loads(known["plan"]) == recipe.recipes()
    assert {label.split("/")[0] for label in json.loads(known["plan"])} == set(contract.STEPS)


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_computes_the_recipes_of_the_checkout(stage: str, images: Path) -> None:
    """A step in an image looks for its result where a step in the checkout put it."""
    program = (
        "import json; from stages.common import contract, recipe;"
        "print(json.dumps({step: recipe.recipe(step, {'family': 'xgboost'}) for step in contract.STEPS}))"
    )
    environment = {**os.environ, "PYTHONPATH": "."}
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=images / stage / "app", env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(there.stdout) == {step: recipe.recipe(step, {"family": "xgboost"}) for step in contract.STEPS}


def test_equal_code_makes_equal_files(images: Path, tmp_path: Path) -> None:
    """Docker then reuses the layer, and the cluster the image."""
    assemble("train", tmp_path / "train")
    first, second = images / "train", tmp_path / "train"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


@pytest.mark.parametrize("stage", ["search", "train"])
def test_the_flavour_for_gpus_differs_by_one_library_of_the_same_version(stage: str) -> None:
    """Addresses are the same in both: the recipes take the two builds for one."""
    cpu, gpu = (requirements(stage, flavour) for flavour in ("cpu", "gpu"))
    pins = [set(re.findall(r"^\w\S*==\S+", text, re.MULTILINE)) for text in (cpu, gpu)]
    version = recipe.locked()["xgboost-cpu"][0]
    assert pins[0] - pins[1] == {f"xgboost-cpu=={version}"}
    assert pins[1] - pins[0] == {f"xgboost=={version}"}
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=\w)", gpu))


def test_the_digest_of_an_image_is_that_of_its_files_and_libraries(tmp_path: Path) -> None:
    given = [("deploy", "cpu"), ("deploy", "cpu"), ("train", "cpu"), ("train", "gpu")]
    digests = [assemble(stage, tmp_path / str(number), flavour) for number, (stage, flavour) in enumerate(given)]
    assert digests[0] == digests[1]
    assert len({*digests}) == 3


def build(*words: str) -> list[str]:
    return subprocess.run(["images/build", *words], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_build_for_another_machine_can_be_printed() -> None:
    printed = build("--platform", "linux/arm64", "--gpu", "--print", "7")
    assert [line.split()[-2] for line in printed] == [f"surefoot/{stage}:7" for stage in STAGES]
    for line in printed:
        assert line.startswith("docker build ")
        assert " --platform linux/arm64 " in line
        assert ("FLAVOUR=gpu" in line) == any(f"STAGE={stage} " in line for stage in ("search", "train"))


def test_images_for_a_registry_have_its_name_and_are_put_there() -> None:
    prefix = "registry.example/team/surefoot-"
    images = [f"{prefix}{stage}:7" for stage in STAGES]
    printed = build("--prefix", prefix, "--push", "--print", "7")
    assert [line.split()[-2] for line in printed[::2]] == images
    assert printed[1::2] == [f"docker push --quiet {image}" for image in images]


def test_no_index_address_stands_in_the_recipe() -> None:
    for path in ("images/Dockerfile", "images/build", "images/sbom", "images/requirements.lock", "images/gpu.lock"):
        assert "http" not in Path(path).read_text(encoding="utf-8")
