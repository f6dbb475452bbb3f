"""Commands that look at the network: layers, filters, activations; and the lists: methods, doctor."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import UsageError
from . import common
from .common import (
    JsonFlag,
    ModelArgument,
    ModelOptions,
    columns,
    complain,
    open_from,
    out_file,
    print_json,
    say,
    takes_model,
)

OutFile = Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="Where to write: .png, .pdf or .svg.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(layers)
    app.command()(filters)
    app.command()(activations)
    app.command()(methods)
    app.command()(doctor)


@takes_model
def layers(
    model: ModelArgument,
    options: ModelOptions,
    layer: Annotated[str | None, typer.Option("--layer", help="Only these; a glob such as 'layer3*'.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the network's layers: output shape, parameters, receptive field."""
    from ..models.layers import layers as rows_of

    opened = open_from(model, options)
    found = rows_of(opened)
    rows = list(found)
    if layer is not None:
        chosen = set(match_layers(layer, [row["name"] for row in rows]))
        rows = [row for row in rows if row["name"] in chosen]
    if found.assumed:
        complain(f"Note: {found.assumed}. Give --size for another.")
    if json:
        print_json(rows)
        return
    header = ("layer", "type", "output", "parameters", "field", "stride", "first centre")
    say(columns(header, [_layer_row(row) for row in rows]))
    default = next((row["name"] for row in rows if row.get("default")), None)
    total = sum(p.numel() for p in opened.module.parameters())
    say(f"\n{len(rows)} layers, {total:,} parameters." + (f" --layer defaults to {default} (*)." if default else ""))


def match_layers(pattern: str, names: list[str]) -> list[str]:
    """The layers that a name or a glob (or several, between commas) means.

    Raises :class:`LayerError` with the nearest names where there is none.
    """
    from fnmatch import fnmatchcase

    from ..errors import LayerError
    from ..targets.units import no_such_layer

    found: dict[str, None] = {}
    for part in common.split_names(pattern) or [pattern]:
        matched = [part] if part in names else [name for name in names if fnmatchcase(name, part)]
        if not matched:
            raise LayerError(no_such_layer(part, names))
        found.update(dict.fromkeys(matched))
    return list(found)


def _layer_row(row: dict[str, Any]) -> tuple[str, ...]:
    field = row["rf"]
    name = row["name"] + (" *" if row.get("default") else "")
    shape = "×".join(map(str, row["shape"][1:] or row["shape"]))  # without the batch
    parameters = f"{row['parameters']:,}" if row["parameters"] else "-"
    if field is None:
        return name, row["type"], shape, parameters, "-", "-", "-"
    return name, row["type"], shape, parameters, _pair(field["size"]), _pair(field["stride"]), _pair(field["offset"])


def _pair(values: Any) -> str:
    if values is None:
        return "all"
    if isinstance(values, (int, float)):
        values = (values, values)
    shown = ["all" if v is None else f"{v:g}" for v in values]
    return shown[0] if len(set(shown)) == 1 else "×".join(shown)


@takes_model
def filters(
    model: ModelArgument,
    options: ModelOptions,
    out: OutFile,
    layer: Annotated[str | None, typer.Option("--layer", help="A convolution; default: the first.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=2048, help="Filters shown at most.")] = None,
) -> None:
    """Draw the filters of a convolution: what its weights look like."""
    from ..methods.views import filters as draw

    file = out_file(out)
    draw(open_from(model, options), layer, limit=limit).save(file)
    say(str(file))


@takes_model
def activations(
    model: ModelArgument,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The picture.")],
    options: ModelOptions,
    out: OutFile,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Default: the last grid before the class scores.")
    ] = None,
    scale: Annotated[
        str, typer.Option("--scale", help="own: colours for each channel; shared: one scale for all.")
    ] = "own",
    limit: Annotated[int, typer.Option("--limit", min=1, max=2048, help="Channels shown at most.")] = 64,
) -> None:
    """Draw what every channel of a layer responds to in a picture, strongest first."""
    from ..methods.views import activations as draw

    file = out_file(out)
    if scale not in ("own", "shared"):
        raise UsageError(f"--scale must be own or shared, not {scale!r}.")
    draw(open_from(model, options), image, layer, scale=scale, limit=limit).save(file)  # type: ignore[arg-type]
    say(str(file))


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="Tell all about this one.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the methods: what they show, their cost in passes, sign, reduction and paper."""
    from ..methods import describe
    from ..methods import method as find

    rows = describe()
    if name is not None:
        known = find(name).about.name
        rows = [row for row in rows if row["name"] == known]
    if json:
        print_json(rows if name is None else rows[0])
        return
    if name is not None:
        say(_method_page(rows[0]))
        return
    header = ("method", "shows", "cost", "signed")
    table = [
        (
            row["name"] + (" (slow)" if row["slow"] else ""),
            row["shows"],
            row["cost"],
            "yes" if row["signed"] else "no",
        )
        for row in rows
    ]
    say(columns(header, table, wrap=1))
    say("\n`convoscope methods METHOD` tells its settings, paper and BibTeX. `--method all` leaves out slow ones.")


def _method_page(row: dict[str, Any]) -> str:
    lines = [
        f"{row['title']} ({row['name']}): {row['shows']}.",
        "",
        f"Cost       {row['cost']}",
        f"Values     {'signed' if row['signed'] else 'unsigned'}, {row['unit']}",
        f"Reduction  {row['reduction'] or 'none'}",
        f"Paper      {row['paper']}",
    ]
    if row["settings"]:
        lines += ["", "Settings (--set " + row["name"] + ".NAME=VALUE):"]
        table = []
        for setting in row["settings"]:
            choices = setting.get("choices")
            kind = " | ".join(map(str, choices)) if choices else setting["type"]
            table.append((setting["name"], kind, str(setting["default"]), setting.get("help", "")))
        lines.append(columns(("name", "type", "default", "what it is"), table, wrap=3))
    return "\n".join([*lines, "", row["bibtex"]])


def doctor(json: JsonFlag = False) -> int:
    """Check this installation: versions, device, extras, and a self-test on the toybox."""
    from ..doctor import examine, too_old

    found = examine()
    if json:
        print_json(found)
    else:
        versions = [(name, version) for name, version in found["versions"].items()]
        say(columns(("package", "version"), versions))
        say(f"\nDevice: {found['device']['name']} ({found['device']['threads']} threads)")
        say(f"Memory: {found['device']['memory']}")
        for extra, state in found["extras"].items():
            missing = ", ".join(state["missing"])
            say(f"Extra {extra:<8} " + ("present" if not missing else f"missing: {missing} ({state['install']})"))
        say("")
        for check in found["checks"]:
            say(
                f"{'ok  ' if check['ok'] else 'FAIL'} {check['name']}"
                + (f": {check['said']}" if check["said"] else "")
            )
        for sentence in too_old():
            say(f"FAIL {sentence}")
        say("\nAll well." if found["ok"] else "\nSomething is wrong: see FAIL above.")
    return common.DONE if found["ok"] else common.SOME_FAILED
