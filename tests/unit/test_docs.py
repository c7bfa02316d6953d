"""Documentation is a test subject: what it says is compared with what is."""

from __future__ import annotations

import re
from pathlib import Path

from docs.gcra import TARGET, draw

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\b(?:REDIS_URL|(?:HMS|GATEWAY)_[A-Z_]+)\b")
DEMO_ONLY = {"GATEWAY_DATA", "GATEWAY_HOST", "GATEWAY_PORT"}


def settings_in_code() -> set[str]:
    return set(re.findall(r'"(REDIS_URL|(?:HMS|GATEWAY)_[A-Z_]+)"', (ROOT / "gateway" / "settings.py").read_text()))


def test_settings_page_lists_every_setting_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == settings_in_code()


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert set(NAME.findall(page.read_text())) <= settings_in_code(), page.name


def test_compose_passes_every_setting_on() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    assert settings_in_code() - DEMO_ONLY <= set(NAME.findall(compose))


def test_picture_of_gcra_is_what_the_limiter_does() -> None:
    assert TARGET.read_text() == draw(), "run python -m docs.gcra"


def test_every_relative_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_dependencies_page_names_every_dependency_at_its_locked_release() -> None:
    locked = dict(
        re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    )
    project = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z0-9,]+\])?>=', project, re.MULTILINE)
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert len(wanted) > 15
    runtime = project[project.index("dependencies = [") : project.index("[project.optional-dependencies]")]
    for name in wanted:
        assert re.search(rf"\b{name}\b", page, re.IGNORECASE), f"{name} has no line"
        if f'"{name}' in runtime:
            assert locked[name] in page, f"{name} is locked at {locked[name]}"
