"""Two small models that implement the protocol, and images for them.

`Peek`: one region per image, nothing random; every step has the same cost.
`Tree`: a random quadtree. Every node of a level may choose any of its four children or none, so images finish by themselves; states are
flat; the cost of sensing depends on the level, that of classifying on the shape of the tree.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glimpsezoo.core.batched import join, join_rows, select_rows
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.specs import Task

TASK = Task(image_size=(16, 16), channels=1, classes=("a", "b", "c"))


def batch_of_images(count: int, seed: int = 0) -> Tensor:
    """Images [count, 1, 16, 16] of coarse blocks, different enough that their rollouts differ."""
    blocks = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(blocks, scale_factor=4)


def crops(images: Tensor, regions: Regions, side: int) -> Tensor:
    """The N regions of images [B, C, H, W], resized to [N, C, side, side]."""
    count = len(regions)
    if not count:  # affine_grid refuses an empty grid
        return images.new_zeros(0, images.shape[1], side, side)
    theta = images.new_zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = regions.scale
    theta[:, :, 2] = regions.centre
    grid = F.affine_grid(theta, [count, images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images[regions.image], grid, align_corners=False)


class Counted(GlimpseModel[Any]):
    """Counts the images that each phase gets."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.config, self.task, self.steps = None, TASK, steps
        self.asked: Counter[str] = Counter()


@dataclass(frozen=True, kw_only=True)
class PeekState(State):
    memory: Tensor  # [B, 24]


class Peek(Counted):
    """Sees the whole image first, then places that it predicts."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__(steps)
        self.see = nn.Conv2d(1, 6, 3)  # 8 x 8 crops to 6 x 6 maps
        self.fuse_in = nn.Linear(6 * 36, 24)
        self.fuse_memory = nn.Linear(24, 24)
        self.head = nn.Linear(24, len(TASK.classes), bias=False)
        self.where = nn.Linear(24, 2)

    def start(self, images: Tensor, noise: Noise) -> tuple[PeekState, Decision]:
        self.asked["start"] += len(images)
        state = PeekState(noise=noise, memory=images.new_zeros(len(images), 24))
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Tensor, state: PeekState, regions: Regions) -> Tensor:
        self.asked["sense"] += len(regions)
        return self.see(crops(images, regions, 8)).flatten(1)  # [N, 6 * 36]

    def fuse(self, state: PeekState, decision: Decision, features: Tensor) -> PeekState:
        self.asked["fuse"] += len(state.memory)
        return replace(state, memory=torch.tanh(self.fuse_in(features) + self.fuse_memory(state.memory)))

    def classify(self, state: PeekState) -> Tensor:
        self.asked["classify"] += len(state.memory)
        return 10 * self.head(state.memory)

    def locate(self, state: PeekState) -> Decision:
        self.asked["locate"] += len(state.memory)
        centre = 0.7 * torch.tanh(4 * self.where(state.memory))
        return Decision.certain(Regions.one_each(centre, 0.3), made="regressed")


@dataclass(frozen=True, kw_only=True)
class TreeState(State):
    """M nodes of B trees, ordered by image and then by age."""

    batch: int
    image: Tensor  # [M]
    number: Tensor  # [M]: 1 is the root, the children of n are 4n .. 4n+3
    centre: Tensor  # [M, 2]
    level: Tensor  # [M]
    feature: Tensor  # [M, 8]

    def select(self, index: Tensor) -> Self:
        position, image = select_rows(self.image, self.batch, index)
        nodes = {name: getattr(self, name)[position] for name in ("number", "centre", "level", "feature")}
        return replace(self, noise=self.noise.select(index), batch=len(index), image=image, **nodes)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        image, batch = join_rows([(part.image, part.batch) for part in parts]), sum(part.batch for part in parts)
        nodes = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("number", "centre", "level", "feature")}
        return replace(parts[0], noise=Noise.join([part.noise for part in parts]), batch=batch, image=image, **nodes)

    def parents(self) -> Tensor:
        """[M]: the row of every node's parent; a root has its own row."""
        name = self.image * 4**8 + self.number
        return (name[:, None] == (self.image * 4**8 + self.number.clamp(min=4) // 4)[None]).int().argmax(0)


@dataclass(frozen=True, kw_only=True)
class TreeDecision(Decision):
    """A decision with one node per region, flat like the regions."""

    number: Tensor  # [N]

    def select(self, index: Tensor) -> Self:
        position, _ = select_rows(self.regions.image, self.regions.batch, index)
        return replace(
            self,
            regions=self.regions.select(index),
            log_prob=self.log_prob[index],
            entropy=self.entropy[index],
            number=self.number[position],
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        fields = ("regions", "made", "log_prob", "entropy", "number")
        return cls(**{name: join([getattr(part, name) for part in parts]) for name in fields})


class Tree(Counted):
    """A quadtree: children are drawn with odds that the node's feature determines, and merged from the leaves up to classify."""

    stochastic = True

    def __init__(self, steps: int = 4) -> None:
        super().__init__(steps)
        self.see = nn.ModuleList([nn.Linear(16, 8 + 4 * level) for level in range(steps)])  # a deeper level costs more
        self.squeeze = nn.ModuleList([nn.Linear(8 + 4 * level, 8) for level in range(steps)])
        self.odds = nn.Linear(8, 4)
        self.merge = nn.Linear(16, 8)
        self.head = nn.Linear(8, len(TASK.classes), bias=False)

    def start(self, images: Tensor, noise: Noise) -> tuple[TreeState, TreeDecision]:
        self.asked["start"] += len(images)
        none = torch.zeros(0, dtype=torch.long)
        flat = images.new_zeros(0)
        state = TreeState(
            noise=noise, batch=len(images), image=none, number=none, centre=flat.view(0, 2), level=none, feature=flat.view(0, 8)
        )
        first = Decision.certain(Regions.whole_image(images))
        return state, TreeDecision(**vars(first), number=torch.ones(len(images), dtype=torch.long))

    def sense(self, images: Tensor, state: TreeState, regions: Regions) -> Tensor:
        self.asked["sense"] += len(regions)
        pixels = crops(images, regions, 4).flatten(1)  # [N, 16]
        features = pixels.new_zeros(len(regions), 8)
        for level in regions.level.unique().tolist():
            mine = (regions.level == level).nonzero().squeeze(1)
            features = features.index_copy(0, mine, torch.tanh(self.squeeze[level](self.see[level](pixels[mine]))))
        return features

    def fuse(self, state: TreeState, decision: TreeDecision, features: Tensor) -> TreeState:
        self.asked["fuse"] += state.batch
        regions = decision.regions
        order = torch.cat([state.image, regions.image]).argsort(stable=True)
        added = {"image": regions.image, "number": decision.number, "centre": regions.centre, "level": regions.level, "feature": features}
        return replace(state, **{name: torch.cat([getattr(state, name), new])[order] for name, new in added.items()})

    def classify(self, state: TreeState) -> Tensor:
        self.asked["classify"] += state.batch
        parent, value = state.parents(), state.feature
        for level in range(int(state.level.max()) - 1, -1, -1):
            child = (state.level == level + 1).nonzero().squeeze(1)
            below = torch.zeros_like(value).index_add(0, parent[child], value[child])
            merging = parent[child].unique()
            value = value.index_copy(0, merging, torch.tanh(self.merge(torch.cat([value, below], 1)[merging])))
        return 20 * self.head(value[state.level == 0])

    def locate(self, state: TreeState) -> TreeDecision:
        self.asked["locate"] += state.batch
        tip = (state.level == state.step - 1).nonzero().squeeze(1)  # the nodes of the last step
        image, number = state.image[tip], state.number[tip]
        probability = torch.sigmoid(3 * self.odds(state.feature[tip]) - 1)  # [N, 4]
        taken = state.noise.uniform(state.step, 4, image=image, lane=number) < probability
        log_prob = torch.where(taken, probability, 1 - probability).log().sum(1)
        node, child = taken.nonzero(as_tuple=True)
        nodes = state.image.bincount(minlength=state.batch)
        first = nodes.cumsum(0) - nodes  # [B] the row of each image's root
        half = 0.5 ** (state.step - 1)
        corner = torch.stack([child % 2, child // 2], 1) - 0.5
        regions = Regions(
            image=image[node],
            centre=state.centre[tip][node] + half * corner,
            scale=state.centre.new_full((len(node),), half / 2),
            level=torch.full((len(node),), state.step),
            parent=tip[node] - first[image[node]],
            batch=state.batch,
        )
        zero = probability.new_zeros(state.batch)
        return TreeDecision(
            regions=regions,
            made="sampled",
            log_prob=zero.index_add(0, image, log_prob),
            entropy=zero.index_add(0, image, torch.special.entr(probability).sum(1) + torch.special.entr(1 - probability).sum(1)),
            number=4 * number[node] + child,
        )

    def work(self, phase: str, state: TreeState, decision: TreeDecision) -> Tensor:
        """The cost of classify depends on the nodes with children, that of locate on the nodes of the last step; fuse costs nothing."""
        if phase != "classify":
            return decision.regions.counts()
        inner = torch.zeros_like(state.image).index_fill(0, state.parents()[state.level > 0], 1)
        return torch.zeros(state.batch, dtype=torch.long).index_add(0, state.image, inner)


def toy(kind: type[Counted], seed: int = 0, **settings: int) -> Counted:
    """A toy with the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(**settings).eval()
