"""What MkDocs does not do by itself: the command reference, the list of the API, and links out of this folder.

The command reference is made from the commands, the API reference from the docstrings: neither can lag.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

#: the public names by theme; tests/unit/test_docs_site.py holds that every name stands in one
API = {
    "Open a network and pictures": ["open_model", "wrap", "Model", "layers", "Picture", "Preprocessing"],
    "Explain": ["explain", "explain_folder", "Explanation", "Explanations", "Heatmap", "Plan"],
    "Targets": ["Target", "Instance", "Segment", "Likeness", "Direction", "Combination"],
    "Methods": [
        "METHODS", "Method", "Saliency", "InputXGradient", "IntegratedGradients", "SmoothGrad", "VarGrad", "Deconvnet",
        "GuidedBackprop", "CAM", "GradCAM", "GradCAMPlusPlus", "HiResCAM", "XGradCAM", "LayerCAM", "EigenCAM",
        "FullGrad", "GuidedGradCAM", "Occlusion", "RISE", "LIME", "ScoreCAM", "AblationCAM", "ExtremalPerturbation",
        "AttentionRollout", "AttentionGradient", "LRP", "GradientSHAP", "DeepSHAP",
    ],
    "Look inside": ["filters", "activations", "visualize", "visualize_frames", "Visualization", "Visualizations"],
    "A collection": ["survey", "Store"],
    "Concepts": ["dissect", "Dissection", "tcav", "craft", "Craft", "name_units", "Words"],
    "Is it true?": ["evaluate"],
    "Improve": [
        "diagnose", "Diagnosis", "audit", "health", "stress", "depth", "shortcuts", "Shortcuts", "repair", "Repaired",
        "diff", "Diff", "Watch", "Finding",
    ],
    "Show": ["report", "serve", "Served"],
    "Speed": ["tune_allocator"],
    "Errors": [
        "ConvoscopeError", "UsageError", "ModelError", "PictureError", "TargetError", "LayerError", "MethodRefused",
    ],
}  # fmt: skip


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for name, text in (("reference/commands.md", commands()), ("reference/api.md", api())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository outside this folder lead to the repository."""
    here = (ROOT / "docs" / page.file.src_uri).parent

    def whole(found: re.Match[str]) -> str:
        path = (here / found[2]).resolve()
        if path.is_relative_to(ROOT / "docs") or not path.is_relative_to(ROOT):
            return found[0]
        if not path.exists():
            return found[0]  # MkDocs then says which link is broken
        return f"{found[1]}({config.repo_url}/blob/main/{path.relative_to(ROOT).as_posix()}{found[3] or ''})"

    return re.sub(r"(\[[^\]]*\])\((\.\./[^)#\s]+)(#[^)\s]*)?\)", whole, markdown)


def api() -> str:
    """The API reference: every public name, from its docstring."""
    lines = ["# The library", "", "![One call, many maps](../pictures/hero.png)", ""]
    lines += ["`import convoscope as cs`: every name below is `cs.name`. Nothing else is public.", ""]
    for theme, names in API.items():
        lines += [f"## {theme}", ""]
        lines += [line for name in names for line in (f"::: convoscope.{name}", "")]
    return "\n".join(lines)


def commands() -> str:
    """The command reference: what ``--help`` says, as a page."""
    lines = ["# The commands", "", "![What the commands draw](../pictures/shortcut.png)", ""]
    lines += [
        "Exit codes: 0 all done, 1 some pictures failed (named, the rest is done), 2 could not start, 130 stopped by",
        "you. `--json` prints one document and nothing else on standard output. The flags of the model are the same",
        "for every command that takes one; they stand [at the end](#flags-of-the-model).",
        "",
    ]
    shared: dict[str, tuple[str, str]] = {}
    for path, command in walk():
        lines += [f"## convoscope {path}", "", _prose(command.help), "", "```text", _usage(path, command), "```", ""]
        rows = []
        for name, said, panel in _parameters(command):
            if panel == "The model":
                shared[name] = (name, said)
            else:
                rows.append((name, said))
        lines += [*_table(rows), ""]
    lines += ["## Flags of the model", "", *_table(list(shared.values())), ""]
    return "\n".join(lines)


def walk() -> list[tuple[str, Any]]:
    """Every command with its path: ``concepts tcav``."""
    import typer

    from convoscope.cli import build

    found: list[tuple[str, Any]] = []

    def go(command: Any, path: list[str]) -> None:
        below = getattr(command, "commands", None)
        if below is None:
            found.append((" ".join(path), command))
            return
        for name, child in below.items():
            go(child, [*path, name])

    go(typer.main.get_command(build()), [])
    return found


def _usage(path: str, command: Any) -> str:
    arguments = []
    for one in command.params:
        if one.param_type_name == "argument":
            name = (one.metavar or one.name.upper()).strip("{}")
            arguments.append(name if one.required or name.startswith("[") else f"[{name}]")
    return " ".join(["convoscope", path, *arguments, "[OPTIONS]"])


def _parameters(command: Any) -> list[tuple[str, str, str | None]]:
    rows = []
    for one in command.params:
        if getattr(one, "hidden", False) or one.name == "help":
            continue
        if one.param_type_name == "argument":
            name = f"`{one.metavar or one.name.upper()}`"
        else:
            name = " ".join(f"`{opt}`" for opt in [*one.opts, *one.secondary_opts])
        said = (getattr(one, "help", None) or "").replace("\n", " ")
        default = one.default
        if default not in (None, False, True, (), []) and not callable(default) and "Sentinel" not in repr(default):
            said += f" Default: {default}."
        rows.append((name, said, getattr(one, "rich_help_panel", None)))
    return rows


def _table(rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    cells = [f"| {name} | {_escaped(said)} |" for name, said in rows]
    return ["| | |", "|---|---|", *cells]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _prose(text: str | None) -> str:
    return _escaped(re.sub(r"\n(?!\n)\s*", " ", (text or "").strip())).replace("\\|", "|")
