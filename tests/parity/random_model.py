"""A model of transformers that has nothing in common with our defaults."""

import torch
from transformers import NanoChatConfig, NanoChatForCausalLM


def random_model(positions):
    """Another shape, base and cap, a vocabulary that 64 does not divide; the same weights each time."""
    config = NanoChatConfig(vocab_size=333, hidden_size=96, intermediate_size=200, num_hidden_layers=3,
                            num_attention_heads=6, num_key_value_heads=3, max_position_embeddings=positions,
                            rope_parameters={"rope_type": "default", "rope_theta": 777.0},
                            final_logit_softcapping=9.0)
    torch.manual_seed(3)
    model = NanoChatForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
