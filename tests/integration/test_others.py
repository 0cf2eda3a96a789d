"""Beside what is locked: another S3 server, Argo 4, Hera 6, each taken from its registry by the version named here."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, override

import pytest
import yaml

from tests import programs, servers
from workflows import argo, doctor

pytestmark = pytest.mark.others

VERSITY = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
MOTO = "moto[server]==5.2.5"
ARGO = "github.com/argoproj/argo-workflows/v4@v4.0.5"
HERA = "hera==6.0.0"
UV = Path(sys.executable).parent / "uv"
assemble = runpy.run_path("images/assemble.py")
SUITE = ("tests/unit/common/test_store.py", "tests/unit/common/test_bucket.py")


def fetched(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run what takes something from a registry, and give its stdout; the test is skipped where that cannot be had."""
    if not shutil.which(command[0]):
        pytest.skip(f"no program {command[0]}: what it would fetch was not tried")
    done = subprocess.run([*map(str, command)], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done.stdout


# --- another S3 server ---


class OtherServer(servers.MinioServer):
    """Another S3 server, with a folder of its own."""

    def __init__(self, folder: Path, command: list[str | Path]) -> None:
        servers.Server.__init__(self, folder)
        servers.S3.__init__(self, f"http://127.0.0.1:{self.port}", servers.USER, servers.PASSWORD)
        self.command = [str(word).format(folder=folder, port=self.port) for word in command]

    @override
    def _begin(self, log: Any) -> "subprocess.Popen[bytes]":
        keys = {"ROOT_ACCESS_KEY": servers.USER, "ROOT_SECRET_KEY": servers.PASSWORD}
        return subprocess.Popen(self.command, env={**os.environ, **keys}, stdout=log, stderr=subprocess.STDOUT)

    @override
    def answers(self) -> bool:
        try:
            self.client().list_buckets()
        except Exception:  # noqa: BLE001 - whatever a client meets where nobody listens yet
            return False
        return True


@pytest.fixture(scope="module")
def versity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    folder = tmp_path_factory.mktemp("versity")
    program = shutil.which("versitygw")
    if not program:
        fetched("go", "install", "-trimpath", VERSITY, folder=folder, GOBIN=str(folder), CGO_ENABLED="0")
        program = str(folder / "versitygw")
    (folder / "data").mkdir()
    with OtherServer(folder, [program, "--port", "127.0.0.1:{port}", "--quiet", "posix", "{folder}/data"]) as server:
        yield server


def test_the_suite_of_the_stores_passes_on_another_server(versity: OtherServer) -> None:
    """All but what looks into a MinIO's own files, or stops its process."""
    more = {**versity.environment, "SUREFOOT_S3_SERVER": versity.endpoint}
    done = programs.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITE, more=more, limit=600)
    assert done.code == 0, done.out[-4000:]
    (told,) = re.findall(r"(\d+) passed, (\d+) skipped", done.out)
    assert int(told[0]) > 50, done.out[-2000:]
    assert int(told[1]) == 3, done.out[-2000:]
    print(f"\nversitygw: {told[0]} tests of the stores passed")  # noqa: T201 - a figure that we tell


def test_doctor_says_what_another_server_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto keeps no checksums; what it has suffices."""
    command: list[str | Path] = [UV, "run", "--no-project", "--isolated", "--python", sys.executable, "--with", MOTO, "moto_server"]
    fetched(*command, "--help", folder=tmp_path)
    with OtherServer(tmp_path, [*command, "--host", "127.0.0.1", "--port", "{port}"]) as moto:
        for name, value in moto.environment.items():
            monkeypatch.setenv(name, value)
        found = [one for one in doctor.examine(None, f"s3://{moto.bucket()}/x", []) if one.name == "store"]
    assert [(one.state, one.said) for one in found][1:] == [("warn", "its server keeps no checksums")]
    assert found[0].state == "ok"


# --- Argo 4 ---


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("argo")
    module = json.loads(fetched("go", "mod", "download", "-json", ARGO, folder=folder))
    return json.loads(Path(module["Dir"], "api", "jsonschema", "schema.json").read_bytes())["definitions"]


TYPES = {"string": str, "boolean": bool, "integer": int, "object": dict, "array": list}
NUMBERS_TOO = ("IntOrString", "Quantity")  # told as strings, for want of a word for both


def unknown(value: Any, wanted: Any, schema: Any, at: str) -> Iterator[str]:
    """Tell what of a document a schema does not know, or knows as another type."""
    if wanted.get("$ref", "").endswith(NUMBERS_TOO) and isinstance(value, int):
        return
    wanted = schema[wanted["$ref"].removeprefix("#/definitions/")] if "$ref" in wanted else wanted
    if "type" in wanted and not isinstance(value, TYPES[wanted["type"]]):
        yield f"{at}: {value!r} is no {wanted['type']}"
    elif value not in wanted.get("enum", [value]) or value != wanted.get("const", value):
        yield f"{at}: {value!r}"
    elif isinstance(value, list):
        for each in value:
            yield from unknown(each, wanted["items"], schema, f"{at}[]")
    elif isinstance(value, dict):
        yield from (f"{at}.{name} is missing" for name in wanted.get("required", []) if name not in value)
        for name, each in value.items():
            known = wanted.get("properties", {}).get(name, wanted.get("additionalProperties"))
            yield from [f"{at}.{name}"] if known is None else unknown(each, known, schema, f"{at}.{name}")


def test_argo_4_knows_every_field_of_the_workflow(schema: Any) -> None:
    kind = schema["io.argoproj.workflow.v1alpha1.WorkflowTemplate"]
    template = json.loads(argo.CHART_FILE.read_bytes())
    assert list(unknown(template, kind, schema, "")) == []
    (train,) = [one for one in template["spec"]["templates"] if one["name"] == "train"]
    train["synchronization"] = {"mutex": {"name": "as Argo 3 took it"}}
    train["container"]["args"] = "--config"
    found = ["container.args: '--config' is no array", "synchronization.mutex"]
    assert list(unknown(template, kind, schema, "")) == [f".spec.templates[].{one}" for one in found]


def test_argo_4_knows_every_field_of_the_clock(schema: Any) -> None:
    kind = schema["io.argoproj.workflow.v1alpha1.CronWorkflow"]
    helm = shutil.which("helm")
    if not helm:
        pytest.skip("the helm program is not in PATH: the chart was not rendered")
    chart = [
        helm,
        "template",
        "surefoot",
        str(argo.CHART_FILE.parents[1]),
        "--set-json",
        'cron={"enabled": true, "config": {"train": {"seed": 1}}}',
    ]
    made = subprocess.run(chart, capture_output=True, text=True, check=True).stdout
    clocks = [one for one in yaml.safe_load_all(made) if one and one["kind"] == "CronWorkflow"]
    assert [list(unknown(one, kind, schema, "")) for one in clocks] == [[]]


# --- images ---


def test_every_image_has_wheels_for_arm64(tmp_path: Path) -> None:
    """In both flavours: what images/build --platform linux/arm64 would install, resolved as pip does in the image."""
    for stage, flavour in (("search", "cpu"), ("search", "gpu")):  # search has all that the others have
        (tmp_path / flavour).write_text(assemble["requirements"](stage, flavour), encoding="utf-8")
        machine = ("--python-version", "3.12", "--python-platform", "aarch64-manylinux_2_28", "--only-binary", ":all:")
        words = ("--dry-run", "--target", tmp_path / "none", *machine, "--require-hashes", "--no-deps", "-r", tmp_path / flavour)
        done = subprocess.run([UV, "pip", "install", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n + ") == len(re.findall(r"^\w\S*==", (tmp_path / flavour).read_text(encoding="utf-8"), re.MULTILINE))


def test_each_image_has_a_bill_of_its_libraries(tmp_path: Path) -> None:
    (tool,) = re.findall(r"cyclonedx-bom==\S+", Path("images/sbom").read_text(encoding="utf-8"))
    fetched(UV, "run", "--no-project", "--isolated", "--with", tool, "cyclonedx-py", "--version", folder=tmp_path)
    subprocess.run(["images/sbom", tmp_path], capture_output=True, check=True)
    for stage, flavour in (("plan", "cpu"), ("train", "cpu"), ("train", "gpu")):
        name = f"{stage}-gpu" if flavour == "gpu" else stage
        bill = json.loads((tmp_path / f"{name}.cdx.json").read_bytes())
        assert bill["bomFormat"] == "CycloneDX"
        assert {f"{one['name']}=={one['version']}" for one in bill["components"]} == {
            *re.findall(r"^\w\S*==\S+", assemble["requirements"](stage, flavour), re.MULTILINE)
        }


# --- Hera 6 ---


def test_hera_6_renders_the_same(tmp_path: Path) -> None:
    fetched(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, HERA, folder=tmp_path)
    which = "import hera.workflows, importlib.metadata as m; assert m.version('hera') == '6.0.0', m.version('hera');"
    program = f"{which} from workflows import argo; print(argo.text(argo.render()), end='')"
    done = programs.python("-c", program, more={"PYTHONPATH": f"{tmp_path}{os.pathsep}{programs.ROOT}"})
    assert done.code == 0, done.err
    assert done.out == argo.CHART_FILE.read_text(encoding="utf-8")
