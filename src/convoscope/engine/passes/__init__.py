"""Running a network: what methods need, one forward and few backwards for it, and nothing left behind."""
