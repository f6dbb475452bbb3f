"""Units and layers: what in the network does nothing, and what was never trained."""
