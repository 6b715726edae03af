"""What is written down: result.json (schema 1) and comparison.json, as frozen models that refuse what they do not know.

Conventions, the same in every section: an accuracy, a share and a confidence lie in [0, 1]; one multiply-accumulate is one MAC and
FLOPs are two of them; a cost is that of one image; steps count from 1, the first look; NLL is in nats; times are in the unit that the
key names. `docs/result.schema.json` is generated from here by `result_schema()`.
"""

import json
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SCHEMA = 1


class Section(BaseModel):
    """Base of every record: frozen, without unknown keys, without NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, json_schema_serialization_defaults_required=True
    )

    def to_json(self) -> str:
        """The text of the file, indented, ending in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


class Estimate(Section):
    """A number with its 95 % interval.

    value: the number. low, high: the interval's ends. n: images. groups: independent source images among them.

    Proportions have Wilson's interval; where one source image appears several times, and for NLL, it is a percentile bootstrap over source
    images; for ECE, inverted bootstrap tests over source images.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int


class Units(Section):
    """Units of work. done: how many this run measured. reused: how many it found finished."""

    done: int
    reused: int


class Run(Section):
    """The run that measured.

    id: a hash of the request. command: as typed, paths by their base name. started, finished: when; null before the end. seed: of every
    random number. limit: how many images were asked for, null for all. status: 'failed' if some units failed (`errors` names them). units:
    of its work.
    """

    id: str
    command: str
    started: AwareDatetime
    finished: AwareDatetime | None
    seed: int
    limit: int | None
    status: Literal["done", "failed", "interrupted"]
    units: Units


class Checkpoint(Section):
    """Trained weights. uri: where they came from. revision: the commit there, where there is one. sha256: the hash of their file."""

    uri: str
    revision: str | None
    sha256: str


class TrainedOn(Section):
    """The data of a card. data: their name. settings: those that differ from the data set's own and decide its images.

    image_size: height, width in pixels.
    """

    data: str
    settings: dict[str, Any]
    image_size: tuple[int, int]


class Model(Section):
    """The model that was measured.

    name: as in tables: a card's is its name, or its path where only that finds it. plugin, plugin_version: the distribution that has it.
    config: its settings. parameters: their number. steps: the most looks. policy: where it looks, learned or a trivial one. sees: what the
    first look sees of the image. checkpoint: its weights, null if untrained. trained_on: the data of its card, null where no card tells.
    """

    name: str
    plugin: str
    plugin_version: str
    config: dict[str, Any]
    parameters: int
    steps: int
    policy: str
    sees: Literal["none", "lowres", "full image"]
    checkpoint: Checkpoint | None
    trained_on: TrainedOn | None = None


class Inferred(Section):
    """What nobody declared of a data set and was found in it.

    classes: their names, in label order. splits: ours -> where each comes from. columns: 'image' and 'label' -> their columns, of a table.
    configuration: which of the data set's own it is. left_out: why -> how much of what lies there is not read, and some of its names.
    notes: what else to know.
    """

    classes: tuple[str, ...]
    splits: dict[str, str]
    columns: dict[str, str] = {}
    configuration: str | None = None
    left_out: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Data(Section):
    """What it was measured on; source, revision, fingerprint and split are null where no data were opened (FLOPs from the declared size
    alone).

    name: as `--data` has it. source: where the images came from. revision: the commit there. fingerprint: a hash of what decides the
    images. split: which was measured. examples: how many the split has. skipped: how many of them could not be read and were left out.
    image_size: height, width in pixels. channels: 1 for grey, 3 for colour. classes: their number. transform: what is done to the images
    before a model sees them. conversions: what was done to stored pixels beyond that -> of how many images. inferred: what had to be found
    out; null for data that declare it. settings: what was set of the data set and decides its images; null in results that are older than
    this key.
    """

    name: str
    source: str | None
    revision: str | None
    fingerprint: str | None
    split: str | None
    examples: int
    skipped: int
    image_size: tuple[int, int]
    channels: int
    classes: int
    transform: str | None = None
    conversions: dict[str, int] = {}
    inferred: Inferred | None = None
    settings: dict[str, Any] | None = None


class Environment(Section):
    """Where it was measured.

    python: its version. platform: the operating system and the processor's kind. cpu: its model and cores. device: what computed. threads:
    of torch. packages: name -> version. commit: of the checkout that ran, '-dirty' behind it if changed; null if installed from a wheel.
    """

    python: str
    platform: str
    cpu: str
    device: str
    threads: int
    packages: dict[str, str]
    commit: str | None


class AccuracyStep(Section):
    """Runs stopped at one step. An image that finished earlier keeps its last prediction and cost, and looks at no region.

    step: which. top1, top5: accuracy. nll: negative log-likelihood, in nats. ece: expected calibration error. macs: their mean cost.
    regions_mean: regions that an image looked at in this step, on average.
    """

    step: int
    top1: Estimate
    top5: Estimate
    nll: Estimate
    ece: Estimate
    macs: float
    regions_mean: float


class Accuracy(Section):
    """At every image's last look, then for every step.

    top1: share of images whose largest logit is the label's. top5: the same of the five largest logits, of all of them where there are
    fewer classes. nll: negative log-likelihood, in nats. ece: expected calibration error with 15 equal bins. steps: step by step.
    """

    top1: Estimate
    top5: Estimate
    nll: Estimate
    ece: Estimate
    steps: tuple[AccuracyStep, ...]


class Spread(Section):
    """MACs of an image, over the images. mean: of all. p50, p95: percentiles. max: the most."""

    mean: float
    p50: float
    p95: float
    max: float


class PaperCost(Section):
    """What a paper would print. convention: its name. value: MACs of an image."""

    convention: str
    value: float


class Phases(Section):
    """Mean MACs of an image. start, sense, fuse, locate, classify: in this phase of the protocol."""

    start: float
    sense: float
    fuse: float
    locate: float
    classify: float


class FlopsStep(Section):
    """Runs stopped at one step. step: which. macs: the mean of an image."""

    step: int
    macs: float


class Flops(Section):
    """What ran, an image.

    n: how many images were counted. images: whose, the data set's or noise of its declared size. macs: of the whole run. flops_mean: 2 x
    macs.mean. paper_macs: what the model's paper would print of it. phases: by phase. steps: step by step. uncounted: arithmetic operations
    that ran and count as nothing. missing: those of them that may hold products of matrices or with weights, and for which there is no
    formula; with any of them, every number of MACs is a lower bound.
    """

    n: int
    images: Literal["data", "noise"]
    macs: Spread
    flops_mean: float
    paper_macs: PaperCost | None
    phases: Phases
    steps: tuple[FlopsStep, ...]
    uncounted: tuple[str, ...]
    missing: tuple[str, ...] = ()


class AnytimePoint(Section):
    """An exit rule at one threshold, or all images stopped at one step.

    rule: its name; 'fixed' stops all images at step `threshold`. threshold: in its unit. top1: accuracy at the exits. macs_mean,
    steps_mean: of an image. exits: the share of images whose last look was step 1, 2, ...
    """

    rule: str
    threshold: float
    top1: Estimate
    macs_mean: float
    steps_mean: float
    exits: tuple[float, ...]


class EqualAccuracy(Section):
    """What the accuracy of a feed-forward model costs here. baseline: its name.

    macs_ratio: this model's MACs over the baseline's where it reaches the baseline's accuracy; null where it never does. low, high: the
    95 % interval, resampled over source images; where fewer than 97.5 % of the samples reach that accuracy, high is null: the ratio has
    no upper bound. reached: the share of samples that do. All three are null in results of older versions. missing: operations of either
    model that have no formula; with any of them, there is no ratio.
    """

    baseline: str
    macs_ratio: float | None
    low: float | None = None
    high: float | None = None
    reached: float | None = None
    missing: tuple[str, ...] = ()


class Anytime(Section):
    """Accuracy against cost, from real early exits and from stops at a fixed step.

    curve: its points; the last one is the whole run without a rule, and those of rule 'fixed' before it (results of earlier versions have
    none) stop all images earlier. area: under the early exits and the whole run, over the budgets that they span, as a mean accuracy.
    calibrated_on: the split that the thresholds come from. equal_accuracy: null without a baseline in the run.
    """

    curve: tuple[AnytimePoint, ...]
    area: float
    calibrated_on: str
    equal_accuracy: EqualAccuracy | None

    @property
    def exits(self) -> tuple[AnytimePoint, ...]:
        """The early exits and the whole run, without the stops at a fixed step."""
        return (*(each for each in self.curve[:-1] if each.rule != "fixed"), self.curve[-1])


class Mce(Section):
    """Mean corruption error. value: in per cent of the baseline's, which itself has 100. baseline: its name."""

    value: float
    baseline: str


class Corruptions(Section):
    """Accuracy under corruptions.

    n: images under each. table: corruption -> top-1 accuracy at severities 1 to 5, null where not measured. clean: of the same n images
    unchanged, null where published images were read.

    mean: over all measured severities of the benchmark's corruptions (of all, if none of the benchmark's was measured); by_step: that mean,
    for every step. implementation: what computed them, with its version. preset: the published constants for this image size. mce: null
    without a baseline.
    """

    implementation: str
    preset: str
    n: int
    clean: Estimate | None
    table: dict[str, tuple[Estimate | None, ...]]
    mean: Estimate
    by_step: tuple[Estimate, ...]
    mce: Mce | None


class ExitRuleUsed(Section):
    """The exit rule of a run. rule: its name. threshold: in its unit."""

    rule: str
    threshold: float


class Unattacked(Section):
    """The same images, budget and exit rule without the attack. top1: accuracy. macs_mean, steps_mean: of an image."""

    top1: Estimate
    macs_mean: float
    steps_mean: float


class Attack(Section):
    """Accuracy under one attack.

    name: of the attack. norm: in which eps is measured. eps, step_size: in `space`. space: 'pixels' means those in [0, 1]. steps:
    iterations, or queries. restarts: runs of which the best counts. eot: samples a gradient is the mean of. evaluations: runs an image,
    with noise of their own, over which accuracy is averaged; one where nothing is drawn. target: which prediction is attacked; with
    'any-step', `top1` counts images that are right at every step. path: whether the attacked run chooses its looks freely or keeps the
    clean ones. surrogate: what stands in for hard choices in the gradient. settings: those of this attack alone. exit_rule: null without
    one. n: images attacked. top1: accuracy under it. by_step: at every step. macs_mean, steps_mean: of an image. clean: without the attack.
    """

    name: str
    norm: str
    eps: float
    space: str
    steps: int
    step_size: float
    restarts: int
    eot: int
    evaluations: int
    target: Literal["final", "any-step", "exit"]
    path: Literal["free", "frozen"]
    surrogate: str | None
    settings: dict[str, Any]
    exit_rule: ExitRuleUsed | None
    n: int
    top1: Estimate
    by_step: tuple[Estimate, ...]
    macs_mean: float
    steps_mean: float
    clean: Unattacked

    @property
    def can_be_judged(self) -> bool:
        """Whether it is of the kind that `Masking` can judge."""
        return (self.norm, self.space, self.target, self.path) == JUDGED


JUDGED = ("Linf", "pixels", "final", "free")  # norm, space, target and path of the attacks that `Masking` can judge
UNCHECKED = "not checked"


class Masking(Section):
    """Whether attacked accuracy can be believed: that under the run's first attack of a kind that can be judged.

    checks: what was looked at, by name, with its numbers and its own verdict. verdict: the worst of theirs.
    """

    verdict: Literal["ok", "suspect", "unreliable"]
    checks: dict[str, dict[str, Any]]


class SpeedBatch(Section):
    """Times of one batch.

    batch: images in it. median_ms, iqr_ms: median and interquartile range. images_per_s: by the median. compacted: whether images that
    exited left the batch.
    """

    batch: int
    median_ms: float
    iqr_ms: float
    images_per_s: float
    compacted: bool


class Speed(Section):
    """How long it takes. device: what computed. threads: of torch. batches: by size.

    peak_memory: in bytes; null where the device cannot tell.
    """

    device: str
    threads: int
    batches: tuple[SpeedBatch, ...]
    peak_memory: int | None


class Failure(Section):
    """A unit of work that failed. measure: what wanted it. unit: its id. images: start, stop. error: in one line."""

    measure: str
    unit: str
    images: tuple[int, int]
    error: str


class Result(Section):
    """result.json: all that one run measured of one model on one data set. A section that was not asked for is null or empty.

    schema: the version of these keys. run: when, and by which command. model: which. data: on which images. environment: on which machine.
    accuracy: at every step, with intervals. flops: the cost. anytime: accuracy against cost with early exits. corruptions, attacks:
    accuracy under them. masking: whether the attacks can be believed. speed: times. errors: units of work that failed. notes: what was
    left out, and why. missing: operations that ran, may hold products and have no formula; with any of them, every number of MACs in any
    section is a lower bound.
    """

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    run: Run
    model: Model
    data: Data
    environment: Environment
    accuracy: Accuracy | None = None
    flops: Flops | None = None
    anytime: Anytime | None = None
    corruptions: Corruptions | None = None
    attacks: tuple[Attack, ...] = ()
    masking: Masking | None = None
    speed: Speed | None = None
    errors: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def departure(self) -> str:
        """See `departure`; '' for a model that was measured on its own data, or of which nobody knows these."""
        return departure(self.model.name, self.model.trained_on, self.data)

    @property
    def at_least(self) -> bool:
        """Whether every number of MACs is a lower bound."""
        return bool(self.missing)

    @property
    def judged(self) -> Attack | None:
        """The attack that `masking` is about."""
        return next((attack for attack in self.attacks if attack.can_be_judged), None) if self.masking else None

    def verdict_on(self, attack: Attack) -> str:
        """Whether accuracy under this attack of the result can be believed; 'not checked' of one that `masking` is not about."""
        return self.masking.verdict if self.masking and attack == self.judged else UNCHECKED


def departure(name: str, trained: TrainedOn | None, data: Data) -> str:
    """What the data that a model is measured on have of their own, beside those that it was trained on, in a sentence; '' if nothing."""
    if trained is None:
        return ""
    other, resized = trained.data != data.name, trained.image_size != data.image_size
    own, settings = ({key: value for key, value in each.items() if key != "size"} for each in (trained.settings, data.settings or {}))
    changed = {key: settings.get(key) for key in {**own, **settings} if own.get(key) != settings.get(key)}
    if other or data.settings is None:
        changed = {}
    if not (other or resized or changed):
        return ""
    before = [f"on {trained.data}", *([f"at {_px(trained.image_size)}"] if resized else [])]
    after = [*([f"on {data.name}"] if other else []), *([f"at {_px(data.image_size)}, {NEVER_TRAINED}"] if resized else [])]
    after += [f"with data.{key}={'its default' if value is None else value}" for key, value in changed.items()]
    return f"{name} was trained {' '.join(before)}, measured {' '.join(after)}"


NEVER_TRAINED = "a size that it was never trained at"


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"


class Pair(Section):
    """Two models on the same images, at their last looks.

    a, b: their names. n: images. only_a, only_b: images that this one alone gets right. difference: accuracy of a less accuracy of b. low,
    high: its 95 % interval, resampled over source images. p: one-sided, for the claim that a is worse than b; 'not significantly worse' is
    p >= .05.
    """

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    difference: float
    low: float
    high: float
    p: float


class Comparison(Section):
    """comparison.json: every ordered pair of the models of one run.

    schema: the version of these keys. run: its id. data: the data set's name. pairs: the comparisons.
    """

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    run: str
    data: str
    pairs: tuple[Pair, ...]


def result_schema() -> str:
    """The JSON Schema of result.json, as `docs/result.schema.json` holds it."""
    schema = Result.model_json_schema(by_alias=True, mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
