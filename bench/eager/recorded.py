"""The recorded methods, and their hyper-parameters under the names of `shared/methods`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Hyper = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A method's recording."""

    recording: str
    method: str
    # Translates the recorded hyper-parameters.
    hyper: Callable[[Hyper], Hyper]
    # Whether the recorded trainer used erased inputs.
    erased: bool = False
    # Whether the test split was evaluated after every epoch rather than once at the end.
    test_each_epoch: bool = False


def _at(recorded: Hyper, path: str) -> Any:
    """The value at a path like `model.heads` or `sizes.0`."""
    value: Any = recorded
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _almt(recorded: Hyper) -> Hyper:
    names = {
        "width": "dst_feature_dims",
        "embedding_hidden": "dst_feature_hidden_dims",
        "tokens": "dst_embedding_length",
        "embedding_depth": "embedding_depth",
        "embedding_heads": "embedding_heads",
        "language_heads": "l_encoder_heads",
        "hyper_depth": "AHL_depth",
        "hyper_heads": "h_hyper_layer_heads",
        "fusion_depth": "fusion_layer_depth",
        "fusion_heads": "fusion_heads",
        "fusion_hidden": "fusion_hidden_d",
    }
    own = {name: recorded[theirs] for name, theirs in names.items()}
    # Configured, and not used.
    return {**recorded, **own, "frames": 0, "max_grad_norm": -1.0}


def _lnln(recorded: Hyper) -> Hyper:
    names = {
        "learning_rate": "lr",
        "width": "model.feature_extractor.hidden_dims.0",
        "tokens": "model.feature_extractor.token_length.0",
        "heads": "model.feature_extractor.heads",
        "embedding_depth": "model.feature_extractor.depth",
        "proxy_depth": "model.dmc.proxy_dominant_feature_generator.depth",
        "discriminator_hidden": "model.dmc.effectiveness_discriminator.hidden_dim",
        "completeness_depth": "model.dmc.completeness_check.depth",
        "reconstructor_depth": "model.reconstructor.depth",
        "language_depth": "model.dmml.language_encoder.depth",
        "hyper_depth": "model.dmml.hyper_modality_learning.depth",
        "fusion_depth": "model.dmml.fuison_transformer.depth",
    }
    parts = ("dmc", "reconstructor", "dmml", "train_missing", "language", "audio", "vision")
    own = {name: _at(recorded, path) for name, path in names.items()}
    return {**recorded, **own, **dict.fromkeys(parts, True)}


def _misa(recorded: Hyper) -> Hyper:
    # Configured, and not used.
    unused = {"weight_decay": 0.0, "transformer_dropout": 0.0, "transformer_feedforward": 2048}
    return {**recorded, **unused}


def _mmim(recorded: Hyper) -> Hyper:
    return {**recorded, "bound_share": 0.5 if recorded["dataset_name"] == "mosei" else 1.0}


def _multi_task(recorded: Hyper) -> Hyper:
    return {**recorded, "label_bound": recorded["H"], "exclude_zero": recorded["excludeZero"]}


def _tfr_net(recorded: Hyper) -> Hyper:
    width, heads = recorded["dst_feature_dim_nheads"]
    return {**recorded, "dst_feature_dims": width, "nheads": heads}


def _emt_dlfr(recorded: Hyper) -> Hyper:
    return {**recorded, "standardize": recorded["use_normalized_data"]}


def _same(recorded: Hyper) -> Hyper:
    return dict(recorded)


CASES = {
    case.method: case
    for case in (
        Case("misa", "misa", _misa),
        Case("self_mm", "self-mm", _multi_task),
        Case("mmim", "mmim", _mmim),
        Case("cenet", "cenet", _same),
        Case("tetfn", "tetfn", _multi_task),
        Case("tfr_net", "tfr-net", _tfr_net, erased=True),
        Case("almt", "almt", _almt),
        Case("lnln", "lnln", _lnln, erased=True, test_each_epoch=True),
        Case("emt_dlfr", "emt-dlfr", _emt_dlfr, erased=True),
    )
}
