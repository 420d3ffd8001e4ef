"""The batched relation head against loops; prints the times and their ratios.

64 clips of 1 to 10 persons, width 512, T = 8, 7x7 cells, forward and backward, 2 threads. Two
loops: over the clips (a clip's L sequences at once), and over clips and sequences, which is
the paper's section 2.2 word by word (t-only alone: s-only would take minutes). The floor is the
time of the batched call's matrix products alone: no arrangement of persons can be faster.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stadlib.models.heads import MemoryTokens, RelationHead, no_memory
from stadlib.models.roi_fusion import Places


def per_clip(
    head: RelationHead, tokens_NLC: Tensor, boxes_N4: Tensor, places: Places, memory: MemoryTokens
) -> Tensor:
    """The oracle: one clip after the other, no padding, no mask; dropout must be off."""
    logits = [
        head.classifier(_encode(head, *clip).mean(dim=0))
        for clip in _clips(head, tokens_NLC, boxes_N4, places, memory)
    ]
    return torch.cat(logits)


def per_clip_and_sequence(
    head: RelationHead, tokens_NLC: Tensor, boxes_N4: Tensor, places: Places, memory: MemoryTokens
) -> Tensor:
    """One sequence of one clip after the other."""
    logits = []
    for tokens_LPC, memory_LMC, bias in _clips(head, tokens_NLC, boxes_N4, places, memory):
        sequences = zip(tokens_LPC.split(1), memory_LMC.split(1), strict=True)
        outputs = [_encode(head, *sequence, bias) for sequence in sequences]
        logits.append(head.classifier(torch.cat(outputs).mean(dim=0)))
    return torch.cat(logits)


def _clips(
    head: RelationHead, tokens_NLC: Tensor, boxes_N4: Tensor, places: Places, memory: MemoryTokens
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """A clip's tokens (L, P, C), what it remembers (L, M, C), and the bias on that (E, P, M)."""
    sizes = places.counts_B.tolist()
    found = []
    persons = zip(tokens_NLC.split(sizes), boxes_N4.split(sizes), strict=True)
    for (tokens, boxes), *past in zip(persons, *memory, strict=True):
        written = past[1]
        those = MemoryTokens(*(tensor[written][None] for tensor in past))
        remembered = head.attention_norm(those.tokens_BMLC[0])
        bias = tokens.new_zeros(head.attention.num_heads, len(tokens), len(remembered))
        if head.recall is not None:
            remembered = remembered + head.recall.embedding(those.seconds_BM)[0]
            bias = head.recall.bias(boxes, Places.of(torch.tensor([len(boxes)])), *those[2:])[0]
        length = tokens.shape[1]
        found.append(
            (tokens.transpose(0, 1), remembered.transpose(0, 1).expand(length, -1, -1), bias)
        )
    return found


def _encode(head: RelationHead, tokens_LPC: Tensor, memory_LMC: Tensor, bias_EPM: Tensor) -> Tensor:
    query_LPC = head.attention_norm(tokens_LPC)
    seen_LSC = torch.cat((query_LPC, memory_LMC), dim=1)
    width, num_heads = seen_LSC.shape[-1], head.attention.num_heads
    query = head.attention.query(query_LPC)
    key, value = head.attention.key_value(seen_LSC).split(width, dim=-1)
    gathered = []
    parts = zip(*(x.chunk(num_heads, dim=-1) for x in (query, key, value)), bias_EPM, strict=True)
    for q, k, v, bias_PM in parts:
        scores = q @ k.transpose(1, 2) / math.sqrt(width // num_heads)
        scores = torch.cat((scores[..., : q.shape[1]], scores[..., q.shape[1] :] + bias_PM), dim=-1)
        gathered.append(scores.softmax(dim=-1) @ v)
    tokens_LPC = tokens_LPC + head.attention.output(torch.cat(gathered, dim=-1))
    return tokens_LPC + head.ffn(head.ffn_norm(tokens_LPC))


def best_of(run: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest run: other processes can only slow one down."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def products(num_tokens: int, width: int) -> float:
    """Seconds of one layer's matrix products, forward and backward, and of nothing else."""
    shapes = [(width, width), (width, 2 * width), (width, width)]
    shapes += [(width, 4 * width), (4 * width, width)]
    parts = [
        (torch.randn(num_tokens, a), torch.randn(a, b), torch.randn(num_tokens, b))
        for a, b in shapes
    ]

    def run() -> None:
        for x, weight, gradient in parts:
            x @ weight
            gradient @ weight.T
            x.T @ gradient

    return best_of(run)


def compare(name: str, average: tuple[str, ...], loops: tuple[Callable[..., Tensor], ...]) -> None:
    """Check that loops and batched call agree to 1e-5, gradients too; print times and ratios."""
    torch.manual_seed(0)
    head = RelationHead(512, 60, average=average).eval()
    for parameter in head.parameters():  # zero output projections would make attention idle
        torch.nn.init.normal_(parameter, std=0.03)
    counts = torch.randint(1, 11, (64,))
    features = torch.randn(int(counts.sum()), 512, 8, 7, 7)
    boxes, memory = torch.rand(len(features), 4), no_memory(64, 512)

    def step(forward: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        logits = forward(head, head.tokens(features), boxes, Places.of(counts), memory)
        return logits, *torch.autograd.grad(logits.square().mean(), head.parameters())

    results = [step(forward) for forward in (RelationHead.__call__, *loops)]
    for looped in results[1:]:
        torch.testing.assert_close(results[0], looped, rtol=1e-5, atol=1e-5)
    batched = best_of(lambda: step(RelationHead.__call__))
    floor = products(len(features) * head.tokens(features[:1]).shape[1], 512)
    print(f"{name}  batched {1e3 * batched:6.0f} ms, floor {1e3 * floor:.0f} ms")
    for loop in loops:
        seconds = best_of(lambda loop=loop: step(loop))
        print(
            f"    {loop.__name__:22} {1e3 * seconds:6.0f} ms, {seconds / batched:.1f}x", flush=True
        )


if __name__ == "__main__":
    torch.set_num_threads(2)
    compare("t-only", ("H", "W"), loops=(per_clip, per_clip_and_sequence))
    compare("s-only", ("T",), loops=(per_clip,))
