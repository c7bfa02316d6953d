"""The packages of a release, as somebody gets them who does not have this repository."""

from __future__ import annotations

import email
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import httpx
import pytest

import gateway
from tests.servers import HOST, NO_TLS, REPOSITORY, free_port, wait_until

FOLDERS = ("auth", "gateway", "limits")


def run(*command: str | Path, folder: Path = REPOSITORY) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path, into: Path, *kinds: str) -> list[Path]:
    targets = [word for kind in kinds for word in ("-t", kind)]
    run(sys.executable, "-m", "hatchling", "build", "-d", into, *targets, folder=folder)
    return sorted(into.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    wheel, sdist = build(REPOSITORY, tmp_path_factory.mktemp("built"), "sdist", "wheel")
    return wheel, sdist


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def sdist(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        return email.message_from_string(files.read(name).decode())


def test_wheel_has_every_file_of_the_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = {name for name in files.namelist() if ".dist-info/" not in name}
    there = {path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
    assert names == {str(path.relative_to(REPOSITORY)) for path in there if path.suffix != ".pyc"}
    assert {f"{folder}/py.typed" for folder in FOLDERS} < names


def test_sdist_is_the_repository(sdist: Path) -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("only a clone of the repository knows which files belong to it")
    known = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert names == {name for name in known if (REPOSITORY / name).exists()} | {"PKG-INFO"}


def test_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as files:
        files.extractall(tmp_path, filter="data")
    (again,) = build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again", "wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_page_of_the_package_has_no_link_that_breaks_elsewhere(metadata: Message) -> None:
    page = str(metadata.get_payload())
    home = next(url for url in metadata.get_all("Project-URL", []) if url.startswith("Homepage, ")).partition(", ")[2]
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    ours = [link.removeprefix(f"{home}/blob/v{gateway.__version__}/") for link in links if link.startswith(home)]
    assert all(re.match(r"https://|#", link) for link in links)
    assert "docs/upgrade.md" in ours
    assert [path for path in ours if not (REPOSITORY / path.partition("#")[0]).exists()] == []


def test_package_says_what_it_is(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("hms-gateway", gateway.__version__)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Author"]
    assert metadata["Keywords"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"demo", "dev", "postgres", "traces"}
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, and with the packages beside which these tests run."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A path of its own: the .pth of this repository's editable installation, which lies there, is not followed.
    Path(packages, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", "--no-deps", "--no-index", "--ignore-installed", "--no-compile", wheel)
    assert run(python, "-c", "import gateway; print(gateway.__file__)", folder=folder).startswith(packages)
    return folder / "bin"


@pytest.fixture
def demo(installed: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a demo that was started in an empty folder, and the file with what it printed."""
    port, printed = free_port(), tmp_path / "printed.txt"
    folder = tmp_path / "empty"
    folder.mkdir()
    env = {"PATH": os.environ.get("PATH", ""), "GATEWAY_PORT": str(port)}
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [installed / "gateway", "demo"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        ended = "Ctrl-C stops everything"
        wait_until(lambda: ended in printed.read_text() or process.poll() is not None, "the demo runs", within_s=40)
        assert process.poll() is None, printed.read_text()
        yield f"http://{HOST}:{port}", printed
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert [one.name for one in folder.iterdir()] == [".gateway"]


def test_installed_package_runs_a_demo_in_an_empty_folder(installed: Path, demo: tuple[str, Path]) -> None:
    assert run(installed / "gateway", "--version").strip() == f"gateway, version {gateway.__version__}"
    url, printed = demo
    (login,) = re.findall(r"^ +host +curl .* -d '(\{.*\})'$", printed.read_text(), re.MULTILINE)
    with httpx.Client(base_url=url, timeout=15, verify=NO_TLS, trust_env=False) as client:
        token = client.post("/api/auth/login", json=json.loads(login)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        room = client.post("/api/rooms", json={"name": "Packed"}).json()["room"]["id"]
        assert client.post(f"/api/rooms/{room}/token", json={"role": "host"}).json()["token"]
        assert client.get("/openapi.json").json()["info"]["version"] == gateway.__version__
        for page in ("/", "/docs", "/operator"):
            answer = client.get(page)
            assert answer.headers["content-type"].startswith("text/html"), page
            for asset in re.findall(r'(?:src|href)="(/[^"#]+)"', answer.text):
                assert client.get(asset).status_code == 200, asset
