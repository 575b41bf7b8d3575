"""Pipelines of micro components, in folders laid out as the released ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from lgm.multiview.unet import MultiViewUNet

CONTEXT = 40
UNET = {
    "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "attention_resolutions": [2, 1], "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 16,
    "transformer_depth": 1, "context_dim": CONTEXT, "camera_dim": 16,
}  # fmt: skip


def write_pipeline(folder: Path, takes_image: bool, seed: int = 0) -> Path:
    """VAE, text encoder, tokenizer, scheduler, U-Net and, for an image, its encoder: random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    unet = MultiViewUNet(**UNET, **({"ip_dim": 16, "ip_weight": 1.0} if takes_image else {}))
    write_unet(folder / "unet", unet, takes_image)
    block = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    vae = AutoencoderKL(**block, block_out_channels=[8] * 4, norm_num_groups=4, latent_channels=4)
    vae.save_pretrained(folder / "vae")
    text = CLIPTextConfig(
        vocab_size=300, hidden_size=CONTEXT, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=298, eos_token_id=299, pad_token_id=299,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    # As the released ones: a class of the folder's own, which must never be looked for.
    index = {"_class_name": ["pipeline", "MVDreamPipeline"], "unet": ["mv_unet", "MultiViewUNetModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "pipeline.py").write_text("raise SystemExit('code of the folder was run')\n")
    if takes_image:
        vision = CLIPVisionConfig(
            hidden_size=1280, intermediate_size=16, num_hidden_layers=2, num_attention_heads=16,
            image_size=28, patch_size=14,
        )  # fmt: skip
        CLIPVisionModel(vision).save_pretrained(folder / "image_encoder")
        (folder / "feature_extractor").mkdir()
        (folder / "feature_extractor" / "preprocessor_config.json").write_text(
            json.dumps({"crop_size": 28, "size": 28, "feature_extractor_type": "CLIPFeatureExtractor"})
        )
    return folder


def write_unet(folder: Path, unet: MultiViewUNet, takes_image: bool) -> None:
    folder.mkdir(parents=True)
    config = {"_class_name": "MultiViewUNetModel", "_diffusers_version": "0.25.0", **UNET}
    config |= {"ip_dim": 16, "ip_weight": 1.0} if takes_image else {}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(unet.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def write_tokenizer(folder: Path) -> None:
    """Letters alone: CLIP's byte-pair encoding without merges."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": 298, "<|endoftext|>": 299}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"})
    )
