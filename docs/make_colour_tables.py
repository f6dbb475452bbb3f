"""Write the colour tables that the program ships, so that drawing needs no import of matplotlib (0.3 s).

``python docs/make_colour_tables.py`` reads them from matplotlib; tests hold them equal to it.
"""

from __future__ import annotations

from convoscope.draw import colour


def main() -> None:
    """One file of 511 x 3 bytes for each colour map that the program uses by itself."""
    colour.TABLES.mkdir(exist_ok=True)
    for name in (colour.SEQUENTIAL, colour.DIVERGING, "viridis"):
        (colour.TABLES / f"{name}.rgb").write_bytes(colour.computed(name).tobytes())


if __name__ == "__main__":
    main()
