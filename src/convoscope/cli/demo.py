"""``convoscope demo``: everything at once, on the bundled toybox."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import DONE, SOME_FAILED, out_folder, progress, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the pictures and the page.")
    ] = "convoscope-demo",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures in one pass.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
) -> int:
    """Show everything on the bundled toybox, offline, as a page of pictures."""
    from ..demo import Told, parts, run

    folder = out_folder(out)
    failed = []
    todo = parts()
    with progress("The demo", len(todo)) as bar:

        def told(part: Told) -> None:
            say(f"{part.seconds:5.1f} s  {part.title}" + (f": {part.error}" if part.error else ""))
            if part.error:
                failed.append(part)
            bar.advance()

        page = run(folder, told=told, device=device, batch_size=batch_size, seed=seed)
    say(f"\nOpen {page} in a browser.")
    return SOME_FAILED if failed else DONE
