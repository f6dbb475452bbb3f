"""Published figures, had again: TorchRay's pointing game and RISE's deletion and insertion.

    # TorchRay: VOC07 test, with networks fine-tuned on VOC (20 classes; the weights are TorchRay's, converted)
    python examples/published_figures.py pointing ./resnet50_voc.py:build --weights resnet50_voc.pt \\
        --labels voc_classes.txt --voc VOCdevkit/VOC2007 --method saliency,deconvnet,guided-backprop,grad-cam
    # RISE: ImageNet validation pictures
    python examples/published_figures.py causal resnet50 --images ILSVRC2012_val --method rise,grad-cam
    # here and now, without any data: the toybox written out in VOC's form
    python examples/published_figures.py pointing toybox

Published (VOC07 test, ResNet-50, all pictures): centre 69.6, gradient 72.3, deconvnet 68.6, guided 77.2, RISE 86.4,
Grad-CAM 90.4. The protocol's traps are flags: --smooth, --tolerance, --short-side, --no-fully-convolutional.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import convoscope as cs
from convoscope.errors import ConvoscopeError
from convoscope.pictures.picture import find_pictures
from convoscope.trust import datasets
from convoscope.trust.league import interval
from convoscope.trust.published import (
    POINTING_VOC07,
    CausalProtocol,
    PointingProtocol,
    causal_areas,
    pointing_game,
)


def told(done: int, total: int) -> None:
    """Progress on standard error."""
    print(f"\r{done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def pointing(given: argparse.Namespace, model: cs.Model, methods: list[str]) -> dict[str, object]:
    """The pointing game on VOC, or on the toybox written out in VOC's form."""
    protocol = PointingProtocol(
        short_side=given.short_side or None,
        tolerance=given.tolerance,
        smooth=given.smooth,
        fully_convolutional=given.fully_convolutional,
        difficult=given.difficult,
    )
    with tempfile.TemporaryDirectory() as place:
        folder = given.voc
        if folder is None:
            if model.spec != "toybox":
                sys.exit(
                    "Give the pictures: --voc FOLDER (with Annotations, JPEGImages). Only toybox brings its own."
                )
            folder = datasets.write_voc(datasets.toybox_cases(given.limit or 40), place)
            protocol = PointingProtocol(
                96, 15 * 96 / 224, given.smooth, fully_convolutional=given.fully_convolutional
            )
        cases = datasets.voc(folder, model, given.split, given.limit)
        found = pointing_game(model, cases, methods, protocol, progress=told).to_dict()
    known = POINTING_VOC07.get(given.arch or str(model.spec).split(":")[-1], {})
    for method, row in found.items():
        beside = f"   published {known[method]:.1f}" if method in known and not given.difficult else ""
        print(f"{method:24} {100 * row['accuracy']:6.1f}   {row['n']} cases{beside}")
    return found


def causal(given: argparse.Namespace, model: cs.Model, methods: list[str]) -> dict[str, object]:
    """RISE's areas."""
    if given.images is not None:
        pictures: list[object] = list(find_pictures([given.images])[: given.limit])
    elif model.spec == "toybox":
        pictures = [case.source for case in datasets.toybox_cases(given.limit or 10)]
    else:
        sys.exit("Give the pictures: --images FOLDER. Only toybox brings its own.")
    found = causal_areas(model, pictures, methods, CausalProtocol(given.pixels, given.blur), progress=told)
    for measure, rows in found.items():
        for method, areas in rows.items():
            mean = interval(areas)
            print(f"{measure:10} {method:24} {mean.mean:.4f}   {mean.low:.4f} to {mean.high:.4f}   {mean.n} pictures")
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pointing", "causal"))
    parser.add_argument("model", help="toybox, resnet50, path/net.py:function, ...")
    parser.add_argument("--weights")
    parser.add_argument("--labels", help="file with one class name a line")
    parser.add_argument("--arch", help="name under which the published figures are known: resnet50")
    parser.add_argument("--method", default="saliency,deconvnet,guided-backprop,grad-cam")
    parser.add_argument("--voc", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--difficult", action="store_true")
    parser.add_argument("--short-side", type=int, default=224, help="0: the model's own preprocessing")
    parser.add_argument("--tolerance", type=float, default=15.0)
    parser.add_argument("--smooth", type=float, default=0.02)
    parser.add_argument("--fully-convolutional", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--pixels", type=int, default=224, help="RISE: pixels a step")
    parser.add_argument("--blur", type=float, default=5.0, help="RISE: deviation of insertion's start, pixels")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    try:
        model = cs.open_model(given.model, weights=given.weights, labels=given.labels)
        methods = [name.strip() for name in given.method.split(",")]
        found = (pointing if given.what == "pointing" else causal)(given, model, methods)
    except ConvoscopeError as error:
        sys.exit(str(error))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
