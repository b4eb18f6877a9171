"""RunSpec: everything that changes a run's result, and nothing else.

Frozen pydantic models, unknown keys refused, canonical JSON, one digest. Where and how a run
executes (device, threads, stack width, paths, checkpoint interval) is deliberately absent, so the
same digest on a CPU, an A100 or in Colab names the same run. Imports neither torch nor pandas.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vnquant.errors import UsageError

SCHEMA_VERSION = 1

SYMBOL_PATTERN = re.compile(r"[A-Z0-9]{1,10}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(_Frozen):
    """Which prices. ``snapshot`` is the sha256 of the raw bars of the run's symbols, as
    `vnquant.market.sources.snapshot_hash` computes it, so a changed price is a changed run."""

    source: Literal["folder", "synthetic"] = "synthetic"
    snapshot: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    start: dt.date | None = None
    """First session used (inclusive); None: from the first bar."""
    end: dt.date | None = None
    """Last session used (inclusive); None: to the last bar."""


class FeatureSpec(_Frozen):
    """Which features. A set is frozen under its name: a changed formula gets a new name.

    ``v2`` is ``v1`` and ten more about the market; it needs VNINDEX among the prices.
    """

    name: Literal["v1", "v2"] = "v1"


class WindowSpec(_Frozen):
    """Lookback, horizon and the chronological split, all in sessions or dates.

    A training window ends at least ``purge`` sessions before ``validation_start`` and its targets
    end before it; a validation window ends at least ``embargo`` sessions after it; likewise for
    ``test_start``.
    """

    lookback: int = Field(default=60, ge=2, le=512)
    horizon: int = Field(default=5, ge=1, le=60)
    purge: int = Field(default=5, ge=0)
    embargo: int = Field(default=5, ge=0)
    validation_start: dt.date
    test_start: dt.date
    max_gap: int = Field(default=10, ge=1)
    """A hole of more than this many sessions ends a segment; no window crosses it."""
    half_life: float | None = Field(default=None, gt=0.0, le=1e6)
    """Sessions; of two inputs, the one that is so much older counts half. None: all count alike."""

    @model_validator(mode="after")
    def _ordered(self) -> WindowSpec:
        if not self.validation_start < self.test_start:
            raise ValueError(
                f"validation_start {self.validation_start} must be before "
                f"test_start {self.test_start}"
            )
        if self.purge < self.horizon:
            raise ValueError(
                f"purge {self.purge} is shorter than the horizon {self.horizon}: "
                "training targets would overlap the next part"
            )
        return self


class FoldSpec(_Frozen):
    """One fold of a walk-forward: train, then validate, then judge on later sessions.

    The dates mean what they mean in `WindowSpec`, whose purge and embargo hold here too.
    """

    validation_start: dt.date
    test_start: dt.date
    test_end: dt.date | None = None
    """First date that is no longer judged; None: to the last bar."""

    @model_validator(mode="after")
    def _ordered(self) -> FoldSpec:
        if not self.validation_start < self.test_start:
            raise ValueError(
                f"validation_start {self.validation_start} must be before "
                f"test_start {self.test_start}"
            )
        if self.test_end is not None and not self.test_start < self.test_end:
            raise ValueError(
                f"test_start {self.test_start} must be before test_end {self.test_end}"
            )
        return self


class WalkForwardSpec(_Frozen):
    """Folds in order of time; no session is judged twice, so that results may be pooled."""

    folds: Annotated[tuple[FoldSpec, ...], Field(min_length=1)]
    train_sessions: int | None = Field(default=None, ge=1)
    """A training window's last session is among this many before the purge; None: the training
    part expands from the first bar."""
    symbols_chosen_on: dt.date | None = None
    """The day on which the list of symbols was made, if that is known. A fold judged before it
    is judged on survivors, and its verdict says so."""

    @model_validator(mode="after")
    def _apart(self) -> WalkForwardSpec:
        for earlier, later in pairwise(self.folds):
            if earlier.test_end is None or later.test_start < earlier.test_end:
                raise ValueError(
                    f"the fold from {later.test_start} begins before the one from "
                    f"{earlier.test_start} ends: give its test_end, and folds in order of time"
                )
        return self


class MemberSpec(_Frozen):
    """One member of the ensemble."""

    layers: int = Field(ge=1, le=24)
    dropout: float = Field(ge=0.0, lt=1.0)


class ModelSpec(_Frozen):
    """Stockformer sizes; one entry in ``members`` for each member of the ensemble."""

    d_model: int = Field(default=128, ge=8, le=1024)
    heads: int = Field(default=8, ge=1)
    d_ff: int = Field(default=512, ge=8, le=4096)
    members: tuple[MemberSpec, ...] = (
        MemberSpec(layers=4, dropout=0.10),
        MemberSpec(layers=5, dropout=0.15),
        MemberSpec(layers=6, dropout=0.20),
    )

    @model_validator(mode="after")
    def _divides(self) -> ModelSpec:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        if self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} must be even for the positional encoding")
        if not self.members:
            raise ValueError("members is empty: an ensemble needs at least one member")
        return self


PRESETS: dict[str, ModelSpec] = {
    "base": ModelSpec(),
    "small": ModelSpec(
        d_model=64,
        heads=4,
        d_ff=256,
        members=(
            MemberSpec(layers=2, dropout=0.10),
            MemberSpec(layers=2, dropout=0.15),
            MemberSpec(layers=2, dropout=0.20),
        ),
    ),
}


class TrainingSpec(_Frozen):
    """How the models are trained; the same for every symbol."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    epochs: int = Field(default=50, ge=1, le=100_000)
    batch_size: int = Field(default=32, ge=1, le=4096)
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    weight_decay: float = Field(default=0.05, ge=0.0)
    warmup_fraction: float = Field(default=0.05, ge=0.0, lt=1.0)
    clip_norm: float = Field(default=1.0, gt=0.0)
    patience: int | None = Field(default=10, ge=1)
    """Epochs without a better validation loss before a symbol stops; None: never stop early."""
    direction_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the rise/fall cross-entropy beside the Gaussian likelihood of the path."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 with float32 masters on CUDA, float32 on CPU."""
    min_train_windows: int = Field(default=128, ge=1)
    """A symbol with fewer training windows is reported as failed instead of being trained."""
    loss: Literal["gaussian", "huber"] = "gaussian"
    """Likelihood of the return path; huber: Huber's density, whose tails fall off slower."""


PHASE = ("epochs", "batch_size", "learning_rate", "patience")
"""What each phase of training has a value of its own for."""


class PretrainSpec(_Frozen):
    """A pooled model for each member, trained on the windows of all symbols first.

    Its weights are where every symbol's model starts. What is not said here (loss, decay, clipping,
    warm-up, seed, precision) is as in ``training``, which then describes the fine-tuning.
    """

    epochs: int = Field(default=10, ge=1, le=10_000)
    batch_size: int = Field(default=256, ge=1, le=4096)
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    patience: int | None = Field(default=3, ge=1)
    """Epochs without a better validation loss before it stops; None: never stop early."""
    ranking_weight: float = Field(default=0.0, ge=0.0)
    """Weight of the pairwise ranking loss among the symbols of a session; 0: none."""
    embedding: Literal["none", "exchange", "symbol"] = "none"
    """What the pooled model is told of whose window it sees."""
    fine_tune: bool = True
    """False: every symbol is given the pooled weights as they are."""
    scaling: Literal["own", "pooled"] = "own"
    """Scale of the features: each symbol's own, or one for all, which leaves in how symbols differ
    (one is always more volatile than another). The targets' scale is the symbol's own."""
    criterion: Literal["loss", "rank_ic"] = "loss"
    """What early stopping and the kept epoch go by: the validation loss, or the mean RankIC of the
    validation sessions."""

    def applied_to(self, training: TrainingSpec) -> TrainingSpec:
        """How the pooled models are trained."""
        return training.model_copy(update={name: getattr(self, name) for name in PHASE})


POOLED = PretrainSpec(epochs=12, patience=4, ranking_weight=1.0).model_copy(
    update={"fine_tune": False, "scaling": "pooled", "criterion": "rank_ic"}
)
"""The recipe that forecast best where there are shares to compare (docs/decisions.md): one model
for all of them, told apart by their features alone, that learns which one will do better."""


class EnsembleSpec(_Frozen):
    """How the members of an ensemble are combined."""

    weights: Literal["equal", "inverse_loss", "stacked"] = "equal"
    """inverse_loss: by 1 / squared error on a symbol's validation part; stacked: one convex
    combination for all symbols, fitted on their validation parts (docs/forecasts.md)."""


class GateSpec(_Frozen):
    """The bar a set must clear to be deployed. Defaults are the original plan's, and proof."""

    min_accuracy: float = Field(default=0.52, ge=0.0, le=1.0)
    max_rmse: float = Field(default=0.03, gt=0.0)
    """Of one-session log returns."""
    require_significance: bool = True
    """Also demand that the interval of accuracy minus the majority class lies above 0."""
    min_sharpe: float = Field(default=0.8, ge=-100.0, le=100.0)
    """Least annual Sharpe ratio of the backtest; -100 refuses nobody."""
    max_drawdown: float = Field(default=0.10, gt=0.0, le=1.0)
    """Largest fall of the backtest's equity from an earlier high, fraction; 1 refuses nobody."""
    against_deployed: Literal["better", "not worse", "any"] = "not worse"
    """Beside the deployed set on the same rows: distinguishably better, not distinguishably worse
    (paired test of the Brier score), or not compared."""


class EvaluationSpec(_Frozen):
    bootstrap_samples: int = Field(default=1000, ge=100, le=100_000)
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1.0)
    ridge_alpha: float = Field(default=100.0, gt=0.0)


class BacktestSpec(_Frozen):
    """The book that follows the forecasts; money in VND, fractions of an amount or a volume."""

    capital: float = Field(default=1e9, gt=0.0)
    """VND at the start."""
    top_k: int = Field(default=10, ge=1)
    """Shares bought a session, each the same part; never more than there are symbols."""
    min_expected: float = Field(default=0.0, ge=-1.0, le=1.0)
    """Only shares whose expected log return over the horizon is higher; the rest is cash."""
    price: Literal["open", "close"] = "open"
    """The price of the next session that orders trade at."""
    fee: float = Field(default=0.0015, ge=0.0, lt=1.0)
    """Brokerage on each side, fraction of the amount."""
    sale_tax: float = Field(default=0.001, ge=0.0, lt=1.0)
    """Fraction of the proceeds of sales."""
    slippage: float = Field(default=0.001, ge=0.0, lt=1.0)
    """Fraction of the price that every trade is worse than the bar's price."""
    participation: float | None = Field(default=0.1, gt=0.0, le=1.0)
    """Largest part of a session's volume; None: no limit."""
    trials: int = Field(default=10, ge=1)
    """Strategies tried before this one was chosen, for the deflated Sharpe ratio."""


class OptimizeSpec(_Frozen):
    """How much an inference variant may change the forecasts and still be chosen."""

    max_accuracy_change: float = Field(default=0.002, ge=0.0)
    max_rank_ic_change: float = Field(default=0.002, ge=0.0)


class RunSpec(_Frozen):
    """The identity of a run."""

    schema_version: Literal[1] = 1
    symbols: Annotated[tuple[str, ...], Field(min_length=1)]
    data: DataSpec = DataSpec()
    features: FeatureSpec = FeatureSpec()
    windows: WindowSpec
    model: ModelSpec = ModelSpec()
    training: TrainingSpec = TrainingSpec()
    pretrain: PretrainSpec | None = None
    ensemble: EnsembleSpec = EnsembleSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    gate: GateSpec = GateSpec()
    optimize: OptimizeSpec = OptimizeSpec()
    backtest: BacktestSpec = BacktestSpec()
    walk_forward: WalkForwardSpec | None = None

    @field_validator("symbols", mode="before")
    @classmethod
    def _canonical_symbols(cls, value: Any) -> Any:
        # Order carries no meaning, so two orders of the same symbols are the same run.
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise ValueError("symbols must be a list of tickers")
        names = [v.strip().upper() for v in value]
        for name in names:
            if not SYMBOL_PATTERN.fullmatch(name):
                raise ValueError(f"{name!r} is not a ticker (1 to 10 letters or digits)")
        return tuple(sorted(set(names)))

    def canonical_json(self) -> str:
        """The one byte-for-byte form that the digest is taken of.

        Fields that came later (`ADDED`) are absent while all of a part are what they were when
        added, so that runs made before keep their names.
        """
        content = self.model_dump(mode="json")
        for name, added in ADDED.items():
            part = content[name]
            if part is not None and all(part[field] == value for field, value in added.items()):
                content[name] = {k: v for k, v in part.items() if k not in added}
        content = {name: part for name, part in content.items() if part != {}}
        for name in ("pretrain", "walk_forward"):
            if content[name] is None:
                del content[name]  # likewise
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """The digest's first 12 digits: the name of the run's folder."""
        return self.digest[:12]


ADDED: dict[str, dict[str, Any]] = {
    "backtest": BacktestSpec().model_dump(mode="json"),
    "ensemble": EnsembleSpec().model_dump(mode="json"),
    "training": {"loss": "gaussian"},
    "windows": {"half_life": None},
    "pretrain": {"scaling": "own", "criterion": "loss"},
    "gate": {"min_sharpe": 0.8, "max_drawdown": 0.1, "against_deployed": "not worse"},
}
"""Fields of the spec's parts that version 1 did not have at first, and their first defaults."""


def load_spec(path: str | Path) -> RunSpec:
    """Read a RunSpec from a JSON file.

    Raises:
        UsageError: the file is missing, not JSON, or not a valid spec; the message names the field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot be read ({error})", where=str(path), fix="give the path of a run spec"
        ) from error
    return parse_spec(text, where=str(path))


def parse_spec(text: str, *, where: str = "spec") -> RunSpec:
    """Parse and check the JSON text of a RunSpec; see `load_spec`."""
    try:
        return RunSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole document"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(
            f"{field}: {first['msg']}{more}",
            where=where,
            fix="see docs/spec.md for every field, its unit and its range",
        ) from error
