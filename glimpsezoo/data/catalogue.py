"""Every built-in data set, with its card. Imports nothing heavy."""

from glimpsezoo.specs import DatasetSpec, Task

TEN_DIGITS = tuple(str(digit) for digit in range(10))

DIGITS = DatasetSpec(
    name="digits",
    description="Handwritten digits of scikit-learn, 20 px, each at a random place of a 64 x 64 canvas (embedded: no network).",
    source="glimpsezoo.data.digits:open_digits",
    config="glimpsezoo.data.config:PlacedSettings",
    task=Task(image_size=(64, 64), channels=1, classes=TEN_DIGITS),
    splits={"train": 1084, "calibration": 585, "test": 2980},
    licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits; Alpaydin & Kaynak, 1998)",
    homepage="https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html",
    transform="8 x 8 values 0..16 enlarged bilinearly to 20 px, 8 bits, placed uniformly on 64 x 64 zeros; training places anew each epoch",
    calibration="a stratified tenth of the digits that are not test digits; calibration and test digits stand at five places each",
)

DATASETS: tuple[DatasetSpec, ...] = (DIGITS,)
