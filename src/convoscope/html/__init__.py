"""Pages that are written once: report, map, demo, diagnosis."""
