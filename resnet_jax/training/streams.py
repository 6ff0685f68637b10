"""A config's section `streaming`: its splits as streams, and what can be wrong with it."""

import jax
from ml_collections import ConfigDict

from resnet_jax.data import crops, records, streaming
from resnet_jax.runtime import multihost, parallel


def framing(config: ConfigDict) -> crops.Framing:
    """How the config's pictures become squares."""
    section = config.streaming
    return crops.Framing(
        size=config.dataset.image_size,
        scales=tuple(section.scales),
        shorter_side=section.shorter_side,
        flip=config.dataset.flip,
    )


def load_splits(
    config: ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[dict[str, streaming.Stream], tuple[str, ...]]:
    """The config's splits as streams, normalised as the training split is, and its classes."""
    dataset, section = config.dataset, config.streaming
    named = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    opened = {
        name: records.open(dataset.name, split, dataset.data_dir)
        for name, split in named.items()
        if split
    }
    multihost.same_everywhere("dataset", lambda: b"".join(map(_glance, opened.values())))
    train, squares = opened["train"], framing(config)
    receiver = streaming.Receiver(
        streaming.normalization(train, squares, dataset.mean, dataset.std), section.pca_lighting_std
    )
    receiver = parallel.place(receiver, parallel.replicated(mesh))
    splits = {
        name: streaming.Stream(
            part,
            receiver,
            augmentation=section.augmentation,
            framing=squares,
            rows=parallel.own_rows(mesh, config.batch_size),
            num_workers=section.num_workers,
        )
        for name, part in opened.items()
    }
    return splits, train.class_names


def _glance(part: records.Records) -> bytes:
    """What differs between copies of a split that are not the same, without reading them whole."""
    seen = [part[i] for i in (0, len(part) // 2, len(part) - 1)]
    return repr((len(part), part.class_names, seen)).encode()
