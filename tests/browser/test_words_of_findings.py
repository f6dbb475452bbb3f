"""Findings on the Korean page are Korean, figures and all; none of the library's sentences is forgotten."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from finding_sentences import SAID

import convoscope

SOURCE = Path(convoscope.__file__).parent
#: what other faces show, in English: their own pages, tables for a terminal, LaTeX, the tools of a training script
OTHERS = (
    "page.py", "audit_page.py", "watch_page.py", "text.py", "latex.py", "film.py", "watch.py", "alone.py",
    "conclude.py", "result.py", "documents.py", "run.py", "api.py", "papers.py",
)  # fmt: skip
#: shown by commands alone: titles and tables of their own pages, `repair`, `health`, `depth`, `stress`, words of units
COMMANDS = ("repair", "words.py", "truth.py", "border.py", "channels.py", "prune.py")
TITLES = re.compile(
    r"^(What |Where |The audit|The same, class|Groups of|Taken for|Effects of|Units on|Batch norm: what|Weights held|"
    r"First layer|No gain|The classes are sep|Late: |Recall of a lin|gained on|how alike|right on half A|KL to batch|"
    r"The search for slices|How healthy|share of|convoscope |No test was|Cosine of|Bars are|Same answer|Share of false|"
    r"copy of the training|does not fit, and the head|"
    r"\{\}.*(become separable|\(Wilson\)|bears? \(|kinds of change|cell by cell|"
    r"multiply-adds|of each part|× \{\} concepts)|; the middle ones|part \{\}: |Dissection\(|"
    r"Cut into|No unit can|No picture has a label that the network knows: its|the second network|CKA of)"
)


def sentences(file: Path) -> set[str]:
    """Strings of four words and more that are no docstring, no error, with {} for each gap."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and node.body:
            left_out.update(ast.walk(node.body[0]) if isinstance(node.body[0], ast.Expr) else ())
        if isinstance(node, ast.Raise):
            left_out.update(ast.walk(node))
        if isinstance(node, ast.JoinedStr):
            left_out.update(part for part in node.values)
    found = set()
    for node in ast.walk(tree):
        if node in left_out:
            continue
        text = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = re.sub(r"\{\w*(:\w+)?\}", "{}", node.value)
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values)
        text = text.strip()
        if text.count(" ") >= 3 and len(re.findall(r"[a-z]{2,}", text)) >= 4 and not TITLES.match(text):
            found.add(text)
    return found


def library() -> dict[str, str]:
    """Every sentence of the third question, with its file."""
    files = [file for part in ("improve", "concepts") for file in sorted((SOURCE / part).rglob("*.py"))]
    kept = [one for one in files if one.name not in (*OTHERS, *COMMANDS) and one.parent.name not in COMMANDS]
    return {text: str(file.relative_to(SOURCE)) for file in kept for text in sentences(file)}


def holds(said: str, text: str) -> bool:
    """Whether the fixed parts of a sentence stand in what is said, one after the other."""
    at = 0
    for part in text.rstrip(".").split("{}"):
        at = said.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_every_sentence_of_the_library_stands_here() -> None:
    missing = {text: file for text, file in library().items() if not any(holds(said, text) for said in SAID)}
    assert not missing, missing
    assert len(library()) > 70


@pytest.mark.browser
def test_each_is_korean(tab: Any) -> None:
    tab.page.goto(f"{tab.server.url}/?tab=layer")
    told = tab.page.evaluate(
        "said => import('/static/js/strings/server.js').then((it) => said.map((one) => it.inKorean(one)))", SAID
    )
    # names of layers, classes, options and commands stay; three English words in a row are a sentence
    english = re.compile(r"\b[A-Za-z]{2,}(?:[ ,]+[a-z]{2,}){2,}")
    left = {said: korean for said, korean in zip(SAID, told, strict=True) if english.search(korean)}
    assert not left, left
    for said, korean in zip(SAID, told, strict=True):
        assert re.search("[가-힣]", korean), said
        figures = set(re.findall(r"\d+(?:\.\d+)?", said)) - {"0.50", "95"}
        assert figures <= set(re.findall(r"\d+(?:\.\d+)?", korean)), (said, korean)
