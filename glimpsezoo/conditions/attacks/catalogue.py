"""Every built-in attack. Imports nothing heavy."""

from glimpsezoo.specs import AttackSpec

_HERE = "glimpsezoo.conditions.attacks"


def _attack(name: str, attack: str, config: str, description: str) -> AttackSpec:
    return AttackSpec(name=name, description=description, attack=f"{_HERE}.{attack}", config=f"{_HERE}.settings:{config}")


ATTACKS: tuple[AttackSpec, ...] = (
    _attack(
        "worst-case",
        "worst_case:WorstCase",
        "WorstCaseSettings",
        "The worst per image of APGD on the margin and on the cross entropy, with free, frozen and detached glimpses, and Square.",
    ),
    _attack("fgsm", "gradient:FGSM", "FGSMSettings", "Fast gradient sign method: one step along the gradient (Goodfellow et al., 2015)."),
    _attack("pgd", "gradient:PGD", "PGDSettings", "Projected gradient descent from a random start (Madry et al., 2018)."),
    _attack("apgd-ce", "apgd:APGDCrossEntropy", "APGDSettings", "Auto-PGD on the cross entropy (Croce & Hein, 2020)."),
    _attack("apgd-margin", "apgd:APGDMargin", "APGDSettings", "Auto-PGD on the margin (Carlini & Wagner, 2017)."),
    _attack("apgd-dlr", "apgd:APGDLogitsRatio", "APGDSettings", "Auto-PGD on the difference of logits ratio (Croce & Hein, 2020)."),
    _attack("square", "square:Square", "SquareSettings", "Square Attack: random search, no gradients (Andriushchenko et al., 2020)."),
    _attack(
        "autoattack",
        "autoattack:AutoAttack",
        "AutoAttackSettings",
        "AutoAttack, standard: APGD-CE, targeted APGD, targeted FAB, Square (needs the extra 'autoattack').",
    ),
    _attack(
        "autoattack-rand",
        "autoattack:RandomisedAutoAttack",
        "RandomisedAutoAttackSettings",
        "AutoAttack for stochastic models: APGD-CE and APGD-DLR, 20 runs per gradient (needs the extra 'autoattack').",
    ),
    _attack("slowdown", "slowdown:Slowdown", "ExitAimedSettings", "Delays early exits: lowers the model's confidence at every step."),
    _attack(
        "early-wrong", "early_wrong:EarlyWrong", "ExitAimedSettings", "Makes early exits earlier and wrong: sure of a wrong class at once."
    ),
    _attack("distract", "looks:Distract", "LooksSettings", "Moves the glimpses away from those of the clean image."),
    _attack("tunnel", "looks:Tunnel", "TunnelSettings", "Keeps the glimpses in one quarter of the image."),
    _attack("sparse", "sparse:Sparse", "SparseSettings", "Sparse-RS: random search for few pixels, an L0 budget (Croce et al., 2022)."),
    _attack("patch", "patch:Patch", "PatchSettings", "A visible square with any content, at the worst of several random places."),
    _attack("patch-aware", "patch:AwarePatch", "PatchSettings", "The same, at places chosen by where the model looks."),
    _attack("random", "random_noise:RandomNoise", "RandomSettings", "The worst of some random changes within eps: a floor for attacks."),
    _attack(
        "pgd-paper",
        "gradient:PaperPGD",
        "PaperPGDSettings",
        "PGD as the MGNet paper runs it: on normalised pixels, unclipped, with the locator's gradient scaled as in training.",
    ),
)
