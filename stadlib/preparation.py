"""What a run stands on: its dataset, rendered if need be, and its pretrained backbone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from stadlib import build, processes
from stadlib.config import Experiment, InputError
from stadlib.data import miniature
from stadlib.data.layout import AvaLayout
from stadlib.paths import data_dir
from stadlib.progress import MakeProgress
from stadlib.rendered_pretraining import pretrain_rendered, pretrained_folder, pretraining_digest
from stadlib.train import read_weights
from stadlib.weights.loading import read_backbone
from stadlib.weights.sources import find_pretrained


def prepare_data(experiment: Experiment, progress: MakeProgress) -> AvaLayout:
    """The experiment's dataset; a miniature world is rendered if it isn't there yet.

    Raises:
        InputError: real data that is not on disk.
    """
    if experiment.dataset:
        return AvaLayout(experiment.dataset)
    if experiment.scale == "paper":
        root = data_dir() / "ava-kinetics"
        if not root.is_dir():
            raise InputError(
                f"{root}: no such folder; put AVA-Kinetics there in the layout that the README "
                "describes, or set STADLIB_DATA to the folder above it"
            )
        return AvaLayout(root)
    return AvaLayout(render(experiment.scale, "world", progress))


def render(scale: str, part: str, progress: MakeProgress) -> Path:
    """The folder of a miniature's part, rendered at first use: world, pretraining or stills."""
    spec = {"smoke": miniature.SMOKE, "mini": miniature.MINI}[scale]
    root = data_dir() / f"miniature-{spec.digest}" / part
    if processes.rank() == 0:
        renderer = {
            "world": miniature.render_world,
            "pretraining": miniature.render_pretraining,
            "stills": miniature.render_stills,
        }
        renderer[part](root, spec, progress=progress(f"render {scale} {part}"))
        if part == "world":
            miniature.write_person_boxes(root, spec)
    processes.barrier()
    return root


def pretrained_backbone(experiment: Experiment, progress: MakeProgress) -> dict:
    """Weights of a backbone that learned to classify clips (paper section 3.1, "Backbone").

    At the miniature scales it learns so here, once for all rows that share it; at paper scale
    its weights are read from the data folder, under the names of any library that is known.

    Raises:
        InputError: no such weights at paper scale, or weights of another network.
    """
    if experiment.scale == "paper":
        with torch.device("meta"):  # its names and shapes; the values are the file's
            network = build.backbone(experiment)
        path = find_pretrained(experiment.backbone, experiment.pretrain)
        weights, report = read_backbone(network, path)
        if processes.rank() == 0:
            print("\n".join(report.lines()), flush=True)
        return weights
    rendered = partial(render, experiment.scale, "pretraining", progress)
    pretrain_rendered(experiment, rendered, progress)
    path = pretrained_folder(experiment) / "checkpoint.pt"
    weights = read_weights(path, pretraining_digest(experiment))["model"]
    prefix = "backbone."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
