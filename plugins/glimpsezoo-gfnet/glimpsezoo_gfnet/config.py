"""The settings of this plugin's model, which `--set KEY=VALUE` reaches. The defaults are the paper's for ResNet-50 and its family."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from glimpsezoo import PolicyName, Settings

# What the authors choose for a family of backbones, by the beginning of its timm name, where it differs from that for ResNets.
_OF_MOBILE_NETS = {"classifier": "concatenate", "locator": "conv", "locator_hidden": 256, "own_loss": 5.0}
_OF_FAMILIES: dict[str, dict[str, Any]] = {
    "mobilenet": _OF_MOBILE_NETS,
    "efficientnet": _OF_MOBILE_NETS,
    "densenet": {"resize": "bilinear"},
    "regnet": {"resize": "bilinear", "locator": "conv", "locator_hidden": 256, "glance_head": True},
}


class GFNetConfig(Settings):
    """Settings of GFNet."""

    backbone: str = Field("resnet50", min_length=1)
    """The timm model that both encoders are; their weights are their own. Also 'mobilenetv3_large_125', which timm has no name for."""
    patch: int = Field(96, ge=1)
    """The side in px of what an encoder takes: of the resized image, and of a crop."""
    glimpses: int = Field(5, ge=1, le=100)
    """T, the number of looks: one at the resized image, then T - 1 crops."""
    classifier: Literal["gru", "concatenate"] = "gru"
    """gru: a GRU over the features and a linear layer. concatenate: a linear layer of its own for each number of looks, on all features so
    far. By default the authors' choice for the backbone's family."""
    hidden: int = Field(1024, ge=1)
    """The units of the classifier's GRU."""
    glance_head: bool = False
    """Whether the global encoder's own classifier classifies the first look, as in the authors' networks with 'concatenate' (always), and
    in those with RegNets."""
    locator: Literal["linear", "conv"] = "linear"
    """How the policy takes an encoder's last feature map: flat through a layer of 2,048 units, or by a 1 x 1 convolution to 32 channels."""
    locator_hidden: int = Field(1024, ge=1)
    """The units of the policy's GRU."""
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    """How the image is resized for the first look."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`) for regions of one size."""
    decide: Literal["mode", "sample"] = "mode"
    """Whether the learned policy looks at the mean that it predicts (mode, as in the paper's tests) or draws a place around it."""
    deviation: float = Field(0.1, gt=0, le=1)
    """The standard deviation of a drawn place, as a share of the range of places."""
    own_loss: float = Field(1.0, ge=0, allow_inf_nan=False)
    """In training: the weight of the loss of the encoders' own classifiers."""

    @model_validator(mode="before")
    @classmethod
    def _of_the_family(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        backbone = str(values.get("backbone", ""))
        family = next((family for family in _OF_FAMILIES if backbone.startswith(family)), None)
        values = {**_OF_FAMILIES.get(family or "", {}), **values}
        return {"glance_head": True, **values} if values.get("classifier") == "concatenate" else values

    @model_validator(mode="after")
    def _concatenation_has_no_first_layer(self) -> Self:
        if self.classifier == "concatenate" and not self.glance_head:
            raise ValueError("expected glance_head=true with classifier=concatenate, whose first layer is for two looks, got false")
        return self
