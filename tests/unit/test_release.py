"""The version, the names and the workflows of a release agree with one another."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import gateway

ROOT = Path(__file__).parents[2]
VERSION = gateway.__version__
CHANNEL = ROOT / ".ci" / "release-channel"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What each job may write beside `contents: read`; `id-token` is how a job proves to PyPI, npm and Sigstore what it is.
WRITES = {
    "pypi": {"id-token"},
    "npm": {"id-token"},
    "image": {"packages", "id-token", "attestations", "artifact-metadata"},
    "release": {"contents", "id-token", "attestations"},
}


def described(path: str) -> Any:
    return json.loads((ROOT / path).read_text())


def test_all_packages_have_the_version_of_the_gateway() -> None:
    client, react = (described(f"clients/{name}/package.json") for name in ("typescript", "react"))
    example = described("clients/example/package.json")
    assert {client["version"], react["version"], example["version"]} == {VERSION}
    assert react["peerDependencies"]["@hms-gateway/client"] == VERSION
    assert example["dependencies"]["@hms-gateway/react"] == VERSION
    locks = (
        described("clients/package-lock.json")["packages"],
        described("clients/typescript/package-lock.json")["packages"],
    )
    locked = [locks[0][name] for name in ("react", "example", "typescript")] + [locks[1][""]]
    assert {one["version"] for one in locked} == {VERSION}
    tarballs = [
        re.findall(r"hms-gateway-[a-z]+-([0-9.]+)\.tgz", page.read_text()) for page in ROOT.glob("clients/*/README.md")
    ]
    assert {one for found in tarballs for one in found} == {VERSION}


def test_changelog_has_a_section_for_the_version_below_nothing_but_what_is_unreleased() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(name for name in sections if name != "Unreleased") == VERSION
    assert len(sections) == len(set(sections))


def test_all_packages_name_one_repository() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    home = urls["Homepage"]
    assert all(url.startswith(home) for url in urls.values())
    for name in ("typescript", "react"):
        package = described(f"clients/{name}/package.json")
        assert package["repository"] == {"type": "git", "url": f"git+{home}.git", "directory": f"clients/{name}"}
        assert package["homepage"].startswith(home)
        assert package["bugs"].startswith(home)
        assert package["publishConfig"] == {"access": "public"}
        assert (ROOT / "clients" / name / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    image = home.replace("https://github.com/", "ghcr.io/")
    job = workflow("release")["jobs"]["image"]
    assert job["env"]["IMAGE"] == image
    assert [step["with"]["subject-name"] for step in job["steps"] if "attest@" in step.get("uses", "")] == [image]


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in yaml.safe_load(file.read_text())["jobs"].items():
        for step in job.get("steps", [job]):
            yield name, step


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_and_get_no_credentials(file: Path) -> None:
    text = file.read_text()
    uses = re.findall(r"uses: (.+)$", text, re.MULTILINE)
    assert uses
    for one in uses:
        if local := re.fullmatch(r"\./(\.github/workflows/\w+\.yml)", one):
            assert "workflow_call" in (ROOT / local[1]).read_text()
        else:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[0-9.]+", one), one
    for _, step in steps(file):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    assert set(re.findall(r"secrets\.(\w+)", text)) <= {"GITHUB_TOKEN"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_jobs_may_write_only_what_they_must_and_end(file: Path) -> None:
    described = yaml.safe_load(file.read_text())
    assert described["permissions"] in ({}, {"contents": "read"})
    assert described["concurrency"]["group"]
    for name, job in described["jobs"].items():
        granted = job.get("permissions", described["permissions"])
        assert {scope for scope, level in granted.items() if level != "read"} == WRITES.get(name, set()), name
        assert "uses" in job or job["timeout-minutes"] <= 45, name


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_commands_are_valid_and_name_files_that_exist(file: Path) -> None:
    for job, step in steps(file):
        script = step.get("run", "")
        assert "${{" not in script, f"{job}: what comes from outside must reach a script as a variable"
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
        for path in re.findall(r"(?:\.ci|requirements|clients)/?[\w./-]*", script):
            assert (ROOT / path).exists(), path


def test_release_publishes_what_was_built_once_and_checked() -> None:
    jobs = workflow("release")["jobs"]
    assert {name for name, job in jobs.items() if "needs" not in job} == {"test", "audit", "build"}
    assert all(set(jobs[name]["needs"]) == {"test", "audit", "build"} for name in ("pypi", "npm", "image"))
    assert [
        step["run"]
        for _, step in steps(ROOT / ".github/workflows/release.yml")
        if "release-check" in step.get("run", "")
    ] == ['.ci/release-check "$GITHUB_REF_NAME"']
    assert "\n.ci/release-check\n" in (ROOT / ".ci" / "run").read_text(), "it is run for every commit"


@pytest.mark.parametrize(
    ("version", "others", "channel"),
    [
        ("0.1.0", [], "latest"),
        ("0.2.0", ["v0.1.0", "v0.2.0"], "latest"),
        ("0.1.5", ["v0.1.4", "v0.1.5", "v0.2.0"], "release-0.1"),
        ("0.2.1", ["v0.2.0", "v0.1.5"], "latest"),
        ("0.10.0", ["v0.9.1", "v0.2.0"], "latest"),
        ("0.9.2", ["v0.10.0"], "release-0.9"),
        ("1.0.0", ["v0.99.0", "v1.1.0-rc.1", "v2", "vintage", "9.9.9"], "latest"),
        ("0.3.0-rc.1", ["v0.2.0"], "next"),
        ("0.3.0rc1", [], "next"),
    ],
)
def test_only_the_highest_version_becomes_the_latest(version: str, others: list[str], channel: str) -> None:
    tags = "".join(f"{one}\n" for one in others)
    done = subprocess.run([CHANNEL, version], input=tags, capture_output=True, text=True, check=True)
    assert done.stdout == f"{channel}\n"


def test_what_is_no_version_gets_no_channel() -> None:
    done = subprocess.run([CHANNEL, "latest"], input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "release-channel: latest is not a version such as 0.2.0\n"


def test_every_job_publishes_on_the_channel_and_after_an_approval() -> None:
    jobs = workflow("release")["jobs"]
    scripts = {name: "\n".join(step.get("run", "") for step in job.get("steps", [])) for name, job in jobs.items()}
    assert "latest" not in scripts["npm"] + scripts["image"]
    publishes = re.findall(r"npm publish .*", scripts["npm"])
    assert len(publishes) == 2
    assert all(' --tag "$CHANNEL" ' in one for one in publishes)
    assert re.findall(r'--tag "\$IMAGE:([^"]+)"', scripts["image"]) == ["${GITHUB_REF_NAME#v}", "$CHANNEL"]
    for name in ("npm", "image", "release"):
        assert jobs[name]["env"]["CHANNEL"] == "${{ needs.build.outputs.channel }}"
        assert "build" in jobs[name]["needs"]
    [checkout] = [step for step in jobs["build"]["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["fetch-depth"] == 0, "otherwise there is no tag but its own"
    [decided] = [step for step in jobs["build"]["steps"] if step.get("id") == "channel"]
    assert "git tag --list | .ci/release-channel" in decided["run"]
    environments = {name: job["environment"] for name, job in jobs.items() if "environment" in job}
    assert environments == {"pypi": "pypi", "npm": "npm", "image": "ghcr"}
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert "environments `pypi`, `npm` and `ghcr`" in page


@pytest.mark.parametrize(
    ("channel", "mark"), [("latest", "--latest"), ("next", "--prerelease"), ("release-0.1", "--latest=false")]
)
def test_a_release_of_github_is_marked_as_its_channel(channel: str, mark: str, tmp_path: Path) -> None:
    [script] = [step["run"] for step in workflow("release")["jobs"]["release"]["steps"] if "run" in step]
    (tmp_path / "gh").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "gh").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CHANNEL": channel, "GITHUB_REF_NAME": "v0.2.0"}
    done = subprocess.run(["bash", "-e"], input=script, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"release create v0.2.0 {mark} --verify-tag ")


def test_an_image_that_is_too_large_is_not_pushed() -> None:
    scripts = [step.get("run", "") for step in workflow("release")["jobs"]["image"]["steps"]]
    [checked] = [place for place, script in enumerate(scripts) if ".ci/image-size hms-gateway" in script]
    [pushed] = [place for place, script in enumerate(scripts) if "--push" in script]
    assert checked < pushed
    assert [step["run"] for step in workflow("ci")["jobs"]["docker"]["steps"] if "run" in step] == ["make docker"]


@pytest.mark.parametrize(
    ("added", "base", "code"),
    [(68_102_780, 119_900_000, 0), (75_000_000, 125_000_000, 0), (68_000_000, 132_100_000, 1), (75_100_000, 9, 1)],
)
def test_an_image_above_its_bounds_is_refused(added: int, base: int, code: int, tmp_path: Path) -> None:
    rows = ['0 CMD ["gateway" "serve"]', f"{added} COPY /opt/gateway /opt/gateway"]
    rows += ['0 CMD ["python3"]', f"{base} # debian.sh", '0 CMD ["python3"]', "0 CMD /bin/sh"]
    (tmp_path / "docker").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(rows) + "\nEND\n")
    (tmp_path / "docker").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = ROOT / ".ci" / "image-size"
    done = subprocess.run([script, "hms-gateway"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code
    said = f"has {(added + base) / 1e6:.1f} MB of at most 200, and adds {added / 1e6:.1f} MB of at most 75"
    assert done.stderr == f"image-size: hms-gateway {said} to its base image\n"


def test_a_tag_of_another_version_is_refused() -> None:
    done = subprocess.run([ROOT / ".ci" / "release-check", "v0.0.1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"release-check: the tag is v0.0.1, but this is version {VERSION}\n")
