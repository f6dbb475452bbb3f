"""A question asked of a folder: each picture in its own place, resumable, one bad picture reported."""
