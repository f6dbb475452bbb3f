"""Every snippet of README and docs runs: ``sh`` and ``python`` blocks, page by page, in a temporary folder.

Pages for newcomers start from an empty folder, so that nothing that is pasted can fail. The others find the files that
they call yours (a network, weights, labels, photos). Weights that would be fetched are random ones. A ``text`` block
right behind an ``sh`` block is what it prints; ``...`` stands for anything.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from snippets import blocks, commands, matches, pages

#: these must work on paste, in an empty folder
FROM_NOTHING = {
    "README.md", "docs/index.md", "docs/start.md", "docs/tour.md",
    "docs/ko/index.md", "docs/ko/readme.md", "docs/ko/tour.md",
    "docs/way-inside.md", "docs/way-why.md", "docs/way-improved.md", "docs/concepts.md", "docs/toybox.md",
}  # fmt: skip
#: these run every time; the others take more than a few seconds each, and take turns (`make test-all` runs every one)
QUICK = {
    "docs/index.md", "docs/ko/index.md", "docs/toybox.md", "docs/way-inside.md", "docs/howto/bands.md",
    "docs/howto/volumes.md", "docs/howto/notebooks.md", "docs/howto/timm.md",
}  # fmt: skip
#: what a page takes for given
GIVEN = {
    "docs/diff.md": """
import torch
from convoscope.toybox import CLASSES, card, draw, load
net = load("toybox")
MEAN, STD, LABELS = card("toybox").mean, card("toybox").std, CLASSES
pictures = [(draw(k).image, draw(k).label) for k in range(8)]
epochs, criterion = 2, torch.nn.CrossEntropyLoss()
batches = [(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))]
optimiser = torch.optim.SGD(net.parameters(), lr=1e-4)
""",
    "docs/page.md": """
import convoscope as cs
shown = cs.serve("toybox", port=0)
""",
}
#: what stands for something else in a test: (page's words, ours)
REPLACED = {
    "docs/page.md": [("http://127.0.0.1:8000", "{shown.url}")],
    "docs/diagnose.md": [('"resnet50"', '"toybox"')],
}
#: what is run elsewhere, and why
ELSEWHERE = {
    "docs/ward.md": "a case is trained for minutes: tests/unit/test_ward.py",
    "docs/architecture.md": "the sketch of a method whose whole is src/convoscope/methods/vargrad.py",
}
#: what a page shows and a test does not do: install, build, serve for ever, or all of it at once (test_demo does that)
PASSED_OVER = ("pip", "make", "convoscope demo", "convoscope serve", "jupyter")


def runnable(name: str) -> list:
    return [block for block in blocks(pages()[name]) if block.language in ("sh", "python", "text")]


def cases() -> list:
    found = []
    for name in pages():
        if name not in ELSEWHERE and any(block.language in ("sh", "python") for block in runnable(name)):
            found.append(pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]))
    return found


@pytest.fixture(scope="session")
def yours(tmp_path_factory) -> Path:
    """The files that pages call the reader's own."""
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from convoscope.toybox import CLASSES, draw, load, write

    folder = tmp_path_factory.mktemp("yours")
    (folder / "net.py").write_text(
        "from convoscope.toybox import load\n\ndef network():\n    return load('toybox')\n\nbuild = network\n",
        "utf-8",
    )
    state = load("toybox").state_dict()
    for name in ("best.safetensors", "last.safetensors"):
        save_file(state, folder / name)
    torch.save(state, folder / "mine.pth")
    (folder / "labels.txt").write_text("\n".join(CLASSES), "utf-8")
    Image.fromarray(draw(11, label="cat").image).save(folder / "cat.jpg")
    for place, seed in (("photos", 1), ("pictures", 2), ("training", 3)):
        write(folder / place, 40 if place != "photos" else 6, seed=seed)
    return folder


@pytest.fixture
def offline(monkeypatch):
    """What would be fetched is random instead: the commands are the same."""
    import timm
    import torchvision.models as zoo

    def made(self, *args, **settings):
        kind = type(self).__name__.removesuffix("_Weights").lower()
        named = {name.replace("_", ""): name for name in zoo.list_models()}
        return zoo.get_model(named[kind.replace("_", "")], weights=None).state_dict()

    monkeypatch.setattr(zoo._api.WeightsEnum, "get_state_dict", made)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **settings: create(name, **settings))


@pytest.fixture
def pages_end(monkeypatch):
    """A page that a snippet serves ends with the test: its thread would be there for every later one."""
    from convoscope.web import inline

    served = []

    class Told(inline.Served):
        def __init__(self, *given):
            super().__init__(*given)
            served.append(self)

    monkeypatch.setattr(inline, "Served", Told)
    yield
    for one in served:
        one.stop()


@pytest.mark.parametrize("name", cases())
def test_the_snippets_of_a_page_run(name, yours, offline, pages_end, tmp_path, monkeypatch, capfd):
    from convoscope.cli import run

    if name not in FROM_NOTHING:
        shutil.copytree(yours, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    space: dict = {"__name__": "__main__"}
    exec(GIVEN.get(name, ""), space)
    printed = ""
    for block in runnable(name):
        where = f"{name}, line {block.line}"
        if block.language == "text":
            if printed and not block.text.startswith(("convoscope", "import", "cs.")):
                assert matches(block.text, printed), f"{where}: the page says\n{block.text}\nbut it is\n{printed}"
            printed = ""
        elif block.language == "python":
            text = block.text
            for theirs, ours in REPLACED.get(name, ()):
                text = text.replace(theirs, ours.replace("{shown.url}", getattr(space.get("shown"), "url", "")))
            exec(compile(text, where, "exec"), space)
        else:
            printed = ""
            for words in commands(block.text):
                if " ".join(words).startswith(PASSED_OVER):
                    continue
                assert words[0] == "convoscope", f"{where}: {' '.join(words)} is not run by anybody"
                capfd.readouterr()
                code = run(words[1:])
                out, err = capfd.readouterr()
                assert code == 0, f"{where}: {' '.join(words)} ends with {code}: {err}"
                printed += out


def test_what_a_page_says_is_compared():
    assert matches("1 explained of ... pictures.\n...", "1 explained of 3 pictures.\nResults")
    assert not matches("1 explained of 2 pictures.", "1 explained of 3 pictures.")


@pytest.mark.parametrize("name", sorted({*FROM_NOTHING, *QUICK, *GIVEN, *REPLACED, *ELSEWHERE}))
def test_the_lists_name_pages_that_are_there(name):
    assert name in pages()
