"""Properties of the heads; the oracle is the loop over clips in benchmarks/bench_heads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.bench_heads import per_clip
from torch import nn

from stadlib.models import Places, roi_fusion
from stadlib.models.heads import (
    LinearHead,
    MemoryTokens,
    PersonDropout,
    Recall,
    RelationHead,
    no_memory,
    set_share,
)

WIDTH, ACTIONS, T, SIDE = 16, 6, 4, 3
AVERAGED = {"t-only": ("H", "W"), "s-only": ("T",)}
SEQUENCES = {"t-only": T, "s-only": SIDE * SIDE}
COUNTS = torch.tensor([3, 1, 0, 4, 2])
N = int(COUNTS.sum())
SPAN = 4


@pytest.fixture(params=["t-only", "s-only"])
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def fresh_head(kind: str, aggregate: str = "mean", *, geometry: bool = True) -> RelationHead:
    recall = Recall(WIDTH, SPAN, geometry, num_heads=4)
    averaged = AVERAGED[kind]
    return RelationHead(WIDTH, ACTIONS, averaged, aggregate, recall=recall, num_heads=4)


def make_head(kind: str, aggregate: str = "mean") -> RelationHead:
    """A head whose every parameter is at work: zero projections would hide any mistake."""
    head = fresh_head(kind, aggregate)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head.eval()


def make_features(num_persons: int = N, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_persons, WIDTH, T, SIDE, SIDE, generator=generator)


def make_boxes(num_persons: int = N) -> torch.Tensor:
    corners = torch.rand(num_persons, 2, generator=torch.Generator().manual_seed(3)) * 0.6
    return torch.cat((corners, corners + 0.3), dim=1)


def make_memory(kind: str) -> MemoryTokens:
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)
    seconds = torch.tensor([-4, -1, 2]).expand(len(COUNTS), -1)
    boxes = make_boxes(len(COUNTS) * 3).unflatten(0, (-1, 3))
    return MemoryTokens(torch.randn(len(COUNTS), 3, SEQUENCES[kind], WIDTH), mask, seconds, boxes)


def double(memory: MemoryTokens) -> MemoryTokens:
    return memory._replace(
        tokens_BMLC=memory.tokens_BMLC.double(), boxes_BM4=memory.boxes_BM4.double()
    )


def score(head, features, counts, memory):
    """Logits; persons stand where ``make_boxes`` puts them."""
    boxes = make_boxes(len(features)).to(features.dtype)
    return head(head.tokens(features), boxes, Places.of(counts), memory)


def run(head, features, counts, memory):
    """Logits and the gradients of every parameter and of the features."""
    features = features.clone().requires_grad_()
    logits = score(head, features, counts, memory)
    inputs = [features, *head.parameters()]
    gradients = torch.autograd.grad(logits.square().sum(), inputs, materialize_grads=True)
    return logits, gradients


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_batched_equals_a_loop_over_clips(kind, aggregate):
    head = make_head(kind, aggregate).double()
    features, memory = make_features().double(), double(make_memory(kind))
    batched = run(head, features, COUNTS, memory)
    features = features.requires_grad_()
    looped = per_clip(head, head.tokens(features), make_boxes().double(), Places.of(COUNTS), memory)
    gradients = torch.autograd.grad(looped.square().sum(), [features, *head.parameters()])
    torch.testing.assert_close(batched[0], looped, rtol=0, atol=1e-10)
    torch.testing.assert_close(batched[1], gradients, rtol=1e-9, atol=1e-9)


def test_a_stranger_in_another_clip_changes_no_bit(kind):
    head, features, memory = make_head(kind), make_features(), make_memory(kind)
    others = roi_fusion.clip_index(COUNTS) != 3
    changed = torch.where(others[:, None, None, None, None], make_features(seed=2), features)

    def gradient_at_own_clip(x):
        x = x.clone().requires_grad_()
        logits = score(head, x, COUNTS, memory)
        (gradient,) = torch.autograd.grad(logits[~others].square().sum(), x)
        return logits[~others], gradient

    before, after = gradient_at_own_clip(features), gradient_at_own_clip(changed)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1][~others], after[1][~others])
    assert before[1][~others].any() and not before[1][others].any()


def test_persons_and_memory_matter_to_their_clip_only(kind):
    """Persons also to a fresh head: its residual branches start open."""
    fresh = fresh_head(kind).eval()
    head, features, memory = make_head(kind), make_features(), make_memory(kind)
    changed = features.clone()
    changed[0] = torch.randn_like(changed[0])
    for some_head, least in ((head, 1e-3), (fresh, 1e-6)):
        before, after = (score(some_head, x, COUNTS, memory) for x in (features, changed))
        assert ((before - after)[1:3].abs() > least).any(dim=1).all()
        assert torch.equal(before[3:], after[3:])
    before = score(head, features, COUNTS, memory)
    tokens, _, seconds, boxes = (tensor.clone() for tensor in memory)
    tokens[0, 1], seconds[0, 1], boxes[0, 1] = tokens[0, 1].flip(-1), 1, boxes[0, 1] + 0.2
    for change in ({"tokens_BMLC": tokens}, {"seconds_BM": seconds}, {"boxes_BM4": boxes}):
        after = score(head, features, COUNTS, memory._replace(**change))
        assert not torch.isclose(before[:3], after[:3]).all(dim=1).any()
        assert torch.equal(before[3:], after[3:])


@pytest.mark.parametrize("garbage", [0.0, 1e30, float("nan"), float("inf")])
def test_an_unwritten_memory_slot_changes_no_bit(kind, garbage):
    head, features, memory = make_head(kind), make_features(), make_memory(kind)
    unwritten = ~memory.mask_BM
    dirty = memory._replace(
        tokens_BMLC=memory.tokens_BMLC.masked_fill(unwritten[:, :, None, None], garbage),
        boxes_BM4=memory.boxes_BM4.masked_fill(unwritten[:, :, None], garbage),
        seconds_BM=memory.seconds_BM.masked_fill(unwritten, 10**9),
    )
    before, after = (run(head, features, COUNTS, x) for x in (memory, dirty))
    assert torch.equal(before[0], after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert all(gradient.isfinite().all() for gradient in after[1])


def test_a_padded_slot_changes_no_bit(kind, monkeypatch):
    head, features, memory = make_head(kind), make_features(), make_memory(kind)
    clean = run(head, features, COUNTS, memory)
    project = head.attention._project
    padded = ~Places.of(COUNTS).mask_BP[:, None, :, None]
    unread = torch.cat((padded, torch.zeros(len(COUNTS), 1, 3, 1, dtype=torch.bool)), dim=2)
    touched = []

    def garbage_in_padded_slots(*inputs):
        query, key, value, bias = project(*inputs)
        touched.append(int(padded.sum()))
        key, value = (x.masked_fill(unread, 1e10) for x in (key, value))
        return query.masked_fill(padded, 1e10), key, value, bias

    monkeypatch.setattr(head.attention, "_project", garbage_in_padded_slots)
    dirty = run(head, features, COUNTS, memory)
    assert touched == [len(COUNTS) * 4 - N]
    assert torch.equal(clean[0], dirty[0])
    assert all(torch.equal(a, b) for a, b in zip(clean[1], dirty[1], strict=True))


def test_padded_keys_get_no_weight(kind):
    head, features, memory = make_head(kind), make_features(), make_memory(kind)
    seen_weights = []
    head.attention.register_forward_hook(lambda part, x, _: seen_weights.append(part.weights(*x)))
    score(head, features, COUNTS, memory)
    (weights,) = seen_weights
    assert weights.shape == (N, SEQUENCES[kind], 4, int(COUNTS.max()) + 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    seen = torch.cat((Places.of(COUNTS).mask_BP, memory.mask_BM), dim=1)[
        roi_fusion.clip_index(COUNTS)
    ]
    seen = seen[:, None, None].expand_as(weights)
    assert not weights[~seen].any() and (weights[seen] > 0).all()


def test_a_crowd_elsewhere_moves_only_the_last_digits(kind):
    """Another shape may take another matrix kernel, hence no equal bits but equal numbers."""
    head, features = make_head(kind), make_features()
    crowd = torch.cat((features, make_features(9, seed=2)))
    boxes = make_boxes(len(crowd))
    alone = head(head.tokens(features[:3]), boxes[:3], Places.of(COUNTS[:1]), no_memory(1, WIDTH))
    counts = torch.cat((COUNTS, torch.tensor([9])))
    together = head(head.tokens(crowd), boxes, Places.of(counts), no_memory(6, WIDTH))
    torch.testing.assert_close(alone, together[:3], rtol=1e-5, atol=1e-6)


def test_memory_of_width_0_equals_memory_without_a_written_slot(kind):
    head, features = make_head(kind).double(), make_features().double()
    memory = double(make_memory(kind))
    without = run(head, features, COUNTS, double(no_memory(len(COUNTS), WIDTH)))
    nothing = memory._replace(mask_BM=torch.zeros_like(memory.mask_BM))
    unwritten = run(head, features, COUNTS, nothing)
    torch.testing.assert_close(without, unwritten, rtol=1e-12, atol=1e-12)


def test_permuted_persons_have_permuted_logits(kind):
    head, features, memory = make_head(kind).double(), make_features().double(), make_memory(kind)
    memory, boxes = double(memory), make_boxes().double()
    order = torch.tensor([2, 0, 1, 3, 6, 4, 7, 5, 9, 8])  # inside their clips
    logits = head(head.tokens(features), boxes, Places.of(COUNTS), memory)
    permuted = head(head.tokens(features[order]), boxes[order], Places.of(COUNTS), memory)
    torch.testing.assert_close(permuted, logits[order], rtol=0, atol=1e-12)
    assert not torch.allclose(permuted, logits)


def test_every_parameter_of_a_fresh_head_learns_within_two_steps(kind):
    head = fresh_head(kind)
    start = [parameter.clone() for parameter in head.parameters()]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    features, memory = make_features(), make_memory(kind)
    for _ in range(3):
        optimizer.zero_grad()
        score(head, features, COUNTS, memory).square().sum().backward()
        optimizer.step()
    names = [name for name, _ in head.named_parameters()]
    still = [n for n, a, b in zip(names, start, head.parameters(), strict=True) if a.equal(b)]
    assert not still


def test_tokens_keep_the_axis_of_the_heads_name():
    features = make_features()
    t_only, s_only = (make_head(kind).tokens(features) for kind in ("t-only", "s-only"))
    assert t_only.shape == (N, T, WIDTH) and s_only.shape == (N, SIDE * SIDE, WIDTH)
    torch.testing.assert_close(t_only[1, 2], features[1, :, 2].mean(dim=(1, 2)))
    torch.testing.assert_close(s_only[1, SIDE + 2], features[1, :, :, 1, 2].mean(dim=1))
    largest = make_head("t-only", "max").tokens(features)
    torch.testing.assert_close(largest[1, 2], features[1, :, 2].amax(dim=(1, 2)))


@pytest.mark.parametrize("counts", [[0, 0], [1], [0, 1], []])
@pytest.mark.parametrize("make", [make_head, lambda _: LinearHead(WIDTH, ACTIONS).eval()])
def test_clips_without_or_with_one_person(kind, counts, make):
    logits, gradients = run(
        make(kind),
        make_features(sum(counts)),
        torch.tensor(counts, dtype=torch.int64),
        no_memory(len(counts), WIDTH),
    )
    assert logits.shape == (sum(counts), ACTIONS)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_new_classifier_calls_actions_rare():
    head = LinearHead(WIDTH, ACTIONS).eval()
    probability = score(head, make_features(), COUNTS, no_memory(len(COUNTS), WIDTH)).sigmoid()
    torch.testing.assert_close(probability, torch.full((N, ACTIONS), 0.05), rtol=0.5, atol=0)


def test_dropout_of_a_share_is_that_of_the_whole_batch():
    x_NC = torch.rand(11, 6) + 1
    dropout = PersonDropout(0.5).train()
    torch.manual_seed(4)
    whole = dropout(x_NC)
    assert (whole == 0).any() and (whole != 0).any()
    for rows in ((0, 3, 9), (1, 2), (), tuple(range(11))):
        set_share(dropout, rows, 11)
        torch.manual_seed(4)
        assert torch.equal(dropout.train()(x_NC[list(rows)]), whole[list(rows)])
        assert torch.equal(dropout.eval()(x_NC[list(rows)]), x_NC[list(rows)])


def test_the_guides_page_on_the_heads_alone_runs(tmp_path, monkeypatch, capsys):
    """Its blocks are run as they stand, on a label map, a truth and scores of two persons."""
    guide = (Path(__file__).parents[1] / "results" / "guide.md").read_text()
    section = guide.split("## The heads alone")[1].split("\n## ")[0]
    first, second = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict = {}
    exec(first, names)
    assert names["logits"].shape == (5, 80)
    assert all(p.grad.any() for p in names["head"].classifier.parameters())
    monkeypatch.chdir(tmp_path)
    Path("actions.pbtxt").write_text('item {\n  name: "nod"\n  id: 1\n}\n')
    Path("truth.csv").write_text("a,1,0.1,0.1,0.5,0.5,1,0\na,2,0.1,0.1,0.5,0.5,1,0\n")
    Path("scores.csv").write_text("a,1,0.1,0.1,0.5,0.5,1,0.9\n")
    exec(second, {})
    assert capsys.readouterr().out == "0.5 {1: 0.5}\n"


def test_a_head_learns_from_features_without_the_rest_of_the_package():
    """Who has a marked person beside them: the relation head learns it, the linear one cannot."""
    names = subprocess.run(
        [sys.executable, "-c", LEARNS], capture_output=True, text=True, check=True
    ).stdout.split()
    assert names[:2] == ["True", "True"], names
    assert not {name.split(".")[1] for name in names[2:]} - {"base", "models"}, names


LEARNS = """
import sys, torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from stadlib.models import LinearHead, Places, RelationHead, no_memory
torch.manual_seed(0)
losses = {}
for name in ("linear", "t-only"):
    head = LinearHead(16, 1) if name == "linear" else RelationHead(16, 1, ("H", "W"))
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(150):
        features, counts = torch.randn(40, 16, 2, 3, 3), torch.full((20,), 2)
        marked = torch.rand(40) < 0.5
        features[marked, 0] += 4
        actions = marked.reshape(20, 2).flip(1).reshape(40, 1).float()  # whether the other is
        people = head.tokens(features), torch.rand(40, 4), Places.of(counts)
        logits = head(*people, no_memory(20, 16))
        loss = bce(logits, actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    losses[name] = loss.item()
print(losses["linear"] > 0.6, losses["t-only"] < 0.3)
print(*[name for name in sys.modules if name.startswith("stadlib.")])
"""
