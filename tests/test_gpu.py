"""What shows on GPUs alone, checked without one: devices, waits, layouts, memory, shared cards."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from benchmarks import bench_gpu
from pretended_gpu import Pretended, on_gpu
from torch import distributed, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection

from stadlib import cli, recipes
from stadlib.base import InputError, Progress
from stadlib.cli import parse
from stadlib.data.batches import Share
from stadlib.data.clips import Batch
from stadlib.data.keyframes import Keyframe
from stadlib.data.layout import AVA_ACTIONS, AvaLayout, LabelMap
from stadlib.data.transforms import test_transform as plain
from stadlib.models import networks
from stadlib.models.action_detector import ActionLoss
from stadlib.models.heads import MemoryTokens, no_memory, set_share
from stadlib.models.person_detector import gfocal_resnet
from stadlib.recipes.experiment import Execution
from stadlib.recipes.scales import SCALES
from stadlib.training import build, detector, loop, memory, predictions, processes, stages

CSN = {"backbone": "ir-csn-152", "pretrain": "K700", "frames": "32x2"}


def row(scale: str, **words):
    """A row of Table 1 on annotated boxes."""
    words = CSN | {"head": "t-only", "memory": "no"} | words
    (found,) = recipes.table1(scale=scale, detector="ground-truth", **words)
    return found


# What a backbone was pretrained on changes nothing in a step.
ROWS = recipes.table1(scale="paper", detector="ground-truth")
NETWORKS = dict.fromkeys(replace(row, pretrain="K700") for row in ROWS)
# The dearest are repetitions. SlowFast with memory remains, and every head on ir-CSN.
NIGHTLY = {"slowfast-152": pytest.mark.nightly, "ir-csn-152": []}
EACH_NETWORK = [
    pytest.param(network, marks=[] if network.memory else NIGHTLY[network.backbone])
    for network in NETWORKS
]


def clips(experiment, sizes, counts, actions: int) -> Batch:
    """Grey clips of these sizes, padded, with persons in the middle."""
    frames = build.sampling(experiment).num_frames
    high, wide = (max(sides) for sides in zip(*sizes, strict=True))
    persons = sum(counts)
    norm = torch.tensor([[0.2, 0.2, 0.6, 0.9]]).repeat(persons, 1)
    return Batch(
        torch.full((len(sizes), 3, frames, high, wide), 115, dtype=torch.uint8),
        norm * torch.tensor([wide, high, wide, high]),
        torch.tensor(counts),
        torch.zeros(persons, actions),
        norm,
        list(sizes),
        [("ava", "a", 900.0 + i) for i in range(len(sizes))],
        torch.tensor([[5, -3, 2, *size] for size in sizes]),
    )


def remembered(experiment, model, clips: int, width: int = 6) -> MemoryTokens:
    length, channels = build.token_size(experiment, model)
    mask, seconds = torch.ones(clips, width, dtype=torch.bool), torch.ones(clips, width).long()
    tokens, boxes = torch.zeros(clips, width, length, channels), torch.rand(clips, width, 4)
    return MemoryTokens(tokens, mask, seconds, boxes)


# ---------------------------------------------------------------------------------------- the step


@pytest.fixture
def step(tmp_path, monkeypatch):
    """Takes iterations in bfloat16 on a pretended GPU, all but the backward pass.

    A loss that is read, a mixture of devices or a wait for a number raises. ``after`` is called
    there with the network and its batch.
    """
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(loop, "_write_weights", lambda *_: None)
    monkeypatch.setattr(loop, "_read", lambda part: 0.5)
    monkeypatch.setattr(torch, "_fused_sgd_", lambda weights, gradients, *_, **__: None)
    mode = Pretended()

    def take(experiment, sizes, counts, actions: int = 60, iterations=1, turns=1, after=None):
        with torch.device("meta"):
            model = build.action_detector(experiment, actions, experiment.memory)
        model, losses, seen = on_gpu(model.train(), mode), [], []
        weights = [weight for weight in model.parameters() if weight.requires_grad]

        def backward(loss):  # needs a real GPU
            losses.append(loss)
            for weight in weights:
                weight.grad = torch.zeros_like(weight)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        batch, total = clips(experiment, sizes, counts, actions), turns * sum(counts)
        share = Share(tuple(range(0, total, turns)), total)
        objective = partial(
            stages.share_loss,
            loss=ActionLoss(poses=[0, 1]),
            remember=lambda keys: remembered(experiment, model, len(keys)),
            see=lambda keys, counts_B, tokens_NLC, boxes_N4: seen.append(tokens_NLC),
        )
        with mode:
            loop.fit(
                model,
                objective,
                lambda start: [(batch, share)] * turns * iterations,
                loop.Schedule(iterations=iterations, lr=0.1),
                folder=tmp_path,
                digest="d",
                progress=lambda *_: None,
                accumulate=turns,
                half=True,
            )
            if after:
                after(experiment, model, batch)
        return losses, seen

    return take


@pytest.mark.parametrize("recall", ["none", "geometry"])
def test_a_training_step_mixes_no_devices_and_waits_for_no_number(step, recall):
    """Clips of two sizes, one without a person, a share of a batch, memory."""
    experiment = replace(row("smoke", memory="yes"), recall=recall)
    losses, seen = step(
        experiment, [(64, 96), (64, 64), (64, 96)], [2, 0, 1], iterations=2, turns=2
    )
    assert {loss.device.type for loss in losses} == {"cuda"} and len(losses) == 4
    assert seen[0].shape[0] == 3 and seen[0].device.type == "cuda"


def extract_and_score(experiment, model, batch: Batch) -> None:
    """What a bank gets, and a row an action of every person; only scores are copied back.

    Gradients are switched off by another mode than the product's, which knows no pretended tensors.
    """
    bank = memory.OfflineMemory(None, experiment, Path(), Progress, threshold=0.0)
    with torch.no_grad():
        counts_B, tokens_NLC, boxes_N4 = bank._read(model.eval(), batch.to("cuda"))
    assert counts_B.tolist() == [3, 2] and len(tokens_NLC) == 5
    assert {tokens_NLC.device.type, boxes_N4.device.type} == {"cuda"}
    labels = LabelMap(AVA_ACTIONS)

    def remember(keys):
        return remembered(experiment, model, len(keys))

    score = predictions.score_persons.__wrapped__
    with torch.no_grad(), patch.object(torch.Tensor, "cpu", lambda x: torch.full(x.shape, 0.5)):
        rows = score(model, [[batch]], ActionLoss(), remember, labels)
    assert len(rows) == 5 * 60 and (rows["score"] == 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EACH_NETWORK, ids=lambda experiment: experiment.name)
def test_a_step_of_every_network_of_table_1_at_paper_size(step, experiment):
    losses, seen = step(experiment, [(256, 480), (256, 352)], [3, 2], after=extract_and_score)
    assert {loss.device.type for loss in losses} == {"cuda"}
    frames = build.sampling(experiment).num_frames
    times = frames // (8 if experiment.backbone.startswith("ir-csn") else 4)
    length = {"linear": 1, "s-only": 49, "t-only": times}[experiment.head]
    assert seen[0].shape[:2] == (5, length)


def of_ours(model, pictures) -> list[torch.Tensor]:
    """What follows waits for numbers: which cells hold a person."""
    return list(model.head(list(model.body(pictures).values())))


def of_torchvision(model, pictures) -> list[torch.Tensor]:
    maps = model.backbone(pictures)
    regions = model.roi_heads.box_head(torch.zeros(7, 256, 7, 7, device="cuda"))
    scores, _ = model.rpn.head(list(maps.values()))
    return [*scores, *model.roi_heads.box_predictor(regions)]


@pytest.mark.slow
@pytest.mark.parametrize("network", [of_ours, of_torchvision])
def test_the_networks_of_the_person_detectors_mix_no_devices(network, monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    if network is of_ours:
        model = gfocal_resnet(50, (160,), 224)
    else:
        model = detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    mode = Pretended()
    on_gpu(model.eval(), mode)
    assert detector._half(model) is (network is of_ours)
    with mode, torch.autocast("cuda", torch.bfloat16, enabled=detector._half(model)):
        pictures = torch.empty(2, 3, 160, 224, device="cuda")
        answers = network(model, pictures)
        assert {(x.device.type, x.dtype) for x in answers} == {("cuda", torch.float32)}
        with pytest.raises(RuntimeError, match="two different devices"):
            network(model, torch.zeros(2, 3, 160, 224))


def test_a_tensor_that_is_left_on_the_cpu_is_found(step, monkeypatch):
    monkeypatch.setattr(MemoryTokens, "to", lambda self, device: self)
    with pytest.raises(RuntimeError, match="two different devices"):
        step(row("smoke", memory="yes"), [(64, 96)], [2])


def test_the_loss_is_read_when_it_is_logged(tmp_path, monkeypatch):
    """A tensor without numbers stands for one that is not computed yet."""
    reads = []
    monkeypatch.setattr(loop, "_read", lambda part: reads.append(part) or 0.5)
    schedule = loop.Schedule(iterations=40, lr=0.1)
    monkeypatch.setattr(loop, "LOG_LINES", 4)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    loop.fit(
        nn.Linear(3, 2, device="meta"),
        lambda model, x: (model(x).sum(), 4),
        lambda start: [torch.empty(4, 3, device="meta")] * 40,
        schedule,
        folder=tmp_path,
        digest="d",
        progress=lambda *_: None,
        save_every=20,
    )
    assert len(reads) == 6  # at 0, 10, 19, 20, 30, 39
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def full(model, x):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")


def test_a_full_gpu_is_one_line_with_the_remedy(tmp_path):
    words = {"folder": tmp_path, "digest": "d", "progress": lambda *_: None, "accumulate": 2}
    schedule = loop.Schedule(iterations=1, lr=0.1)
    with pytest.raises(InputError, match=r"^cpu: its memory is full; --accumulate 4 .*\Z"):
        loop.fit(nn.Linear(3, 2), full, lambda start: [0, 1], schedule, **words)


@pytest.mark.parametrize(
    ("gigabytes", "ranks", "words", "expected"),
    [
        (80, 8, {}, False),
        (80, 1, {}, True),
        (80, 1, {"accumulate": 8}, False),
        (80, 1, {"accumulate": 8, "precision": "float32"}, False),
        (16, 8, {}, True),
        (16, 8, {"recompute": "no"}, False),
    ],
)
def test_activations_are_recomputed_where_memory_is_too_small(
    monkeypatch, tmp_path, gigabytes, ranks, words, expected
):
    monkeypatch.setattr(processes, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(processes, "num_processes", lambda: ranks)
    card = SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    experiment = row("paper", memory="yes", frames="64x1")
    run = stages.Run(experiment, AvaLayout(tmp_path), tmp_path, (), print, Execution(**words))
    assert run.recompute is expected


# ------------------------------------------------------------------------------------ the networks


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("network", [networks.csn_mini, networks.slowfast_mini])
def test_a_backbone_compiles_to_one_graph(network, recompute):
    """Without a break, for all sizes; its gradients are those of the network as it stands."""
    backbone = network()
    networks.freeze_batchnorm(backbone)
    if recompute:
        networks.recompute_activations(backbone)
    plain = copy.deepcopy(backbone)
    backbone.compile(backend="eager", fullgraph=True)
    for height in (48, 64, 56):  # from the second size on, sizes are symbols
        clip, gradients = torch.randint(256, (1, 3, 8, height, 64)).byte(), []
        for part in (plain, backbone):
            part.zero_grad()
            part(clip).square().sum().backward()
            weights = (weight for weight in part.parameters() if weight.requires_grad)
            gradients.append([weight.grad.clone() for weight in weights])
        assert gradients[0] and any(gradient.any() for gradient in gradients[0])
        torch.testing.assert_close(*gradients)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's tracer looks at features
@pytest.mark.parametrize(("head", "memory"), [("linear", "no"), ("t-only", "yes")])
def test_a_whole_network_compiles_to_three_graphs(head, memory):
    """Backbone, fusion and head, anew when sizes become symbols, and then no more."""
    experiment = row("smoke", head=head, memory=memory)
    plain = build.action_detector(experiment, 60, memory == "yes").train()
    model, graphs = copy.deepcopy(plain), []
    torch._dynamo.reset()
    model.compile(backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    length, width = build.token_size(experiment, plain)
    for step, counts in enumerate(torch.tensor([[2, 3], [4, 2], [2, 7], [0, 5]])):
        persons, remembered = int(counts.sum()), 3 + step
        boxes = torch.rand(persons, 2).repeat(1, 2) / 2 + torch.tensor([0, 0, 0.3, 0.3])
        clips = torch.randint(256, (2, 3, 8, 64, 96)).byte()
        people = clips, 64 * boxes, counts, [(64, 96)] * 2, boxes
        past = no_memory(2, width)
        if memory == "yes":
            past = MemoryTokens(
                torch.rand(2, remembered, length, width),
                torch.rand(2, remembered) < 0.7,
                torch.randint(-3, 3, (2, remembered)),
                torch.rand(2, remembered, 4),
            )
        results = []
        for network in (plain, model):
            set_share(network, tuple(range(3, 3 + persons)), persons + 10 + step)
            torch.manual_seed(step)  # of dropout
            network.zero_grad()
            logits, _ = network(*people, past)
            logits.square().sum().backward()
            results.append([logits, *(weight.grad for weight in network.head.parameters())])
        torch.testing.assert_close(*results)
        assert len(graphs) == (3 if step == 0 else 5)


def test_depthwise_convolutions_have_the_layout_of_torchs_own_kernel(monkeypatch):
    seen, convolve = [], networks.FoldedConv3d._conv_forward

    def watching(self, x, weight, bias):
        seen.append((self.groups > 1, x.is_contiguous(), weight.is_contiguous()))
        return convolve(self, x, weight, bias)

    monkeypatch.setattr(networks.FoldedConv3d, "_conv_forward", watching)
    mode, backbone = Pretended(), networks.csn_mini()
    networks.freeze_batchnorm(backbone)
    on_gpu(backbone, mode)
    with mode, torch.no_grad():
        features = backbone(torch.empty(2, 3, 8, 64, 96, dtype=torch.uint8, device="cuda"))
    assert features.is_contiguous(memory_format=torch.channels_last_3d)
    assert {where for where in seen if where[0]} == {(True, True, True)}
    assert not any(contiguous for depthwise, contiguous, _ in seen if not depthwise)


def test_flops_of_depthwise_convolutions_are_those_of_their_groups():
    def of(groups: int) -> list[int]:
        x = torch.rand(1, 8, 4, 6, 6, requires_grad=True)
        weight = torch.rand(8, 8 // groups, 3, 3, 3, requires_grad=True)
        counts = []
        with FlopCounterMode(display=False) as counter:
            out = F.conv3d(x, weight, padding=1, groups=groups)
        counts.append(counter.get_total_flops())
        with FlopCounterMode(display=False, custom_mapping=bench_gpu.EXACT) as counter:
            out.sum().backward()
        return [*counts, counter.get_total_flops()]

    forward, backward = of(8)
    assert forward == 2 * 8 * 4 * 6 * 6 * 27 and backward == 2 * forward
    assert of(1) == [8 * forward, 16 * forward]


# ---------------------------------------------------------------------------------------- the data


def keyframes(count: int) -> list[Keyframe]:
    boxes, actions = np.array([[0.1, 0.2, 0.5, 0.9]], np.float32), np.zeros((1, 60), bool)
    return [Keyframe("ava", "a", 900.0 + i, boxes, actions, np.array([0])) for i in range(count)]


def test_testing_at_paper_scale_takes_few_clips_at_a_time(tiny_dataset):
    views = [plain(64, 96)]
    layout = AvaLayout(tiny_dataset)
    batches = build.test_batches(row("paper"), layout, keyframes(20), views)
    assert sorted(map(len, batches.batch_sampler)) == [4, 8, 8]
    assert batches.num_workers and batches.prefetch_factor == 1
    smoke = build.test_batches(row("smoke"), layout, keyframes(20), views)
    assert {*map(len, smoke.batch_sampler)} == {SCALES["smoke"].batch} and not smoke.num_workers


def test_workers_are_as_many_as_asked_for_or_as_this_process_has_cores(monkeypatch):
    command = parse(cli.COMMANDS, ["train", "--workers", "3"])
    assert command.keywords["execution"].workers == 3
    assert "--workers=3" in Execution(workers=3).words()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(6)})
    assert build.loader([0], row("paper"), 4).num_workers == 4
    assert build.loader([0], row("paper")).num_workers == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert build.loader([0], row("paper")).num_workers == 3
    assert build.loader([0], row("smoke")).num_workers == 0
    done = []
    monkeypatch.setattr(os, "nice", done.append)
    monkeypatch.setattr(build.cv2, "setNumThreads", done.append)
    build._yield_to_training(0)
    assert done == [10, 0]


# ----------------------------------------------------------------------------------- the processes


def cards(monkeypatch, count: int, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", str(number))


def test_a_process_takes_its_own_card_or_the_only_one(monkeypatch):
    for count, number, expected in ((8, 5, 5), (1, 0, 0), (1, 3, 0)):
        cards(monkeypatch, count, number)
        assert processes.device() == torch.device("cuda", expected)
    cards(monkeypatch, 2, 2)
    with pytest.raises(InputError, match="process 2 has no GPU: there are 2"):
        processes.device()


def test_a_worker_leaves_the_colours_to_a_gpu(tiny_dataset, monkeypatch):
    box, actions = np.array([[0.2, 0.2, 0.6, 0.9]], "f4"), np.zeros((1, 60), bool)
    keyframe = Keyframe("ava", "a", 902.0, box, actions, np.zeros(1, np.int64))
    drawn = []
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        items = build.train_dataset(row("smoke"), AvaLayout(tiny_dataset), [keyframe])
        drawn.append(items[0, 1].shifts_B5)
    assert drawn[0] is None and drawn[1].shape == (1, 5)


@pytest.mark.parametrize("uuids", [["a", "a"], ["a", "b"]])
def test_processes_of_one_card_exchange_gradients_through_gloo(monkeypatch, capsys, uuids):
    cards(monkeypatch, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    monkeypatch.setattr(
        distributed, "init_process_group", lambda backend, timeout: made.append((backend, timeout))
    )
    monkeypatch.setattr(
        distributed, "new_group", lambda backend, timeout: made.append((backend, timeout)) or "fast"
    )
    monkeypatch.setattr(distributed, "set_timeout", made.append)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    card = SimpleNamespace(uuid=uuids[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(processes, "gather", lambda items: uuids)
    with processes.group():
        group = processes.gradient_group()
    assert processes.gradient_group() is None
    joined, patience, *fast = made
    assert joined == ("gloo", processes.HANG) and patience == processes.PATIENCE
    if len({*uuids}) == 2:
        assert group == "fast" and fast == [("nccl", processes.HANG)]
        assert processes.HANG < processes.PATIENCE / 20
    else:
        assert group is None and not fast and "share a GPU" in capsys.readouterr().out


def test_frozen_norms_are_not_sent_again_every_step(monkeypatch):
    options = []
    monkeypatch.setattr(processes, "num_processes", lambda: 2)
    monkeypatch.setattr(loop, "DistributedDataParallel", lambda _, **words: options.append(words))
    for norm in (nn.BatchNorm3d(2), nn.BatchNorm3d(2).eval()):
        loop._shared(nn.Sequential(norm))
    assert [words["broadcast_buffers"] for words in options] == [True, False]


def test_tests_see_no_gpu_unless_asked(request):
    assert request.config.getoption("--gpu") or not os.environ["CUDA_VISIBLE_DEVICES"]


# -------------------------------------------------------------------------------- the checks to run


def test_the_checks_for_a_gpu_know_their_phases_and_run_tiny_ones_here(tmp_path, monkeypatch):
    """The other phases cost minutes: gpu_checks.sh --tiny."""
    folder = Path(bench_gpu.__file__).parent
    monkeypatch.syspath_prepend(folder)
    import gpu_checks

    words = re.search(r"phases=\((\w[\w ]+)\)", (folder / "gpu_checks.sh").read_text())[1].split()
    assert words == list(gpu_checks.PHASES)
    assert all(f"\n{word} " in gpu_checks.__doc__ for word in words)
    monkeypatch.setattr(sys, "argv", ["", "layouts", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no GPU here; --tiny"):
        gpu_checks.main()
    for phase in ("layouts", "detector"):
        monkeypatch.setattr(sys, "argv", ["", phase, "--tiny", "--out", str(tmp_path)])
        gpu_checks.main()
        answers = json.loads((tmp_path / f"{phase}.json").read_text())
        assert answers["card"] == "CPU" and answers["tiny"] and not answers["left"]
        assert answers["lines"] and all(line["a_second"] > 0 for line in answers["lines"])
