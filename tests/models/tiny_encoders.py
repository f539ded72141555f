"""A tiny, random model of any text family of transformers, made from its config."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.models.auto import modeling_auto as auto

OTHERS = (
    "biogpt", "bloom", "canine", "ctrl", "falcon", "gemma", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama",
    "markuplm", "mistral", "mixtral", "modernbert-decoder", "mpt", "mt5", "openai-gpt", "opt", "phi", "qwen2",
    "t5", "umt5", "xlnet",
)  # fmt: skip
FAMILIES = sorted({*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *OTHERS})
"""Every family with a masked-language head, and causal models and encoder-decoders of each kind."""

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 64, "embedding_size": 16, "num_key_value_heads": 2, "head_dim": 8, "d_model": 16,
    "d_kv": 8, "d_ff": 16, "d_inner": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "n_layer": 2, "n_head": 2, "n_embd": 16,
    "n_inner": 16, "num_layers": 2, "num_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "ffn_dim": 16, "word_embed_proj_dim": 16, "num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 8, "decoder_start_token_id": 1,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "convbert": {"head_ratio": 1},
    "funnel": {"block_sizes": [1, 1], "d_head": 8, "num_hidden_layers": None, "num_attention_heads": None,
               "architectures": ["FunnelModel"]},
    "mobilebert": {"embedding_size": 8, "true_hidden_size": 8, "intra_bottleneck_size": 8},
    "squeezebert": {"q_groups": 1, "k_groups": 1, "v_groups": 1, "post_attention_groups": 1, "intermediate_groups": 1,
                    "output_groups": 1},
    "longformer": {"attention_window": 4}, "gpt_neo": {"attention_types": [[["global"], 2]]},
    "falcon": {"head_dim": None}, "gptj": {"rotary_dim": 4}, "xlnet": {"max_position_embeddings": None},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "attention_head_size": 8},
    "roc_bert": {"pronunciation_vocab_size": 40, "shape_vocab_size": 40, "pronunciation_embed_dim": 8,
                 "shape_embed_dim": 8}, "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "mra": {"num_block_per_row": 1}, "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
}  # fmt: skip


def tiny(family: str) -> PreTrainedModel:
    """Return a tiny encoder of a family, or raise transformers' error if the sizes do not fit the family."""
    default = AutoConfig.for_model(family)
    sizes = {name: value for name, value in SIZES.items() if hasattr(default, name)} | SPECIAL.get(family, {})
    torch.manual_seed(0)
    return AutoModel.from_config(type(default)(**{k: v for k, v in sizes.items() if v is not None}))
