"""A static page of pictures with a sentence each: one HTML file without scripts."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from convoscope.errors import UsageError
from convoscope.files import write_whole
from convoscope.names import shown

_CSS = """
:root{color-scheme:light dark;--page:#fbfbfa;--ink:#1a1c20;--soft:#5c636c;--line:#e2e4e7;--accent:#0b62a4;
--card:#ffffff;--veil:rgba(250,250,249,.97)}
@media (prefers-color-scheme:dark){:root{--page:#15171a;--ink:#e8e9eb;--soft:#9aa2ac;--line:#2c3036;
--accent:#6db3ec;--card:#ffffff;--veil:rgba(16,18,20,.97)}}
*{box-sizing:border-box}
html{scroll-padding-top:1.5rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans KR",sans-serif}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 1.5rem}
header{padding-top:3.5rem}
h1{font-size:2rem;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:0 0 .6rem;text-wrap:balance}
h2{font-size:1.2rem;line-height:1.3;font-weight:650;margin:0 0 .25rem}
p{margin:0;max-width:44rem;overflow-wrap:anywhere}
header p{color:var(--soft);font-size:1.06rem}
header p+p{margin-top:.6rem}
a{color:var(--accent)}
a:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
nav{margin-top:1.6rem;padding:.8rem 0;border-top:1px solid var(--line);border-bottom:1px solid var(--line)}
nav ol{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1.4rem;font-size:.92rem}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
section{padding:2.6rem 0 .4rem}
section>p{color:var(--soft)}
.items{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1.6rem;
align-items:start;margin-top:1.1rem}
figure{margin:0;min-width:0}
.wide{grid-column:1/-1}
.shot{display:block;border:1px solid var(--line);border-radius:6px;overflow:hidden;background:var(--card);
cursor:zoom-in}
.shot img{display:block;width:100%;height:auto;max-height:80vh;object-fit:contain;margin:0 auto}
.tiny img{image-rendering:pixelated}
figcaption{margin-top:.5rem;font-size:.9rem;line-height:1.45;color:var(--soft);overflow-wrap:anywhere}
.file{font-size:.9rem}
.shut,.full{display:none}
figure:target{position:fixed;inset:0;z-index:2;display:flex;flex-direction:column;align-items:center;
justify-content:center;gap:.8rem;padding:3rem 1.2rem 1.2rem;background:var(--veil)}
figure:target .shot{cursor:default;max-width:100%;min-height:0;flex:0 1 auto;display:flex}
figure:target .shot img{width:auto;height:auto;max-width:100%;max-height:100%;min-height:0;object-fit:contain}
figure:target.tiny .shot img{width:min(80vw,70vh)}
figure:target figcaption{margin:0;max-width:60rem;text-align:center}
figure:target .shut{display:block;position:absolute;top:.7rem;right:1.1rem;padding:.2rem .7rem;
font-size:1rem;text-decoration:none;border:1px solid var(--line);border-radius:6px;background:var(--page)}
figure:target .shut::before{content:"";position:fixed;inset:0;z-index:-1}
figure:target .full{display:block;font-size:.9rem}
footer{padding-top:3rem;padding-bottom:3rem;color:var(--soft);font-size:.85rem}
@media print{nav,.shut,.full{display:none}figure{break-inside:avoid}}
"""

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg"}


@dataclass(frozen=True)
class Item:
    """One picture (or other file, which becomes a link).

    Attributes:
        file: path, absolute or relative to the page's folder.
        caption: a sentence below it.
        alt: what is seen, for readers who do not see it; the caption if empty.
    """

    file: str | Path
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and pictures."""

    title: str
    sentence: str = ""
    items: Sequence[Item] = field(default_factory=tuple)


def write(
    folder: str | Path,
    title: str,
    intro: str,
    sections: Sequence[Section],
    *,
    footer: str = "",
    lang: str = "en",
) -> Path:
    """Write ``index.html`` into a folder of pictures, which it shows by relative paths.

    Args:
        folder: where the page goes; it is made if it is missing.
        title: heading and window title.
        intro: text under the heading; an empty line starts a new paragraph.
        sections: what is shown, in this order.
        footer: small text at the end.
        lang: language of the text, for screen readers.

    Returns:
        The path of ``index.html``.

    Raises:
        UsageError: where a file to be shown does not exist.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    write_whole(path, shown(_html(folder, title, intro, sections, footer, lang, embedded=False)))
    return path


def embed(
    path: str | Path,
    title: str,
    intro: str,
    sections: Sequence[Section],
    *,
    folder: str | Path | None = None,
    footer: str = "",
    lang: str = "en",
) -> Path:
    """Write the same page as one file that holds its pictures, to be mailed or archived.

    Args:
        path: the HTML file to write.
        folder: what relative picture paths start from; None for the page's own folder.

    The other arguments and the errors are those of `write`. Returns the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Path(folder) if folder is not None else path.parent
    write_whole(path, shown(_html(base, title, intro, sections, footer, lang, embedded=True)))
    return path


def _html(
    folder: Path,
    title: str,
    intro: str,
    sections: Sequence[Section],
    footer: str,
    lang: str,
    *,
    embedded: bool,
) -> str:
    out = [
        "<!doctype html>",
        f'<html lang="{escape(lang)}">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        # pictures may stand beside the page; nothing else is allowed
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src 'self' file: data:; "
        "style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'\">",
        f"<title>{escape(title)}</title>",
        '<link rel="icon" href="data:,">',
        f"<style>{_CSS}</style>",
        "</head>",
        "<body>",
        "<header>",
        f"<h1>{escape(title)}</h1>",
        *_paragraphs(intro),
    ]
    if len(sections) > 2:
        out.append('<nav aria-label="Contents"><ol>')
        out.extend(f'<li><a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections, start=1))
        out.append("</ol></nav>")
    out.append("</header>")
    out.append("<main>")
    for number, section in enumerate(sections, start=1):
        out.append(f'<section id="s{number}" aria-labelledby="h{number}">')
        out.append(f'<h2 id="h{number}">{escape(section.title)}</h2>')
        out.extend(_paragraphs(section.sentence))
        if section.items:
            out.append('<div class="items">')
            out.extend(
                _item(folder, item, f"{number}-{place}", embedded)
                for place, item in enumerate(section.items, start=1)
            )
            out.append("</div>")
        out.append("</section>")
    out.append("</main>")
    if footer:
        out.extend(["<footer>", *_paragraphs(footer), "</footer>"])
    out.extend(["</body>", "</html>", ""])
    return "\n".join(out)


def _paragraphs(text: str) -> list[str]:
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return [f"<p>{escape(part)}</p>" for part in parts if part]


def _item(folder: Path, item: Item, key: str, embedded: bool) -> str:
    file = folder / item.file
    if not file.is_file():
        raise UsageError(f"The page cannot show {str(item.file)!r}: there is no such file in {str(folder)!r}.")
    href = _data_uri(file) if embedded else quote(os.path.relpath(file, folder).replace(os.sep, "/"))
    caption = escape(item.caption)
    if file.suffix.lower() not in _PICTURES:
        name = escape(file.name)
        described = f"<figcaption>{caption}</figcaption>" if caption else ""
        return f'<figure><a class="file" href="{href}" download="{name}">{name}</a>{described}</figure>'
    size = _size(file)
    wide = size is not None and (size[0] > 1.9 * size[1] or size[0] > 1400)
    tiny = ' class="tiny"' if size is not None and max(size) < 128 else ""
    attributes = f' width="{size[0]}" height="{size[1]}"' if size is not None else ""
    full = "" if embedded else f'<a class="full" href="{href}">Full size</a>'
    alt = escape(item.alt or item.caption or file.stem)
    return (
        f'<div id="b{key}" class="box{" wide" if wide else ""}"><figure id="p{key}"{tiny}>'
        f'<a class="shot" href="#p{key}" aria-label="Enlarge: {alt}">'
        f'<img src="{href}" alt="{alt}" loading="lazy"{attributes}></a>'
        f"<figcaption>{caption}</figcaption>{full}"
        f'<a class="shut" href="#b{key}" aria-label="Close the enlarged picture">Close</a></figure></div>'
    )


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height in pixels, so that nothing jumps while pictures load; None for SVG and the like."""
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, ValueError):
        return None


def _data_uri(file: Path) -> str:
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
