"""Prices and the market's rules: sources, quality, adjustment, sessions, bands, universe."""
