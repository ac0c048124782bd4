"""Keys of every dialect, and those that mean nothing here."""

import pytest

from core.errors import LayoutMismatch, Unprocessable
from core.layouts import LAYOUTS, SDXL, Layout
from core.loras.names import Name, Place, kohya_key, modules, name_of, other_half
from tests.support import loras

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.1"
TO_Q, TO_OUT = Place("unet", f"{BLOCK}.attn1.to_q"), Place("unet", f"{BLOCK}.attn2.to_out.0")
FIRST = Place("text_encoder", "encoder.layers.0.self_attn.q_proj")
SECOND = Place("text_encoder_2", "text_model.encoder.layers.31.mlp.fc1")

MEANINGS = {
    f"unet.{BLOCK}.attn1.to_q.lora_A.weight": Name(TO_Q, "a", "peft"),
    f"unet.{BLOCK}.attn1.to_q.lora_B.weight": Name(TO_Q, "b", "peft"),
    f"unet.{BLOCK}.attn1.to_q.lora_magnitude_vector": Name(TO_Q, "magnitude", "peft"),
    f"unet.{BLOCK}.attn2.to_out.0.lora.down.weight": Name(TO_OUT, "a", "diffusers"),
    f"unet.{BLOCK}.attn2.to_out.0.alpha": Name(TO_OUT, "alpha", "diffusers"),
    f"{BLOCK}.attn1.to_q.lora.up.weight": Name(TO_Q, "b", "diffusers"),
    f"unet.{BLOCK}.attn1.processor.to_q_lora.down.weight": Name(TO_Q, "a", "diffusers"),
    f"{BLOCK}.attn2.processor.to_out_lora.up.weight": Name(TO_OUT, "b", "diffusers"),
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q.lora_down.weight":
        Name(TO_Q, "a", "kohya"),
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0.lora_up.weight":
        Name(TO_OUT, "b", "kohya"),
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0.alpha":
        Name(TO_OUT, "alpha", "kohya"),
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.dora_scale":
        Name(FIRST, "magnitude", "kohya"),
    "lora_te2_text_model_encoder_layers_31_mlp_fc1.lora_up.weight": Name(SECOND, "b", "kohya"),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight":
        Name(FIRST, "a", "peft"),
    "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight":
        Name(FIRST, "b", "diffusers"),
    "text_encoder_2.text_model.encoder.layers.31.mlp.fc1.lora_linear_layer.down.weight":
        Name(SECOND, "a", "diffusers"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "name"), MEANINGS.items())
def test_what_keys_mean(key: str, name: Name) -> None:
    assert name_of(key) == name
    assert name.place in modules()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dialect", loras.WHOLE)
def test_every_module_is_found_in_every_dialect(dialect: str, layout: Layout) -> None:
    for module in layout.linear_modules():
        down, up, _ = loras.WHOLE[dialect]("unet", module)
        assert name_of(down).place == name_of(up).place == Place("unet", module)
        assert (other_half(down), other_half(up)) == (up, down)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_no_two_modules_share_a_key(layout: Layout) -> None:
    names = layout.linear_modules()
    assert len({kohya_key(module) for module in names}) == len(names)


def test_kohyas_key_is_that_of_stabilitys_code() -> None:
    """As its block tables have it: nine blocks down, one between, nine up."""
    for module in SDXL.linear_modules():
        assert f"{kohya_key(module)}.lora_up.weight" == loras.kohya_sgm("unet", module)[1]


@pytest.mark.parametrize(
    ("key", "code", "word"),
    [
        ("lora_unet_input_blocks_4_1_proj_in.hada_w1_a", "unsupported_lora", "LoHa"),
        ("lora_unet_input_blocks_1_0_in_layers_2.hada_t1", "unsupported_lora", "LoHa"),
        ("lora_unet_input_blocks_4_1_proj_in.lokr_w1", "unsupported_lora", "LoKr"),
        ("lora_unet_input_blocks_4_1_proj_in.lokr_w2_a", "unsupported_lora", "LoKr"),
        ("clip_l", "unsupported_lora", "textual inversion"),
        ("clip_g", "unsupported_lora", "textual inversion"),
        ("emb_params", "unsupported_lora", "textual inversion"),
        ("text_encoders_0", "unsupported_lora", "embeddings.pti"),
        ("bundle_emb.sks.clip_l", "unsupported_lora", "textual inversion"),
        ("lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight", "unsupported_lora", "LoCon"),
        ("lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight", "unsupported_lora", "LoCon"),
        ("lora_unet_input_blocks_3_0_op.alpha", "unsupported_lora", "LoCon"),
        ("lora_unet_input_blocks_4_1_proj_in.lora_mid.weight", "unsupported_lora", "LoCon"),
        ("lora_unet_input_blocks_4_1_proj_in.diff", "unsupported_lora", "convert"),
        ("model.diffusion_model.input_blocks.0.0.weight", "not_a_lora", "whole model"),
        ("conditioner.embedders.0.transformer.x.weight", "not_a_lora", "whole model"),
        ("first_stage_model.decoder.conv_in.weight", "not_a_lora", "whole model"),
        ("down_blocks.0.resnets.0.conv1.weight", "not_a_lora", "whole model"),
        ("conv_in.weight", "not_a_lora", "whole model"),
        ("text_model.embeddings.position_embedding.weight", "not_a_lora", "whole model"),
        ("transformer.single_blocks.0.lora_A.weight", "unsupported_lora", "convert"),
        ("unet.lora_A", "unsupported_lora", "convert"),
        ("x", "unsupported_lora", "convert"),
        ("", "unsupported_lora", "convert"),
    ],
)
def test_what_is_none_is_called_by_its_name(key: str, code: str, word: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        name_of(key)
    assert refused.value.code == code
    assert f"`{key.partition('.')[0]}" in refused.value.detail
    assert word in refused.value.detail


@pytest.mark.parametrize(
    "key",
    [
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_te1_text_model_encoder_layers_12_mlp_fc1.alpha",
        "lora_te2_text_model_encoder_layers_32_mlp_fc1.alpha",
        "lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
        "lora_unet_mid_block_attentions_0_transformer_blocks_10_ff_net_2.alpha",
        "lora_transformer_single_blocks_0.alpha",
    ],
)
def test_modules_of_other_models(key: str) -> None:
    with pytest.raises(LayoutMismatch, match=f"`{key.partition('.')[0]}`.*another model"):
        name_of(key)
