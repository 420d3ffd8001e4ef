"""Public weights in the backbones; other libraries' names are written out here by hand."""

import os
import pickle
import re
import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from torch import nn
from torchvision.models.video.resnet import Bottleneck, VideoResNet

from stadlib.base import InputError
from stadlib.models import backbones, published
from stadlib.models.networks import (
    CSN,
    STAGE_DEPTHS,
    Classifier,
    Normalize,
    SlowFast,
    freeze_batchnorm,
)
from stadlib.models.weights import read_backbone, read_state, save_backbone, state_digest
from stadlib.recipes.experiment import Experiment
from stadlib.training import build
from stadlib.training.pretraining import pretrained_backbone


def small_csn(depths=(1, 2, 1, 1)):
    return CSN(depths, stem_width=4, inner_widths=(4, 4, 8, 8), out_widths=(8, 12, 16, 20))


def small_slowfast(fusion_kernel=7):
    return SlowFast(18, slow_width=8, reduction=4, fusion_kernel=fusion_kernel)


# A naming rewrites a name of ours step by step, and knows the name of a classifier there.

CONVS = {"a": 1, "b": 2, "c": 3}
VMZ = (
    "fc.weight",
    (
        (r"net\.blocks\.0\.conv", "stem.0"),
        (r"net\.blocks\.0\.norm", "stem.1"),
        (r"net\.blocks\.(\d)\.res_blocks\.(\d+)", r"layer\1.\2"),
        (r"branch1_conv", "downsample.0"),
        (r"branch1_norm", "downsample.1"),
        (r"branch2\.conv_(.)", lambda m: f"conv{CONVS[m[1]]}.0"),
        (r"branch2\.norm_(.)", lambda m: f"conv{CONVS[m[1]]}.1"),
    ),
)
BARE_MMACTION2 = (
    "cls_head.fc_cls.weight",
    (
        (r"net\.blocks\.0\.conv", "conv1.conv"),
        (r"net\.blocks\.0\.norm", "conv1.bn"),
        (r"net\.blocks\.(\d)\.res_blocks\.(\d+)", r"layer\1.\2"),
        (r"branch1_conv", "downsample.conv"),
        (r"branch1_norm", "downsample.bn"),
        (r"branch2\.conv_(.)", lambda m: f"conv{CONVS[m[1]]}.conv"),
        (r"branch2\.norm_(.)", lambda m: f"conv{CONVS[m[1]]}.bn"),
        (r"conv2\.", "conv2.0."),
    ),
)
MMACTION2 = BARE_MMACTION2[0], (*BARE_MMACTION2[1], ("^", "backbone."))
PYTORCHVIDEO_CSN = "blocks.5.proj.weight", ((r"^net\.", ""),)
PYTORCHVIDEO = "blocks.6.proj.weight", ((r"^net\.", "blocks."),)
DETECTION = "detection_head.proj.weight", ((r"^net\.", "model.blocks."),)
PYSLOWFAST = (
    "head.projection.weight",
    (
        (r"net\.0\.multipathway_blocks\.(\d)\.conv", r"s1.pathway\1_stem.conv"),
        (r"net\.0\.multipathway_blocks\.(\d)\.norm", r"s1.pathway\1_stem.bn"),
        (r"net\.(\d)\.multipathway_fusion", lambda m: f"s{int(m[1]) + 1}_fuse"),
        (r"_fuse\.conv_fast_to_slow", "_fuse.conv_f2s"),
        (r"_fuse\.norm", "_fuse.bn"),
        (
            r"net\.(\d)\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)",
            lambda m: f"s{int(m[1]) + 1}.pathway{m[2]}_res{m[3]}",
        ),
        (r"branch1_conv", "branch1"),
        (r"branch1_norm", "branch1_bn"),
        (r"branch2\.conv_(.)", r"branch2.\1"),
        (r"branch2\.norm_(.)", r"branch2.\1_bn"),
    ),
)
NAMINGS = {
    "VMZ": VMZ,
    "mmaction2": MMACTION2,
    "mmaction2, bare": BARE_MMACTION2,
    "pytorchvideo, CSN": PYTORCHVIDEO_CSN,
    "pytorchvideo": PYTORCHVIDEO,
    "pytorchvideo, detection": DETECTION,
    "PySlowFast": PYSLOWFAST,
}
every_naming = pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS.keys())


def renamed(state, naming):
    """A state dict here under the names there."""
    theirs = {}
    for ours, tensor in state.items():
        name = ours
        for pattern, replacement in naming[1]:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    return theirs


def values(network, seed=0):
    """Random values for everything a network holds; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("normalize."):  # other libraries keep these elsewhere
            continue
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1000 + len(state))
        else:
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
    return state


def case(naming):
    """A small backbone, values for it, and the same under another library's names."""
    slowfast = naming in (PYSLOWFAST, PYTORCHVIDEO, DETECTION)
    network = small_slowfast() if slowfast else small_csn()
    state = values(network)
    return network, state, renamed(state, naming)


def written(folder, content, name="weights.pt"):
    torch.save(content, folder / name)
    return folder / name


def load(network, path):
    state, report = read_backbone(network, path)
    network.load_state_dict(state)
    return report


CONTAINERS = [
    lambda state: {"state_dict": state, "meta": {"epoch": 3}},
    lambda state: {"model_state": {f"module.{k}": v for k, v in state.items()}, "cfg": "x"},
    lambda state: {"model": state, "iteration": 7},
]


@every_naming
def test_every_value_gets_to_its_place(naming, tmp_path):
    network, state, theirs = case(naming)
    theirs[naming[0]] = torch.zeros(3, 4)
    for container in [dict, *CONTAINERS]:
        report = load(network, written(tmp_path, container(theirs)))
        loaded = network.state_dict()
        assert loaded.keys() == state.keys() | {"normalize.mean", "normalize.scale"}
        for name, expected in state.items():
            if name.endswith("running_var") and naming is PYTORCHVIDEO_CSN:
                expected = expected + (1e-5 - 1e-3)  # noqa: PLW2901
            assert torch.equal(loaded[name], expected), name
        assert report.left_over == (naming[0],)
        assert (report.unexpected, report.widened, report.without_count) == ((), (), 0)
        assert report.loaded == len(state)
        assert (report.eps == 1e-5) == (naming is PYTORCHVIDEO_CSN)
        assert f"left over on purpose: 1: {naming[0]}" in "\n".join(report.lines())


@every_naming
def test_a_missing_value_or_another_shape_is_refused(naming, tmp_path):
    network, _, theirs = case(naming)
    gone = [name for name in theirs if "num_batches" not in name][7]
    path = written(tmp_path, {name: t for name, t in theirs.items() if name != gone})
    with pytest.raises(InputError, match=r"weights\.pt: no value for 1: net\.\S+ \(of \d+; read"):
        read_backbone(network, path)
    name = next(name for name, tensor in theirs.items() if tensor.ndim == 5)
    theirs[name] = theirs[name][:, :, :, :-1]
    with pytest.raises(InputError, match=r"another shape for 1: net\..*not \(\d+, 3, \d, 7, 7\)"):
        read_backbone(network, written(tmp_path, theirs))


def test_an_old_file_lacks_the_count_of_batches_and_is_no_zip(tmp_path):
    network, state, theirs = case(MMACTION2)  # mmaction2 publishes in that format
    theirs = {n: t for n, t in theirs.items() if "num_batches" not in n}
    content = {"state_dict": theirs, "meta": {"mmaction_version": "0.5.0", "time": "noon"}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    report = load(network, tmp_path / "old.pth")
    norms = sum(name.endswith("running_var") for name in state)
    assert report.without_count == norms and report.loaded == 5 * norms
    assert f"no num_batches_tracked for {norms} batch norms" in report.lines()[-1]
    kept, loaded = (n for n in state if "num_batches" not in n), network.state_dict()
    assert all(torch.equal(state[name], loaded[name]) for name in kept)


def test_unknown_names_are_reported_and_not_used(tmp_path):
    network, _, theirs = case(MMACTION2)
    strange = {"teacher.weight": torch.zeros(1), "backbone_note": "text", "scale": torch.ones(1)}
    report = load(network, written(tmp_path, theirs | strange))
    assert set(report.unexpected) == {*strange}
    assert "unexpected, not used: 3: " in "\n".join(report.lines())


def test_a_deeper_network_is_refused(tmp_path):
    path = written(tmp_path, renamed(values(small_csn((1, 3, 1, 1))), VMZ))
    with pytest.raises(InputError, match=r"what this network lacks, \d+: net\.blocks\.2"):
        read_backbone(small_csn(), path)
    with pytest.raises(InputError, match=r"no value for \d+: net\.blocks\.2\.res_blocks\.3"):
        read_backbone(small_csn((1, 4, 1, 1)), path)


@pytest.mark.parametrize(
    ("naming", "name", "value", "error"),
    [
        (VMZ, "stem.1.bias", torch.nan, r"not finite in 1: net\.blocks\.0\.norm\.bias; fetch"),
        (VMZ, "stem.0.bias", 0, "values for what this network lacks, 1: net"),
        (VMZ, "layer1.0.conv2.0.0.weight", 0, "what this network lacks, 1: layer1"),  # ip-CSN
        (MMACTION2, "backbone.layer1.0.conv2.1.conv.weight", 0, "network lacks, 1: "),  # ip-CSN
        (PYSLOWFAST, "s4.pathway0_nonlocal6.conv_theta.weight", 0, "network lacks, 1: s4"),
        (MMACTION2, "conv1.conv.weight", 0, r"two values of net\.blocks\.0\.conv\.weight"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(naming, name, value, error, tmp_path):
    network, _, theirs = case(naming)
    theirs[name] = torch.full((4,), value, dtype=torch.float32)
    with pytest.raises(InputError, match=error):
        read_backbone(network, written(tmp_path, theirs))


def test_a_file_of_another_library_is_refused(tmp_path):
    path = written(tmp_path, {f"encoder.{i}.weight": torch.zeros(2) for i in range(9)})
    with pytest.raises(InputError, match=r"no known library \(9: encoder\.0\.weight, .*known: st"):
        read_backbone(small_csn(), path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"a": 1}, torch.zeros(3)])
def test_a_file_without_weights_is_refused(content, tmp_path):
    with pytest.raises(InputError, match="holds no weights by name"):
        read_state(written(tmp_path, content))


def wrapped(names: str, key: str, **beside: object):
    return lambda state: {key: {f"{names}{n}": w for n, w in state.items()}, **beside}


AVERAGED = torch.tensor(7)
WRAPPERS = {
    "Lightning": wrapped("model.", "state_dict", hparams=Namespace(lr=0.1, out=Path("runs"))),
    "compiled": wrapped("_orig_mod.", "model"),
    "compiled, several GPUs": wrapped("module._orig_mod.", "model_state_dict", epoch=3),
    "net": wrapped("", "net", best=np.float64(0.4), last=np.zeros(2)),
    "averaged alone": wrapped("module.", "model_ema"),
    "DeepSpeed": wrapped("", "module", ds_version="0.14"),
    "AveragedModel": lambda state: (
        {f"module.{n}": w for n, w in state.items()} | {"n_averaged": AVERAGED}
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_are_found_as_libraries_wrap_them(wrapper, tmp_path):
    """Arguments, paths and NumPy's numbers beside them are no reason to refuse a file."""
    state = {"net.0.weight": torch.arange(3.0), "net.0.bias": torch.ones(1)}
    tensors, others = read_state(written(tmp_path, WRAPPERS[wrapper](state)))
    assert tensors.keys() == state.keys() and all(
        map(torch.equal, tensors.values(), state.values())
    )
    assert not {*others} - {"n_averaged"}


class Malicious:
    """Leaves a file behind if anything calls it."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("bare", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(bare, tmp_path):
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    content = {"state_dict": {"stem.0.weight": torch.zeros(1)}, "meta": Malicious(trace)}
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=2) if bare else torch.save(content, file)
    with pytest.raises(InputError, match=r"weights\.pt: refused \(.*nothing in it was run") as e:
        read_state(path)
    assert not trace.exists() and "\n" not in str(e.value)
    if not bare:
        assert "it names posix.mkdir" in str(e.value)


@pytest.mark.parametrize("content", [b"", b"hello, weights", b"\x80\x02"])
def test_a_file_that_is_none_is_refused(content, tmp_path):
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_state(tmp_path / name)
    with pytest.raises(InputError, match=r"none\.pt: no such file"):
        read_state(tmp_path / "none.pt")


# What other libraries compute with the same file.


class Depthwise(nn.Conv3d):
    """VMZ's convolution, as torchvision's VideoResNet calls it."""

    def __init__(self, in_planes, out_planes, midplanes=None, stride=1, padding=1):
        super().__init__(
            in_planes, out_planes, 3, stride=stride, padding=padding, groups=in_planes, bias=False
        )

    @staticmethod
    def get_downsample_stride(stride):
        return (stride, stride, stride)


def pooled_stem():
    return nn.Sequential(
        nn.Conv3d(3, 64, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(64),
        nn.ReLU(),
        nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )


def trained(network):
    """Norms with statistics of their own, some variances as small as dead channels have."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def clips(frames=8, size=64):
    return torch.randn(1, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_vmz_on_torchvision_computes_the_same(tmp_path):
    theirs = VideoResNet(Bottleneck, [Depthwise] * 4, [1, 1, 1, 1], pooled_stem)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-3
    trained(theirs)
    theirs.stem[1].running_var[:8] = 1e-5
    ours = CSN((1, 1, 1, 1), spatial_strides=(1, 2, 2, 2))
    report = load(ours, written(tmp_path, theirs.state_dict()))
    assert report.left_over == ("fc.weight", "fc.bias") and not report.unexpected
    assert report.eps is None
    assert {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm3d)} == {1e-3}
    body = nn.Sequential(theirs.stem, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    torch.testing.assert_close(ours.eval().features(clips()), body(clips()), rtol=1e-4, atol=1e-4)
    freeze_batchnorm(ours)
    torch.testing.assert_close(ours.features(clips()), body(clips()), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_pytorchvideos_csn_computes_the_same_in_spite_of_its_eps(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorchvideo.models.csn import create_csn
    theirs = trained(create_csn(model_depth=50, stem_dim_out=8, stem_pool=nn.MaxPool3d))
    theirs.blocks[0].norm.running_var[:4] = 2e-4  # here the eps decides
    widths = {"inner_widths": (8, 16, 32, 64), "out_widths": (32, 64, 128, 256)}
    ours = CSN(STAGE_DEPTHS[50], stem_width=8, spatial_strides=(1, 2, 2, 2), **widths)
    before = {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm3d)}
    report = load(ours, written(tmp_path, {"model_state": theirs.state_dict()}))
    assert report.left_over == ("blocks.5.proj.weight", "blocks.5.proj.bias")
    assert report.eps == 1e-5 and "eps 1e-05: variances moved" in report.lines()[-1]
    assert before == {1e-3} == {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm3d)}
    expected = nn.Sequential(*theirs.blocks[:-1])(clips())
    assert expected.abs().max() < 1e6
    torch.testing.assert_close(ours.eval().features(clips()), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["R101", "R101_50_50", "detection"])
def test_pytorchvideos_slowfast_computes_the_same_with_shorter_kernels(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorchvideo.models.slowfast import create_slowfast, create_slowfast_with_roi_head
    short = {"R101": 5, "R101_50_50": 5, "detection": 7}[kind]
    options = {
        "model_depth": 18,
        "stem_dim_outs": (8, 2),
        "slowfast_channel_reduction_ratio": 4,
        "slowfast_fusion_conv_kernel_size": (short, 1, 1),
        "stage_spatial_strides": ((1, 2, 2, 1),) * 2,
        "stage_conv_b_dilations": (((1, 1, 1),) * 3 + ((1, 2, 2),),) * 2,
    }
    if kind == "R101_50_50":  # most blocks of the fourth stage look at one frame
        slow = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (3, 1, 1))
        options["stage_conv_a_kernel_sizes"] = (slow, ((3, 1, 1), (3, 1, 1), (1, 1, 1), (3, 1, 1)))
    create = create_slowfast_with_roi_head if kind == "detection" else create_slowfast
    theirs = trained(create(**options))
    ours = small_slowfast()
    report = load(ours, written(tmp_path, {"model_state": theirs.state_dict()}))
    assert len(report.widened) == {"R101": 4, "R101_50_50": 6, "detection": 0}[kind]
    assert len(report.left_over) == 2 and not report.unexpected
    blocks = (theirs.model if kind == "detection" else theirs).blocks
    expected = nn.Sequential(*blocks[:5])([clips()[:, :, ::4], clips()])
    found = ours.eval().net([clips()[:, :, ::4], clips()])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_longer_kernel_is_not_cut(tmp_path):
    theirs = renamed(values(small_slowfast(fusion_kernel=7)), PYSLOWFAST)
    with pytest.raises(InputError, match=r"another shape for 4: net\.0\.multipathway_fusion"):
        load(small_slowfast(fusion_kernel=5), written(tmp_path, theirs))


# Our own files.


def test_our_own_file_comes_back_bit_by_bit(tmp_path):
    network, path = small_csn(), tmp_path / "ir-csn-152_k700.safetensors"
    network.load_state_dict(values(network), strict=False)
    save_backbone(network, path, pretraining="K700")
    other = small_csn()
    freeze_batchnorm(other)
    report = load(other, path)
    assert (report.naming, report.left_over, report.unexpected) == ("stadlib", (), ())
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in network.state_dict().items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["pretraining"] == "K700"
        assert len(file.metadata()["digest"]) == 12
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_classifiers_checkpoint_and_its_backbone_are_the_same(tmp_path):
    classifier = Classifier(small_csn(), num_classes=3)
    classifier.backbone.load_state_dict(values(classifier.backbone), strict=False)
    save_backbone(classifier, tmp_path / "a.safetensors", pretraining="K400")
    path = written(tmp_path, {"digest": "x", "model": classifier.state_dict(), "optimizer": {}})
    saved, _ = read_backbone(small_csn(), tmp_path / "a.safetensors")
    loaded, report = read_backbone(small_csn(), path)
    assert report.left_over == ("classifier.weight", "classifier.bias")
    assert all(torch.equal(saved[name], tensor) for name, tensor in loaded.items())


def test_a_damaged_file_of_ours_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_backbone(small_csn(), path, pretraining="K400")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.safetensors: damaged, its digest is"):
        read_state(path)
    with pytest.raises(InputError, match=r"\.safetensors; rename it"):
        save_backbone(small_csn(), tmp_path / "a.pt", pretraining="K400")


# At paper scale.


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """The paper's experiment with a small network, and an empty data folder."""
    monkeypatch.setenv("STADLIB_DATA", str(tmp_path))
    monkeypatch.setattr(build, "backbone", lambda _: small_csn())
    (tmp_path / "pretrained").mkdir()
    return tmp_path / "pretrained"


def test_paper_scale_takes_any_naming(paper, capsys):
    experiment = Experiment(scale="paper", backbone="ir-csn-152", pretrain="K400+IG65M")
    with pytest.raises(
        InputError, match=r"ir-csn-152_k400\+ig65m\.safetensors: no pretrained.* run"
    ):
        pretrained_backbone(experiment, lambda _: None)
    network, state, theirs = case(MMACTION2)
    row = published.find("ir-csn-152-ig65m-k400")
    written(paper, {"state_dict": theirs, "meta": {}}, row.path.name)
    weights, known = pretrained_backbone(experiment, lambda _: None)
    assert known == {"backbone": state_digest(weights)}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.items())
    normalize = Normalize()  # ImageNet's statistics, which that file learned with
    normalize.load_state_dict({n: weights[f"normalize.{n}"] for n in ("mean", "scale")})
    pixels = torch.randint(256, (1, 3, 2, 4, 4), dtype=torch.uint8)
    theirs = torchvision.transforms.v2.functional.normalize(
        (pixels[0] / 255).transpose(0, 1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(normalize(pixels)[0].transpose(0, 1), theirs)
    assert "in mmaction2's names" in capsys.readouterr().out
    written(paper, {"fc.weight": torch.zeros(1), **case(VMZ)[2]}, "ir-csn-152_k400+ig65m.pt")
    pretrained_backbone(experiment, lambda _: None)
    assert "in VMZ's names" in capsys.readouterr().out
    network.load_state_dict(values(network, seed=5), strict=False)
    save_backbone(network, paper / "ir-csn-152_k400+ig65m.safetensors", pretraining="K400+IG65M")
    weights, _ = pretrained_backbone(experiment, lambda _: None)
    network.load_state_dict(weights)
    assert torch.equal(
        weights["net.blocks.0.conv.weight"], values(network, seed=5)["net.blocks.0.conv.weight"]
    )


def test_paper_scale_refuses_another_network(paper):
    experiment = Experiment(scale="paper", backbone="ir-csn-152", pretrain="K700")
    with pytest.raises(InputError, match=r"put the backbone's weights there$"):  # none is public
        pretrained_backbone(experiment, lambda _: None)
    written(paper, case(PYSLOWFAST)[2], "ir-csn-152_k700.pt")
    with pytest.raises(InputError, match=r"ir-csn-152_k700\.pt: no value for .*PySlowFast"):
        pretrained_backbone(experiment, lambda _: None)


# The paper's sizes, by names and shapes; one zero stands for all values.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "naming"),
    [
        ("ir-csn-152", VMZ),
        ("ir-csn-152", MMACTION2),
        ("ir-csn-101", PYTORCHVIDEO_CSN),
        ("slowfast-101", PYSLOWFAST),
        ("slowfast-101", PYTORCHVIDEO),
        ("slowfast-50", DETECTION),
    ],
)
def test_paper_sizes(name, naming, tmp_path):
    with torch.device("meta"):
        network = backbones.build(name)
    wanted = network.state_dict()
    of_library = {n: t for n, t in wanted.items() if not n.startswith("normalize.")}
    zeros = {n: torch.zeros((), dtype=t.dtype).expand(t.shape) for n, t in of_library.items()}
    theirs = renamed(zeros, naming) | {naming[0]: torch.zeros(400, network.out_channels)}
    state, report = read_backbone(network, written(tmp_path, theirs))
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in wanted.items()}
    assert report.left_over == (naming[0],) and not report.unexpected
    if naming is MMACTION2:  # as many as the published files hold, but for the classifier's bias
        assert len(theirs) == 931
