"""The batched relation head against a loop over clips. By hand: python tests/benchmarks/bench_heads.py

64 clips of 1 to 10 persons, width 512, T = 8, 7x7 cells, forward and backward, 2 threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stadlib.models.heads import RelationHead, empty_memory


def per_clip(
    head: RelationHead,
    features_NCTHW: Tensor,
    counts_B: Tensor,
    memory_BMLC: Tensor,
    memory_mask_BM: Tensor,
) -> Tensor:
    """The oracle: one clip after the other, no padding, no mask; dropout must be off."""
    clips = features_NCTHW.split(counts_B.tolist())
    memories = [memory[mask] for memory, mask in zip(memory_BMLC, memory_mask_BM, strict=True)]
    return torch.cat([_one_clip(head, *pair) for pair in zip(clips, memories, strict=True)])


def _one_clip(head: RelationHead, features_PCTHW: Tensor, memory_MLC: Tensor) -> Tensor:
    tokens_LPC = head.tokens(features_PCTHW).transpose(0, 1)
    query_LPC = head.attention_norm(tokens_LPC)
    seen_LSC = torch.cat((query_LPC, head.attention_norm(memory_MLC.transpose(0, 1))), dim=1)
    width, num_heads = seen_LSC.shape[-1], head.attention.num_heads
    query = head.attention.query(query_LPC)
    key, value = head.attention.key_value(seen_LSC).split(width, dim=-1)
    gathered = []
    for q, k, v in zip(*(x.chunk(num_heads, dim=-1) for x in (query, key, value)), strict=True):
        scores = q @ k.transpose(1, 2) / math.sqrt(width // num_heads)
        gathered.append(scores.softmax(dim=-1) @ v)
    tokens_LPC = tokens_LPC + head.attention.output(torch.cat(gathered, dim=-1))
    tokens_LPC = tokens_LPC + head.ffn(head.ffn_norm(tokens_LPC))
    return head.classifier(tokens_LPC.mean(dim=0))


def best_of(run: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest run: other processes can only slow one down."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def compare(name: str, average: tuple[str, ...], num_sequences: int) -> None:
    """Print both times, their ratio and the largest difference of logits and gradients."""
    torch.manual_seed(0)
    head = RelationHead(512, 60, average=average, dropout=0.0)
    for parameter in head.parameters():  # zero output projections would make attention idle
        torch.nn.init.normal_(parameter, std=0.03)
    counts = torch.randint(1, 11, (64,))
    features = torch.randn(int(counts.sum()), 512, 8, 7, 7)
    memory = empty_memory(64, num_sequences, 512)

    def step(forward: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
        logits = forward(features, counts, *memory)
        return logits, list(torch.autograd.grad(logits.square().mean(), head.parameters()))

    batched, looped = step(head), step(lambda *inputs: per_clip(head, *inputs))
    logits = (batched[0] - looped[0]).abs().max()
    gradients = max(float((a - b).abs().max()) for a, b in zip(batched[1], looped[1], strict=True))
    torch.testing.assert_close(batched, looped, rtol=1e-5, atol=1e-5)
    fast = best_of(lambda: step(head))
    slow = best_of(lambda: step(lambda *inputs: per_clip(head, *inputs)))
    print(
        f"{name}  batched {1e3 * fast:7.1f} ms   loop {1e3 * slow:7.1f} ms   "
        f"{slow / fast:4.1f}x   differ by {logits:.1e} (logits) {gradients:.1e} (gradients)"
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    compare("t-only", ("H", "W"), num_sequences=8)
    compare("s-only", ("T",), num_sequences=49)
