"""The documents can't rot: links lead somewhere, commands run, the tour names what is there, both READMEs agree."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from featherweight import cli, contracts
from featherweight.planning.plans import parse_plan

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "featherweight"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MODULES = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a page: (language, content)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# ------------------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose(document.read_text(encoding="utf-8")))
    relative = [link for link in links if "://" not in link]
    assert [link for link in relative if not (document.parent / link).exists()] == []


def test_the_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert all(picture.stat().st_size < 300_000 for picture in pictures)


# ------------------------------------------------------------------------------------------------- both languages


def headings(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(text), flags=re.MULTILINE)]


def rows(text: str) -> list[str]:
    """The first column of every table."""
    return re.findall(r"^\| *(\d+) *\|", text, flags=re.MULTILINE)


def targets_of_links(text: str) -> list[str]:
    return sorted(link for link in re.findall(r"\]\(([^)]+)\)", prose(text)) if not link.startswith("README"))


@pytest.mark.parametrize("what", [headings, blocks, rows, targets_of_links])
def test_both_readmes_have_the_same_bones(what) -> None:
    english, chinese = what(text_of("README.md")), what(text_of("README.zh-CN.md"))
    assert english
    assert chinese == english


def test_the_readmes_link_to_each_other() -> None:
    assert "(README.zh-CN.md)" in text_of("README.md")
    assert "(README.md)" in text_of("README.zh-CN.md")


# ------------------------------------------------------------------------------------------------------ exit codes


def test_every_exit_code_is_told() -> None:
    errors = [kind for kind in vars(contracts).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in errors if issubclass(kind, contracts.FeatherweightError)}
    told = rows(text_of("README.md"))
    assert {int(code) for code in told} == codes | {0, contracts.EXIT_UNMET, 130}
    assert len(told) == len(set(told))


# ------------------------------------------------------------------------------------------------- the architecture


def test_every_part_has_its_paragraph_and_invariant() -> None:
    section = text_of("ARCHITECTURE.md").split("## The parts")[1].split("\n## ")[0]
    paragraphs = [part for part in section.split("\n\n") if part.startswith("**`")]
    named = [name for part in paragraphs for name in re.findall(r"\*\*`(\w+)(?:\.py|/)`\*\*", part)]
    assert sorted(named) == [module for module in MODULES if module != "__init__"]
    assert [part for part in paragraphs if part.count("**Invariant:**") != 1] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_prose_exist(document: Path) -> None:
    text = prose(document.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:featherweight|docs|examples|tests|\w+)/[\w/.]+\.\w+)`", text)
    assert [name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


# --------------------------------------------------------------------------------------------------------- the tour


def test_the_tour_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "docs" / "tour.py"))
    told = capsys.readouterr().out
    stops = re.findall(r"^ ?(\d+)\. (.+)\n {6}(.+)\n {6}open (.+)$", told, flags=re.MULTILINE)
    assert [int(number) for number, *_ in stops] == list(range(1, 11))
    assert all(re.search(r"\d", figure) for _, _, figure, _ in stops)
    assert [file for *_, file in stops if not (ROOT / file).is_file()] == []
    assert sum("is refused" in title for _, title, *_ in stops) == 1


# ------------------------------------------------------------------------------------------------ the README's words


def shell_lines(text: str) -> list[list[str]]:
    """The words of every command in a shell block, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(words: list[str]) -> None:
    """Run one command of the README, or check that it could run."""
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", text_of("Makefile"), flags=re.MULTILINE)
        case ["pip", "install", "-c", constraints, package]:
            extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
            assert (ROOT / constraints).exists()
            assert set(re.findall(r"\w+", package)) <= set(extras)
        case ["cd", folder]:
            assert (ROOT / folder).is_dir()
        case ["python", script]:
            runpy.run_path(script, run_name="__main__")
        case ["featherweight", *arguments]:
            assert cli.main(arguments) == 0
        case _:
            raise AssertionError(f"no test knows how to run {words}")


def edited(plan: str) -> str:
    """A plan as a person might change it: its first layer kept as it is."""
    document = yaml.safe_load(plan)
    document["units"][next(iter(document["units"]))] = []
    return yaml.safe_dump(document)


def test_what_the_readme_says_to_run_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands and its Python in their order, in a folder that holds the example alone."""
    shutil.copy(ROOT / "examples" / "own_network.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_network", raising=False)
    for language, content in blocks(text_of("README.md")):
        if language == "python":
            exec(compile(content, "README.md", "exec"), {"__name__": "readme"})
        elif language == "sh":
            for words in shell_lines(content):
                if "edited.yaml" in words:
                    Path("edited.yaml").write_text(edited(Path("own-plan/plan.yaml").read_text()))
                run(words)
    monkeypatch.delitem(sys.modules, "own_network", raising=False)
    assert capsys.readouterr().out.count("Goal met. With 95 % confidence") == 3  # Python, compress, apply
    applied, wanted = (parse_plan(Path(path).read_text()) for path in ("own-edited/plan.yaml", "edited.yaml"))
    assert applied.choices == wanted.choices
    check_the_folder(Path("own-run"))


def check_the_folder(folder: Path) -> None:
    """Every file of a run is described in docs/formats.md."""
    told = text_of("docs/formats.md")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    hashed = {r"^3-plan-[0-9a-f]{8}$": "3-plan-GOAL", r"^7-package-[0-9a-f]{8}$": "7-package-FILE"}
    names = {part for file in files for part in file.parts}
    for pattern, word in {r"^4-attempt-\d\d": "4-attempt-NN", **hashed}.items():
        names = {re.sub(pattern, word, name) for name in names}
    assert sorted(name for name in names if name not in told) == []


def test_the_plans_in_the_documents_are_plans() -> None:
    whole, excerpt = (dict(blocks(text_of(name)))["yaml"] for name in ("docs/formats.md", "README.md"))
    head, _, _ = whole.partition("units:")
    ours, theirs = parse_plan(whole), parse_plan(head + excerpt)
    assert ours.choices.keys() == theirs.choices.keys()
    assert [step.method for step in theirs.choices["hidden"]] == ["lowrank", "quantization"]
