"""Judging forecasts on the untouched test part: metrics, intervals, baselines, gate, verdict."""
