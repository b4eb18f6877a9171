"""Features, the resident panel, and the windows cut from it."""
