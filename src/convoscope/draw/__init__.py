"""Arrays to pixels: colour scales, overlays, contact sheets, grids of tiles and the static page.

Everything here is pure: arrays, pictures and text go in, pixels, files and figures come out. Nothing of the
methods or the engine is imported, torch neither; of matplotlib only the colour maps and the bundled font.
"""
