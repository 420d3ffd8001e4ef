import sys
import warnings

import pytest
import torch
from torch import nn

from stadlib.base import ConfigError, InputError
from stadlib.models import backbones
from stadlib.models.networks import (
    CSN,
    STAGE_DEPTHS,
    Backbone,
    Classifier,
    Normalize,
    SlowFast,
    csn_mini,
    freeze_batchnorm,
    slowfast_mini,
)
from stadlib.models.weights import read_backbone
from stadlib.recipes.experiment import Experiment

MINI = list(backbones.MINIATURE.values())


def shaken(backbone: nn.Module) -> nn.Module:
    """A network as if trained: norms with statistics and affine of their own."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone


def clips(frames: int = 8, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(2, 3, frames, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", MINI)
@pytest.mark.parametrize("size", [(8, 64, 96), (16, 56, 88)])
def test_a_mini_backbone_keeps_its_strides_and_time(make, size):
    backbone = make().eval()
    with torch.no_grad():
        features = backbone(clips(*size))
    s, t = backbone.spatial_stride, backbone.temporal_stride
    assert features.shape == (
        *(2, backbone.out_channels, size[0] // t),
        *(size[1] // s, size[2] // s),
    )
    assert s == 8 and size[0] // t >= 4


@pytest.mark.parametrize("make", MINI)
def test_a_mini_backbone_is_sensitive_to_the_order_of_frames(make):
    backbone, x = shaken(make()).eval(), clips()
    with torch.no_grad():
        forward, backward = backbone(x), backbone(x.flip(2)).flip(2)
    assert not torch.allclose(forward, backward, atol=1e-3)


def test_forward_leaves_its_input_alone():
    x = clips()
    before = x.clone()
    backbone = shaken(slowfast_mini()).eval()
    with torch.no_grad():
        assert torch.equal(backbone(x), backbone(x))
    assert torch.equal(x, before)


def test_slowfast_concatenates_the_slow_path_and_the_averaged_fast_one():
    backbone, x = shaken(slowfast_mini()).eval(), clips()
    with torch.no_grad():
        slow, fast = backbone.net([x[:, :, backbone.slow_frames(x.shape[2])], x])
        features = backbone.features(x)
    assert fast.shape[2] == 2 * slow.shape[2]
    assert torch.equal(features[:, : slow.shape[1]], slow)
    averaged = fast.unflatten(2, (-1, 2)).mean(dim=3)
    torch.testing.assert_close(features[:, slow.shape[1] :], averaged)


@pytest.mark.parametrize("make", [csn_mini, slowfast_mini])
def test_frozen_batchnorms_stay_through_training(make):
    backbone = shaken(make())
    x = clips()
    with torch.no_grad():
        expected = backbone.eval()(x)
        freeze_batchnorm(backbone)
        frozen = backbone.train()(x)
    torch.testing.assert_close(frozen, expected, rtol=1e-4, atol=1e-4)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm3d)]
    state = [tensor.clone() for norm in norms for tensor in norm.state_dict().values()]
    learning = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    before = [p.clone() for p in learning]
    backbone(x).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, learning, strict=True))
    after = [tensor for norm in norms for tensor in norm.state_dict().values()]
    assert len(state) > 50
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


@pytest.mark.parametrize("make", MINI)
def test_a_frozen_network_has_the_gradients_of_the_network_in_evaluation_mode(make):
    reference, frozen = shaken(make()).double().eval(), make().double()
    freeze_batchnorm(frozen)
    frozen.load_state_dict(reference.state_dict())  # names are the same before and after
    frozen.train()
    gradients = []
    for network in (reference, frozen):
        output = network(clips(8, 32, 32).double())
        output.square().mean().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
    convolutions = {n: g for n, g in gradients[0].items() if n in gradients[1]}
    assert len(convolutions) == len(gradients[1]) > 10
    torch.testing.assert_close(convolutions, gradients[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", MINI)
def test_batchnorms_train_in_pretraining(make):
    classifier = Classifier(make(), num_classes=7).train()
    uint8 = torch.randint(256, (2, 3, 8, 64, 96), dtype=torch.uint8)
    means = [n for n in classifier.state_dict() if n.endswith("running_mean")]
    before = {n: classifier.state_dict()[n].clone() for n in means}
    logits = classifier(uint8)
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(not torch.equal(before[n], classifier.state_dict()[n]) for n in means)
    assert classifier.backbone.state_dict().keys() == make().state_dict().keys()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("make", MINI)
def test_activations_in_place_change_no_bit(make, frozen):
    x, results = clips(8, 32, 32), []
    for in_place in (True, False):
        torch.manual_seed(0)
        backbone = shaken(make()).train()
        if frozen:
            freeze_batchnorm(backbone)
        for module in backbone.modules():
            if isinstance(module, nn.ReLU):
                assert module.inplace
                module.inplace = in_place
        features = backbone(x)
        features.square().mean().backward()
        gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
        results.append([features, *gradients])
    trained = [p for p in backbone.parameters() if p.requires_grad]
    assert len(results[0]) == 1 + len(trained) > 10
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_normalize_is_kinetics():
    uint8 = torch.randint(256, (2, 3, 4, 6, 6), dtype=torch.uint8)
    torch.testing.assert_close(Normalize()(uint8), (uint8 / 255 - 0.45) / 0.225)
    own = Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])(uint8)
    torch.testing.assert_close(own[:, 1], (uint8[:, 1] / 255 - 0.5) / 0.3)


def test_the_slow_path_sees_pyslowfasts_frames():
    """``pack_pathway_output`` of SlowFast takes ``linspace(0, T - 1, T // alpha).long()``."""
    network = slowfast_mini()
    network.temporal_stride = 4
    assert network.slow_frames(32) == [0, 4, 8, 13, 17, 22, 26, 31]
    network.strided = True
    assert network.slow_frames(32) == [0, 4, 8, 12, 16, 20, 24, 28]


def test_csn_is_pytorchvideos_csn_without_its_head():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorchvideo.models.csn import create_csn

    ours = CSN(
        STAGE_DEPTHS[50],
        stem_width=8,
        inner_widths=(8, 16, 32, 64),
        out_widths=(32, 64, 128, 256),
        spatial_strides=(1, 2, 2, 2),
    )
    theirs = create_csn(
        model_depth=50,
        stem_dim_out=8,
        stem_pool=nn.MaxPool3d,
        norm=lambda num_features, eps, momentum: nn.BatchNorm3d(num_features, 1e-3, momentum),
    )
    body = nn.Sequential(*theirs.blocks[:-1])
    state = {f"blocks.{name}": tensor for name, tensor in body.state_dict().items()}
    shaken(ours)
    assert ours.net.state_dict().keys() == state.keys()
    body.load_state_dict(
        {name.removeprefix("blocks."): t for name, t in ours.net.state_dict().items()}
    )
    with torch.no_grad():
        torch.testing.assert_close(ours.eval().features(clips()), body.eval()(clips()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions", "channels", "temporal_stride"),
    [
        ("ir-csn-152", 29.70, 2048, 8),
        ("slowfast-101", 62.91, 2304, 4),
        ("slowfast-152", 85.74, 2304, 4),
        ("swin3d-t", 28.16, 768, 2),
    ],
)
def test_paper_size(name, millions, channels, temporal_stride):
    classifier = Classifier(backbones.build(name), num_classes=400)
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    assert round(parameters / 1e6, 2) == millions
    backbone = classifier.backbone
    freeze_batchnorm(backbone)
    with torch.no_grad():
        features = backbone(clips(16, 64, 64)[:1])
    stride = 32 if name == "swin3d-t" else 16
    assert (backbone.out_channels, backbone.spatial_stride) == (channels, stride)
    assert backbone.temporal_stride == temporal_stride
    assert features.shape == (1, channels, 16 // temporal_stride, 64 // stride, 64 // stride)
    assert features.isfinite().all()


def test_slowfast_dilates_where_it_does_not_stride():
    stage = SlowFast(50, slow_width=8, reduction=4).net[4].multipathway_blocks
    for path in stage:
        convolutions = [block.branch2.conv_b for block in path.res_blocks]
        assert all(conv.dilation == (1, 2, 2) for conv in convolutions)
        assert all(conv.stride == (1, 1, 1) for conv in convolutions)


def test_csn_has_the_eps_of_the_released_weights():
    norms = [m for m in csn_mini().modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms and all(norm.eps == 1e-3 for norm in norms)


def test_swin_is_torchvisions_and_reads_its_weights(tmp_path):
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    options = {"window_size": [4, 4, 4], "stochastic_depth_prob": 0.0, "num_classes": 5}
    theirs = SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=48, depths=[2, 2], num_heads=[3, 6], **options
    )
    torch.save(theirs.state_dict(), tmp_path / "swin.pth")
    ours, pixels = (
        backbones.swin3d(48, (2, 2), (3, 6), (4, 4, 4)),
        (255 * torch.rand(2, 3, 8, 64, 88)).byte(),
    )
    state, report = read_backbone(ours, tmp_path / "swin.pth")
    ours.load_state_dict(state)
    mean, std = (torch.tensor(x).reshape(3, 1, 1, 1) for x in backbones.IMAGENET.values())
    with torch.no_grad():
        logits = theirs.head(ours(pixels).mean(dim=(2, 3, 4)))
        torch.testing.assert_close(logits, theirs.eval()((pixels / 255 - mean) / std))
    assert report.naming == "torchvision" and set(report.left_over) == {"head.weight", "head.bias"}


def test_the_miniature_swin_starts_as_the_convolutions_before_it():
    backbone = backbones.swin3d_mini()
    tokens = torch.randn(1, 2, 5, 6, backbone.out_channels)
    torch.testing.assert_close(backbone.net.features(tokens), tokens)
    backbone.net.features[0][1].attn.proj.weight.data.normal_()
    assert not torch.allclose(backbone.net.features(tokens), tokens)


TINY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_frames": 4}
TINY |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "image_size": 36}


@pytest.mark.parametrize("whole", [False, True])
def test_videoprism_is_transformers_and_reads_its_weights(whole, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the optional extra transformers")
    config = transformers.VideoPrismVisionConfig(**TINY)
    torch.manual_seed(0)
    theirs = transformers.VideoPrismVisionModel(config).eval()
    model = theirs
    if whole:  # the encoder is a part of a classifier
        model = transformers.VideoPrismForVideoClassification(config)
        model.vision_model = theirs
    torch.save(model.state_dict(), tmp_path / "prism.pt")
    ours = backbones.videoprism(**TINY)
    state, report = read_backbone(ours, tmp_path / "prism.pt")
    ours.load_state_dict(state)
    pixels = (255 * torch.rand(2, 3, 4, 40, 60)).byte()
    with torch.no_grad():
        features = ours.eval()(pixels)
        padded = nn.functional.pad(pixels / 255, (0, 12, 0, 14)).transpose(1, 2)
        tokens = theirs(padded, interpolate_pos_encoding=True).last_hidden_state
    assert report.naming == "transformers" and features.shape == (2, 32, 4, 3, 4)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), tokens)


def test_videoprism_without_its_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'stadlib\[transformers\]'"):
        backbones.build("videoprism-b")


def test_frames_are_padded_to_what_a_network_takes():
    net = nn.Conv3d(3, 4, (1, 18, 18), stride=(1, 18, 18))
    numbers = {"out_channels": 4, "spatial_stride": 18, "temporal_stride": 1}
    backbone = Backbone(net, **numbers, multiple=18)
    pixels = torch.randint(256, (1, 3, 2, 36, 50), dtype=torch.uint8)
    features = backbone(pixels)
    assert features.shape == (1, 4, 2, 2, 3)
    whole = Backbone(net, **numbers)(pixels)  # what the padding does not touch
    torch.testing.assert_close(features[..., :2], whole)


OWN = """
from torch import nn
from torchvision.models.video import r3d_18
from stadlib.models.networks import Backbone

def r3d():
    net = r3d_18()
    parts = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
    return Backbone(parts, out_channels=512, spatial_stride=16, temporal_stride=8)
"""


def test_a_backbone_of_ones_own_is_named_by_its_file(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    name = f"{tmp_path}/own.py:r3d"
    row = Experiment(backbone=name, frames="32x2", pretrain="other")
    assert row.name.startswith("own.r3d_other_32x2_t-only")
    features = backbones.build(name)((255 * torch.rand(1, 3, 8, 40, 64)).byte())
    assert features.shape == (1, 512, 1, 3, 4)
    digest = row.digest
    (tmp_path / "own.py").write_text(OWN + "#")
    assert row.digest != digest  # another file is another experiment
    with pytest.raises(InputError, match=r"own\.py: s3d\(\) gives no stadlib"):
        backbones.build(f"{tmp_path}/own.py:s3d")
    with pytest.raises(ConfigError, match=r"none\.py: no such file"):
        Experiment(backbone="none.py:r3d")
