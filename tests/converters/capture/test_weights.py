import pickle

import pytest
import torch
from safetensors.torch import save_file

from edgekit_converters.capture.weights import apply_weights, load_weights
from edgekit_runtime.errors import Refused


@pytest.fixture
def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_state_dicts_load_with_prefixes_and_wrappers(tmp_path, module, wrap, prefix):
    path = tmp_path / "w.pth"
    torch.save(wrap({prefix + k: v for k, v in module.state_dict().items()}), path)
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    apply_weights(other, load_weights(path), str(path))
    assert torch.equal(other[0].weight, module[0].weight)


def test_safetensors_load(tmp_path, module):
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    assert set(load_weights(tmp_path / "w.safetensors")) == set(module.state_dict())


def test_a_pickled_module_is_refused_without_being_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(Refused):
        load_weights(path)


def test_a_whole_module_saved_with_torch_is_refused(tmp_path, module):
    torch.save(module, tmp_path / "w.pth")
    with pytest.raises(Refused, match="pickled module"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, module, suffix):
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(module.state_dict(), path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Refused, match="read"):
        load_weights(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(Refused, match="no such file"):
        load_weights(tmp_path / "none.pth")


def test_every_difference_of_a_state_dict_is_listed(module):
    state = dict(module.state_dict())
    state["extra.weight"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(9, 9)
    del state["0.bias"]
    with pytest.raises(Refused) as caught:
        apply_weights(module, state, "w")
    for word in ("missing (1): 0.bias", "unexpected (1): extra.weight", "(9, 9)", "(4, 3)"):
        assert word in caught.value.message


def test_batch_norm_counters_may_be_absent(module):
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    apply_weights(module, state, "w")
