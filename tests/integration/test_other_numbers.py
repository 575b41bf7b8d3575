"""A run that goes on with other numbers of processes: each object of a pass once, by whichever process."""

from collections import Counter

import pytest

from tests.datasets import write_dataset
from tests.integration.running import MICRO, SHORT, start_script
from tests.uid_log import read

pytestmark = pytest.mark.slow
OPTIONS = [option for option in (*MICRO, *SHORT) if not option.startswith("trainer=")]


@pytest.mark.parametrize(
    ("numbers", "workers"), [((1, 2, 1), (0, 0, 0)), ((2, 3), (0, 0)), ((1, 1), (2, 0))], ids=str
)
def test_each_object_of_a_pass_is_seen_once(tmp_path, numbers, workers):
    """Steps of 6 objects, of a set of 12 · len(numbers): two steps with each number of processes make a
    pass."""
    shards = {2: (9, 4, 11), 3: (9, 4, 11, 12)}[len(numbers)]
    data = write_dataset(tmp_path / "set", train=shards, val=(3,))
    assert sum(shards) == 12 * len(numbers)
    run_dir = tmp_path / "run"
    for number, (processes, num_workers) in enumerate(zip(numbers, workers, strict=True), 1):
        trainer = ["trainer=cpu"] if processes == 1 else ["trainer=ddp_sim", f"trainer.devices={processes}"]
        result = start_script(
            "train.py", *OPTIONS, *trainer, f"data.path={data}", f"run_dir={run_dir}",
            f"train.max_steps={2 * number}", "train.val_every_steps=100", "train.checkpoint_every_steps=2",
            "train.global_batch_size=6", "data.micro_batch_size=1", f"data.num_workers={num_workers}",
            "+callbacks.uids._target_=tests.uid_log.UidLog", f"+callbacks.uids.folder={run_dir}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert ("begins where the former one stands" in result.stdout) == (number > 1)
    seen = read(run_dir)
    assert sorted(seen) == list(range(2 * len(numbers)))
    assert all(len(uids) == 6 for uids in seen.values())
    counts = Counter(uid for uids in seen.values() for uid in uids)
    assert len(counts) == sum(shards) and set(counts.values()) == {1}
