"""torchvision classification models as image encoders."""

import urllib.error

import pytest
import torch
from extraction import extract_image_tokens
from tiny_encoders import pictures
from torchvision import models
from torchvision.models import ShuffleNet_V2_X0_5_Weights, ViT_B_16_Weights

from odmt_sdk import ItemFeatures
from odmt_sdk.features.extraction.image_tokens import ImageExtractor
from odmt_sdk.features.extraction.torchvision_models import TorchvisionEncoder

WEIGHTS = ShuffleNet_V2_X0_5_Weights.DEFAULT


def shuffle_net():
    torch.manual_seed(0)
    return models.shufflenet_v2_x0_5(num_classes=3).eval()


def vision_transformer(image_size=32):
    torch.manual_seed(0)
    return models.VisionTransformer(image_size, 16, 1, 2, 16, 32, num_classes=3).eval()


def test_the_map_before_the_classifier_becomes_its_mean_and_its_places():
    model = shuffle_net()
    extracted = extract_image_tokens(pictures(2), (model, WEIGHTS), progress=False)
    transforms = WEIGHTS.transforms()
    pixels = torch.stack([transforms(picture) for picture in pictures(2)])
    with torch.no_grad():
        stages = (model.conv1, model.maxpool, model.stage2, model.stage3, model.stage4, model.conv5)
        maps = torch.nn.Sequential(*stages)(pixels)  # (2, 1024, 7, 7)
        scores = model(pixels)
    assert extracted.tokens.shape == (2, 1 + 49, 1024)
    places = maps.flatten(2).transpose(1, 2)
    torch.testing.assert_close(extracted.tokens[:, 1:], places, rtol=1e-4, atol=1e-5)
    # the first token is the input of the classifier
    torch.testing.assert_close(model.fc(extracted.tokens[:, 0]), scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image_size", [32, 48])
def test_a_vision_transformer_brings_its_class_token(image_size):
    model = vision_transformer(image_size)

    def transforms(picture):
        return WEIGHTS.transforms(crop_size=image_size, resize_size=image_size)(picture)

    extracted = extract_image_tokens(pictures(2), (model, transforms), progress=False)
    assert extracted.tokens.shape == (2, 1 + (image_size // 16) ** 2, 16)
    with torch.no_grad():
        scores = model(torch.stack([transforms(picture) for picture in pictures(2)]))
        torch.testing.assert_close(model.heads(extracted.tokens[:, 0]), scores)


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=3), 16),
        (lambda: models.squeezenet1_1(num_classes=3), 512),
        (lambda: models.GoogLeNet(num_classes=3, init_weights=False), 1024),
    ],
    ids=["channels last inside", "convolutional classifier", "auxiliary classifiers"],
)
def test_the_channels_are_the_width_of_the_tokens(build, channels):
    model = build().train()
    encoder = TorchvisionEncoder(model)
    assert model.training
    with torch.no_grad():
        tokens = encoder.eval()(torch.randn(1, 3, 64, 64))
    assert tokens.shape[:2] == (1, channels)
    assert tokens.ndim == 4
    assert tokens[0, 0].numel() > 1


def test_features_say_how_they_were_made(tmp_path):
    items = {"item_id": [1, 2], "image": pictures(2)}
    settings = {"max_image_tokens": 5, "image_reduction": "average", "progress": False}
    encoder = (shuffle_net(), WEIGHTS)
    features = ItemFeatures.from_items(
        items, image_encoder=encoder, path=tmp_path / "store", **settings
    )
    assert features["image"].tokens.shape == (3, 5, 1024)
    made = features.provenance["image"]
    assert made["encoder"] == "torchvision:ShuffleNetV2"
    assert made["revision"] == "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    assert (made["pooling"], made["preprocessing"]["reduction"]) == ("mean", "average")
    assert "resize_size=[256]" in made["preprocessing"]["processor"]
    other = (shuffle_net(), ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1)
    with pytest.raises(ValueError, match="image preprocessing processor is .*now .*384"):
        ItemFeatures.from_items(items, image_encoder=other, path=tmp_path / "store", **settings)


def test_by_name_with_weights_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    model = models.shufflenet_v2_x0_5().eval()
    torch.save(model.state_dict(), folder / WEIGHTS.url.rpartition("/")[2])
    state = torch.random.get_rng_state()
    by_name = ImageExtractor("torchvision:shufflenet_v2_x0_5", device="cpu").provenance
    assert torch.equal(torch.random.get_rng_state(), state)
    assert by_name["encoder"] == "torchvision:shufflenet_v2_x0_5"
    given = ImageExtractor((model, WEIGHTS)).provenance
    named = {"encoder": by_name["encoder"]}
    assert by_name == {**given, **named}


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        ("torchvision:resnet", ValueError, "torchvision has no classification model 'resnet'"),
        (
            "torchvision:resnet18.BEST",
            ValueError,
            r"resnet18 has no weights 'BEST'; there are \['IMAGENET1K_V1', 'DEFAULT'\]",
        ),
        (shuffle_net, TypeError, r"ShuffleNetV2 of torchvision without its weights"),
        (
            lambda: (shuffle_net(), "best"),
            TypeError,
            "ShuffleNetV2 is paired with str, but .*weights",
        ),
    ],
)
def test_what_is_refused(encoder, error, message):
    with pytest.raises(error, match=message):
        ImageExtractor(encoder if isinstance(encoder, str) else encoder())


def test_no_map_of_features():
    model = vision_transformer()
    model.heads = torch.nn.Identity()
    model.forward = lambda pixels: torch.zeros(len(pixels), 3)
    with pytest.raises(ValueError, match="VisionTransformer has no feature map before its"):
        TorchvisionEncoder(model)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    def offline(*arguments, **settings):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(OSError, match="of shufflenet_v2_x0_5 cannot be loaded: .*no route to host"):
        ImageExtractor("torchvision:shufflenet_v2_x0_5")


def test_transforms_that_give_no_common_size():
    def as_it_is(picture):
        return torch.zeros(3, *picture.size)

    images = [picture.resize((20 + 2 * n, 20)) for n, picture in enumerate(pictures(2))]
    with pytest.raises(ValueError, match=r"shapes \[\(3, 20, 20\), \(3, 22, 20\)\]"):
        extract_image_tokens(images, (shuffle_net(), as_it_is), progress=False)
