"""What a study is: a question, a metric, and specs that differ in what is asked about."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vnquant.errors import UsageError
from vnquant.spec import PHASE, RunSpec

Overrides = dict[str, Any]
EVERY = "*"
"""In overrides, every item of a list."""
Metric = Literal["rank_ic", "accuracy", "brier", "mse_sum"]
LOWER_IS_BETTER = frozenset({"brier", "mse_sum"})
Reading = Literal["plain", "float32", "int8", "threshold"]
Cost = Literal["hours", "forecast_seconds"]


SEARCHABLE = frozenset(
    {
        *("model", "features.name", "windows.lookback", "windows.half_life"),
        *("training.epochs", "training.batch_size", "training.learning_rate"),
        *("training.weight_decay", "training.warmup_fraction", "training.clip_norm"),
        *("training.patience", "training.precision"),
        *("pretrain.epochs", "pretrain.batch_size", "pretrain.learning_rate"),
        *("pretrain.patience", "pretrain.embedding", "pretrain.fine_tune"),
    }
)
"""What a search may change, with all that lies below: validation losses must mean the same in every
trial. Another loss, horizon, scale of the targets or set of models has other losses; ensembles,
ranking, gates and books are not in the loss at all."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(_Frozen):
    """One way to do it.

    Attributes:
        overrides: what differs from the study's base spec, nested as the spec is; a list is
            replaced as a whole, or changed in every item by ``{"*": ...}``.
        reading: how the forecasts come out of the trained models; see `vnquant.studies.readings`.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    overrides: Overrides = {}
    reading: Reading = "plain"


class Parameter(_Frozen):
    """What a search may change: a field of the spec, and which values it may take.

    Attributes:
        field: as ``training.learning_rate``.
        low, high: a range of numbers, or ``choices`` instead.
    """

    field: Annotated[str, Field(pattern=r"^[a-z_0-9]+(\.([a-z_0-9]+|\*))*$")]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _comparable(self) -> Parameter:
        parts = self.field.split(".")
        if not any(".".join(parts[:n]) in SEARCHABLE for n in range(1, len(parts) + 1)):
            raise ValueError(
                f"a search chooses by validation loss, which cannot compare trials that differ in "
                f"{self.field}: make them variants, or search over {', '.join(sorted(SEARCHABLE))}"
            )
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        ranged = self.low is not None and self.high is not None and self.low < self.high
        if ranged == (self.choices is not None):
            raise ValueError(f"{self.field}: give low < high, or choices")
        return self


class Search(_Frozen):
    """Trials that Optuna's TPE sampler proposes by validation loss; the best one is judged."""

    parameters: tuple[Parameter, ...] = Field(min_length=1)
    trials: int = Field(default=20, ge=1)
    seed: int = 0


class Cheaper(_Frozen):
    """When a variant is worth having for what it saves.

    Attributes:
        cost: ``hours`` of training (core-hours), or ``forecast_seconds``, which every `Reading` but
            the plain one measures.
        margin: how much worse, in the study's metric, is as good as equal.
    """

    cost: Cost
    margin: float = Field(gt=0)


class Study(_Frozen):
    """A question and the trials that answer it; the first variant is what is done today.

    Attributes:
        metric: what decides.
        repeats: how often the first variant is carried out again, each time with the next seed, to
            see what the seed alone changes.
        cheaper: also recommend what is no better, but costs less; None: never.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    question: str
    metric: Metric = "rank_ic"
    variants: tuple[Variant, ...] = Field(min_length=1)
    repeats: int = Field(default=0, ge=0)
    cheaper: Cheaper | None = None
    search: Search | None = None

    @model_validator(mode="after")
    def _apart(self) -> Study:
        names = [v.name for v in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("two variants have one name")
        return self

    @model_validator(mode="after")
    def _measured(self) -> Study:
        timed = self.cheaper is not None and self.cheaper.cost == "forecast_seconds"
        untimed = [v.name for v in self.variants if v.reading == "plain"]
        if timed and untimed:
            raise ValueError(
                f"nothing measures the forecast_seconds of {untimed[0]}: give it a reading, "
                "float32 for the models as they are"
            )
        return self


def shipped() -> dict[str, Study]:
    """The studies of the package, by name."""
    folder = files("vnquant.studies") / "shipped"
    found = [_parsed(p.read_text(encoding="utf-8"), p.name) for p in folder.iterdir()
             if p.name.endswith(".json")]  # fmt: skip
    return {study.name: study for study in sorted(found, key=lambda s: s.name)}


def load(name: str) -> Study:
    """A shipped study by name, or one's own by the path of its JSON file.

    Raises:
        UsageError: there is none, or the file is not a study.
    """
    if name.endswith(".json"):
        try:
            return _parsed(Path(name).read_text(encoding="utf-8"), name)
        except OSError as error:
            raise UsageError(
                f"cannot be read ({error.strerror})", where=name, fix="give a study's JSON file"
            ) from error
    known = shipped()
    if name not in known:
        raise UsageError(
            f"there is no study {name}",
            where="vnquant study",
            fix=f"use {', '.join(known)}, or the path of your own (.json)",
        )
    return known[name]


def _parsed(text: str, where: str) -> Study:
    try:
        return Study.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"{place}: {first['msg']}", where=where, fix="see docs/studies.md for the fields"
        ) from error


def spec_of(base: RunSpec, overrides: Overrides, where: str) -> RunSpec:
    """The base spec with some fields replaced.

    Other features may need other data, so the snapshot is then left open: the trial's own stage
    ingest says what it was. Where there are pooled models and no fine-tuning, epochs, batch size,
    learning rate and patience of ``training`` are those of ``pretrain``.

    Raises:
        UsageError: the spec has no such field, or it does not take such a value.
    """
    content = merged(base.model_dump(mode="json"), overrides)
    if content["features"] != base.model_dump(mode="json")["features"]:
        content["data"]["snapshot"] = None
    pretrain = content["pretrain"]
    if isinstance(pretrain, dict) and not pretrain.get("fine_tune", True):
        # A word about training means the one phase that there is, unless the study names it.
        words = {k: v for k, v in overrides.get("training", {}).items() if k in PHASE}
        content["pretrain"] = {**pretrain, **words, **(overrides.get("pretrain") or {})}
    try:
        return RunSpec.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=where,
            fix="see docs/spec.md for the fields",
        ) from error


def merged(base: Any, overrides: Any) -> Any:
    """``base`` with what ``overrides`` replaces, however deep; see `Variant`."""
    if isinstance(base, list) and isinstance(overrides, dict) and set(overrides) == {EVERY}:
        return [merged(item, overrides[EVERY]) for item in base]
    if not (isinstance(base, dict) and isinstance(overrides, dict)):
        return overrides
    changed = {key: merged(base.get(key), value) for key, value in overrides.items()}
    return {**base, **changed}


def nested(field: str, value: Any) -> Overrides:
    """``a.b`` and a value as ``{"a": {"b": value}}``."""
    for part in reversed(field.split(".")):
        value = {part: value}
    return dict(value)
