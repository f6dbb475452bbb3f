"""The ward as a table: every case with its measured effect, and how much processor time its making took.

Cases that are in the folder already are read (their time is then "-"); the rest is made, one after the other on one
thread. ``--check`` measures every effect again, on fresh pictures. The table is the one in docs/ward.md.

    CONVOSCOPE_CACHE=/tmp/cache python benchmarks/ward.py DIR [--check] [--kind slices]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from convoscope.toybox import ward
from convoscope.toybox.ward import training
from convoscope.toybox.ward.case import right
from convoscope.toybox.ward.drawing import Pictures


def figure(value: float, share: bool) -> str:
    """A share in per cent, an error as it is."""
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"


def row(case: ward.Case, seconds: str, check: bool) -> str:
    """One line of the table."""
    effect = case.effect
    if effect is None:
        accuracy = float(right(case.model, Pictures.read(case.held_out)).mean())
        return (
            f"| `{case.name}` | {case.truth['about']} | accuracy (held out) | {100 * accuracy:.1f} % | | {seconds} |"
        )
    share = "error" not in effect.what
    faulty = figure(effect.faulty, share)
    if check:
        again = case.measure(seed=2)
        assert again is not None
        faulty += f" (again: {figure(again.faulty, share)})"
    healthy = figure(effect.healthy, share)
    return f"| `{case.name}` | {case.truth['about']} | {effect.what} | {healthy} | {faulty} | {seconds} |"


def main() -> None:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--kind")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    for kind in training.KINDS:
        training.base_states(kind)
    print(f"Pool and {len(training.KINDS)} bases: {time.process_time() - began:.0f} s of processor time.\n")
    print("| case | fault | measured | healthy | faulty | seconds |\n|---|---|---|---|---|---|")
    total, failed = 0.0, []
    for recipe in ward.CASES:
        if asked.kind not in (None, recipe.kind):
            continue
        there = ward.is_made(Path(asked.folder) / recipe.name)
        start = time.process_time()
        try:
            case = ward.make(asked.folder, recipe.name)
        except ward.NotTaken as error:
            failed.append(str(error))
            continue
        spent = time.process_time() - start
        total += 0 if there else spent
        print(row(case, "-" if there else f"{spent:.0f}", asked.check), flush=True)
    print(f"\nMade in {total:.0f} s of processor time.")
    for sentence in failed:
        print(sentence)


if __name__ == "__main__":
    main()
