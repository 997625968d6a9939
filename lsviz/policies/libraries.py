"""The libraries' own scalers, a row each. A new one is a new row; each was read in the file it names."""

from __future__ import annotations

from typing import Final

from lsviz.policies.base import MIN_SCALE
from lsviz.policies.presets import Preset

_TORCH: Final = {
    "init_scale": 2.0**16,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
}
_FROM_LAST_OVERFLOW: Final = {"recount": False, "arithmetic": "fp64"}
_DEEPSPEED: Final = {
    "init_scale": 2.0**16,
    "growth_interval": 1000,
    "min_scale": 1.0,
    "hysteresis": 2,
    "consecutive_hysteresis": False,
    "raise_at_min_scale": True,
}

PRESETS: Final = (
    Preset(
        name="gradscaler",
        rule="S is halved at every overflow and doubled after 2,000 clean steps in a row; it has no floor.",
        source="torch.amp.GradScaler, torch 2.13, torch/amp/grad_scaler.py and the kernel _amp_update_scale_",
        settings=_TORCH,
        fixed={"arithmetic": "mixed", "beyond": "hold"},
    ),
    Preset(
        name="apex",
        rule="S is halved at every overflow and doubled after 2,000 clean steps in a row, up to 2^24.",
        source="NVIDIA apex of May 2025, its last, apex/amp/scaler.py, LossScaler (dynamic)",
        settings={
            "init_scale": 2.0**16,
            "growth_interval": 2000,
            "min_scale": None,
            "max_scale": 2.0**24,
        },
        fixed={"arithmetic": "fp64"},
    ),
    Preset(
        name="apex-contrib",
        rule="S is halved at every overflow, not below 1, and doubled at every 1,000th clean step after it.",
        source="NVIDIA apex, apex/contrib/optimizers/fp16_optimizer.py, FP16_Optimizer._update_scale",
        settings={"init_scale": 2.0**16, "growth_factor": 2.0, "growth_interval": 1000},
        fixed={"min_scale": 1.0, **_FROM_LAST_OVERFLOW},
    ),
    Preset(
        name="apex-fp16utils",
        rule="S starts at 2^32, is halved at every overflow, not below 1, and doubled at every 1,000th step "
        "after the last one.",
        source="NVIDIA apex, apex/fp16_utils/loss_scaler.py, DynamicLossScaler",
        settings={"init_scale": 2.0**32, "growth_factor": 2.0, "growth_interval": 1000},
        fixed={"min_scale": 1.0, **_FROM_LAST_OVERFLOW},
    ),
    Preset(
        name="megatron",
        rule="S starts at 2^32; from the 2nd overflow on, every one halves it, not below 1; after 1,000 "
        "clean steps in a row S doubles and earlier overflows are forgotten.",
        source="Megatron-LM core 0.16, megatron/core/optimizer/grad_scaler.py, DynamicGradScaler, with the "
        "defaults of its command line",
        settings={
            "init_scale": 2.0**32,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 1000,
            "min_scale": 1.0,
            "hysteresis": 2,
        },
    ),
    Preset(
        name="deepspeed",
        rule="From the 2nd overflow on, every one halves S, and one with S at its floor ends the run; S "
        "doubles at the 1,001st clean step and every 1,000th after it.",
        source="DeepSpeed 0.19 (2026), deepspeed/runtime/fp16/loss_scaler.py, DynamicLossScaler",
        settings=_DEEPSPEED,
        fixed={"late": 1, **_FROM_LAST_OVERFLOW},
    ),
    Preset(
        name="deepspeed-fused",
        rule="S is halved at every overflow, not below 1, and doubles at the 1,001st clean step and every "
        "1,000th after it.",
        source="DeepSpeed 0.19 (2026), deepspeed/runtime/fp16/fused_optimizer.py, "
        "FP16_Optimizer._update_scale",
        settings={"init_scale": 2.0**16, "growth_interval": 1000, "min_scale": 1.0},
        fixed={"late": 1, **_FROM_LAST_OVERFLOW},
    ),
    Preset(
        name="deepspeed2025",
        rule="From the 2nd overflow on, every one halves S, and one with S at its floor ends the run; S "
        "doubles at every 1,000th clean step after the last overflow.",
        source="DeepSpeed 0.16 (2025), deepspeed/runtime/fp16/loss_scaler.py, DynamicLossScaler, as its ZeRO "
        "optimizers use it",
        settings=_DEEPSPEED,
        fixed=_FROM_LAST_OVERFLOW,
    ),
    Preset(
        name="fairseq",
        rule="S starts at 2^7, is halved where the share of overflows since its last change reaches the "
        "tolerance, doubles at every 2^14th clean step, and at 10^-4 the run ends.",
        source="fairseq 0.12, fairseq/optim/dynamic_loss_scaler.py, with the defaults of its command line on "
        "one device",
        settings={
            "init_scale": 2.0**7,
            "growth_factor": 2.0,
            "growth_interval": 2**14,
            "tolerance": 0.0,
            "min_scale": None,
            "min_loss_scale": 1e-4,
        },
        fixed=_FROM_LAST_OVERFLOW,
    ),
    Preset(
        name="metaseq",
        rule="S starts at 4 with an interval of 256; both double at growth and halve at an overflow; S does "
        "not go below 2^-5.",
        source="metaseq 0.5, metaseq/optim/dynamic_loss_scaler.py",
        settings={
            "init_scale": 4.0,
            "growth_factor": 2.0,
            "growth_interval": 256,
            "tolerance": 0.0,
            "min_scale": 2.0**-5,
        },
        fixed={"interval_follows_scale": True, "keeps_above_floor": True, **_FROM_LAST_OVERFLOW},
    ),
    Preset(
        name="openseq2seq",
        rule="S starts at its ceiling of 2^14, is halved at every overflow, not below 1, and doubles at "
        "every 2,000th clean step.",
        # Its count is raised while it is read, in no fixed order; we take the read to come first.
        source="OpenSeq2Seq, open_seq2seq/optimizers/automatic_loss_scaler.py, BackoffScaler",
        settings={
            "init_scale": None,
            "growth_factor": 2.0,
            "growth_interval": 2000,
            "min_scale": 1.0,
            "max_scale": 2.0**14,
        },
        fixed={"recount": False},
    ),
    Preset(
        name="keras",
        rule="S starts at 2^15, is halved at every overflow, without a floor, and doubled after 2,000 clean "
        "steps in a row.",
        source="Keras 3.15, keras/src/optimizers/loss_scale_optimizer.py, LossScaleOptimizer",
        settings={"init_scale": 2.0**15, "growth_interval": 2000},
    ),
    Preset(
        name="tf",
        rule="S starts at 2^15, is halved at every overflow, not below 1, and doubled after 2,000 clean "
        "steps in a row.",
        source="TensorFlow 2.21, tensorflow/python/training/experimental/loss_scale.py, DynamicLossScale",
        settings={"init_scale": 2.0**15, "growth_factor": 2.0, "growth_interval": 2000},
        fixed={"min_scale": 1.0, "beyond": "hold"},
    ),
    Preset(
        name="jmp",
        rule="S starts at 2^15, is halved at every overflow, not below 1, and doubled after 2,000 clean "
        "steps in a row.",
        source="jmp 0.0.4, jmp/_src/loss_scale.py, DynamicLossScale",
        settings={"init_scale": 2.0**15, "growth_factor": 2.0, "growth_interval": 2000, "min_scale": 1.0},
        fixed={"beyond": "hold"},
    ),
    Preset(
        name="flax",
        rule="S is halved at every overflow, not below 2^-126, and doubled at the 2,001st clean step "
        "in a row.",
        source="Flax 0.12, flax/training/dynamic_scale.py, DynamicScale",
        settings={**_TORCH, "min_scale": MIN_SCALE},
        fixed={"late": 1, "beyond": "clip"},
    ),
    Preset(
        name="colossalai",
        rule="From the 2nd overflow on, every one halves S; after 1,000 clean steps in a row S doubles and "
        "earlier overflows are forgotten.",
        source="ColossalAI 0.5, colossalai/amp/naive_amp/grad_scaler/dynamic_grad_scaler.py",
        settings={
            "init_scale": 2.0**16,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 1000,
            "min_scale": None,
            "max_scale": None,
            "hysteresis": 2,
        },
    ),
    Preset(
        name="mindspore",
        rule="S starts at 2^24, is halved at every overflow, not below 1, and doubles at every 2,000th clean "
        "step; more than 1,000 overflows in a row end the run.",
        source="MindSpore 2.10, mindspore/train/loss_scale_manager.py, DynamicLossScaleManager",
        settings={"init_scale": 2.0**24, "growth_factor": 2.0, "growth_interval": 2000},
        fixed={"min_scale": 1.0, "max_overflows": 1000, "by_reciprocal": True, **_FROM_LAST_OVERFLOW},
    ),
    Preset(
        name="mindformers",
        rule="The growth interval climbs a ladder from 20 to 1,000, a rung after three growths, and falls to "
        "1 after three back-offs without a growth; S is halved at every overflow, not below 1.",
        source="MindFormers 1.x, mindformers/wrapper/adaptive_loss_scale.py, AdaptiveLossScaleUpdateCell",
        settings={
            "init_scale": 2.0**32,
            "growth_factor": 2.0,
            "growth_interval": 20,
            "min_interval": 20,
            "max_interval": 1000,
        },
        fixed={"min_scale": 1.0, "by_reciprocal": True},
    ),
    Preset(
        name="paddle",
        rule="S is halved after every overflow, or every decr_every_n in a row, without a floor, and doubled "
        "after 2,000 clean steps in a row.",
        source="PaddlePaddle 3.3, python/paddle/amp/grad_scaler.py, GradScaler._update",
        settings={**_TORCH, "decr_every_n": 1},
        fixed={"refill": "backoff"},
        aliases={"hysteresis": "decr_every_n"},
    ),
    Preset(
        name="mxnet",
        rule="S is halved at every overflow and doubled after 2,000 clean steps in a row, up to 2^24, and "
        "each new S comes into force one step late.",
        source="Apache MXNet 2.0 (and 1.9), python/mxnet/amp/loss_scaler.py, LossScaler",
        settings={"init_scale": 2.0**16, "growth_interval": 2000, "max_scale": 2.0**24},
        fixed={"delayed": True, "arithmetic": "fp64"},
    ),
)
"""Every library's scaler, in the order of menus."""
