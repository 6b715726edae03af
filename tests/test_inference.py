"""`inference`: the same outputs, with weights arranged once; and the model as it was afterwards."""

import copy
import pickle
import threading

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


class Rectified(nn.Module):
    """A ReLU that is used twice, and one beside a path that goes past it: neither may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.norm, self.often, self.once = nn.BatchNorm2d(3), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.often(self.norm(self.one(x))) - self.often(x - 0.5)
        x = self.two(x)
        return self.once(x) + 2 * x


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
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)),
    "grouped": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
    "dilated": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, dilation=2, padding=1), nn.BatchNorm2d(6, affine=False)),
    "mobilenetv3_small_050": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "same padding": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)),
    "branching": Branching,
    "repeating": Repeating,
    "rectified": Rectified,
    "without a batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)),
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


def test_a_relu_behind_a_convolution_is_applied_while_it_writes() -> None:
    network = with_statistics(NETWORKS["without a batch norm"]()).append(nn.BatchNorm2d(4)).append(nn.ReLU())
    with inference(Wrapped(network)) as _, torch.profiler.profile() as profile:
        network(torch.rand(1, 3, 16, 16))
    applied = [event.count for event in profile.key_averages() if event.key in {"aten::relu", "aten::relu_"}]
    assert applied == [1]  # the last one, which follows no convolution


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


@pytest.mark.parametrize("called", [False, True])
def test_a_copy_that_would_keep_its_arranged_weights_is_refused(called: bool) -> None:
    model = Wrapped(with_statistics(NETWORKS["grouped"]()))
    with inference(model):
        if called:
            model(torch.rand(1, 3, 16, 16))
        for copied in (copy.deepcopy, pickle.dumps):
            with pytest.raises(gz.GlimpseZooError, match="do it outside"):
                copied(model)
    assert torch.equal(copy.deepcopy(model).network[0].weight, model.network[0].weight)


def test_a_forward_that_another_library_replaced_stays() -> None:
    model, images = Wrapped(with_statistics(NETWORKS["grouped"]())), torch.rand(1, 3, 16, 16)
    conv = model.network[0]
    original = conv.forward
    conv.forward = lambda x: original(x) + 1
    expected = model(images)
    with inference(model):
        torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("kind", ["without a batch", "no images", "double", "bfloat16"])
def test_unusual_inputs_are_treated_as_without_it(kind: str) -> None:
    model, images = Wrapped(NETWORKS["plain"]().eval()), torch.rand(2, 3, 8, 8)
    images = {"without a batch": images[0], "no images": images[:0], "double": images.double(), "bfloat16": images.bfloat16()}[kind]
    if kind in {"double", "bfloat16"}:
        with inference(model), pytest.raises(RuntimeError, match="should be the same"):
            model(images)
        return
    with torch.no_grad():
        expected = model(images)
    with inference(model):
        torch.testing.assert_close(model(images), expected)


def test_models_made_in_inference_mode_run() -> None:
    with torch.inference_mode():
        model = Wrapped(with_statistics(NETWORKS["grouped"]()))
        images = torch.rand(1, 3, 16, 16)
        expected = model(images)
    with inference(model):
        torch.testing.assert_close(model(images), expected)


def test_weights_that_lie_where_others_lay_are_seen() -> None:
    """Memory that is freed is used again, for weights with the same address and version."""
    model = Wrapped(with_statistics(nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))))
    conv, images = model.network[0], torch.rand(1, 64, 8, 8)
    with inference(model):
        model(images)
    shape, address = conv.weight.shape, conv.weight.data_ptr()
    conv.weight.data = torch.rand(shape)
    others = [torch.rand(shape) for _ in range(100)]
    conv.weight.data = next((tensor for tensor in others if tensor.data_ptr() == address), others[0])
    expected = model(images)
    with inference(model):
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


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_of_an_optimiser_is_seen(fused: bool) -> None:
    """A fused one leaves the versions of parameters as they were."""
    model, images = nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(2, 1, 8, 8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    with inference(model):
        before = model(images)
    model(images).sum().backward()
    optimiser.step()
    with inference(model):
        after = model(images)
    with torch.no_grad():
        assert torch.allclose(after, model(images), atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-2)


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


def test_a_thread_that_leaves_does_not_change_what_another_computes():
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    model, images = Wrapped(network), torch.randn(2, 3, 8, 8)
    model.train()
    expected = network.eval()(images).detach()
    model.train()
    left, reached, found = threading.Event(), threading.Event(), []

    def second() -> None:
        with inference(model):
            found.append(model(images))

    def wait(*_: object) -> None:  # between the convolution and the batch norm
        reached.set()
        assert left.wait(10)

    first = inference(model)
    first.__enter__()
    network[0].register_forward_hook(wait)
    thread = threading.Thread(target=second)
    thread.start()
    assert reached.wait(10)
    first.__exit__(None, None, None)
    left.set()
    thread.join()
    torch.testing.assert_close(found[0], expected)
    assert model.training
    assert not any("forward" in vars(module) for module in model.modules())
