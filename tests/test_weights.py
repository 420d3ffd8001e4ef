"""Public weights in the backbones; other libraries' names are written out here by hand."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.video.resnet import Bottleneck, VideoResNet

from stadlib.base import InputError
from stadlib.models import published
from stadlib.models.networks import (
    CSN,
    STAGE_DEPTHS,
    Classifier,
    SlowFast,
    csn,
    freeze_batchnorm,
    slowfast,
)
from stadlib.models.weights import load_backbone, read_backbone, read_state, save_backbone
from stadlib.recipes.experiment import Experiment
from stadlib.training import build
from stadlib.training.pretraining import pretrained_backbone

DEPTHS = (1, 2, 1, 1)


def small_csn(depths=DEPTHS):
    return CSN(depths, stem_width=4, inner_widths=(4, 4, 8, 8), out_widths=(8, 12, 16, 20))


def small_slowfast(fusion_kernel=7):
    return SlowFast(18, slow_width=8, reduction=4, fusion_kernel=fusion_kernel)


# A naming is a list of modules: what it calls them, what they are called here.


def csn_modules(depths, stem, block, shortcut):
    yield stem[0], "net.blocks.0.conv"
    yield stem[1], "net.blocks.0.norm"
    for stage, depth in enumerate(depths, 1):
        for number in range(depth):
            here = f"net.blocks.{stage}.res_blocks.{number}"
            for index, letter in enumerate("abc"):
                conv, norm = (name.format(s=stage, b=number) for name in block[index])
                yield conv, f"{here}.branch2.conv_{letter}"
                yield norm, f"{here}.branch2.norm_{letter}"
        conv, norm = (name.format(s=stage) for name in shortcut)
        yield conv, f"net.blocks.{stage}.res_blocks.0.branch1_conv"
        yield norm, f"net.blocks.{stage}.res_blocks.0.branch1_norm"


def vmz(depths):
    return csn_modules(
        depths,
        ("stem.0", "stem.1"),
        [(f"layer{{s}}.{{b}}.conv{n}.0", f"layer{{s}}.{{b}}.conv{n}.1") for n in (1, 2, 3)],
        ("layer{s}.0.downsample.0", "layer{s}.0.downsample.1"),
    )


def mmaction2(depths, prefix="backbone."):
    middle = [("conv1", "conv1"), ("conv2.0", "conv2.0"), ("conv3", "conv3")]
    return csn_modules(
        depths,
        (f"{prefix}conv1.conv", f"{prefix}conv1.bn"),
        [
            (f"{prefix}layer{{s}}.{{b}}.{a}.conv", f"{prefix}layer{{s}}.{{b}}.{b}.bn")
            for a, b in middle
        ],
        (f"{prefix}layer{{s}}.0.downsample.conv", f"{prefix}layer{{s}}.0.downsample.bn"),
    )


def bare_mmaction2(depths):
    return mmaction2(depths, prefix="")


def pytorchvideo_csn(depths):
    here = "blocks.{s}.res_blocks"
    return csn_modules(
        depths,
        ("blocks.0.conv", "blocks.0.norm"),
        [(f"{here}.{{b}}.branch2.conv_{x}", f"{here}.{{b}}.branch2.norm_{x}") for x in "abc"],
        (f"{here}.0.branch1_conv", f"{here}.0.branch1_norm"),
    )


def slowfast_modules(depths, stem, fusion, block, shortcut):
    """``s`` counts stages as PySlowFast and Caffe2 do: the stem is 1; ``p`` is the path."""
    for p in (0, 1):
        for name, ours in zip(stem, ("conv", "norm"), strict=True):
            yield name(p), f"net.0.multipathway_blocks.{p}.{ours}"
    for i in range(4):
        for name, ours in zip(fusion, ("conv_fast_to_slow", "norm"), strict=True):
            yield name(i + 1, (1, *depths)[i] - 1), f"net.{i}.multipathway_fusion.{ours}"
    for i, depth in enumerate(depths):
        for p in (0, 1):
            for b in range(depth):
                here = f"net.{i + 1}.multipathway_blocks.{p}.res_blocks.{b}"
                for x in "abc":
                    for name, ours in zip(block, ("conv", "norm"), strict=True):
                        yield name(p, i + 2, b, x), f"{here}.branch2.{ours}_{x}"
            for name, ours in zip(shortcut, ("conv", "norm"), strict=True):
                here = f"net.{i + 1}.multipathway_blocks.{p}.res_blocks.0"
                yield name(p, i + 2), f"{here}.branch1_{ours}"


def pyslowfast(depths):
    return slowfast_modules(
        depths,
        (lambda p: f"s1.pathway{p}_stem.conv", lambda p: f"s1.pathway{p}_stem.bn"),
        (lambda s, _: f"s{s}_fuse.conv_f2s", lambda s, _: f"s{s}_fuse.bn"),
        (
            lambda p, s, b, x: f"s{s}.pathway{p}_res{b}.branch2.{x}",
            lambda p, s, b, x: f"s{s}.pathway{p}_res{b}.branch2.{x}_bn",
        ),
        (
            lambda p, s: f"s{s}.pathway{p}_res0.branch1",
            lambda p, s: f"s{s}.pathway{p}_res0.branch1_bn",
        ),
    )


def pytorchvideo_slowfast(depths, prefix=""):
    def ours(name):
        return prefix + name

    return slowfast_modules(
        depths,
        (
            lambda p: ours(f"blocks.0.multipathway_blocks.{p}.conv"),
            lambda p: ours(f"blocks.0.multipathway_blocks.{p}.norm"),
        ),
        (
            lambda s, _: ours(f"blocks.{s - 1}.multipathway_fusion.conv_fast_to_slow"),
            lambda s, _: ours(f"blocks.{s - 1}.multipathway_fusion.norm"),
        ),
        (
            lambda p, s, b, x: ours(
                f"blocks.{s - 1}.multipathway_blocks.{p}.res_blocks.{b}.branch2.conv_{x}"
            ),
            lambda p, s, b, x: ours(
                f"blocks.{s - 1}.multipathway_blocks.{p}.res_blocks.{b}.branch2.norm_{x}"
            ),
        ),
        (
            lambda p, s: ours(f"blocks.{s - 1}.multipathway_blocks.{p}.res_blocks.0.branch1_conv"),
            lambda p, s: ours(f"blocks.{s - 1}.multipathway_blocks.{p}.res_blocks.0.branch1_norm"),
        ),
    )


def pytorchvideo_detection(depths):
    return pytorchvideo_slowfast(depths, prefix="model.")


def caffe2(depths):
    t = ("", "t_")

    def fused(s, last):
        return "t_pool1" if s == 1 else f"t_res{s}_{last}_branch2c_bn"

    return slowfast_modules(
        depths,
        (lambda p: f"{t[p]}conv1", lambda p: f"{t[p]}res_conv1_bn"),
        (lambda s, b: f"{fused(s, b)}_subsample", lambda s, b: f"{fused(s, b)}_subsample_bn"),
        (
            lambda p, s, b, x: f"{t[p]}res{s}_{b}_branch2{x}",
            lambda p, s, b, x: f"{t[p]}res{s}_{b}_branch2{x}_bn",
        ),
        (
            lambda p, s: f"{t[p]}res{s}_0_branch1",
            lambda p, s: f"{t[p]}res{s}_0_branch1_bn",
        ),
    )


BLOBS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def renamed(state, modules, blobs=False):
    """A state dict here under the names there; every module has to be named."""
    theirs = {}
    names = {ours: name for name, ours in modules}
    for key, tensor in state.items():
        module, leaf = key.rsplit(".", 1)
        if not blobs:
            theirs[f"{names[module]}.{leaf}"] = tensor
        elif leaf != "num_batches_tracked":
            blob = "w" if tensor.ndim == 5 else BLOBS[leaf]
            theirs[f"{names[module]}_{blob}"] = tensor
    return theirs


def values(network, seed=0):
    """Random values for everything a network holds; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1000 + len(state))
        else:
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
    return state


CSN_NAMINGS = [vmz, mmaction2, bare_mmaction2, pytorchvideo_csn]
SLOWFAST_NAMINGS = [pyslowfast, pytorchvideo_slowfast, pytorchvideo_detection, caffe2]
HEADS = {
    vmz: "fc.weight",
    mmaction2: "cls_head.fc_cls.weight",
    bare_mmaction2: "cls_head.fc_cls.weight",
    pytorchvideo_csn: "blocks.5.proj.weight",
    pytorchvideo_slowfast: "blocks.6.proj.weight",
    pytorchvideo_detection: "detection_head.proj.weight",
    pyslowfast: "head.projection.weight",
    caffe2: "pred_w",
}


def case(naming):
    """A small backbone, values for it, and the same under another library's names."""
    network = small_csn() if naming in CSN_NAMINGS else small_slowfast()
    depths = DEPTHS if naming in CSN_NAMINGS else (1, 1, 1, 1)
    state = values(network)
    return network, state, renamed(state, naming(depths), blobs=naming is caffe2)


def written(folder, content, name="weights.pt"):
    torch.save(content, folder / name)
    return folder / name


CONTAINERS = [
    lambda state: state,
    lambda state: {"state_dict": state, "meta": {"epoch": 3}},
    lambda state: {"model_state": {f"module.{k}": v for k, v in state.items()}, "cfg": "x"},
    lambda state: {"model": state, "iteration": 7},
    lambda state: {"blobs": state},
]


@pytest.mark.parametrize("naming", CSN_NAMINGS + SLOWFAST_NAMINGS)
@pytest.mark.parametrize("container", range(len(CONTAINERS)))
def test_every_value_gets_to_its_place(naming, container, tmp_path):
    network, state, theirs = case(naming)
    theirs[HEADS[naming]] = torch.zeros(3, 4)
    report = load_backbone(network, written(tmp_path, CONTAINERS[container](theirs)))
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in loaded.items():
        expected = state[name]
        if name.endswith("num_batches_tracked") and naming is caffe2:
            expected = torch.tensor(0)
        if name.endswith("running_var") and naming is pytorchvideo_csn:
            expected = expected + (1e-5 - 1e-3)
        assert torch.equal(tensor, expected), name
    assert report.left_over == (HEADS[naming],)
    assert (report.unexpected, report.widened) == ((), ())
    assert report.loaded + report.without_count == len(state)
    assert (report.eps == 1e-5) == (naming is pytorchvideo_csn)
    assert f"left over on purpose: 1: {HEADS[naming]}" in "\n".join(report.lines())


@pytest.mark.parametrize("naming", CSN_NAMINGS + SLOWFAST_NAMINGS)
def test_a_missing_value_is_refused_and_nothing_changes(naming, tmp_path):
    network, _, theirs = case(naming)
    gone = [name for name in theirs if "num_batches" not in name][7]
    del theirs[gone]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=r"weights\.pt: no value for 1: net\.\S+ \(of \d+; read"):
        load_backbone(network, written(tmp_path, theirs))
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())


@pytest.mark.parametrize("naming", CSN_NAMINGS + SLOWFAST_NAMINGS)
def test_another_shape_is_refused(naming, tmp_path):
    network, _, theirs = case(naming)
    name = next(name for name, tensor in theirs.items() if tensor.ndim == 5)
    theirs[name] = theirs[name][:, :, :, :-1]
    with pytest.raises(InputError, match=r"another shape for 1: net\..*not \(\d+, 3, \d, 7, 7\)"):
        load_backbone(network, written(tmp_path, theirs))


def test_values_that_are_not_finite_are_refused(tmp_path):
    network, _, theirs = case(vmz)
    theirs["stem.1.bias"][2] = torch.nan
    with pytest.raises(InputError, match=r"not finite in 1: net\.blocks\.0\.norm\.bias; fetch"):
        load_backbone(network, written(tmp_path, theirs))


def test_old_files_lack_the_count_of_batches(tmp_path):
    network, state, theirs = case(vmz)
    theirs = {n: t for n, t in theirs.items() if "num_batches" not in n}
    report = load_backbone(network, written(tmp_path, theirs))
    norms = sum(name.endswith("running_var") for name in state)
    assert report.without_count == norms and report.loaded == 5 * norms
    assert f"no num_batches_tracked for {norms} batch norms" in report.lines()[-1]


def test_the_format_before_zip_is_read(tmp_path):
    network, state, theirs = case(mmaction2)  # mmaction2 publishes in it
    content = {"state_dict": theirs, "meta": {"mmaction_version": "0.5.0", "time": "noon"}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_backbone(network, tmp_path / "old.pth")
    assert all(torch.equal(state[name], t) for name, t in network.state_dict().items())


def test_what_nobody_knows_is_named_and_not_used(tmp_path):
    network, _, theirs = case(mmaction2)
    theirs |= {
        "teacher.weight": torch.zeros(1),
        "backbone_note": "text",
        "log_scale": torch.ones(1),
    }
    report = load_backbone(network, written(tmp_path, theirs))
    assert set(report.unexpected) == {"teacher.weight", "backbone_note", "log_scale"}
    assert "unexpected, not used: 3: " in "\n".join(report.lines())


def test_a_deeper_network_is_refused(tmp_path):
    deeper = small_csn((1, 3, 1, 1))
    path = written(tmp_path, renamed(values(deeper), vmz((1, 3, 1, 1))))
    with pytest.raises(
        InputError, match=r"values for what this backbone lacks, \d+: net\.blocks\.2"
    ):
        load_backbone(small_csn(), path)
    with pytest.raises(InputError, match=r"no value for \d+: net\.blocks\.2\.res_blocks\.3"):
        load_backbone(small_csn((1, 4, 1, 1)), path)


FOREIGN = [
    (vmz, "layer1.0.conv2.0.0.weight"),  # ip-CSN
    (mmaction2, "backbone.layer1.0.conv2.1.conv.weight"),  # ip-CSN
    (pyslowfast, "s4.pathway0_nonlocal6.conv_theta.weight"),
    (caffe2, "nonlocal_conv4_6_theta_w"),
    (vmz, "stem.0.bias"),
]


@pytest.mark.parametrize(("naming", "name"), FOREIGN)
def test_parts_that_the_backbone_lacks_are_refused(naming, name, tmp_path):
    network, _, theirs = case(naming)
    theirs[name] = torch.zeros(4)
    with pytest.raises(InputError, match=r"(has parts|values for what) .*this backbone lacks"):
        load_backbone(network, written(tmp_path, theirs))


def test_caffe2_momenta_are_left_over(tmp_path):
    network, _, theirs = case(caffe2)
    theirs |= {
        "conv1_w_momentum": torch.zeros(1),
        "lr": torch.zeros(1),
        "model_iter": torch.ones(1),
    }
    report = load_backbone(network, written(tmp_path, {"blobs": theirs}))
    assert set(report.left_over) == {"conv1_w_momentum", "lr", "model_iter"}


def test_two_networks_in_one_file_are_refused(tmp_path):
    network, _, theirs = case(mmaction2)
    theirs["conv1.conv.weight"] = theirs["backbone.conv1.conv.weight"]
    with pytest.raises(InputError, match=r"two values of net\.blocks\.0\.conv\.weight"):
        load_backbone(network, written(tmp_path, theirs))


def test_a_file_of_another_library_is_refused(tmp_path):
    path = written(tmp_path, {f"encoder.{i}.weight": torch.zeros(2) for i in range(9)})
    with pytest.raises(InputError, match=r"no known library \(9: encoder\.0\.weight, .*known: st"):
        load_backbone(small_csn(), path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"a": 1}, torch.zeros(3)])
def test_a_file_without_weights_is_refused(content, tmp_path):
    with pytest.raises(InputError, match="holds no weights by name"):
        read_state(written(tmp_path, content))


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
    with pytest.raises(
        InputError, match=r"weights\.pt: refused \(.*\); nothing in it was run"
    ) as e:
        load_backbone(small_csn(), path)
    assert not trace.exists() and "\n" not in str(e.value)
    if not bare:
        assert "it names posix.mkdir" in str(e.value)


def test_a_bare_pickle_of_caffe2_says_what_to_do(tmp_path):
    path = tmp_path / "SLOWFAST_8x8_R50.pkl"
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.zeros(3, np.float32)}}, protocol=2))
    with pytest.raises(InputError, match=r"refused \(it names numpy.*torch\.save a plain dict of"):
        load_backbone(small_slowfast(), path)


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
    report = load_backbone(ours, written(tmp_path, theirs.state_dict()))
    assert report.left_over == ("fc.weight", "fc.bias") and not report.unexpected
    assert report.eps is None
    assert {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm3d)} == {1e-3}
    body = nn.Sequential(theirs.stem, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    torch.testing.assert_close(ours.eval()(clips()), body(clips()), rtol=1e-4, atol=1e-4)
    freeze_batchnorm(ours)
    torch.testing.assert_close(ours(clips()), body(clips()), rtol=1e-4, atol=1e-4)


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
    report = load_backbone(ours, written(tmp_path, {"model_state": theirs.state_dict()}))
    assert report.left_over == ("blocks.5.proj.weight", "blocks.5.proj.bias")
    assert report.eps == 1e-5 and "eps 1e-05: variances moved" in report.lines()[-1]
    assert before == {1e-3} == {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm3d)}
    expected = nn.Sequential(*theirs.blocks[:-1])(clips())
    assert expected.abs().max() < 1e6
    torch.testing.assert_close(ours.eval()(clips()), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["R101", "R101_50_50", "detection"])
def test_pytorchvideos_slowfast_computes_the_same_with_shorter_kernels(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorchvideo.models.slowfast import create_slowfast, create_slowfast_with_roi_head
    short = {"R101": 5, "R101_50_50": 5, "detection": 7}[kind]
    how = {
        "model_depth": 18,
        "stem_dim_outs": (8, 2),
        "slowfast_channel_reduction_ratio": 4,
        "slowfast_fusion_conv_kernel_size": (short, 1, 1),
        "stage_spatial_strides": ((1, 2, 2, 1),) * 2,
        "stage_conv_b_dilations": (((1, 1, 1),) * 3 + ((1, 2, 2),),) * 2,
    }
    if kind == "R101_50_50":  # most blocks of the fourth stage look at one frame
        slow = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (3, 1, 1))
        how["stage_conv_a_kernel_sizes"] = (slow, ((3, 1, 1), (3, 1, 1), (1, 1, 1), (3, 1, 1)))
    theirs = create_slowfast_with_roi_head(**how) if kind == "detection" else create_slowfast(**how)
    trained(theirs)
    ours = small_slowfast()
    report = load_backbone(ours, written(tmp_path, {"model_state": theirs.state_dict()}))
    assert len(report.widened) == {"R101": 4, "R101_50_50": 6, "detection": 0}[kind]
    assert len(report.left_over) == 2 and not report.unexpected
    blocks = (theirs.model if kind == "detection" else theirs).blocks
    expected = nn.Sequential(*blocks[:5])([clips()[:, :, ::4], clips()])
    found = ours.eval().net([clips()[:, :, ::4], clips()])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_longer_kernel_is_not_cut(tmp_path):
    theirs = renamed(values(small_slowfast(fusion_kernel=7)), pyslowfast((1, 1, 1, 1)))
    with pytest.raises(InputError, match=r"another shape for 4: net\.0\.multipathway_fusion"):
        load_backbone(small_slowfast(fusion_kernel=5), written(tmp_path, theirs))


# Our own files.


def test_our_own_file_comes_back_bit_by_bit(tmp_path):
    network, path = small_csn(), tmp_path / "ir-csn-152_k700.safetensors"
    network.load_state_dict(values(network))
    save_backbone(network, path, pretraining="K700")
    other = small_csn()
    freeze_batchnorm(other)
    report = load_backbone(other, path)
    assert (report.naming, report.left_over, report.unexpected) == ("stadlib", (), ())
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in network.state_dict().items())
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        assert file.metadata()["pretraining"] == "K700"
        assert len(file.metadata()["digest"]) == 12
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_classifiers_checkpoint_and_its_backbone_are_the_same(tmp_path):
    classifier = Classifier(small_csn(), num_classes=3)
    classifier.backbone.load_state_dict(values(classifier.backbone))
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
    network, state, theirs = case(mmaction2)
    row = published.source("ir-csn-152-ig65m-k400")
    written(paper, {"state_dict": theirs, "meta": {}}, row.file)
    weights = pretrained_backbone(experiment, lambda _: None)
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert "in mmaction2's names" in capsys.readouterr().out
    written(paper, {"fc.weight": torch.zeros(1), **case(vmz)[2]}, "ir-csn-152_k400+ig65m.pt")
    pretrained_backbone(experiment, lambda _: None)
    assert "in VMZ's names" in capsys.readouterr().out
    network.load_state_dict(values(network, seed=5))
    save_backbone(network, paper / "ir-csn-152_k400+ig65m.safetensors", pretraining="K400+IG65M")
    weights = pretrained_backbone(experiment, lambda _: None)
    network.load_state_dict(weights)
    assert torch.equal(
        weights["net.blocks.0.conv.weight"], values(network, seed=5)["net.blocks.0.conv.weight"]
    )


def test_paper_scale_refuses_another_network(paper):
    experiment = Experiment(scale="paper", backbone="ir-csn-152", pretrain="K700")
    with pytest.raises(InputError, match=r"put the backbone's weights there$"):  # none is public
        pretrained_backbone(experiment, lambda _: None)
    written(paper, case(pyslowfast)[2], "ir-csn-152_k700.pt")
    with pytest.raises(InputError, match=r"ir-csn-152_k700\.pt: no value for .*PySlowFast"):
        pretrained_backbone(experiment, lambda _: None)


# The paper's sizes, by names and shapes; one zero stands for all values.


def zeros(network):
    return {
        name: torch.zeros((), dtype=t.dtype).expand(t.shape)
        for name, t in network.state_dict().items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "depth", "naming"),
    [
        (csn, 152, vmz),
        (csn, 152, mmaction2),
        (csn, 101, pytorchvideo_csn),
        (slowfast, 101, pyslowfast),
        (slowfast, 101, caffe2),
        (slowfast, 101, pytorchvideo_slowfast),
        (slowfast, 50, pytorchvideo_detection),
    ],
)
def test_paper_sizes(make, depth, naming, tmp_path):
    with torch.device("meta"):
        network = make(depth)
    theirs = renamed(zeros(network), naming(STAGE_DEPTHS[depth]), blobs=naming is caffe2)
    theirs[HEADS[naming]] = torch.zeros(400, network.out_channels)
    theirs[HEADS[naming].replace("weight", "bias").replace("pred_w", "pred_b")] = torch.zeros(400)
    state, report = read_backbone(network, written(tmp_path, theirs))
    assert state.keys() == network.state_dict().keys()
    assert all(state[name].shape == t.shape for name, t in network.state_dict().items())
    assert len(report.left_over) == 2 and not report.unexpected
    if naming is mmaction2:  # as many as the published files hold
        assert len(theirs) == 932
