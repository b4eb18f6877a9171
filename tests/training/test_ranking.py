"""RankIC in training is the RankIC that forecasts are judged by."""

from __future__ import annotations

import numpy as np
import torch

from vnquant.evaluation import correlation
from vnquant.training import ranking
from vnquant.training.ranking import CrossSections


def test_a_session_counts_from_as_many_symbols_as_where_it_is_judged() -> None:
    assert ranking.MIN_CROSS_SECTION == correlation.MIN_CROSS_SECTION


def test_equals_the_evaluations_with_ties_padding_and_thin_sessions() -> None:
    rng = np.random.default_rng(0)
    models, n = 3, 400
    # Some sessions have fewer than five symbols; models see other sessions.
    session = np.sort(rng.integers(0, 60, (models, n)), axis=1) + 100 * np.arange(models)[:, None]
    realised, said = rng.normal(size=(2, models, n)).round(1)  # rounded: many are equal
    counted = np.ones((models, n), dtype=bool)
    counted[1, 300:] = False
    counted[2, ::7] = False
    order = rng.permutation(n)  # rows come in any order
    parts = [torch.from_numpy(a[:, order]) for a in (realised, session, counted)]
    found = CrossSections(*parts).rank_ic(torch.from_numpy(said[:, order]))
    for m in range(models):
        rows = counted[m]
        series = correlation.correlation_series(
            said[m, rows], realised[m, rows], session[m, rows], ranked=True
        )
        assert np.isnan(series).any(), "a thin session was wanted"
        np.testing.assert_allclose(float(found[m]), np.nanmean(series), rtol=1e-12)


def test_constant_forecasts_and_lone_symbols_have_none() -> None:
    realised, session = torch.randn(1, 30), torch.arange(3).repeat_interleave(10)[None]
    counted = torch.ones(1, 30, dtype=torch.bool)
    assert CrossSections(realised, session, counted).rank_ic(torch.zeros(1, 30)).isnan()
    alone = CrossSections(realised, torch.arange(30)[None], counted)
    assert alone.rank_ic(torch.randn(1, 30)).isnan()
