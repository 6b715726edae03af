"""Image Classification Through Top-Down Image Pyramid Traversal (under review as a conference paper at ICLR 2020).

One step is one pyramid level. Step 1 takes the whole image at the base resolution; step k takes, at level k of the pyramid, the cells
that the location module chose in the nodes of level k - 1. The nodes form the parse tree of appendix A.1. Implemented:
- the modules of appendix A.2 with the layers of tables 1 to 5 (architectures.py);
- the location module's Bernoulli draw over a 3 x 3 grid of cells that overlap by 50 %, with the probability of eq. 8a;
- eq. 7, V'_n = V_n (+) agg(loc({V'_m})): features of a node merged with those of its attended cells, from the leaves up.
Training (eqs. 1 to 6 and 11 to 15) is in training.py.

What the paper leaves open, and what is done here:
- The side of a cell is half that of its node, and its offset is 0, 1/4 or 1/2 of the node's side. One level deeper, that is base x base
  pixels at a multiple of base / 2, so cells are crops of whole pixels from the image of the next level.
- A node without attended cells keeps V_n: neither aggregation nor merging runs for it. An image that chooses no cell is finished.
- The slope of leaky ReLU is .2, the default of the library whose vocabulary (SAME, VALID) the tables use.
- Images are normalised by the mean and standard deviation of the data. Level k is the image resized to
  base x 2^k by exact area, whatever its size; that equals the 2 x 2 means of the level above.
Departure: the gradient stop between feature extraction and location is part of the learning rule, so it is in training.py.
Attacks (eval mode, gradients on) reach the location module through a straight-through gate: V of an attended cell is multiplied by
1 + (p - stop(p)), which is 1 and has the gradient of the cell's probability p. Cells that were not attended have no gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from glimpsezoo import (
    Batched,
    Decision,
    GlimpseModel,
    Made,
    Noise,
    Normalise,
    PaperMacs,
    Phase,
    Regions,
    State,
    Task,
    exporting,
    find_policy,
    grid_crop,
    join_rows,
    rows_of_each,
    select_rows,
    thumbnail,
)
from glimpsezoo_pyramid.architectures import CELLS, GRID, IMAGENET_M1, IMAGENET_M2, M1, M2, M3, Architecture, levels_for
from glimpsezoo_pyramid.config import PyramidConfig
from glimpsezoo_pyramid.modules import SLOPE, feature_layers, initialise


@dataclass(frozen=True, kw_only=True)
class Flat(Batched):
    """Rows that belong to the images of a batch, any number per image. All tensors have leading axis N."""

    image: Int[Tensor, "N"]
    """The image of each row. Rows are ordered by image."""
    batch: int
    """The number of images."""

    def select(self, index: Int[Tensor, "n"]) -> Self:
        position, image = select_rows(self.image, self.batch, index)
        return replace(self._at(position), image=image, batch=len(index))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        image, batch = join_rows([(part.image, part.batch) for part in parts]), sum(part.batch for part in parts)
        others = {name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0]._rows() if name != "image"}
        return replace(parts[0], image=image, batch=batch, **others)

    def append(self, other: Self) -> Self:
        """The rows of both; for each image, those of `self` come first."""
        order = torch.cat([self.image, other.image]).argsort(stable=True)
        both = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in self._rows()}
        return replace(self, **both)._at(order)

    def counts(self) -> Int[Tensor, "B"]:
        """The number of rows of each image."""
        return rows_of_each(self.image, self.batch)

    def first(self) -> Int[Tensor, "B"]:
        """The first row of each image."""
        counts = self.counts()
        return counts.cumsum(0) - counts

    def _rows(self) -> list[str]:
        return [f.name for f in fields(self) if f.name != "batch"]

    def _at(self, position: Tensor) -> Self:
        return replace(self, **{name: getattr(self, name)[position] for name in self._rows()})


@dataclass(frozen=True, kw_only=True)
class Tree(Flat):
    """All attended locations, the nodes of the parse tree, in the order of the steps: what eq. 7 needs."""

    level: Int[Tensor, "N"]
    """0 for the whole image."""
    parent: Int[Tensor, "N"]
    """The parent's ordinal among the nodes of its image; -1 for the root."""
    cell: Int[Tensor, "N"]
    """The place in the parent's grid, 0 to 8 in reading order; 0 for the root."""
    vector: Float[Tensor, "N f"]
    """V_n."""

    def parent_row(self) -> Int[Tensor, "N"]:
        """The row of every node's parent; without meaning for roots."""
        return self.first()[self.image] + self.parent

    def has_children(self) -> Bool[Tensor, "N"]:
        """Which nodes have attended cells."""
        return rows_of_each(self.parent_row()[self.level > 0], len(self.image)) > 0


@dataclass(frozen=True, kw_only=True)
class Frontier(Flat):
    """The nodes of the deepest level: what choosing the next locations needs."""

    ordinal: Int[Tensor, "P"]
    """The node's place among the nodes of its image."""
    path: Int[Tensor, "P"]
    """The node's number in the complete tree with 9 cells per node (root 0), which does not depend on the batch."""
    centre: Float[Tensor, "P 2"]
    """As in `Regions`."""
    scale: Float[Tensor, "P"]
    """As in `Regions`."""
    map: Float[Tensor, "P f h h"]
    """The last feature map."""


@dataclass(frozen=True, kw_only=True)
class Cells(Flat):
    """The grids of candidate locations of the frontier's nodes."""

    probability: Float[Tensor, "P 9"]
    taken: Bool[Tensor, "P 9"]
    """The cells that are attended."""


@dataclass(frozen=True, kw_only=True)
class CellDecision(Decision):
    """A decision with all cells that it was chosen from, taken or not."""

    cells: Cells


@dataclass(frozen=True, kw_only=True)
class PyramidState(State):
    """The state of the traversal."""

    tree: Tree
    frontier: Frontier


class Features(NamedTuple):
    """The features of N regions."""

    vector: Tensor
    """V, [N, f]."""
    map: Tensor
    """The last feature map, [N, f, h, h]."""


class Pyramid(GlimpseModel[PyramidState]):
    """The pyramid traversal with one of the architectures of tables 1 to 5."""

    architecture: ClassVar[Architecture]
    """Set by subclasses."""
    sees = "lowres"
    grid = GRID

    def __init__(self, config: PyramidConfig, task: Task) -> None:
        super().__init__()
        self.steps = config.levels or levels_for(task.image_size, self.architecture.base)
        self.config, self.task = config.model_copy(update={"levels": self.steps}), task
        self.stochastic = config.decide == "sample" and self.steps > 1
        self.surrogate = "straight-through gate on attended cells" if self.steps > 1 else None
        f, side = self.architecture.width, self.architecture.map_side(self.architecture.base)
        self.normalise = Normalise(task)
        self.features = feature_layers(self.architecture, task.channels)
        self.location = nn.Conv2d(f, CELLS, side)
        self.aggregation = nn.Sequential(nn.Conv2d(f, f, GRID), nn.LeakyReLU(SLOPE))
        self.merging = nn.Sequential(nn.Linear(2 * f, f), nn.LeakyReLU(SLOPE))
        self.classification = nn.Linear(f, len(task.classes))
        initialise(self)
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[PyramidState, Decision]:
        whole = Regions.whole_image(images)
        none = whole.image[:0]
        h, f = self.architecture.map_side(self.architecture.base), self.architecture.width
        tree = Tree(image=none, batch=len(images), level=none, parent=none, cell=none, vector=images.new_zeros(0, f))
        frontier = Frontier(
            image=none, batch=len(images), ordinal=none, path=none,
            centre=whole.centre[:0], scale=whole.scale[:0], map=images.new_zeros(0, f, h, h),
        )  # fmt: skip
        state = PyramidState(noise=noise, tree=tree, frontier=frontier)
        return state, Decision.certain(whole)

    def level_of(self, images: Float[Tensor, "B C H W"], level: int) -> Float[Tensor, "B C s s"]:
        """The pyramid level: the images at base x 2^level pixels, normalised."""
        side = self.architecture.base << level
        return self.normalise(thumbnail(images, (side, side)))

    def sense(self, images: Float[Tensor, "B C H W"], state: PyramidState, regions: Regions) -> Features:
        """The features of crops of base x base pixels from the next pyramid level, at multiples of base / 2.

        Levels are made when they are looked at: most images exit before the finest, and a small level costs little.
        """
        base, level = self.architecture.base, self.level_of(images, state.step)  # [B, C, s, s]
        maps = self.features(grid_crop(level, regions, base))  # [N, f, h, h]
        return Features(maps.mean((2, 3)), maps)

    def fuse(self, state: PyramidState, decision: Decision, features: Features) -> PyramidState:
        """Adds the new nodes to the tree; they are the next frontier."""
        regions, tree = decision.regions, state.tree
        rows = {"image": regions.image, "batch": regions.batch}
        cell, path = _place(state, regions)
        counts = regions.counts()
        among_new = torch.arange(len(regions), device=counts.device) - (counts.cumsum(0) - counts)[regions.image]
        ordinal = tree.counts()[regions.image] + among_new
        vector = self._gated(features.vector, decision)
        nodes = Tree(**rows, level=torch.full_like(cell, state.step), parent=regions.parent, cell=cell, vector=vector)
        frontier = Frontier(**rows, ordinal=ordinal, path=path, centre=regions.centre, scale=regions.scale, map=features.map)
        return replace(state, tree=tree.append(nodes) if state.step else nodes, frontier=frontier)

    def _gated(self, vector: Float[Tensor, "N f"], decision: Decision) -> Float[Tensor, "N f"]:
        """V of the attended cells, with the gradient of their probabilities outside training."""
        if self.training or not torch.is_grad_enabled() or not isinstance(decision, CellDecision):
            return vector
        probability = decision.cells.probability[decision.cells.taken]  # [N], in the order of the regions
        if len(probability) != len(vector):  # the regions were overridden
            return vector
        return vector * (1 + (probability - probability.detach()))[:, None]

    def classify(self, state: PyramidState) -> Float[Tensor, "B classes"]:
        """Eq. 7 from the deepest level up, then the classification module on the roots."""
        tree = state.tree
        vector, parent_row, has_children = tree.vector, tree.parent_row(), tree.has_children()
        for level in reversed(range(state.step - 1)):
            children = (tree.level == level + 1).nonzero().squeeze(1)
            merging = has_children & (tree.level == level)  # [N]
            parents = merging.nonzero().squeeze(1)
            slot = (merging.cumsum(0) - 1)[parent_row[children]]  # the place of each child's parent among `parents`
            grid = vector.new_zeros(len(parents), CELLS, vector.shape[1])  # cells that were not attended stay zero vectors
            grid = grid.index_put((slot, tree.cell[children]), vector[children])
            grid = grid.transpose(1, 2).unflatten(2, (GRID, GRID))  # [p, 9, f] -> [p, f, 3, 3]
            fine = self.aggregation(grid).flatten(1)  # [p, f, 1, 1] -> [p, f]
            merged = self.merging(torch.cat([vector[parents], fine], 1))
            vector = vector.index_copy(0, parents, merged.to(vector))  # types differ under mixed precision
        return self.classification(vector[tree.level == 0])

    def locate(self, state: PyramidState) -> CellDecision | None:
        if state.step >= self.steps:
            return None
        logits = self.cell_logits(state)
        if self.config.decide == "sample":
            return self.draw(state, logits)
        probability = logits.sigmoid()
        return self._take(state, probability, probability >= 0.5, "mode")

    def cell_logits(self, state: PyramidState) -> Float[Tensor, "P 9"]:
        """The location module's logits for the cells of every node of the frontier.

        They are computed in full precision also under mixed precision: training makes every decision twice and must draw the same cells.
        """
        with torch.autocast(state.frontier.map.device.type, enabled=False):
            return self.location(state.frontier.map.to(self.location.weight)).flatten(1)  # [P, 9, 1, 1] -> [P, 9]

    def draw(self, state: PyramidState, logits: Float[Tensor, "P 9"]) -> CellDecision:
        """Draw every cell with the probability of its logit (eq. 8a), from the images' noise."""
        frontier, probability = state.frontier, logits.sigmoid()
        taken = state.noise.uniform(state.step, CELLS, image=frontier.image, lane=frontier.path) < probability
        log_prob = -F.binary_cross_entropy_with_logits(logits, taken.to(logits), reduction="none")
        entropy = F.binary_cross_entropy_with_logits(logits, probability, reduction="none")
        decision = self._take(state, probability, taken, "sampled")
        zero = decision.log_prob
        return replace(
            decision,
            log_prob=zero.index_add(0, frontier.image, log_prob.sum(1).to(zero)),
            entropy=zero.index_add(0, frontier.image, entropy.sum(1).to(zero)),
        )

    def look_at(
        self, state: PyramidState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> CellDecision:
        """The decision to attend the cell at `place` in the grid of every node of the frontier."""
        column, row = (place * GRID).long().clamp(0, GRID - 1).unbind(1)
        nodes = F.one_hot((row * GRID + column)[state.frontier.image], CELLS).to(state.frontier.scale)  # [P, 9]
        return self._take(state, nodes, nodes > 0, made)

    def random_look(self, state: PyramidState) -> CellDecision:
        """Draws every cell of the frontier's nodes at one rate."""
        nodes = state.frontier.scale.new_zeros(len(state.frontier.image), CELLS)
        return self.draw(state, nodes + math.log(self.config.cells / (CELLS - self.config.cells)))

    def _take(self, state: PyramidState, probability: Tensor, taken: Tensor, made: Made) -> CellDecision:
        """The decision to attend the cells `taken` [P, 9] of the frontier's nodes, one level deeper."""
        frontier = state.frontier
        node, cell = taken.nonzero().unbind(1)  # in order of nodes, so in order of images
        offset = torch.stack([cell % GRID, cell // GRID], 1) - 1  # (x, y), each -1, 0 or 1
        scale = frontier.scale[node] / 2
        regions = Regions(
            image=frontier.image[node], centre=frontier.centre[node] + offset * scale[:, None], scale=scale,
            level=torch.full_like(node, state.step), parent=frontier.ordinal[node], batch=frontier.batch,
        )  # fmt: skip
        zero = frontier.scale.new_zeros(frontier.batch)
        cells = Cells(image=frontier.image, batch=frontier.batch, probability=probability, taken=taken)
        return CellDecision(regions=regions, made=made, log_prob=zero, entropy=zero, cells=cells)

    def work(self, phase: Phase, state: PyramidState, decision: Decision) -> Int[Tensor, "B"] | int:
        """The cost of classify depends on the nodes with attended cells; that of locate on the nodes of the level, the step's regions."""
        if phase != "classify":
            return super().work(phase, state, decision)
        merging = state.tree.image[state.tree.has_children()]
        return rows_of_each(merging, state.tree.batch)

    def paper_macs(self, step: int) -> PaperMacs | None:
        """Exact for one level. For more levels the paper counts the attended cells, which the measured cost does too; so None."""
        macs = self.architecture.module_macs(self.task.channels, len(self.task.classes))
        return PaperMacs("convolutions and linear layers", macs.features + macs.classification) if step == 1 else None


def _place(state: PyramidState, regions: Regions) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """The cell of each new region in its parent's grid, and its path number.

    They are computed from the geometry, so that decisions may be overridden. Raises `ValueError` if a parent is not in the frontier.
    """
    frontier, image = state.frontier, regions.image
    if state.step == 0:
        return torch.zeros_like(image), torch.zeros_like(image)
    counts = frontier.counts()
    among_frontier = regions.parent - (state.tree.counts() - counts)[image]
    if not exporting() and ((among_frontier < 0) | (among_frontier >= counts[image])).any():
        raise ValueError("expected parents from the step before, got a region with another parent: give its parent's ordinal in the image")
    node = frontier.first()[image] + among_frontier
    offset = (regions.centre - frontier.centre[node]) / frontier.scale[node, None] * 2  # (x, y), each -1, 0 or 1
    column, row = (offset.round().long().clamp(-1, 1) + 1).unbind(1)
    cell = row * GRID + column
    return cell, frontier.path[node] * CELLS + cell + 1


class PyramidM1(Pyramid):
    """M1 of table 3: one convolution, base resolution 14."""

    architecture = M1


class PyramidM2(Pyramid):
    """M2 of table 2: two convolutions, base resolution 14."""

    architecture = M2


class PyramidM3(Pyramid):
    """M3 of table 1: three convolutions, base resolution 14."""

    architecture = M3


class PyramidImageNetM1(Pyramid):
    """M1 of table 5: three convolutions, base resolution 32."""

    architecture = IMAGENET_M1


class PyramidImageNetM2(Pyramid):
    """M2 of table 4: four convolutions, base resolution 32."""

    architecture = IMAGENET_M2
