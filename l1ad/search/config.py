"""The YAML file of a dijet search: every key with its default, unknown keys are errors."""

from __future__ import annotations

import functools
import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from l1ad.configs import check_config, read_yaml
from l1ad.errors import InputError
from l1ad.search import quantile
from l1ad.search.jets import WINDOWS, MassWindow
from l1ad.search.stats import dijet, lookelsewhere
from l1ad.search.stats.crystal_ball import CrystalBall, Interpolation

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Method = Literal["cwola", "cwola_pair", "vae_qr", "trigger", "inclusive"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TreesSection(Section):
    """Ensemble of gradient-boosted trees; see `l1ad.search.weak.Trees`."""

    members: Count = 5
    max_iterations: Count = 100
    learning_rate: Positive = 0.1
    max_leaf_nodes: Annotated[int, Field(ge=2)] = 31
    min_samples_leaf: Count = 20
    l2: Annotated[float, Field(ge=0)] = 0.0
    early_stopping: bool = True


class DenseSection(Section):
    """The dense network of the CMS search; see `l1ad.search.weak.Dense`."""

    epochs: Count = 100
    batch_size: Count = 200
    learning_rate: Positive = 1e-3
    patience: Count = 10


class VaeSection(Section):
    """The jet autoencoder; see `l1ad.search.vae.JetVae`."""

    particles: Count = 100
    latent: Count = 12
    beta: Annotated[float, Field(ge=0)] = 0.01
    score_beta: Annotated[float, Field(ge=0)] = 0.5
    combine: Literal["min", "max", "sum", "product"] = "min"
    epochs: Count = 40
    patience: Count = 5
    batch_size: Count = 256
    learning_rate: Positive = 2e-3


class QuantileSection(Section):
    """The regression of the score against the mass; see `l1ad.search.quantile`.

    Attributes
    ----------
    folds, regression : of the regression.
    blind : leave the events of the window out of it. The published regression has them all, and a signal raises the
        thresholds where it is; without them the thresholds are interpolated, which wants events on both sides.
    """

    folds: Annotated[int, Field(ge=2)] = quantile.PUBLISHED_FOLDS
    regression: Literal["polynomial", "dense"] = "polynomial"
    blind: bool = False


class FoldSection(Section):
    """Numbers of folds."""

    outer: Annotated[int, Field(ge=2)] = 5
    inner: Annotated[int, Field(ge=2)] = 4


class FitSection(Section):
    """Range in GeV, bin width, and which numbers of shape parameters the F-test chooses from."""

    low: Positive = 1460.0
    high: Positive = 6800.0
    bin_width: Positive = dijet.BIN_WIDTH
    orders: list[Literal[2, 3, 4]] = [2, 3, 4]

    @model_validator(mode="after")
    def _fits(self) -> FitSection:
        if not self.high >= self.low + self.bin_width:
            raise ValueError(f"high at least one bin of {self.bin_width:g} GeV above low")
        if not self.orders or sorted(set(self.orders)) != list(self.orders):
            raise ValueError("orders that increase")
        return self


class WindowSection(Section):
    """A mass window of one's own, in GeV, with the far ends of its sidebands."""

    low: Positive
    high: Positive
    below: Positive
    above: Positive

    @model_validator(mode="after")
    def _rises(self) -> WindowSection:
        if not self.below < self.low < self.high < self.above:
            raise ValueError("below < low < high < above")
        return self


#: A name or numbers: told apart before they are checked, so that an error is that of the one that was meant.
Window = Annotated[
    Annotated[str, Tag("name")] | Annotated[WindowSection, Tag("limits")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "limits"),
]


class PeakSection(Section):
    """Shape of the resonance, in units of its mass: a double-sided Crystal Ball.

    `file` holds shapes that were fitted to simulated signals (``l1ad search peak``) and are interpolated in the mass;
    then the other keys do not count.
    """

    file: str | None = None
    mean: Positive = 0.99
    sigma: Positive = 0.035
    alpha_low: Positive = 1.2
    n_low: Annotated[float, Field(gt=1)] = 4.0
    alpha_high: Positive = 1.6
    n_high: Annotated[float, Field(gt=1)] = 6.0

    def at(self, mass: float, *, scale: float = 1.0, resolution: float = 1.0) -> CrystalBall:
        """The peak at `mass` in GeV, its position and its width multiplied by the factors.

        Raises
        ------
        InputError
            If the file of shapes cannot be read, or `mass` is outside of its masses.
        """
        if self.file is not None:
            return _shapes(self.file).at(mass).shifted(scale=scale - 1.0, resolution=resolution / scale - 1.0)
        return CrystalBall(
            self.mean * mass * scale,
            self.sigma * mass * resolution,
            self.alpha_low,
            self.n_low,
            self.alpha_high,
            self.n_high,
        )


@functools.lru_cache(maxsize=8)
def _shapes(path: str) -> Interpolation:
    return Interpolation.read(path)


class SystematicsSection(Section):
    """Uncertainties of the limits, relative: CMS-EXO-22-026 has 1 % on the mass scale and 3.5 % on the resolution.

    Attributes
    ----------
    scale, resolution : of the peak's position and width.
    luminosity : of the yield.
    background_function : the yield that the fit finds in a spectrum of the next function is a further uncertainty.
    jet_mass_scale, jet_mass_resolution : of the jets' masses, which the selection sees: the efficiency's uncertainty in
        limits by injection, from trainings of their own where the shift could be seen at all.
    """

    scale: Annotated[float, Field(ge=0, lt=0.2)] = 0.01
    resolution: Annotated[float, Field(ge=0, lt=0.5)] = 0.035
    luminosity: Annotated[float, Field(ge=0, lt=0.5)] = 0.016
    background_function: bool = True
    jet_mass_scale: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    jet_mass_resolution: Annotated[float, Field(ge=0, lt=1)] = 0.1


class InjectSection(Section):
    """A signal put into the bundled sample: its name there, and how many events."""

    signal: str
    events: Count


class SearchConfig(Section):
    """One search in one mass window.

    Attributes
    ----------
    window : name of a published window, A1 ... B6, or one of one's own: ``{low: 3300, high: 3700, below: 2900, above:
        4200}``.
    method : cwola (each jet, larger of the two), cwola_pair (features of the event), vae_qr (jet autoencoder with
        thresholds from quantile regression; needs constituents and a |delta eta| sideband), trigger (the score of a
        frozen trigger with such thresholds; needs Level-1 words), or inclusive (no selection).
    features : of each jet; for cwola_pair both jets' features together, heavier jet first.
    classifier : of the weak supervision: trees or dense.
    combine : of the two jets in cwola: max (published), or sum for a signal with two unusual jets.
    fraction : selected fraction of the sidebands; None for the published one of the window, 1 % for one of one's own
        (ignored when inclusive; the 10 % of vae_qr and trigger are fixed).
    trigger : file or run folder of the frozen trigger, for the method of that name.
    mass_step : GeV between tested masses, which lie in the window.
    toys : background-only toys for the global p-value; 0 for none.
    systematics : of the limits, null for none.
    compare : further methods whose scores are correlated with the chosen one's.
    inject : a signal to put into the bundled sample; only used with it.
    collision_energy : in GeV, for the tables of HEPData.
    """

    window: Window = "B3"
    method: Method = "cwola"
    features: Annotated[list[str], Field(min_length=1)] = ["m", "tau21", "tau32", "tau43"]
    classifier: Literal["trees", "dense"] = "trees"
    combine: Literal["max", "sum"] = "max"
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    trigger: str | None = None
    seed: Annotated[int, Field(ge=0)] = 1
    folds: FoldSection = FoldSection()
    trees: TreesSection = TreesSection()
    dense: DenseSection = DenseSection()
    vae: VaeSection = VaeSection()
    quantile: QuantileSection = QuantileSection()
    fit: FitSection = FitSection()
    peak: PeakSection = PeakSection()
    systematics: SystematicsSection | None = SystematicsSection()
    mass_step: Positive = 100.0
    toys: Annotated[int, Field(ge=0)] = 100
    limits: bool = True
    compare: list[Method] = []
    inject: InjectSection | None = None
    collision_energy: Positive = 13_600.0

    @property
    def mass_window(self) -> MassWindow:
        """The window with its sidebands.

        Raises
        ------
        InputError
            If no published window has the name.
        """
        if isinstance(self.window, WindowSection):
            w = self.window
            return MassWindow(f"{w.low:g} to {w.high:g} GeV", w.low, w.high, w.below, w.above)
        if self.window not in WINDOWS:
            raise InputError("search configuration", "window", self.window, f"one of {', '.join(WINDOWS)}")
        return WINDOWS[self.window]

    @property
    def n_windows(self) -> int:
        """Windows of the search that the result is one of: the published search has 12."""
        return lookelsewhere.PUBLISHED_WINDOWS if isinstance(self.window, str) else 1

    @model_validator(mode="after")
    def _has_trigger(self) -> SearchConfig:
        if "trigger" in (self.method, *self.compare) and self.trigger is None:
            raise ValueError("trigger: the file or the run folder of a frozen trigger, which the method scores with")
        return self

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SearchConfig:
        """Read a YAML file; every key is checked."""
        return check_config(cls, read_yaml(path), where=os.fspath(path))
