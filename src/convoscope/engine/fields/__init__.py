"""Where the cells of a layer look: receptive fields found by watching one forward."""
