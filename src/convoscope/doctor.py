"""What ``convoscope doctor`` finds: versions, the device, the extras, and whether the program works here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Callable
from typing import Any

from . import allocator
from .extras import EXTRAS

_CORE = ("torch", "torchvision", "numpy", "pillow", "safetensors", "typer", "rich", "matplotlib")


def examine() -> dict[str, Any]:
    """Versions, device, extras and the checks' results, as plain data; ``ok`` where every check passed.

    Takes a few seconds: the self-test opens the bundled network and explains a drawn picture.
    """
    checks = [_timed(name, check) for name, check in _CHECKS.items()]
    return {
        "ok": all(check["ok"] for check in checks) and not too_old(),
        "versions": versions(),
        "device": device(),
        "extras": extras(),
        "requirements": requirements(),
        "checks": checks,
    }


def versions() -> dict[str, str]:
    """Versions of Python, of this program and of what it stands on; "missing" where a package is not installed."""
    from .version import __version__

    found = {"convoscope": __version__, "python": platform.python_version()}
    for package in _CORE:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def requirements() -> list[dict[str, Any]]:
    """What this program asks for, beside what is installed: package, extra or none, wanted, found, ok.

    Of extras only what is installed is listed; what is missing stands in :func:`extras`. Empty where the program
    itself is not installed (run from a checkout).
    """
    from packaging.requirements import Requirement

    try:
        asked = importlib.metadata.requires("convoscope") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    listed = []
    for extra in (None, *EXTRAS):
        for wanted in map(Requirement, asked):
            own = "extra" in str(wanted.marker or "")
            if wanted.name == "convoscope" or own != (extra is not None):
                continue
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra or ""}):
                continue
            try:
                found = importlib.metadata.version(wanted.name)
            except importlib.metadata.PackageNotFoundError:
                if extra is None:
                    listed.append(_requirement(wanted.name, extra, str(wanted.specifier), "missing", ok=False))
                continue
            ok = wanted.specifier.contains(found, prereleases=True)
            listed.append(_requirement(wanted.name, extra, str(wanted.specifier), found, ok=ok))
    return listed


def _requirement(package: str, extra: str | None, wanted: str, found: str, *, ok: bool) -> dict[str, Any]:
    return {"package": package, "extra": extra, "wanted": wanted, "found": found, "ok": ok}


def too_old() -> list[str]:
    """One sentence for every installed version that this program is not made for."""
    sentences = []
    for one in requirements():
        if not one["ok"]:
            which = f"convoscope[{one['extra']}]" if one["extra"] else "convoscope"
            has = "it is missing" if one["found"] == "missing" else f"{one['found']} is installed"
            sentences.append(
                f"{which} asks for {one['package']}{one['wanted']}, but {has}: pip install --upgrade '{which}'"
            )
    return sentences


def extras() -> dict[str, dict[str, Any]]:
    """For each extra: the packages that are missing, and how to install them."""
    return {
        extra: {
            "missing": [package for module, package in needed.items() if importlib.util.find_spec(module) is None],
            "install": f"pip install 'convoscope[{extra}]'",
        }
        for extra, needed in EXTRAS.items()
    }


def device() -> dict[str, Any]:
    """The device that would be used, the CPU threads of torch, and what becomes of memory between passes."""
    import torch

    from .models.device import choose_device

    chosen = choose_device(None)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine() or "unknown"
    return {
        "type": chosen.type,
        "name": f"{chosen.type} ({name})",
        "threads": torch.get_num_threads(),
        "memory": allocator.in_force(),
    }


def _timed(name: str, check: Callable[[], str]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        ok, said = True, check()
    except Exception as error:  # whatever is wrong with an installation belongs in the report
        ok, said = False, f"{type(error).__name__}: {error}"
    return {"name": name, "ok": ok, "said": said, "seconds": round(time.perf_counter() - started, 2)}


def _opens() -> str:
    model = _toybox()
    return f"{len(model.labels or ())} classes, {sum(p.numel() for p in model.module.parameters()):,} parameters"


def _toybox() -> Any:
    from .models.opening import open_model

    return open_model("toybox", device="cpu")


def _picture() -> Any:
    from .toybox import draw

    return draw(7, label="car").image


def _explains() -> str:
    from .explanation import explain

    model = _toybox()
    before = model.fingerprint
    result = explain(model, _picture(), ["grad-cam", "guided-backprop", "saliency", "integrated-gradients"])
    empty = [name for name, heatmap in result.items() if not heatmap.values.any()]
    if empty:
        raise RuntimeError(f"empty maps: {', '.join(empty)}")
    if model.fingerprint != before:
        raise RuntimeError("the network was changed")
    plan = result.plan
    return f"{result.target}, {len(result)} maps in {plan.forwards} forwards and {plan.backwards} backwards"


def _cam_is_exact() -> str:
    from .explanation import explain

    model = _toybox()
    result = explain(model, _picture(), "cam")
    grid = result["cam"].grid
    bias = next(m for m in reversed(list(model.module.modules())) if hasattr(m, "out_features")).bias
    logit = float(grid.mean()) + float(bias[result.prediction[0]["index"]].detach())
    if abs(logit - result.score) > 1e-3 * max(1.0, abs(result.score)):
        raise RuntimeError(f"mean(CAM) + bias is {logit:.4f}, the logit {result.score:.4f}")
    return f"mean(CAM) + bias = {logit:.4f} = the logit"


def _draws() -> str:
    from .explanation import explain

    sheet = explain(_toybox(), _picture(), ["grad-cam", "saliency"]).sheet()
    width, height = sheet.image.size
    return f"a sheet of {width}×{height} pixels"


_CHECKS: dict[str, Callable[[], str]] = {
    "the toybox opens": _opens,
    "pictures are explained": _explains,
    "CAM adds up to the score": _cam_is_exact,
    "sheets are drawn": _draws,
}
