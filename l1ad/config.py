"""The configuration of a training run, as one YAML file.

`RunConfig.read(path)` for a file, `RunConfig.of(mapping)` for a mapping; every key is checked, an unknown one is an
error in one line. The same object is written to ``config.yaml`` of the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from l1ad.configs import check_config, read_yaml
from l1ad.errors import ConfigError
from l1ad.io import write_text

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=1, le=65536)]
PerLayer = str | list[str]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitConfig(Section):
    """Which events train, stop the training, and stay unseen.

    ``seed`` draws each event by itself; ``lumi`` keeps the events of a luminosity section together, so that nothing a
    section has in common leaks from one part into another.
    """

    by: Literal["seed", "lumi"] = "seed"
    train: Fraction = 0.8
    validation: Fraction = 0.1
    test: Fraction = 0.1

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"three fractions that sum to 1, not {total:g}")
        if not self.train:
            raise ValueError("a training fraction above 0")
        return self


class DataConfig(Section):
    """What to train on.

    Attributes
    ----------
    sample : ``bundled`` for the natural zero bias of the layout that comes with the package, or nothing if `paths` are
        given.
    paths : files of any supported format.
    layout : the object layout that is expected.
    saturation : ``mask`` zeroes saturated objects as the published training does, ``keep`` leaves them as the firmware
        sees them, ``drop`` drops such events.
    max_events : stop reading after so many.
    weights : ``use`` event weights in the loss and in the scaling, or ``ignore`` them.
    window_events : events that are held on the device at a time; more are streamed from a cache on disk.
    """

    sample: Literal["bundled"] | None = None
    paths: list[str] = []
    format: str = "auto"
    layout: str = "cms_ugt"
    saturation: Literal["keep", "mask", "drop"] = "mask"
    max_events: Annotated[int, Field(ge=1)] | None = None
    weights: Literal["use", "ignore"] = "use"
    window_events: Annotated[int, Field(ge=1024)] = 4_000_000
    split: SplitConfig = SplitConfig()

    @model_validator(mode="after")
    def _source(self) -> DataConfig:
        if (self.sample is None) == (not self.paths):
            raise ValueError("either sample: bundled or a list of paths")
        return self


class ScalingConfig(Section):
    """Offsets and shifts of the inputs: from percentiles, or by hand.

    Attributes
    ----------
    percentiles : the two that are mapped onto -span/2 and span/2.
    offset, shift : by hand, one an input (GeV for pt, hardware codes for the rest).
    offset_type, word : see `l1ad.trigger.layers.Scaling`.
    min_entries : a feature with fewer non-zero entries takes the scaling of the slot before it.
    """

    percentiles: tuple[float, float] = (5.0, 95.0)
    span: Annotated[float, Field(gt=0)] = 4.0
    offset: list[float] | None = None
    shift: list[int] | None = None
    offset_type: str = "ap_fixed<10,10>"
    word: str = "ap_fixed<18,13>"
    min_entries: Annotated[int, Field(ge=2)] = 20

    @model_validator(mode="after")
    def _pair(self) -> ScalingConfig:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("two rising percentiles between 0 and 100")
        if (self.offset is None) != (self.shift is None):
            raise ValueError("offset and shift together, or neither")
        return self


class Quantised(Section):
    """Quantisers of what runs on the FPGA, in the notation of QKeras with alpha = 1 (see `l1ad.trigger.quantizer`).

    `kernel`, `bias` and `activation` may be lists with one entry a layer.
    """

    input: str = "quantized_bits(8,5)"
    kernel: PerLayer = "quantized_bits(6,2)"
    bias: PerLayer = "quantized_bits(10,6)"
    activation: PerLayer = "quantized_relu(10,6)"
    head: str = "quantized_bits(10,6)"


class DecoderConfig(Section):
    """The float part that is thrown away after training."""

    hidden: list[Size] = [15, 28]
    batch_norm: bool = False
    activation: Literal["relu", "leaky_relu", "elu", "tanh"] = "relu"


#: The log variance for the score rz, from -16 to 16: what a network says of inputs far from its training sample grows
#: with them, and exp(-log_var) with that: beyond every word, were there no end to it.
RZ_LOG_VAR = "quantized_bits(8,4)"


class VaeConfig(Quantised):
    """Dense variational autoencoder: the encoder runs on the FPGA.

    Attributes
    ----------
    log_var : quantiser of the log variance; nothing for that of `head`, or for `RZ_LOG_VAR` if the score is ``rz``.
    """

    family: Literal["vae"]
    hidden: list[Size] = [28, 15]
    latent: Size = 8
    log_var: str | None = None
    decoder: DecoderConfig = DecoderConfig()


class AutoencoderConfig(Quantised):
    """Dense autoencoder, quantised from the input to the output."""

    family: Literal["autoencoder"]
    hidden: list[Size] = [32, 16]
    latent: Size = 3
    decoder_hidden: list[Size] | None = None
    output: str = "quantized_bits(16,8)"


class ConvLayer(Section):
    """One convolution with its pooling.

    Attributes
    ----------
    filters, kernel, strides, padding : of the convolution, sizes as (rows, columns).
    pool : size of the pooling window, or nothing; its stride is its size.
    pooling : ``average`` or ``max``.
    """

    filters: Size
    kernel: tuple[Size, Size] = (3, 3)
    strides: tuple[Size, Size] = (1, 1)
    padding: Literal["valid", "same"] = "valid"
    pool: tuple[Size, Size] | None = None
    pooling: Literal["average", "max"] = "average"


class CnnVaeConfig(Quantised):
    """Convolutional variational autoencoder on the objects x features image; `log_var` as in `VaeConfig`."""

    family: Literal["cnn_vae"]
    conv: Annotated[list[ConvLayer], Field(min_length=1)]
    hidden: list[Size] = []
    latent: Size = 8
    log_var: str | None = None
    pool_factor: str = "quantized_bits(10,0)"
    decoder: DecoderConfig = DecoderConfig()


class CnnAutoencoderConfig(Quantised):
    """Convolutional autoencoder, quantised from the input to the output; the decoder mirrors the encoder."""

    family: Literal["cnn_autoencoder"]
    conv: Annotated[list[ConvLayer], Field(min_length=1)]
    hidden: list[Size] = []
    latent: Size = 8
    pool_factor: str = "quantized_bits(10,0)"
    decoder_hidden: list[Size] | None = None
    output: str = "quantized_bits(16,8)"


class AugmentConfig(Section):
    """Two views of one crossing for VICReg (l1-facts, section 3).

    Attributes
    ----------
    blur : standard deviation of the relative smearing of pt, and of eta and phi in units of their scale.
    mask_objects : probability that an object is emptied.
    rotate : probability that a crossing is turned in phi and reflected in eta.
    """

    blur: Annotated[float, Field(ge=0)] = 0.1
    mask_objects: Fraction = 0.1
    rotate: Fraction = 0.5


class VicregConfig(Section):
    """Weights of the three terms of VICReg (arXiv:2105.04906, equation 6) and the width of the projector."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    projector_factor: Size = 4


class EmbeddingConfig(Quantised):
    """VICReg backbone, then an autoencoder on its embedding; both run on the FPGA (AXOL1TL v5).

    Attributes
    ----------
    backbone : sizes of the backbone, the last is the embedding.
    autoencoder : sizes of the hidden layers of the autoencoder; its output has the size of the embedding.
    linear : indices of the autoencoder's hidden layers that have no ReLU but the quantiser `head`.
    """

    family: Literal["embedding"]
    backbone: Annotated[list[Size], Field(min_length=1)] = [29, 10]
    autoencoder: list[Size] = [9, 6, 4, 6, 9]
    linear: list[int] = []
    embedding: str = "quantized_relu(10,6)"
    vicreg: VicregConfig = VicregConfig()
    augment: AugmentConfig = AugmentConfig()
    autoencoder_epochs: Annotated[int, Field(ge=1)] | None = None


class StrewConfig(Section):
    """Objects that are strewn into a crossing (see `l1ad.model.contrast.strew`).

    Attributes
    ----------
    pt_gev : ends of their log-uniform pt.
    eta_share : part of the word of eta that they fill.
    sparse : the power of a uniform number that is their probability: larger for fewer.
    """

    pt_gev: tuple[float, float] = (4.0, 250.0)
    eta_share: Fraction = 0.5
    sparse: Annotated[float, Field(gt=0)] = 3.0

    @model_validator(mode="after")
    def _rising(self) -> StrewConfig:
        if not 0 < self.pt_gev[0] < self.pt_gev[1]:
            raise ValueError("two rising pt above 0 in pt_gev")
        return self


class ContrastConfig(Quantised):
    """Encoder trained as an energy against zero bias with objects strewn in (see `l1ad.model.contrast`).

    Attributes
    ----------
    natural_factor : weight of zero bias in the loss; 1 for equal parts.
    """

    family: Literal["contrast"]
    hidden: list[Size] = [28, 15]
    latent: Size = 8
    strew: StrewConfig = StrewConfig()
    natural_factor: Annotated[float, Field(gt=0)] = 1.0


class TeacherConfig(Section):
    """The float convolutional autoencoder whose error the student learns (CICADA).

    Attributes
    ----------
    epochs : of the teacher; nothing for those of `training`.
    run : folder of a finished run whose teacher this student learns from, so that several students share one; nothing
        to train a teacher first.
    """

    filters: list[Size] = [20, 30]
    latent: Size = 80
    epochs: Annotated[int, Field(ge=1)] | None = None
    run: str | None = None


class CicadaConfig(Quantised):
    """Teacher and student on calorimeter regions; only the student runs on the FPGA.

    Attributes
    ----------
    conv : convolutions of the student; none in CICADA v1.
    hidden : dense layers of the student.
    output : quantiser of the score.
    target_scale : the student learns ``target_scale * log(1 + error)``, so that its score uses its word.
    """

    family: Literal["cicada"]
    rows: Size = 18
    columns: Size = 14
    conv: list[ConvLayer] = []
    hidden: Annotated[list[Size], Field(min_length=1)] = [16]
    output: str = "quantized_relu(16,8)"
    target_scale: Annotated[float, Field(gt=0)] = 32.0
    pool_factor: str = "quantized_bits(10,0)"
    teacher: TeacherConfig = TeacherConfig()


ModelConfig = Annotated[
    VaeConfig
    | AutoencoderConfig
    | CnnVaeConfig
    | CnnAutoencoderConfig
    | EmbeddingConfig
    | CicadaConfig
    | ContrastConfig,
    Field(discriminator="family"),
]


class BetaConfig(Section):
    """The weight of the KL term over the epochs.

    ``constant``; ``warmup`` rises from 0 to `value` over `epochs`; ``cyclic`` repeats, each `epochs`, a rise over the
    first half and a plateau over the second (arXiv:1903.10145).
    """

    value: Fraction = 0.6
    schedule: Literal["constant", "warmup", "cyclic"] = "constant"
    epochs: Annotated[int, Field(ge=1)] = 10


class LossConfig(Section):
    """What is minimised: ``alpha (1 - beta) reconstruction + beta KL`` (see `l1ad.model.losses`).

    Attributes
    ----------
    reconstruction : ``mse`` on the scaled inputs, ``cylindrical`` |dpt| + |dpz|, or ``tanh_ranges`` (2108.03986).
    mask_padding : empty slots do not count.
    cyclic_phi : distances in phi are taken round the circle (``tanh_ranges`` only).
    object_scales : a factor for each object type by its name.
    pt_scale_gev : unit of pt and pz in the losses in physical units.
    kl : ``mean`` over the latent dimensions or ``sum``.
    """

    reconstruction: Literal["mse", "cylindrical", "tanh_ranges"] = "mse"
    mask_padding: bool = True
    cyclic_phi: bool = False
    object_scales: dict[str, float] = {}
    pt_scale_gev: Annotated[float, Field(gt=0)] = 16.0
    kl: Literal["mean", "sum"] = "mean"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    beta: BetaConfig = BetaConfig()


class PruningConfig(Section):
    """Magnitude pruning of every quantised kernel, in the schedules of tfmot; begin and end in epochs."""

    schedule: Literal["none", "polynomial", "constant"] = "none"
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.5
    initial_sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    power: Annotated[float, Field(gt=0)] = 3.0
    begin_epoch: Annotated[float, Field(ge=0)] = 0.0
    end_epoch: Annotated[float, Field(gt=0)] | None = None
    every_steps: Annotated[int, Field(ge=1)] = 10


class RateConfig(Section):
    """The learning rate: constant, a cosine to zero, or cosine restarts whose period doubles (arXiv:1608.03983)."""

    value: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Literal["constant", "cosine", "cosine_restarts"] = "constant"
    first_epochs: Annotated[int, Field(ge=1)] = 10


class TrainingConfig(Section):
    """How it is minimised.

    Attributes
    ----------
    patience : epochs without a better validation loss before it stops; nothing to go to the end. The best epoch's
        weights are kept. While the sparsity or beta is still changing, no epoch counts as the best.
    checkpoint_epochs : a checkpoint each so many epochs.
    clip_norm : gradients are scaled down to this norm; nothing to leave them.
    jit : compile the step with XLA, half as fast again after some seconds; ``auto`` if that pays over all epochs.
    tensorboard : write TensorBoard summaries into the run folder.
    """

    epochs: Annotated[int, Field(ge=1)] = 30
    batch: Annotated[int, Field(ge=2)] = 4096
    optimizer: Literal["adam", "adamw", "lion", "sgd"] = "adam"
    rate: RateConfig = RateConfig()
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_epochs: Annotated[int, Field(ge=1)] = 5
    jit: Literal["auto"] | bool = "auto"
    tensorboard: bool = False


class FreezeConfig(Section):
    """How the score is written down in integers.

    Attributes
    ----------
    shift : the score is ``2**-shift`` of its definition, for one that outgrows its word; nothing for 0, or if the
        score is ``rz`` for what the training events need (`l1ad.trigger.freeze.shift_for`).
    term : type of each square or product before the sum, times ``2**-shift``.
    score : type of the sum times ``2**-shift``, with 4 bits of fraction.
    exponential : type of the entries of exp tables (kl and rz); nothing for one with 18 bits, 10 of them before the
        point, or as many as the largest entry needs if the score is ``rz``.
    log_var : type to which the log variance is cut before its table; nothing for the type of the head.
    activation, head : types that replace the trained ones, as the deployed AXOL1TL v1 truncates and wraps where QKeras
        rounds and saturates; the frozen trigger then differs from the trained model, and its report says so.
    """

    term: str = "ap_ufixed<18,14,TRN,SAT>"
    score: str = "ap_ufixed<18,14,TRN,SAT>"
    shift: Annotated[int, Field(ge=0, le=40)] | None = None
    exponential: str | None = None
    log_var: str | None = None
    activation: str | None = None
    head: str | None = None


class FirmwareConfig(Section):
    """Which realisations are made, and for what device.

    Attributes
    ----------
    backends : of ``hls4ml``, ``alkaid`` and ``cmssw``.
    part, clock_ns, latency_clocks : the uGT board of CMS by default (l1-facts, section 4).
    reuse_factor : products on one multiplier of hls4ml's network, and clocks from one crossing to the next.
    open_synthesis : count look-up tables with Yosys too, a minute or more.
    """

    backends: list[Literal["hls4ml", "alkaid", "cmssw"]] = ["hls4ml", "alkaid", "cmssw"]
    part: str = "xc7vx690tffg1927-2"
    clock_ns: Annotated[float, Field(gt=0)] = 25.0
    latency_clocks: Annotated[int, Field(ge=0)] = 2
    reuse_factor: Annotated[int, Field(ge=1)] = 1
    open_synthesis: bool = True


class ValidateConfig(Section):
    """How many events every realisation is compared on, and whether the check itself is checked by mutations."""

    n: Annotated[int, Field(ge=1)] = 100_000
    n_rtl: Annotated[int, Field(ge=1)] = 20_000
    mutate: bool = True


class CalibrateConfig(Section):
    """Working points.

    Attributes
    ----------
    zero_bias : ``bundled`` (the weighted sample) or files of any supported format.
    signals : ``bundled`` or files by signal name.
    rates_khz : targets.
    kind : which rate the targets mean.
    menu : a shipped menu or a file; decisions in the data take precedence.
    bunches : colliding bunches.
    """

    zero_bias: Literal["bundled"] | list[str] = "bundled"
    signals: Literal["bundled"] | dict[str, str] = "bundled"
    rates_khz: list[Annotated[float, Field(gt=0)]] = [1.0, 5.0, 10.0]
    kind: Literal["pure", "total", "proportional"] = "total"
    menu: str = "run3_lite"
    bunches: Annotated[int, Field(ge=1, le=3564)] = 2544


class ReportConfig(Section):
    """The page: how many of the most anomalous crossings are drawn."""

    displays: Annotated[int, Field(ge=0, le=100)] = 12


class RunConfig(Section):
    """One run, from events to firmware, thresholds and a page."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    data: DataConfig
    scaling: ScalingConfig = ScalingConfig()
    model: ModelConfig
    score: Literal["mu2", "kl", "rz", "mse", "embedding_mse", "student"] = "mu2"
    loss: LossConfig = LossConfig()
    pruning: PruningConfig = PruningConfig()
    training: TrainingConfig = TrainingConfig()
    freeze: FreezeConfig = FreezeConfig()
    firmware: FirmwareConfig = FirmwareConfig()
    validation: ValidateConfig = ValidateConfig()
    calibration: CalibrateConfig = CalibrateConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="before")
    @classmethod
    def _log_var_of_rz(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
            return value
        model = value["model"]
        variational = "rz" in SCORES_OF_FAMILY.get(model.get("family", ""), ())
        if variational and value.get("score") == "rz" and model.get("log_var") is None:
            return {**value, "model": {**model, "log_var": RZ_LOG_VAR}}
        return value

    @model_validator(mode="after")
    def _score_fits(self) -> RunConfig:
        allowed = SCORES_OF_FAMILY[self.model.family]
        if self.score not in allowed:
            raise ValueError(f"score {' or '.join(allowed)} for the family {self.model.family}, not {self.score}")
        return self

    @classmethod
    def of(cls, value: Mapping[str, Any] | RunConfig, *, where: str = "config") -> RunConfig:
        """Check a mapping.

        Raises
        ------
        ConfigError
            Naming the first key that is unknown, missing or cannot work.
        """
        if isinstance(value, RunConfig):
            return value
        config = check_config(cls, dict(value), where=where)
        check_notation(config, where=where)
        return config

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunConfig:
        """Read a YAML file.

        Raises
        ------
        ConfigError
            If it cannot be read, or as `of` says.
        """
        return cls.of(read_yaml(path), where=os.fspath(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the whole configuration, defaults included, as YAML."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


#: Scores that the outputs of each family can make.
SCORES_OF_FAMILY: dict[str, tuple[str, ...]] = {
    "vae": ("mu2", "kl", "rz"),
    "autoencoder": ("mse",),
    "cnn_vae": ("mu2", "kl", "rz"),
    "cnn_autoencoder": ("mse",),
    "embedding": ("embedding_mse",),
    "cicada": ("student",),
    "contrast": ("mu2",),
}


def check_notation(config: RunConfig, *, where: str) -> None:
    """Parse every quantiser and fixed-point type, so that a slip is found before training and not after.

    Raises
    ------
    ConfigError
        Naming the key.
    """
    from l1ad.errors import TriggerError
    from l1ad.events.layout import LAYOUTS
    from l1ad.trigger.fixed import FixedType
    from l1ad.trigger.quantizer import Quantizer

    if config.data.layout not in LAYOUTS:
        raise ConfigError(where, "data.layout", config.data.layout, f"one of {', '.join(LAYOUTS)}")
    quantised = {"input", "kernel", "bias", "activation", "head", "log_var", "output", "embedding", "pool_factor"}
    for key, value in config.model.model_dump().items():
        if key not in quantised or value is None:
            continue
        for text in value if isinstance(value, list) else [value]:
            try:
                parsed = Quantizer.parse(text)
            except TriggerError as error:
                raise ConfigError(where, f"model.{key}", error.found, error.expected) from None
            if key in ("input", "kernel", "bias", "head", "log_var", "pool_factor") and parsed.kind != "bits":
                raise ConfigError(where, f"model.{key}", text, "quantized_bits(bits,integer)")
    for section, values in (("freeze", config.freeze.model_dump()), ("scaling", config.scaling.model_dump())):
        for key, value in values.items():
            if isinstance(value, str):
                try:
                    FixedType.parse(value)
                except TriggerError as error:
                    raise ConfigError(where, f"{section}.{key}", error.found, error.expected) from None
