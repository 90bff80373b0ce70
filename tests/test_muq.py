"""MuQ as the rest of the tool sees it: finding weights, settings, memory, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from typing import ClassVar

import make_muq_golden as golden
import numpy as np
import pytest
import torch
from encoder_contract import EncoderContract
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tune_cache.cache.batching import fitting_batch
from tune_cache.encoders.base import get_encoder
from tune_cache.encoders.muq import ENCODER, NANO, checkpoint, ops
from tune_cache.encoders.muq import encoder as encoder_module
from tune_cache.encoders.muq import memory as memory_module
from tune_cache.encoders.muq.checkpoint import find_published, open_tensors
from tune_cache.encoders.muq.config import MuqConfig, n_frames_of
from tune_cache.encoders.muq.encoder import MuqEncoder, check_precision, find_device
from tune_cache.encoders.muq.memory import (
    FRAMES,
    GPU_SCRATCH,
    LARGEST_HEAP_BLOCK,
    MEL_FRAMES,
    SCRATCH,
    SMALL_IMAGE,
    Memory,
    Plan,
    Tidy,
    give_back,
    image_bytes,
    make_plan,
    peak_bytes,
)
from tune_cache.errors import EncoderError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def nano():
    return NANO.load(device="cpu", poolings=("mean", "max", "std"))


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny MuQ, to be damaged."""
    target = tmp_path / "weights"
    shutil.copytree(golden.FOLDER, target)
    (target / "states.safetensors").unlink()
    return target


def tiny(precision: str, **settings) -> MuqEncoder:
    """The tiny MuQ on the CPU, past the checks of what a precision is good for."""
    usual = {"layers": None, "poolings": ("mean",), "max_memory_bytes": None}
    return MuqEncoder(
        "muq",
        golden.FOLDER / "model.safetensors",
        MuqConfig.read(golden.FOLDER / "config.json"),
        lambda: ENCODER.describe(path=golden.FOLDER).spec,
        precision=precision,
        device=CPU,
        **(usual | settings),
    )


class TestNano(EncoderContract):
    factory = NANO
    load_kwargs: ClassVar = {"device": "cpu"}
    atol = 1e-5  # items this short share matrix products

    def n_frames(self, n_samples):
        return n_frames_of(n_samples)


class TestFromFolder(EncoderContract):
    factory = ENCODER
    describe_kwargs: ClassVar = {"path": golden.FOLDER}
    load_kwargs: ClassVar = {"path": golden.FOLDER, "device": "cpu"}
    atol = 1e-5


# -- what it is ---------------------------------------------------------------------------------


def test_describing_imports_neither_torch_nor_muq():
    code = (
        "import sys; from tune_cache.encoders.base import get_encoder; "
        "print(get_encoder('muq-nano').describe().n_layers, "
        "sorted({'torch', 'muq', 'transformers', 'huggingface_hub'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5 []"


@pytest.mark.parametrize("name", ["muq", "muq-nano"])
def test_registry_knows_it_by_name(name):
    assert get_encoder(name).name == name


def test_loaded_encoder_is_what_was_described(nano):
    info = NANO.describe()
    assert nano.spec() == info.spec
    for field in ("name", "sample_rate", "n_layers", "dim", "frame_rate_hz", "min_samples"):
        assert getattr(nano, field) == getattr(info, field), field


def test_random_weights_and_licences_are_said(monkeypatch):
    assert NANO.describe().note == "random weights"
    unknown = ENCODER.describe(path=golden.FOLDER)
    assert "CC BY-NC 4.0" in unknown.license_note
    assert "not the known ones" in unknown.note
    published = replace(ENCODER, known_sha256=unknown.spec.weights_sha256)
    assert published.describe(path=golden.FOLDER).note == ""


def test_identity_sees_weights_precision_and_configuration_and_nothing_else(folder):
    usual = ENCODER.describe(path=folder).spec
    assert ENCODER.describe(path=golden.FOLDER).spec == usual
    assert ENCODER.describe(path=folder, precision="bf16").spec != usual
    assert ENCODER.describe(path=folder, hash_file=lambda path: "f" * 64).spec != usual
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["mask_prob"] = 0.5  # of pre-training
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    assert ENCODER.describe(path=folder).spec == usual
    config["stat"]["melspec_2048_mean"] = 0.0
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    assert ENCODER.describe(path=folder).spec != usual


# -- what it computes ---------------------------------------------------------------------------


def test_early_exit_gives_the_same_bits_with_fewer_blocks(nano):
    waveforms = golden.waveforms(30_000)
    shallow = NANO.load(device="cpu", layers=(0, 2))
    assert len(shallow._forward.blocks) == 2
    np.testing.assert_array_equal(
        shallow.embed(waveforms)["mean"], nano.embed(waveforms)["mean"][:, [0, 2]]
    )


@pytest.mark.parametrize("n_samples", [123_120, 240_000])  # 129 and 250 frames
def test_item_that_is_not_short_has_the_same_bits_in_every_batch(nano, n_samples):
    once = golden.waveforms(n_samples)
    waveforms = np.concatenate([once, once[::-1]])
    together = nano.embed(waveforms)
    for pooling, values in together.items():
        np.testing.assert_array_equal(values, nano.embed(waveforms)[pooling])
        np.testing.assert_array_equal(values[2:3], nano.embed(waveforms[2:3])[pooling])
        np.testing.assert_array_equal(values[[0, 1]], values[[3, 2]])


@pytest.mark.parametrize("n_samples", [1025, 1200, 23_999, 70_000])
def test_short_item_agrees_with_itself_alone(nano, n_samples):
    rng = np.random.default_rng(0)
    waveforms = rng.normal(size=(9, n_samples)).astype("f4") * np.geomspace(1e-4, 1, 9)[:, None]
    waveforms = waveforms.astype("f4")
    together = nano.embed(waveforms)
    for item in range(9):
        for pooling, values in nano.embed(waveforms[item : item + 1]).items():
            np.testing.assert_allclose(values[0], together[pooling][item], rtol=0, atol=1e-5)


def test_silence_and_full_scale_come_out_finite(nano):
    waveforms = np.stack([np.zeros(30_000), np.ones(30_000), np.tile([1, -1], 15_000)])
    for values in nano.embed(waveforms.astype("f4")).values():
        assert np.isfinite(values).all()
        assert values.dtype == np.float32


def test_settings_of_the_caller_neither_matter_nor_change(nano):
    waveforms = golden.waveforms(30_000)
    expected = nano.embed(waveforms)["mean"]
    backends = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul)
    torch.set_float32_matmul_precision("medium")  # rounds to bfloat16, on this CPU too
    torch.set_default_dtype(torch.float64)
    try:
        before = [switch.fp32_precision for switch in switches]
        assert before[2] == "bf16"
        with torch.autocast("cpu", torch.bfloat16):
            np.testing.assert_array_equal(nano.embed(waveforms)["mean"], expected)
            assert torch.is_autocast_enabled("cpu")
        assert [switch.fp32_precision for switch in switches] == before
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        torch.testing.assert_close(NANO.load(device="cpu").embed(waveforms)["mean"], expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")


def test_tf32_is_off_unless_asked_for():
    for tf32, word in ((False, "ieee"), (True, "tf32")):
        with ops.exact_math(torch.device("cuda"), tf32=tf32):
            assert torch.backends.cuda.matmul.fp32_precision == word
            assert torch.backends.cudnn.conv.fp32_precision == word


def test_forward_refuses_to_run_where_gradients_are_kept(nano):
    states = nano._forward.states(torch.zeros(1, 2000), Plan(n_items=1, mel_frames=400, frames=9))
    with pytest.raises(EncoderError, match="outside inference mode"):
        next(states)


def test_products_without_onednn_agree(monkeypatch, nano):
    waveforms = golden.waveforms(30_000)
    expected = nano.embed(waveforms)["mean"]
    monkeypatch.setattr(ops, "has_onednn", lambda: False)
    plain = NANO.load(device="cpu")
    assert not plain._forward.blocks[0].ffn1[1].packed
    np.testing.assert_allclose(plain.embed(waveforms)["mean"], expected, rtol=0, atol=1e-5)


# -- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_stay_close_to_fp32(precision):
    waveforms = golden.waveforms(79_200)
    exact = ENCODER.load(path=golden.FOLDER, device="cpu").embed(waveforms)["mean"]
    rough = tiny(precision).embed(waveforms)["mean"]
    assert rough.dtype == np.float32
    error = np.abs(rough - exact).max()
    assert 0 < error < {"bf16": 0.05, "fp16": 0.008}[precision]


def test_what_fp16_cannot_represent_is_encoded_again_in_fp32_and_counted(monkeypatch):
    waveforms = golden.waveforms(24_000)
    encoder = tiny("fp16")
    rough = encoder.embed(waveforms)["mean"]
    assert encoder.n_recomputed == 0
    pooled = encoder._forward.pooled

    def overflowing(*arguments):
        result = pooled(*arguments)
        result["mean"][1, 2, 3] = np.inf
        return result

    monkeypatch.setattr(encoder._forward, "pooled", overflowing)
    again = encoder.embed(waveforms)["mean"]
    exact = tiny("fp32").embed(waveforms[1:])["mean"]
    assert encoder.n_recomputed == 1
    np.testing.assert_array_equal(again[0], rough[0])
    np.testing.assert_array_equal(again[1], exact[0])


def test_items_that_fp16_cannot_represent_go_through_fp32_one_at_a_time(monkeypatch):
    encoder, sizes = tiny("fp16"), []
    pooled, exactly = encoder._forward.pooled, encoder._exact.pooled

    def overflowing(*arguments):
        result = pooled(*arguments)
        result["mean"][:2, 2, 3] = np.inf
        return result

    def counted(batch, *arguments):
        sizes.append(len(batch))
        return exactly(batch, *arguments)

    monkeypatch.setattr(encoder._forward, "pooled", overflowing)
    monkeypatch.setattr(encoder._exact, "pooled", counted)
    waveforms = golden.waveforms(24_000)
    found = encoder.embed(waveforms)["mean"]
    assert (sizes, encoder.n_recomputed) == ([1, 1], 2)
    for item in range(2):
        exact = tiny("fp32").embed(waveforms[item : item + 1])["mean"]
        np.testing.assert_array_equal(found[item], exact[0])


def test_output_that_is_not_finite_is_an_error(monkeypatch):
    encoder = tiny("fp32")
    pooled = {"mean": torch.full((2, 4, 16), torch.nan)}
    monkeypatch.setattr(encoder._forward, "pooled", lambda *arguments: pooled)
    with pytest.raises(EncoderError, match="NaN or infinite values for 2 of 2 items in fp32"):
        encoder.embed(golden.waveforms(24_000))


@dataclass(frozen=True)
class Refusal:
    id: str
    device: str
    precision: str
    match: str
    capability: tuple[int, int] = (7, 5)


REFUSALS = [
    Refusal("bf16-turing", "cuda", "bf16", r"compute capability 7\.5 .* emulated"),
    Refusal("tf32-turing", "cuda", "tf32", r"compute capability 7\.5 "),
    Refusal("tf32-cpu", "cpu", "tf32", "exists on GPUs only"),
    Refusal("fp16-cpu", "cpu", "fp16", "exists on GPUs only"),
    Refusal("bf16-old-cpu", "cpu", "bf16", "no bf16 instructions"),
    Refusal("unknown", "cpu", "fp8", "expected one of fp32, tf32, bf16, fp16"),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_precision_is_refused_with_the_reason(monkeypatch, case):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: case.capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    with pytest.raises(EncoderError, match=case.match) as refusal:
        check_precision(case.precision, torch.device(case.device))
    assert "fp32" in str(refusal.value.hint)


def test_precision_is_allowed_where_the_hardware_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        check_precision(precision, torch.device("cuda"))
    check_precision("bf16", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    check_precision("fp16", torch.device("cuda"))


def test_unknown_precision_is_refused_before_weights_are_hashed():
    with pytest.raises(EncoderError, match="precision is 'half'"):
        NANO.describe(precision="half", hash_file=lambda path: pytest.fail("hashed"))


@pytest.mark.parametrize("name", ["cuda:99", "mps", "tpu-3", ""])
def test_device_that_is_not_here_is_refused(name):
    with pytest.raises(EncoderError, match=f"device is '{name}'"):
        find_device(name)


# -- memory -------------------------------------------------------------------------------------


@example(seconds=1.0, n_items=1, megabytes=18, on_cpu=False)
@given(
    seconds=st.floats(0.05, 4000),
    n_items=st.integers(1, 64),
    megabytes=st.integers(1, 4000),
    on_cpu=st.booleans(),
)
def test_plan_keeps_within_the_memory_or_says_what_it_needs(seconds, n_items, megabytes, on_cpu):
    config = MuqConfig.read(golden.FOLDER / "config.json")
    config = replace(config, conv_dim=512, dim=1024, ffn_dim=4096)
    size = {"n_samples": max(1025, int(seconds * 24_000)), "itemsize": 4, "on_cpu": on_cpu}
    wanted = {"n_items": n_items, "max_memory_bytes": megabytes * 10**6}
    least = Plan(n_items=1, mel_frames=MEL_FRAMES[-1], frames=FRAMES[-1])
    if peak_bytes(config, least, **size) > megabytes * 10**6:
        with pytest.raises(EncoderError, match="MB above the weights") as error:
            make_plan(config, **wanted, **size)
        assert "--max-memory" in str(error.value.hint)
        return
    plan = make_plan(config, **wanted, **size)
    assert peak_bytes(config, plan, **size) <= megabytes * 10**6
    assert 1 <= plan.n_items <= n_items
    assert plan.mel_frames % 4 == 0


def test_less_memory_gives_the_same_embedding(nano):
    waveforms = golden.waveforms(240_000)
    needed = nano.peak_bytes(2, 240_000)
    thrifty = NANO.load(device="cpu", max_memory_bytes=needed - 1_000_000)
    assert thrifty.peak_bytes(2, 240_000) < needed
    np.testing.assert_allclose(
        thrifty.embed(waveforms)["mean"], nano.embed(waveforms)["mean"], rtol=0, atol=1e-5
    )
    with pytest.raises(EncoderError, match="MB above the weights"):
        NANO.load(device="cpu", max_memory_bytes=1000).embed(waveforms)


def tensors_of(thing: object) -> list[torch.Tensor]:
    """Every tensor that a layer, or a list of them, holds."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, list | tuple):
        return [tensor for item in thing for tensor in tensors_of(item)]
    if type(thing).__module__.startswith("tune_cache") and hasattr(thing, "__dict__"):
        return [tensor for item in vars(thing).values() for tensor in tensors_of(item)]
    return []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layers", [None, (0,), (0, 2)])
def test_bytes_of_the_weights_are_those_of_the_tensors(monkeypatch, precision, layers):
    monkeypatch.setattr(ops, "has_onednn", lambda: False)  # whose own layout is opaque
    for encoder in (tiny(precision, layers=layers), NANO.load(device="cpu", layers=layers)):
        held = sum(tensor.nbytes for tensor in tensors_of(encoder._forward))
        assert encoder.memory.weights_bytes == held
    unloaded = NANO.memory(device="cpu", layers=layers)
    assert unloaded == encoder.memory


class LiveTensors(TorchDispatchMode):
    """Adds up the tensors that exist after each operation, as nobody else's storage."""

    def __init__(self, others: list[torch.Tensor]) -> None:
        super().__init__()
        self.others = {tensor.untyped_storage()._cdata for tensor in others if not tensor.is_mkldnn}
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_mkldnn:
                storage = leaf.untyped_storage()
                self.held[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.held = {key: item for key, item in self.held.items() if not item[0].expired()}
        held = sum(n for key, (_, n) in self.held.items() if key not in self.others)
        self.peak = max(self.peak, held)
        return result


@pytest.mark.parametrize(
    ("seconds", "n_items"),
    [(0.05, 1), (0.3, 1), (1, 9), (2, 5), (5.5, 1), (10, 1), (10, 3), (21, 1), (60, 1), (200, 1)],
)
def test_prediction_covers_every_tensor_alive_and_not_much_more(nano, seconds, n_items):
    waveforms = np.random.default_rng(0).normal(0, 0.1, (n_items, int(24_000 * seconds)))
    waveforms = waveforms.astype(np.float32)
    weights = tensors_of(nano._forward)
    with LiveTensors(weights) as live:
        nano.embed(waveforms)
    alive = live.peak - waveforms.nbytes  # which are the caller's
    predicted = nano.peak_bytes(n_items, waveforms.shape[1]) - SCRATCH
    assert alive < predicted < 2 * alive + 50_000


def test_a_prediction_for_a_gpu_has_no_heap_but_the_samples():
    config = replace(NANO.memory().config, conv_dim=512, dim=1024, ffn_dim=4096)
    size = {"config": config, "n_blocks": 12, "itemsize": 2}
    cpu, gpu = (Memory(**size, on_cpu=on_cpu) for on_cpu in (True, False))
    n_samples = 240_000
    image = image_bytes(config, 1000, 2)
    more = cpu.peak_bytes(1, n_samples) - gpu.peak_bytes(1, n_samples)
    assert more == image // 2 - 4 * n_samples + SCRATCH - GPU_SCRATCH
    assert cpu.peak_bytes(8, n_samples) == cpu.peak_bytes(1, n_samples)  # one after the other
    beside = GPU_SCRATCH + image  # which the libraries may take for one item as for many
    assert gpu.peak_bytes(64, n_samples) - beside > 5 * (gpu.peak_bytes(1, n_samples) - beside)
    assert (cpu.grain(48_000), gpu.grain(48_000)) == (5, 1)


@pytest.mark.parametrize("megabytes", [150, 220, 400, 1200])
def test_a_batch_that_fits_a_gpu_is_not_taken_apart(megabytes):
    config = replace(NANO.memory().config, conv_dim=512, dim=1024, ffn_dim=4096)
    budget = megabytes * 10**6
    memory = Memory(config=config, n_blocks=12, itemsize=4, on_cpu=False, max_memory_bytes=budget)
    n_items = fitting_batch(memory, n_samples=240_000, sample_rate=24_000, asked=64)
    plan = memory.plan(n_items, 240_000)
    assert plan.n_items == n_items
    assert memory.peak_bytes(n_items, 240_000) <= budget
    assert memory.pieces(n_items, 240_000) == {
        "items_together": n_items,
        "mel_frames": plan.mel_frames,
        "frames": plan.frames,
    }
    assert n_items == 64 or memory.peak_bytes(2 * n_items, 240_000) > budget


def test_memory_that_is_free_goes_back_to_the_system(monkeypatch):
    calls = []
    monkeypatch.setattr(memory_module, "_malloc_trim", lambda: calls.append)
    image = LARGEST_HEAP_BLOCK
    for size, n_stretches, on_cpu, expected in (
        (image, 3, True, 3 + 1),  # mapped: before each stretch, and in the end
        (image, 1, True, 1),
        (image // 2, 3, True, 2),  # long: around the item
        (image // 2, 1, True, 0),
        (SMALL_IMAGE, 3, True, 0),
        (image, 3, False, 0),
    ):
        calls.clear()
        tidy = Tidy(size, n_stretches, on_cpu=on_cpu)
        for start in range(n_stretches):
            tidy.before(start)
        tidy.after()
        assert len(calls) == expected
    monkeypatch.setattr(memory_module, "_malloc_trim", lambda: None)
    give_back()  # another C library has no such function


# -- weights ------------------------------------------------------------------------------------


def test_published_weights_are_pinned():
    assert len(bytes.fromhex(checkpoint.REVISION)) == 20
    assert len(bytes.fromhex(checkpoint.WEIGHTS_SHA256)) == 32
    assert ENCODER.find is find_published


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def refuse(*arguments, **keywords):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    return tmp_path / "hub" / "models--OpenMuQ--MuQ-large-msd-iter"


@pytest.mark.parametrize("revision", [checkpoint.REVISION, "a" * 40], ids=["pinned", "main"])
def test_weights_in_the_cache_of_the_hub_are_found_without_asking_it(hub, revision):
    snapshot = hub / "snapshots" / revision
    shutil.copytree(golden.FOLDER, snapshot)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(revision, "ascii")
    assert find_published() == snapshot
    assert ENCODER.describe().n_layers == 4


def check_remedies(error: EncoderError) -> None:
    assert "\n" not in str(error)
    for remedy in ("hf download OpenMuQ/MuQ-large-msd-iter", "HF_HOME", "--encoder-path"):
        assert remedy in str(error.hint)


def test_absent_weights_are_one_sentence_with_remedies(hub):
    with pytest.raises(
        EncoderError, match="cannot be downloaded: ConnectionError: no network"
    ) as e:
        ENCODER.load()
    check_remedies(e.value)


def test_offline_setting_is_honoured(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(checkpoint, "_why_hub_is_silent", lambda: pytest.fail("asked"))
    with pytest.raises(EncoderError, match="HF_HUB_OFFLINE is set") as error:
        ENCODER.describe()
    check_remedies(error.value)


def test_hub_that_never_answers_is_given_up(hub, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *a, **k: over.wait())
    monkeypatch.setattr(checkpoint, "PATIENCE_SECONDS", 0.05)
    try:
        with pytest.raises(EncoderError, match=r"no answer within 0\.05 s") as error:
            ENCODER.describe()
    finally:
        over.set()
    check_remedies(error.value)


def test_hub_that_answers_is_asked_for_the_pinned_safetensors_only(hub, monkeypatch):
    asked = {}

    def download(name, **keywords):
        asked[name] = keywords
        return str(golden.FOLDER)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *a, **k: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_published() == golden.FOLDER
    assert asked == {
        "OpenMuQ/MuQ-large-msd-iter": {
            "revision": checkpoint.REVISION,
            "allow_patterns": ["config.json", "model.safetensors"],
        }
    }


def test_download_that_breaks_off_is_one_sentence_with_remedies(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *a, **k: None)
    with pytest.raises(EncoderError, match="cannot be downloaded: ConnectionError") as error:
        ENCODER.describe()
    check_remedies(error.value)


def rewritten(folder, name, change):
    """Save the weights with one tensor changed, or without it if ``change`` is None."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name].clone())
    path.unlink()  # the file may still be mapped
    save_file(tensors, path)


OUT = "model.conformer.layers.1.self_attn.linear_out.weight"
DAMAGE = {
    "missing tensor": (lambda f: rewritten(f, OUT, None), f"has no tensor '{OUT}'"),
    "wrong shape": (lambda f: rewritten(f, OUT, lambda t: t[:3].clone()), r"of shape \(3, 16\)"),
    "not a number": (lambda f: rewritten(f, OUT, lambda t: t.fill_(torch.nan)), "NaN or infinite"),
    "infinite": (lambda f: rewritten(f, OUT, lambda t: t.fill_(-torch.inf)), "NaN or infinite"),
    "negative variance": (
        lambda f: rewritten(f, "model.conv.conv.0.bn1.running_var", lambda t: t.neg_()),
        "negative variance in 'model.conv.conv.0.bn1.'",
    ),
    "cut short": (
        lambda f: (f / "model.safetensors").write_bytes(
            (golden.FOLDER / "model.safetensors").read_bytes()[:-1]
        ),
        "cannot be read as safetensors",
    ),
    "empty file": (
        lambda f: (f / "model.safetensors").write_bytes(b""),
        "cannot be read as safetensors",
    ),
    "pickle only": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"only as pickles \('pytorch_model.bin'\)",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "cannot be read as JSON"),
    "config is binary": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe"),
        "cannot be read as JSON",
    ),
    "config is huge": (
        lambda f: (f / "config.json").write_bytes(b" " * 2_000_000),
        "longer than a megabyte",
    ),
    "config is nested": (
        lambda f: (f / "config.json").write_bytes(b"[" * 200_000),
        "cannot be read as JSON",
    ),
    "no folder": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_or_foreign_weights_are_one_sentence(folder, damage):
    act, match = damage
    act(folder)
    with pytest.raises(EncoderError, match=match) as error:
        ENCODER.load(path=folder, device="cpu")
    assert str(folder) in str(error.value)
    assert error.value.hint


def test_weights_file_instead_of_its_folder_is_refused(folder):
    with pytest.raises(EncoderError, match="is no folder"):
        ENCODER.describe(path=folder / "model.safetensors")


CONFIGS = [
    ("encoder_dim", 0, "'encoder_dim' is 0, expected a positive integer"),
    ("encoder_dim", True, "'encoder_dim' is True"),
    ("encoder_depth", "12", "'encoder_depth' is '12'"),
    ("conv_dim", None, "'conv_dim' is None"),
    ("label_rate", 50, "'label_rate' is 50, expected 25"),
    ("hop_length", 320, "'hop_length' is 320, expected 240"),
    ("n_mels", 80, "'n_mels' is 80, expected 128"),
    ("features", ["chromagram"], "'features' is"),
    ("stat", None, "'stat' is None, expected an object"),
    ("stat", {}, "'stat.melspec_2048_mean' is None, expected a number"),
    ("stat.melspec_2048_std", 0, "'stat.melspec_2048_std' is 0, expected a positive number"),
    ("stat.melspec_2048_mean", "7", "'stat.melspec_2048_mean' is '7'"),
    ("w2v2_config", [], r"'w2v2_config' is \[\], expected an object"),
    ("w2v2_config.hidden_act", "gelu", "'w2v2_config.hidden_act' is 'gelu', expected 'swish'"),
    ("w2v2_config.position_embeddings_type", "relative", "is 'relative', expected 'rotary'"),
    ("w2v2_config.num_attention_heads", 3, "is 3, expected a divisor of 16 / 2"),
    ("w2v2_config.conv_depthwise_kernel_size", 30, "is 30, expected an odd number"),
    ("w2v2_config.layer_norm_eps", float("nan"), "'w2v2_config.layer_norm_eps' is nan"),
]


@pytest.mark.parametrize(("key", "value", "match"), CONFIGS)
def test_configuration_of_another_model_is_refused_by_its_key(folder, key, value, match):
    config = json.loads((folder / "config.json").read_text("utf-8"))
    section = config
    for part in key.split(".")[:-1]:
        section = section[part]
    section[key.split(".")[-1]] = value
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(EncoderError, match=match):
        ENCODER.describe(path=folder)


def test_configuration_that_is_no_object_is_refused(folder):
    (folder / "config.json").write_text("[1]", "utf-8")
    with pytest.raises(EncoderError, match=r"'the file' is \[1\], expected an object"):
        ENCODER.describe(path=folder)


def test_positions_come_from_the_file_or_else_from_the_configuration(folder):
    waveforms = golden.waveforms(24_000)
    expected = ENCODER.load(path=folder, device="cpu").embed(waveforms)["mean"]
    name = "model.conformer.embed_positions.inv_freq"
    with open_tensors(folder / "model.safetensors") as tensors:
        assert name.removeprefix("model.") in tensors
    rewritten(folder, name, None)
    without = ENCODER.load(path=folder, device="cpu").embed(waveforms)["mean"]
    np.testing.assert_array_equal(without, expected)


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    waveforms = golden.waveforms(240_000)
    expected = NANO.load(device="cpu").embed(waveforms)["mean"]
    precisions = ["fp32", "fp16"]
    if torch.cuda.get_device_capability() >= encoder_module.OLDEST_BF16:
        precisions += ["bf16", "tf32"]
    for precision in precisions:
        found = NANO.load(device="cuda", precision=precision).embed(waveforms)["mean"]
        limit = 1e-4 if precision == "fp32" else 0.05
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
