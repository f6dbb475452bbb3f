"""Questions to a store: neighbours, maps, patches, units, mistakes."""
