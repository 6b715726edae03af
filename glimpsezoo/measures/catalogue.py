"""The built-in measures, in the order of result.json, and the presets of `--measure`."""

from glimpsezoo.specs import MeasureSpec

PRESETS = {
    "quick": ("accuracy", "flops"),
    "robustness": ("corruptions", "attacks"),
    "full": ("accuracy", "flops", "anytime", "corruptions", "attacks", "extra-corruptions", "stronger-attacks"),
}

EXITS = "anytime"  # prefix of the settings of exit rules, whichever measure uses them

_MODULES = "glimpsezoo.measures"
MEASURES = (
    MeasureSpec(
        name="accuracy",
        description="Top-1, top-5, NLL and calibration error at every step.",
        measure=f"{_MODULES}.accuracy:AccuracyMeasure",
        default=True,
    ),
    MeasureSpec(name="flops", description="MACs per image, by step and by phase.", measure=f"{_MODULES}.flops:FlopsMeasure", default=True),
    MeasureSpec(
        name="anytime",
        description="Accuracy against cost with real early exits.",
        measure=f"{_MODULES}.anytime:AnytimeMeasure",
        default=True,
    ),
    MeasureSpec(
        name="corruptions",
        description="Accuracy under the benchmark's 15 corruptions at five severities.",
        measure=f"{_MODULES}.corrupted:CorruptedMeasure",
        default=True,
        also=("extra-corruptions",),
    ),
    MeasureSpec(
        name="attacks",
        description="Accuracy under attacks: by default, the worst case over an ensemble.",
        measure=f"{_MODULES}.attacked:AttackedMeasure",
        default=True,
        also=("stronger-attacks",),
    ),
    MeasureSpec(
        name="masking",
        description="Whether the model hides its gradient from attacks.",
        measure=f"{_MODULES}.gradient_masking:GradientMaskingMeasure",
        follows="attacks",
    ),
    MeasureSpec(
        name="smoothing",
        description="Certified accuracy in L2 of the model smoothed by Gaussian noise.",
        measure=f"{_MODULES}.smoothing:SmoothingMeasure",
    ),
    MeasureSpec(
        name="policies",
        description="Accuracy of the same weights under other policies, compared with the learned one.",
        measure=f"{_MODULES}.policies:PoliciesMeasure",
    ),
    MeasureSpec(name="speed", description="Latency on this device, at several batch sizes.", measure=f"{_MODULES}.speed:SpeedMeasure"),
)
