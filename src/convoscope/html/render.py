"""From plain data to a self-contained HTML file: one folder of templates, one look, nothing from outside."""

from __future__ import annotations

import base64
import io
import math
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..names import upright

#: what every page that is written to a file allows: its own style and the pictures in it, nothing from outside
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("convoscope.html", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    made.filters.update(percent=percent, figure=figure, chance=chance)
    return made


def render(template: str, /, **data: Any) -> str:
    """The page of ``templates/<template>`` with ``data``; text is escaped, and neutralised where it turns direction.

    Every page extends ``base.html``, which allows nothing from outside (a content policy in the page itself).
    """
    return _environment().get_template(template).render(**data)


def inline(image: Image.Image, side: int | None = None, kind: str = "PNG") -> str:
    """A picture as a data URI, at most ``side`` pixels large where that is given."""
    if side is not None and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind, **({"quality": 85} if kind in ("JPEG", "WEBP") else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage: 0.915 is 91.5 %."""
    return "–" if value is None else f"{100 * value:.{digits}f}\u202f%"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with as many significant digits; very small and very large ones as 2.7×10⁻⁵."""
    if value is None:
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 10**6 or not math.isfinite(value):
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_RAISED)}"


def chance(p: float | None) -> str:
    """A p value: whoever reads 2.7×10⁻⁵¹ takes it for more than it is."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _shown(value: Any) -> Any:
    return upright(value) if type(value) is str else value
