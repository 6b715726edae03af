"""Batches: in order to measure, shuffled to train, independent of the workers, and resumable at any batch."""

import pickle

import pytest
import torch
from data_files import opened

from glimpsezoo.data import BadImageError, Batch, DataInfo, Example, ImageData, batches, batches_per_epoch, training_batches
from glimpsezoo.data.limited import Held
from glimpsezoo.specs import Task


class Numbers(ImageData):
    """Example k is an image with the value k; in training, k + 1000 x (epoch + 1)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.task = Task(image_size=(2, 2), channels=1, classes=("even", "odd"))
        self.info = DataInfo(name="numbers", source="made", revision=None, fingerprint="0", split="test", transform="")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        return Example(torch.full((1, 2, 2), float(index)), index % 2, index, index)

    def training_example(self, index: int, epoch: int) -> Example:
        return self[index]._replace(image=torch.full((1, 2, 2), float(index + 1000 * (epoch + 1))))


def ids(found: list[Batch]) -> list[list[int]]:
    return [batch.ids.tolist() for batch in found]


def test_measuring_takes_all_examples_in_order() -> None:
    found = list(batches(Numbers(10), 0, 10, 4))
    assert ids(found) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert found[1].images[:, 0, 0, 0].tolist() == found[1].groups.tolist() == [4, 5, 6, 7]
    assert found[1].labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_ends_where_the_data_end(workers: int) -> None:
    assert ids(list(batches(Numbers(10), 3, 99, 4, workers))) == [[3, 4, 5, 6], [7, 8, 9]]


def test_no_batch_crosses_a_block_when_aligned() -> None:
    assert ids(list(batches(Numbers(12), 1, 12, 4, align=5))) == [[1, 2, 3, 4], [5, 6, 7, 8], [9], [10, 11]]


def test_training_takes_each_example_once_shuffled() -> None:
    found = list(training_batches(Numbers(10), 0, 0, 4))
    flat = [number for batch in ids(found) for number in batch]
    assert sorted(flat) == list(range(10))
    assert flat != sorted(flat)
    assert found[0].images[:, 0, 0, 0].tolist() == [number + 1000 for number in flat[:4]]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(epoch: int, seed: int) -> list[list[int]]:
        return ids(list(training_batches(Numbers(50), epoch, seed, 8)))

    assert order(3, 1) == order(3, 1)
    assert order(3, 1) != order(4, 1)
    assert order(3, 1) != order(3, 2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 1, 5])
def test_training_goes_on_exactly_at_any_batch(workers: int, first: int) -> None:
    data = opened("digits", "train")
    whole = list(training_batches(data, 2, 7, 200))
    rest = list(training_batches(data, 2, 7, 200, workers, first_batch=first))
    assert len(whole) == 6
    for a, b in zip(whole[first:], rest, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize(("count", "size", "sizes"), [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (1, 4, [])])
def test_only_an_incomplete_batch_of_one_is_dropped(count: int, size: int, sizes: list[int]) -> None:
    found = list(training_batches(Numbers(count), 0, 0, size))
    assert [len(batch.labels) for batch in found] == sizes
    assert batches_per_epoch(Numbers(count), size) == len(sizes)


def test_without_augmentation_images_are_as_measured() -> None:
    batch = next(training_batches(Numbers(10), 0, 0, 4, augment=False))
    assert batch.images[:, 0, 0, 0].tolist() == batch.ids.tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_torchs_own_draws_alone(workers: int) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(batches(Numbers(4), 0, 4, 2, workers))
    list(training_batches(Numbers(4), 0, 0, 2, workers))
    assert torch.equal(torch.rand(3), expected)


class Odd(Numbers):
    """Data of which no image can be read, for a reason that nobody foresaw."""

    def __init__(self, kind: type[Exception]) -> None:
        super().__init__(10)
        self.kind = kind

    def __getitem__(self, index: int) -> Example:
        raise self.kind("the source is odd")


def test_held_images_are_read_once_and_are_the_same() -> None:
    class Counted(Numbers):
        asked = 0

        def __getitem__(self, index: int) -> Example:
            Counted.asked += 1
            if index == 7:
                raise BadImageError("row 7 is broken")
            return super().__getitem__(index)

    plain, held = Numbers(10), Held(Counted(10))
    for _ in range(3):
        found = list(batches(held, 0, 10, 4, on_bad_image="skip", workers=0))
        assert [batch.skipped for batch in found] == [(), ("row 7 is broken",), ()]
        assert torch.equal(found[0].images, next(iter(batches(plain, 0, 10, 4))).images)
    assert Counted.asked == 10
    assert (held.info, len(held), held[2].label) == (plain.info, 10, 0)
    with pytest.raises(BadImageError, match="row 7"):
        held[7]
    held.forget()
    assert held[2].label == 0
    assert Counted.asked == 11


def test_held_images_are_not_sent_to_other_processes() -> None:
    held = Held(Numbers(10))
    before = len(pickle.dumps(held))
    list(held.examples(0, 10))
    assert len(pickle.dumps(held)) == before
    assert torch.equal(pickle.loads(pickle.dumps(held))[2].image, held[2].image)


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError])
def test_an_error_in_a_worker_is_not_taken_for_a_killed_worker(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the source is odd"):
        list(batches(Odd(kind), 0, 10, 4, workers=1))
