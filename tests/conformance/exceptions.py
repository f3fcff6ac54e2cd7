"""Cases of ONNX's suite that are not planned, not executed, or not equal with ONNX Runtime's kernels, and why.

A case in none of the tables is planned, executed in the arena and gives the suite's outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Listed:
    """Cases that go another way than the rest.

    Attributes
    ----------
    patterns
        Their names, with ``*`` as in file names.
    message
        Part of the message that each of them ends in.
    reason
        Why that is right.
    """

    patterns: tuple[str, ...]
    message: str
    reason: str

    def covers(self, name: str) -> bool:
        """Whether a case is among them."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


#: Refused before there is a plan.
REFUSED = (
    Listed(
        (
            "test_ai_onnx_ml_label_encoder_string_int*", "test_ai_onnx_ml_label_encoder_tensor_mapping",
            "test_ai_onnx_ml_label_encoder_tensor_value_only_mapping", "test_equal_string*", "test_regex_full_match_*",
            "test_string_concat*", "test_string_split_*", "test_strnormalizer_*", "simple/test_strnorm_*",
        ),
        "has element type string, which has no known width",
        "A string has no size that is known before the model runs.",
    ),
    Listed(
        (
            "test_identity_sequence", "test_loop13_seq", "test_optional_get_element_sequence",
            "test_sequence_insert_at_*", "test_sequence_map_*",
        ),
        "is of kind sequence_type, whose size is not in the model",
        "How many tensors a sequence holds that comes in from outside is not in the model.",
    ),
    Listed(
        ("test_identity_opt", "test_loop16_seq_none", "test_optional_get_element_optional_sequence"),
        "is of kind optional_type, whose size is not in the model",
        "What comes in is an optional sequence.",
    ),
    Listed(
        ("test_if_opt", "test_if_seq"),
        "nothing is known of its result",
        "Which of two sequences of unlike tensors comes out is known only when the model runs.",
    ),
    Listed(
        (
            "test_reduce_log_sum_*axes_expanded", "test_reduce_log_sum_default_expanded",
            "test_reduce_log_sum_empty_set_expanded", "test_reduce_log_sum_exp_*_expanded", "test_reduce_l2_*_expanded",
        ),
        "depends on values that are known only when the model runs",
        "The axes are a graph input, and nothing states the rank of what lies between.",
    ),
    Listed(
        ("test_split_to_sequence_1", "test_split_to_sequence_2", "simple/test_sequence_model8"),
        "the sizes it splits into",
        "The sizes of the split are a graph input.",
    ),
    Listed(
        (
            "test_affine_grid_*_expanded", "test_blackmanwindow*_expanded", "test_center_crop_pad_*_expanded",
            "test_hammingwindow*_expanded", "test_hannwindow*_expanded", "test_range_*float16_type_*_expanded",
        ),
        "depends on values that are known only when the model runs",
        "A size, a shape or the limits of a range are graph inputs.",
    ),
)  # fmt: skip

#: Planned, and not executed.
NOT_EXECUTED = (
    Listed(
        ("test_bernoulli*", "test_training_dropout*"),
        "draws random numbers",
        "Two runs never agree, so a plan cannot be judged by its numbers.",
    ),
    Listed(
        ("test_optional_has_element_empty_optional_input",),
        "the model wants int32",
        "The optional that comes in is empty; a plan is for the tensor that it may hold.",
    ),
    Listed(
        ("simple/test_gradient_of_*",),
        "is not a registered function/op",
        "Neither ONNX Runtime nor the reference evaluator has the operator Gradient.",
    ),
)

#: Executed, and not equal with ONNX Runtime's kernels, whose fault it is: with the reference kernels they are equal.
ORT_DIFFERS = (
    Listed(
        ("test_dft*", "test_stft*"),
        "Mismatched elements",
        "ONNX Runtime's transform rounds by up to 1e-4 where the suite has exact zeros and allows 1e-7.",
    ),
    Listed(
        ("test_attention_4d_with_past_and_present_qk_matmul_bias_*_mask_causal",),
        "qk_matmul_output: Not equal",
        "ONNX Runtime masks with the lowest float32, the definition with minus infinity.",
    ),
    Listed(
        ("test_attention_4d_causal_fp16", "test_attention_4d_causal_fp16_expanded"),
        "Mismatched elements",
        "ONNX Runtime rounds a last bit of float16 another way, which is more than the suite allows.",
    ),
    Listed(
        ("test_maxunpool_export_with_output_shape",),
        "y: Not equal",
        "ONNX Runtime reads the indices in the stated output, the definition in the shape that follows without it.",
    ),
    Listed(
        ("test_resize_downsample_scales_*_align_corners",),
        "Y: Not equal",
        "ONNX Runtime aligns the corners of the rounded output, the definition those of the exact product.",
    ),
)


def find(table: tuple[Listed, ...], name: str) -> Listed | None:
    """The entry of a table that a case is in."""
    return next((entry for entry in table if entry.covers(name)), None)
