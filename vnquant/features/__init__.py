"""Features, targets and windows: from clean bars to what a model reads."""
