"""The files of the console: small, complete, and nothing that the page's policy would refuse."""

from __future__ import annotations

import re
from importlib.resources import files

STATIC = files("gateway.console").joinpath("static")
SOURCES = {one.name: one.read_text() for one in STATIC.iterdir()}
MODULES = {name for name in SOURCES if name.endswith(".js")}


def test_files_are_small() -> None:
    assert sum(len(text.encode()) for text in SOURCES.values()) < 120_000
    assert len(SOURCES["operator.css"].encode()) < 10_000


def test_page_loads_every_module_at_once() -> None:
    preloaded = re.findall(r'rel="modulepreload" href="/operator/([^"]+)"', SOURCES["operator.html"])
    assert sorted([*preloaded, "main.js"]) == sorted(MODULES)


def test_every_import_exists() -> None:
    for name in MODULES:
        for names, source in re.findall(r'import \{ ([^}]+) \} from "\./([^"]+)"', SOURCES[name]):
            for one in names.split(", "):
                assert re.search(rf"export (async )?(const|function|class) {one}\b", SOURCES[source]), (name, one)
                assert len(re.findall(rf"\b{one}\b", SOURCES[name])) > 1, f"{name} does not use {one}"


def test_nothing_needs_an_exception_from_the_policy() -> None:
    for name, text in SOURCES.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|new Function", text), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), f"{name} must name no other host"
        assert not re.search(r'\sstyle="|\son[a-z]+="', text), name
