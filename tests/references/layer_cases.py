"""The cases of layers.py, as data: read by the script that needs torch and by the test.

Each is: the class in nn, its arguments, the shapes of the inputs, and options:

* `train`: compare in training mode, and the running statistics after.
* `forward`: keyword arguments of `forward`.
* `lengths`: lengths of the sequences (packed, in torch).
* `ints`: the number of ids below which integer inputs lie (inputs are whole numbers).
* `positive`: inputs are probabilities, between 0 and 1.
* `target`: the last input is a target, without a gradient: "values", class "ids" or "signs".
* `wrap`: "weight_norm" or "spectral_norm" around the layer.
* `rename`: arguments that torch spells otherwise.
"""

from __future__ import annotations

from typing import Any

Case = tuple[str, dict[str, Any], list[tuple[int, ...]], dict[str, Any]]

_MAPS = [(2, 3, 7, 5)]
_SEQUENCE = [(5, 3, 4)]
_SAME = [(3, 5), (3, 5)]


def _simple(names: str, shape: tuple[int, ...] = (3, 7), **arguments: Any) -> dict[str, Case]:
    return {name: (name, dict(arguments), [shape], {}) for name in names.split()}


CASES: dict[str, Case] = {
    "linear": ("Linear", {"in_features": 5, "out_features": 7}, [(2, 3, 5)], {}),
    "linear_plain": (
        "Linear",
        {"in_features": 5, "out_features": 1, "bias": False},
        [(4, 5)],
        {},
    ),
    "conv1d": (
        "Conv1d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "groups": 2},
        [(2, 4, 9)],
        {},
    ),
    "conv1d_same": (
        "Conv1d",
        {
            "in_channels": 2,
            "out_channels": 3,
            "kernel_size": 4,
            "dilation": 3,
            "padding": "same",
            "padding_mode": "circular",
        },
        [(2, 2, 11)],
        {},
    ),
    "conv2d": (
        "Conv2d",
        {"in_channels": 3, "out_channels": 5, "kernel_size": 3, "stride": (2, 1), "padding": 1},
        _MAPS,
        {},
    ),
    "conv2d_depthwise": (
        "Conv2d",
        {
            "in_channels": 3,
            "out_channels": 6,
            "kernel_size": (3, 2),
            "groups": 3,
            "dilation": (2, 1),
            "bias": False,
        },
        _MAPS,
        {},
    ),
    "conv2d_reflect": (
        "Conv2d",
        {
            "in_channels": 3,
            "out_channels": 2,
            "kernel_size": 3,
            "padding": (2, 1),
            "padding_mode": "reflect",
        },
        _MAPS,
        {},
    ),
    "conv2d_replicate_same": (
        "Conv2d",
        {
            "in_channels": 3,
            "out_channels": 2,
            "kernel_size": (4, 3),
            "padding": "same",
            "padding_mode": "replicate",
        },
        _MAPS,
        {},
    ),
    "conv2d_same": (
        "Conv2d",
        {"in_channels": 3, "out_channels": 2, "kernel_size": (4, 3), "padding": "same"},
        _MAPS,
        {},
    ),
    "conv_transpose1d": (
        "ConvTranspose1d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "groups": 2},
        [(2, 4, 5)],
        {"forward": {"output_size": [12]}},
    ),
    "conv_transpose2d": (
        "ConvTranspose2d",
        {
            "in_channels": 3,
            "out_channels": 2,
            "kernel_size": 4,
            "stride": 2,
            "padding": 1,
            "output_padding": (1, 0),
            "dilation": (1, 2),
        },
        [(2, 3, 4, 3)],
        {},
    ),
    "batch_norm1d": ("BatchNorm1d", {"num_features": 5}, [(6, 5)], {"train": True}),
    "batch_norm1d_sequence": (
        "BatchNorm1d",
        {"num_features": 5, "momentum": None},
        [(4, 5, 3)],
        {"train": True},
    ),
    "batch_norm2d": (
        "BatchNorm2d",
        {"num_features": 3, "eps": 1e-3, "momentum": 0.3},
        _MAPS,
        {"train": True},
    ),
    "batch_norm2d_eval": ("BatchNorm2d", {"num_features": 3}, _MAPS, {}),
    "batch_norm2d_stateless": (
        "BatchNorm2d",
        {"num_features": 3, "track_running_stats": False, "affine": False},
        _MAPS,
        {},
    ),
    "instance_norm1d": ("InstanceNorm1d", {"num_features": 4, "affine": True}, [(2, 4, 6)], {}),
    "instance_norm2d": ("InstanceNorm2d", {"num_features": 3}, _MAPS, {}),
    "instance_norm2d_tracking": (
        "InstanceNorm2d",
        {"num_features": 3, "affine": True, "track_running_stats": True},
        _MAPS,
        {"train": True},
    ),
    "layer_norm": ("LayerNorm", {"normalized_shape": 7}, [(2, 3, 7)], {}),
    "layer_norm_two": (
        "LayerNorm",
        {"normalized_shape": [3, 7], "eps": 1e-3, "bias": False},
        [(2, 3, 7)],
        {},
    ),
    "layer_norm_plain": (
        "LayerNorm",
        {"normalized_shape": 7, "elementwise_affine": False},
        [(2, 3, 7)],
        {},
    ),
    "rms_norm": ("RMSNorm", {"normalized_shape": 7}, [(2, 3, 7)], {}),
    "rms_norm_eps": ("RMSNorm", {"normalized_shape": [3, 7], "eps": 1e-2}, [(2, 3, 7)], {}),
    "group_norm": ("GroupNorm", {"num_groups": 3, "num_channels": 6}, [(2, 6, 5, 3)], {}),
    "embedding": (
        "Embedding",
        {"num_embeddings": 9, "embedding_dim": 4},
        [(3, 5)],
        {"ints": 9},
    ),
    "embedding_padding": (
        "Embedding",
        {"num_embeddings": 4, "embedding_dim": 3, "padding_idx": -2},
        [(3, 5)],
        {"ints": 4},
    ),
    **_simple("ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid Sigmoid LogSigmoid Tanh Softsign"),
    **_simple("GELU ELU CELU LeakyReLU Hardtanh Softplus"),
    "gelu_tanh": ("GELU", {"approximate": "tanh"}, [(3, 7)], {}),
    "elu_alpha": ("ELU", {"alpha": 0.5}, [(3, 7)], {}),
    "celu_alpha": ("CELU", {"alpha": 2.0}, [(3, 7)], {}),
    "leaky_relu_slope": ("LeakyReLU", {"negative_slope": 0.3}, [(3, 7)], {}),
    "hardtanh_limits": ("Hardtanh", {"min_val": -0.3, "max_val": 0.7}, [(3, 7)], {}),
    "softplus_beta": ("Softplus", {"beta": 2.5}, [(3, 7)], {}),
    "prelu": ("PReLU", {}, [(3, 7)], {}),
    "prelu_channels": ("PReLU", {"num_parameters": 3}, _MAPS, {}),
    **{
        name.lower(): (name, {"axis": 1}, _MAPS, {"rename": {"axis": "dim"}})
        for name in ("Softmax", "LogSoftmax", "Softmin")
    },
    "glu": ("GLU", {"axis": 1}, [(2, 6, 3)], {"rename": {"axis": "dim"}}),
    "flatten": (
        "Flatten",
        {"start_axis": 1, "end_axis": 2},
        _MAPS,
        {"rename": {"start_axis": "start_dim", "end_axis": "end_dim"}},
    ),
    "unflatten": (
        "Unflatten",
        {"axis": 1, "unflattened_size": [2, 3]},
        [(2, 6, 4)],
        {"rename": {"axis": "dim"}},
    ),
    "identity": ("Identity", {}, _MAPS, {}),
    "max_pool1d": ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1}, [(2, 3, 8)], {}),
    "max_pool2d": (
        "MaxPool2d",
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "dilation": (2, 1), "ceil_mode": True},
        [(2, 3, 9, 8)],
        {},
    ),
    "max_pool2d_default": ("MaxPool2d", {"kernel_size": 2}, _MAPS, {}),
    "avg_pool1d": ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1}, [(2, 3, 8)], {}),
    "avg_pool2d": (
        "AvgPool2d",
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True},
        [(2, 3, 9, 8)],
        {},
    ),
    "avg_pool2d_without_padding": (
        "AvgPool2d",
        {"kernel_size": 3, "padding": 1, "count_include_pad": False},
        _MAPS,
        {},
    ),
    "adaptive_avg_pool1d": ("AdaptiveAvgPool1d", {"output_size": 3}, [(2, 3, 7)], {}),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", {"output_size": [3, None]}, _MAPS, {}),
    "adaptive_avg_pool2d_one": ("AdaptiveAvgPool2d", {"output_size": 1}, _MAPS, {}),
    "adaptive_max_pool1d": ("AdaptiveMaxPool1d", {"output_size": 3}, [(2, 3, 7)], {}),
    "adaptive_max_pool2d": ("AdaptiveMaxPool2d", {"output_size": [3, 2]}, _MAPS, {}),
    **{
        f"{name}{axes}d": (f"{name}{axes}d", {"padding": padding}, shape, {})
        for name in ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")
        for axes, padding, shape in ((1, [2, 1], [(2, 3, 5)]), (2, [1, 2, 3, 0], _MAPS))
    },
    "constant_pad1d": ("ConstantPad1d", {"padding": 2, "value": 1.5}, [(2, 3, 5)], {}),
    "constant_pad2d": ("ConstantPad2d", {"padding": [1, 0, -1, 2], "value": -2.0}, _MAPS, {}),
    "upsample": ("Upsample", {"scale_factor": 2}, _MAPS, {}),
    "upsample_size": ("Upsample", {"size": [9, 4], "mode": "bilinear"}, _MAPS, {}),
    "upsample_bicubic": (
        "Upsample",
        {"scale_factor": 2.5, "mode": "bicubic", "align_corners": True},
        [(1, 2, 5, 4)],
        {},
    ),
    "upsampling_nearest2d": ("UpsamplingNearest2d", {"size": [10, 3]}, _MAPS, {}),
    "upsampling_bilinear2d": ("UpsamplingBilinear2d", {"scale_factor": 1.5}, _MAPS, {}),
    "pixel_shuffle": ("PixelShuffle", {"upscale_factor": 2}, [(2, 8, 3, 2)], {}),
    "pixel_unshuffle": ("PixelUnshuffle", {"downscale_factor": 3}, [(1, 2, 6, 3)], {}),
    "rnn": ("RNN", {"input_size": 4, "hidden_size": 3}, _SEQUENCE, {}),
    "rnn_relu": (
        "RNN",
        {
            "input_size": 4,
            "hidden_size": 3,
            "num_layers": 2,
            "nonlinearity": "relu",
            "bidirectional": True,
        },
        _SEQUENCE,
        {"lengths": [5, 2, 4]},
    ),
    "lstm": ("LSTM", {"input_size": 4, "hidden_size": 3, "bias": False}, _SEQUENCE, {}),
    "lstm_deep": (
        "LSTM",
        {"input_size": 4, "hidden_size": 3, "num_layers": 2, "bidirectional": True},
        [(3, 5, 4), (4, 3, 3), (4, 3, 3)],
        {"lengths": [3, 5, 1], "batch_first": True},
    ),
    "lstm_projected": (
        "LSTM",
        {"input_size": 4, "hidden_size": 5, "num_layers": 2, "bidirectional": True, "proj_size": 3},
        _SEQUENCE,
        {},
    ),
    "lstm_single": ("LSTM", {"input_size": 4, "hidden_size": 3}, [(5, 4)], {}),
    "gru": ("GRU", {"input_size": 4, "hidden_size": 3}, [(5, 3, 4), (1, 3, 3)], {}),
    "gru_deep": (
        "GRU",
        {"input_size": 4, "hidden_size": 3, "num_layers": 2, "bidirectional": True},
        _SEQUENCE,
        {"lengths": [5, 1, 3]},
    ),
    "gru_plain": ("GRU", {"input_size": 4, "hidden_size": 3, "bias": False}, _SEQUENCE, {}),
    "rnn_cell": ("RNNCell", {"input_size": 4, "hidden_size": 3}, [(2, 4), (2, 3)], {}),
    "lstm_cell": ("LSTMCell", {"input_size": 4, "hidden_size": 3}, [(2, 4), (2, 3), (2, 3)], {}),
    "gru_cell": ("GRUCell", {"input_size": 4, "hidden_size": 3}, [(2, 4)], {}),
    "attention": ("MultiheadAttention", {"embed_dim": 6, "num_heads": 2}, [(4, 3, 6)] * 3, {}),
    "attention_self": (
        "MultiheadAttention",
        {"embed_dim": 6, "num_heads": 3, "batch_first": True, "bias": False},
        [(3, 4, 6)],
        {"self": True, "forward": {"need_weights": False}},
    ),
    "attention_masked": (
        "MultiheadAttention",
        {"embed_dim": 6, "num_heads": 2, "batch_first": True},
        [(3, 4, 6), (3, 5, 6), (3, 5, 6)],
        {"padding": [5, 2, 4], "mask": True, "forward": {"average_attn_weights": False}},
    ),
    "attention_masked_fused": (
        "MultiheadAttention",
        {"embed_dim": 6, "num_heads": 2, "batch_first": True},
        [(3, 4, 6), (3, 5, 6), (3, 5, 6)],
        {"padding": [5, 2, 4], "mask": True, "forward": {"need_weights": False}},
    ),
    "attention_sizes": (
        "MultiheadAttention",
        {"embed_dim": 6, "num_heads": 2, "kdim": 5, "vdim": 3, "add_bias_kv": True},
        [(4, 3, 6), (5, 3, 5), (5, 3, 3)],
        {},
    ),
    "attention_extra": (
        "MultiheadAttention",
        {
            "embed_dim": 6,
            "num_heads": 2,
            "add_bias_kv": True,
            "add_zero_attn": True,
            "batch_first": True,
        },
        [(3, 4, 6), (3, 5, 6), (3, 5, 6)],
        {"padding": [5, 2, 4], "mask": True},
    ),
    "attention_single": ("MultiheadAttention", {"embed_dim": 6, "num_heads": 2}, [(4, 6)] * 3, {}),
    "encoder_layer": (
        "TransformerEncoderLayer",
        {"d_model": 6, "nhead": 2, "dim_feedforward": 7},
        [(4, 3, 6)],
        {},
    ),
    "encoder_layer_first": (
        "TransformerEncoderLayer",
        {
            "d_model": 6,
            "nhead": 2,
            "dim_feedforward": 7,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
            "layer_norm_eps": 1e-3,
        },
        [(3, 4, 6)],
        {"causal": 4},
    ),
    "weight_norm": (
        "Conv2d",
        {"in_channels": 3, "out_channels": 2, "kernel_size": 3},
        _MAPS,
        {"wrap": "weight_norm"},
    ),
    "weight_norm_last": (
        "Linear",
        {"in_features": 5, "out_features": 4},
        [(3, 5)],
        {"wrap": "weight_norm", "axis": 1},
    ),
    "spectral_norm": (
        "Conv2d",
        {"in_channels": 3, "out_channels": 2, "kernel_size": 3},
        _MAPS,
        {"wrap": "spectral_norm", "train": True},
    ),
    "spectral_norm_eval": (
        "ConvTranspose2d",
        {"in_channels": 3, "out_channels": 2, "kernel_size": 3},
        _MAPS,
        {"wrap": "spectral_norm"},
    ),
    "cross_entropy": ("CrossEntropyLoss", {}, [(6, 5), (6,)], {"target": "ids"}),
    "cross_entropy_maps": (
        "CrossEntropyLoss",
        {"ignore_index": 2, "label_smoothing": 0.2, "reduction": "sum"},
        [(2, 5, 3, 2), (2, 3, 2)],
        {"target": "ids"},
    ),
    "nll": ("NLLLoss", {"reduction": "none"}, [(6, 5), (6,)], {"target": "ids"}),
    "bce": ("BCELoss", {}, _SAME, {"target": "values", "positive": True}),
    "bce_with_logits": ("BCEWithLogitsLoss", {}, _SAME, {"target": "values", "positive": True}),
    **{
        f"{name}_{reduction}": (name, {"reduction": reduction}, _SAME, {"target": "values"})
        for name in ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss")
        for reduction in ("mean", "sum", "none")
    },
    "huber_delta": ("HuberLoss", {"delta": 0.4}, _SAME, {"target": "values"}),
    "smooth_l1_beta": ("SmoothL1Loss", {"beta": 0.4}, _SAME, {"target": "values"}),
    "kl_div": (
        "KLDivLoss",
        {"reduction": "batchmean"},
        _SAME,
        {"target": "values", "positive": True},
    ),
    "kl_div_log": (
        "KLDivLoss",
        {"reduction": "sum", "log_target": True},
        _SAME,
        {"target": "values"},
    ),
    "cosine_similarity": (
        "CosineSimilarity",
        {"axis": -1},
        [(3, 5), (3, 5)],
        {"rename": {"axis": "dim"}},
    ),
    "pairwise_distance": ("PairwiseDistance", {"p": 3.0}, [(3, 5), (3, 5)], {}),
    "triplet": ("TripletMarginLoss", {"margin": 2.0, "swap": True}, [(4, 5)] * 3, {}),
    "cosine_embedding": (
        "CosineEmbeddingLoss",
        {"margin": -0.2},
        [(6, 5), (6, 5), (6,)],
        {"target": "signs"},
    ),
}
