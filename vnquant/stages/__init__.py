"""The ordered pipeline: ingest, features, train, evaluate, backtest, optimize, deploy, forecast,
report.

Beside it stands walk_forward, which trains and judges every fold of a spec that has folds.
Each stage is idempotent: what is finished is skipped, what was interrupted is continued. This
package is the only place that knows the order.
"""

from vnquant.stages.pipeline import ALL, STAGES, run_stage, run_stages

__all__ = ["ALL", "STAGES", "run_stage", "run_stages"]
