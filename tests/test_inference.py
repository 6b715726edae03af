"""`inference`: the same outputs, with weights arranged once; and the model as it was afterwards."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

import glimpsezoo as gz
from glimpsezoo.core.inference import inference


def with_statistics(network: nn.Module) -> nn.Module:
    """A network whose batch norms have statistics and weights as after a training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    return network.eval()


class Wrapped(nn.Module):
    """A model with the network as its child, as a glimpse model has its backbone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Branching(nn.Module):
    """The output of the first convolution goes to a batch norm and past it, so that batch norm must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False)
        self.last = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.second(self.norm(x).relu() + x))


class Repeating(nn.Module):
    """One convolution before two batch norms in turn, as in networks that share weights between steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.conv(self.one(self.conv(x))))


class Untraceable(nn.Module):
    """Control flow that depends on values: torch.fx cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return x if x.sum() > 0 else -x


NETWORKS = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=5),
    "grouped": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
    "dilated": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, dilation=2, padding=1), nn.BatchNorm2d(6, affine=False)),
    "mobilenetv3_small_050": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "same padding": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)),
    "branching": Branching,
    "repeating": Repeating,
    "untraceable": Untraceable,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_same(name: str) -> None:
    """As near to float64 as the model is without it."""
    model = Wrapped(with_statistics(NETWORKS[name]()))
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    with inference(model):
        for batch, side in ((1, 32), (5, 32), (2, 48)):  # the first arranges the weights, the others meet them
            images = torch.rand(batch, 3, side, side)
            right = exact(images.double())
            rounding = (plain(images) - right).abs().max()
            assert (model(images) - right).abs().max() < 5 * rounding + 1e-6 * right.abs().max()


def test_batch_norms_are_folded_into_convolutions() -> None:
    model = Wrapped(with_statistics(timm.create_model("resnet18")))
    with inference(model), torch.profiler.profile() as profile:
        model(torch.rand(1, 3, 64, 64))
    assert not [event.key for event in profile.key_averages() if "batch_norm" in event.key]


def test_the_model_is_as_before_afterwards() -> None:
    model = Wrapped(with_statistics(timm.create_model("resnet18", num_classes=3))).train()
    model.network.layer1.eval()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def run(channels: int) -> None:
        with inference(model):
            assert not model.training
            assert not torch.is_grad_enabled()
            model(torch.rand(2, channels, 32, 32))

    run(3)
    with pytest.raises(RuntimeError):
        run(4)
    assert model.training
    assert not model.network.layer1.training
    assert not [module for module in model.modules() if "forward" in vars(module)]
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_within_itself_it_changes_nothing() -> None:
    model, images = Wrapped(with_statistics(NETWORKS["grouped"]())), torch.rand(1, 3, 16, 16)
    with inference(model):
        expected = model(images)
        with inference(model):
            assert torch.equal(model(images), expected)
        assert torch.equal(model(images), expected)
    assert not [module for module in model.modules() if "forward" in vars(module)]


def test_a_forward_that_another_library_replaced_stays() -> None:
    model, images = Wrapped(with_statistics(NETWORKS["grouped"]())), torch.rand(1, 3, 16, 16)
    conv = model.network[0]
    original = conv.forward
    conv.forward = lambda x: original(x) + 1
    expected = model(images)
    with inference(model):
        torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model(images), expected)


def test_changed_weights_are_arranged_anew() -> None:
    model, images = Wrapped(with_statistics(NETWORKS["grouped"]())), torch.rand(1, 3, 16, 16)
    with inference(model):
        before = model(images)
    with torch.no_grad():
        model.network[0].weight *= 2
        model.network[1].bias += 1
        expected = model(images)
    with inference(model):
        torch.testing.assert_close(model(images), expected)
    assert not torch.allclose(before, expected)


def test_precisions_other_than_float32_run_as_they_are() -> None:
    model, images = Wrapped(with_statistics(NETWORKS["grouped"]())).double(), torch.rand(1, 3, 16, 16).double()
    with torch.no_grad():
        expected = model(images)
    with inference(model):
        assert torch.equal(model(images), expected)
    with torch.autocast("cpu"), inference(model.float()):
        assert model.network[0](images.float()).dtype == torch.bfloat16


def test_a_rollout_sees_the_same_and_costs_the_same() -> None:
    task = gz.Task((48, 48), 3, ("odd", "even"))
    model = gz.create_model("mgnet", task=task, backbone="resnet18", glimpses=3, downsample=1.5)
    with_statistics(model)
    images = torch.rand(4, 3, 48, 48)
    plain = gz.count_macs(lambda: gz.rollout(model, images))
    with torch.no_grad():
        expected = gz.rollout(model, images)
    with inference(model):
        trace = gz.rollout(model, images)
        counted = gz.count_macs(lambda: gz.rollout(model, images))
    torch.testing.assert_close(trace.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert counted.macs == plain.macs
    assert not counted.missing
