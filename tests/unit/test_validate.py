import pytest

from lgm.cli.runtime import one_line
from lgm.cli.validate import check_training, num_devices, plan_batches
from tests.unit.test_configs import composed


@pytest.mark.parametrize(
    ("overrides", "accumulation"),
    [
        (["train.global_batch_size=32", "data.micro_batch_size=8"], 4),
        (["train.global_batch_size=256", "data.micro_batch_size=8", "trainer=ddp8"], 4),
        (["train.global_batch_size=256", "data.micro_batch_size=8", "trainer=ddp_multinode"], 1),
    ],
)
def test_accumulation_is_derived(overrides, accumulation):
    assert plan_batches(composed(*overrides)).accumulation == accumulation


def test_a_remainder_is_refused_with_a_number_that_works():
    cfg = composed("train.global_batch_size=100", "data.micro_batch_size=8", "trainer=ddp8")
    with pytest.raises(
        ValueError, match=r"train.global_batch_size=100 is not a multiple .* 8 \* 8 = 64; try 64"
    ):
        plan_batches(cfg)


def test_devices():
    assert num_devices(composed("trainer=cpu", "trainer.devices=auto")) == 1
    assert num_devices(composed("trainer=ddp8")) == 8
    with pytest.raises(ValueError, match="trainer.devices='many'"):
        num_devices(composed("trainer.devices=many"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"data.path is not set: .* data=quickstart"),
        (["data=quickstart", "trainer=cpu", "train.max_steps=0"], "train.max_steps=0"),
        (["data=quickstart", "trainer=cpu", "train.val_every_steps=-1"], "train.val_every_steps=-1"),
        (["data=quickstart", "trainer=gpu", "trainer.devices=64"], "needs 64 GPUs"),
        (["data=quickstart", "trainer=cpu", "train.clip_grad_norm=0"], "train.clip_grad_norm=0"),
        (
            ["data=quickstart", "trainer=cpu", "init_from=x", "init_weights=emma"],
            "init_weights='emma' is not",
        ),
    ],
)
def test_mistakes_end_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_training(composed(*overrides))
    assert "\n" not in str(caught.value)


def test_the_line_is_found_in_what_libraries_wrap_around_it():
    worker = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n    raise ValueError\nValueError: object 7 is broken\n'
    )
    assert one_line(worker) == "object 7 is broken"
    assert one_line(ValueError("a\nb")) == "a"
