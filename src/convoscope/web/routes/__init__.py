"""The page's routes, one file a room."""
