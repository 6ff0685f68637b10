"""The pages, as files: what the site's build, a job of its own in CI, does not see."""

import re
from pathlib import Path

import pytest

from resnet_jax.runs import read_run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "notebooks").glob("*.md")),
    *sorted(ROOT.glob("*.md")),
    ROOT / "deploy" / "README.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)\s#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "notebooks").glob("*.md")]
    names = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in pages} - {"index"}
    assert {name for name in names if not re.search(rf"^{name}$", index, re.MULTILINE)} == set()


def test_names_of_commands_in_pages_exist():
    text = "\n".join(page.read_text() for page in PAGES)
    modules = set(re.findall(r"python -m (experiments|benchmarks)\.(\w+)", text))
    missing = {m for m in modules if not (ROOT / m[0] / f"{m[1]}.py").exists()}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_packages_that_pages_name_exist(page):
    if page.name in ("RESULTS.md", "CHANGELOG.md"):
        pytest.skip("tells of the past")
    text = page.read_text()
    paths = re.findall(
        r"`((?:resnet_jax|configs|experiments|benchmarks|tests|deploy|docs)/[\w/.-]*)", text
    )
    packages = re.findall(r"`resnet_jax\.(\w+)", text)
    paths += [f"resnet_jax/{name}" for name in packages if name != "errors"]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_loop_of_ones_own_sees_the_batches_of_the_command(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/get_started.md").read_text(encoding="utf-8")
    [code] = [
        part for part in re.findall(r"```python\n(.+?)```", text, re.DOTALL) if "trainer" in part
    ]
    small = "plain-8,model.width=4,dataset.train=train[:256],dataset.test=test[:64],num_steps=40"
    assert "plain-8,num_steps=40" in code
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("plain-8,num_steps=40", small), names)
    last = capsys.readouterr().out.splitlines()[-1]
    summary = read_run(tmp_path / "runs/plain-8").summary
    assert last == f"40 {{'loss': {summary['test_loss']}, 'error': {summary['test_error']}}}"
