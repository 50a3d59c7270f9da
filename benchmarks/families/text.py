"""Models of transformers, from configs: of text, sound and images."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from families.model import BATCH, TOKENS, VOCABULARY, Built, Draw


def build(name: str, draw: Draw, options: Mapping[str, Any]) -> Built:
    """Build a model class of transformers from a config of its own class."""
    library = importlib.import_module("transformers")
    kind = getattr(library, name)
    model = kind(kind.config_class(**options))
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return model, draw


def tokens() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, VOCABULARY, (BATCH, TOKENS))}


def two_texts() -> dict[str, Any]:
    return {**tokens(), "decoder_input_ids": tokens()["input_ids"]}


def image() -> dict[str, Any]:
    return {"pixel_values": torch.randn(BATCH, 3, 32, 32)}


def text_and_image() -> dict[str, Any]:
    return tokens() | image()


def sound() -> dict[str, Any]:
    return {"input_values": torch.randn(BATCH, 1600)}


def spectrum_and_text() -> dict[str, Any]:
    spectrum = torch.randn(BATCH, 8, 2 * TOKENS)
    return {"input_features": spectrum, "decoder_input_ids": tokens()["input_ids"]}


_SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_TEXT: dict[str, Any] = {**_SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
_ENDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GROUPED: dict[str, Any] = {**_TEXT, **_ENDS, "num_key_value_heads": 2}
_IMAGE: dict[str, Any] = {**_SMALL, "image_size": 32, "patch_size": 8}
_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    **_ENDS,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
}
_GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, **_ENDS}

TRANSFORMERS: dict[str, dict[str, tuple[Draw, dict[str, Any]]]] = {
    "language, decoder": {
        "GPT2LMHeadModel": (tokens, _GPT2),
        "GPTNeoForCausalLM": (
            tokens,
            {**_TEXT, **_ENDS, "num_layers": 2, "num_heads": 4}
            | {"attention_types": [[["global", "local"], 1]], "window_size": 4},
        ),
        "GPTNeoXForCausalLM": (tokens, {**_TEXT, **_ENDS}),
        "GPTJForCausalLM": (tokens, {**_GPT2, "rotary_dim": 8}),
        "LlamaForCausalLM": (tokens, _GROUPED),
        "MistralForCausalLM": (tokens, _GROUPED),
        "Qwen2ForCausalLM": (tokens, _GROUPED),
        "Qwen3ForCausalLM": (tokens, {**_GROUPED, "head_dim": 16}),
        "GemmaForCausalLM": (tokens, {**_GROUPED, "head_dim": 16}),
        "Gemma2ForCausalLM": (tokens, {**_GROUPED, "head_dim": 16}),
        "PhiForCausalLM": (tokens, _GROUPED),
        "Phi3ForCausalLM": (tokens, _GROUPED),
        "OPTForCausalLM": (
            tokens,
            {**_TEXT, **_ENDS, "ffn_dim": 128, "word_embed_proj_dim": 32},
        ),
        "BloomForCausalLM": (
            tokens,
            {"vocab_size": VOCABULARY, "n_layer": 2, "n_head": 4} | _SMALL,
        ),
        "FalconForCausalLM": (tokens, _TEXT),
        "OlmoForCausalLM": (tokens, _GROUPED),
        "CohereForCausalLM": (tokens, _GROUPED),
        "StableLmForCausalLM": (tokens, _GROUPED),
        "Starcoder2ForCausalLM": (tokens, _GROUPED),
    },
    "language, experts": {
        "MixtralForCausalLM": (tokens, {**_GROUPED, "num_local_experts": 4}),
        "Qwen2MoeForCausalLM": (
            tokens,
            {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
            | {"shared_expert_intermediate_size": 64},
        ),
        "Qwen3MoeForCausalLM": (
            tokens,
            {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
            | {"head_dim": 16},
        ),
        "DeepseekV3ForCausalLM": (
            tokens,
            {**_GROUPED, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2}
            | {"topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
            | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8}
            | {"qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1},
        ),
        "GptOssForCausalLM": (
            tokens,
            {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
        ),
        "OlmoeForCausalLM": (tokens, {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
        "SwitchTransformersForConditionalGeneration": (
            two_texts,
            {**_T5, "num_experts": 4, "num_sparse_encoder_layers": 1}
            | {"num_sparse_decoder_layers": 1, "num_decoder_layers": 2, "expert_capacity": 16},
        ),
    },
    "language, state space": {
        "MambaForCausalLM": (tokens, {**_TEXT, **_ENDS, "state_size": 8}),
        "Mamba2ForCausalLM": (
            tokens,
            {**_TEXT, **_ENDS, "state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 2}
            | {"chunk_size": 8},
        ),
        "RwkvForCausalLM": (tokens, {**_TEXT, **_ENDS, "attention_hidden_size": 64}),
        "RecurrentGemmaForCausalLM": (
            tokens,
            {**_GROUPED, "num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 8},
        ),
        "JambaForCausalLM": (
            tokens,
            {**_GROUPED, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
            | {"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8}
            | {"mamba_dt_rank": 4, "use_mamba_kernels": False},
        ),
    },
    "language, encoder": {
        "BertForMaskedLM": (tokens, _TEXT),
        "RobertaForMaskedLM": (tokens, {**_TEXT, "pad_token_id": 1}),
        "AlbertForMaskedLM": (tokens, {**_TEXT, "embedding_size": 32}),
        "ElectraForMaskedLM": (tokens, {**_TEXT, "embedding_size": 32}),
        "DistilBertForMaskedLM": (
            tokens,
            {"vocab_size": VOCABULARY, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4},
        ),
        "DebertaV2ForMaskedLM": (
            tokens,
            {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
            | {"max_relative_positions": 32, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
            | {"share_att_key": True},
        ),
        "ModernBertForMaskedLM": (tokens, {**_TEXT, **_ENDS, "cls_token_id": 1, "sep_token_id": 2}),
        "XLNetLMHeadModel": (
            tokens,
            {"vocab_size": VOCABULARY, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128},
        ),
        "FunnelForMaskedLM": (
            tokens,
            {"vocab_size": VOCABULARY, "block_sizes": [1, 1], "d_model": 64, "n_head": 4}
            | {"d_head": 16, "d_inner": 128, "num_decoder_layers": 1},
        ),
        "FNetForMaskedLM": (tokens, _TEXT),
        "ConvBertForMaskedLM": (tokens, {**_TEXT, "embedding_size": 32}),
        "LongformerForMaskedLM": (tokens, {**_TEXT, "attention_window": 8}),
        "BigBirdForMaskedLM": (tokens, {**_TEXT, "attention_type": "original_full"}),
    },
    "language, encoder and decoder": {
        "T5ForConditionalGeneration": (two_texts, _T5),
        "MT5ForConditionalGeneration": (two_texts, _T5),
        "BartForConditionalGeneration": (two_texts, _BART),
        "PegasusForConditionalGeneration": (two_texts, _BART),
    },
    "sound": {
        "Wav2Vec2ForCTC": (
            sound,
            {**_SMALL, "vocab_size": VOCABULARY, "conv_dim": (32, 32), "conv_kernel": (10, 3)}
            | {"conv_stride": (5, 2), "num_feat_extract_layers": 2, "apply_spec_augment": False}
            | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        ),
        "HubertForCTC": (
            sound,
            {**_SMALL, "vocab_size": VOCABULARY, "conv_dim": (32, 32), "conv_kernel": (10, 3)}
            | {"conv_stride": (5, 2), "num_feat_extract_layers": 2, "apply_spec_augment": False}
            | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        ),
        "WhisperForConditionalGeneration": (
            spectrum_and_text,
            {**_BART, "num_mel_bins": 8, "max_source_positions": TOKENS}
            | {"max_target_positions": 64, "decoder_start_token_id": 1},
        ),
        "ASTForAudioClassification": (
            lambda: {"input_values": torch.randn(BATCH, 32, 16)},
            {**_SMALL, "max_length": 32, "num_mel_bins": 16, "patch_size": 8}
            | {"frequency_stride": 8, "time_stride": 8},
        ),
    },
    "images, and images with text": {
        "CLIPModel": (
            text_and_image,
            {"text_config": {**_TEXT, **_ENDS}, "vision_config": _IMAGE, "projection_dim": 32},
        ),
        "SiglipModel": (
            text_and_image,
            {"text_config": {**_TEXT, **_ENDS}, "vision_config": _IMAGE},
        ),
        "ViTMAEForPreTraining": (
            image,
            {**_IMAGE, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
            | {"decoder_num_attention_heads": 4, "decoder_intermediate_size": 64},
        ),
        "Dinov2ForImageClassification": (image, _IMAGE),
        "SegformerForSemanticSegmentation": (
            lambda: {"pixel_values": torch.randn(BATCH, 3, 64, 64)},
            {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 64], "decoder_hidden_size": 32},
        ),
        "DPTForDepthEstimation": (
            image,
            {**_IMAGE, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
            | {"neck_hidden_sizes": [16, 16, 32, 32], "fusion_hidden_size": 16},
        ),
        "PerceiverForImageClassificationLearned": (
            lambda: {"inputs": torch.randn(BATCH, 3, 16, 16)},
            {"num_latents": 8, "d_latents": 32, "num_blocks": 1, "num_self_attends_per_block": 1}
            | {"num_self_attention_heads": 4, "num_cross_attention_heads": 1, "image_size": 16},
        ),
    },
}
