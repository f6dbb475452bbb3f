"""Networks and collections with planted faults of known size, and healthy ones."""
