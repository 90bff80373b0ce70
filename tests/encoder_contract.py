"""What every encoder must do; a test class inherits it and gets all of these tests.

::

    class TestMine(EncoderContract):
        factory = ENCODER
        load_kwargs = {"device": "cpu"}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from tune_cache.encoders.base import Encoder, EncoderFactory
from tune_cache.errors import EncoderError
from tune_cache.specs import POOLINGS


class EncoderContract:
    """Inherit, name the factory, and override what differs."""

    factory: ClassVar[EncoderFactory]
    describe_kwargs: ClassVar[Mapping[str, Any]] = {}
    load_kwargs: ClassVar[Mapping[str, Any]] = {}
    atol: ClassVar[float] = 0.0  # how far an item may move with the company it is in

    def modules(self, encoder: Encoder) -> Iterable[Any]:
        """Torch modules that must be in eval mode."""
        return ()

    def n_frames(self, n_samples: int) -> int | None:
        """Frames of an input, if the encoder's formula is known."""
        return None

    @classmethod
    def load(cls, **settings: Any) -> Encoder:
        """Load the encoder as the class says, with other settings on top."""
        return cls.factory.load(**{**cls.load_kwargs, **settings})

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        return cls.load(poolings=POOLINGS)

    @pytest.fixture(scope="class")
    @classmethod
    def waveforms(cls, encoder) -> np.ndarray:
        """Four different items of a second and a bit."""
        rng = np.random.default_rng(5)
        n_samples = int(1.3 * encoder.sample_rate) + 7
        time = np.arange(n_samples) / encoder.sample_rate
        items = [
            rng.normal(0, 0.1, n_samples),
            0.5 * np.sin(2 * np.pi * 220 * time),
            np.zeros(n_samples),
            rng.normal(0, 0.1, n_samples) * np.sin(2 * np.pi * 2 * time) ** 8,
        ]
        return np.stack(items).astype(np.float32)

    @pytest.fixture(scope="class")
    @classmethod
    def embedded(cls, encoder, waveforms) -> dict[str, np.ndarray]:
        return encoder.embed(waveforms)

    def test_shapes_and_dtypes_are_as_declared(self, encoder, waveforms, embedded):
        assert tuple(embedded) == encoder.poolings == POOLINGS
        assert encoder.layers == tuple(range(encoder.n_layers))
        for values in embedded.values():
            assert values.shape == (len(waveforms), encoder.n_layers, encoder.dim)
            assert values.dtype == np.float32

    def test_output_is_finite_on_noise_tone_and_silence(self, embedded):
        for pooling, values in embedded.items():
            assert np.isfinite(values).all(), pooling

    def test_poolings_are_in_the_order_that_statistics_have(self, embedded):
        slack = 1e-4 * np.abs(embedded["max"]).max()
        assert (embedded["mean"] <= embedded["max"] + slack).all()
        assert (embedded["std"] >= 0).all()

    def test_different_items_differ_on_every_layer(self, embedded):
        for layer in range(embedded["mean"].shape[1]):
            assert not np.allclose(embedded["mean"][0, layer], embedded["mean"][1, layer])

    def test_encoding_again_gives_the_same_bits(self, encoder, waveforms, embedded):
        again = encoder.embed(waveforms.copy())
        for pooling in embedded:
            np.testing.assert_array_equal(again[pooling], embedded[pooling])

    def test_loading_again_gives_the_same_bits(self, waveforms, embedded):
        again = self.load(poolings=POOLINGS).embed(waveforms)
        for pooling in embedded:
            np.testing.assert_array_equal(again[pooling], embedded[pooling])

    def test_an_item_does_not_depend_on_its_company(self, encoder, waveforms, embedded):
        for order in ([0], [3], [2, 1], [3, 2, 1, 0], [0, 0, 0]):
            part = encoder.embed(waveforms[order])
            for pooling in embedded:
                np.testing.assert_allclose(
                    part[pooling], embedded[pooling][order], rtol=0, atol=self.atol
                )

    def test_input_is_left_as_it_was(self, encoder, waveforms):
        before = waveforms.copy()
        encoder.embed(waveforms)
        np.testing.assert_array_equal(waveforms, before)

    def test_read_only_input_is_taken(self, encoder, waveforms, embedded):
        view = waveforms.view()
        view.flags.writeable = False
        np.testing.assert_array_equal(encoder.embed(view)["mean"], embedded["mean"])

    def test_strided_input_is_taken(self, encoder, waveforms, embedded):
        strided = np.repeat(waveforms, 2, axis=1)[:, ::2]
        np.testing.assert_array_equal(encoder.embed(strided)["mean"], embedded["mean"])

    def test_shortest_input_is_encoded(self, encoder, waveforms):
        shortest = encoder.embed(waveforms[:2, : encoder.min_samples])
        for values in shortest.values():
            assert values.shape == (2, encoder.n_layers, encoder.dim)
            assert np.isfinite(values).all()

    def test_one_sample_less_is_refused(self, encoder, waveforms):
        with pytest.raises(EncoderError, match=rf"at least\s+{encoder.min_samples}") as caught:
            encoder.embed(waveforms[:, : encoder.min_samples - 1])
        assert caught.value.hint

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_input_that_is_not_finite_is_refused(self, encoder, waveforms, value):
        broken = waveforms.copy()
        broken[1, 5] = value
        with pytest.raises(EncoderError, match="position 1"):
            encoder.embed(broken)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda waveforms: waveforms[0],
            lambda waveforms: waveforms[None],
            lambda waveforms: waveforms[:0],
            lambda waveforms: waveforms.astype(np.float64),
            lambda waveforms: waveforms.astype(np.int16),
            lambda waveforms: waveforms.tolist(),
        ],
        ids=["one axis", "three axes", "no items", "float64", "int16", "list"],
    )
    def test_wrong_shape_or_type_is_refused(self, encoder, waveforms, spoil):
        with pytest.raises(EncoderError, match="expected float32 of shape"):
            encoder.embed(spoil(waveforms))

    def test_fewer_layers_are_slices_of_all(self, waveforms, embedded):
        n_layers = embedded["mean"].shape[1]
        for layers in {(0,), (n_layers - 1,), (0, n_layers - 1), (n_layers // 2,)}:
            part = self.load(layers=layers)
            assert (part.layers, part.n_layers) == (layers, n_layers)
            np.testing.assert_allclose(
                part.embed(waveforms)["mean"],
                embedded["mean"][:, list(layers)],
                rtol=0,
                atol=self.atol,
            )

    @pytest.mark.parametrize("poolings", [("mean",), ("max",), ("std",), ("mean", "std")])
    def test_fewer_poolings_are_some_of_all(self, waveforms, embedded, poolings):
        part = self.load(poolings=poolings).embed(waveforms)
        assert tuple(part) == poolings
        for pooling in poolings:
            np.testing.assert_allclose(part[pooling], embedded[pooling], rtol=0, atol=self.atol)

    @pytest.mark.parametrize("layers", [(), (0, 0), (1, 0), (-1,), (10_000,)])
    def test_layers_it_does_not_have_are_refused(self, layers):
        with pytest.raises(EncoderError, match="layers are"):
            self.load(layers=layers)

    @pytest.mark.parametrize("poolings", [(), ("median",), ("std", "mean"), ("mean", "mean")])
    def test_poolings_it_does_not_know_are_refused(self, poolings):
        with pytest.raises(EncoderError, match="poolings are"):
            self.load(poolings=poolings)

    def test_precision_it_does_not_know_is_refused(self):
        with pytest.raises(EncoderError, match="'fp8'"):
            self.load(precision="fp8")

    def test_description_is_what_is_loaded(self, encoder):
        info = self.factory.describe(**self.describe_kwargs)
        assert encoder.spec() == info.spec
        assert info.name == self.factory.name == info.spec.name
        fields = {field.name for field in dataclasses.fields(info)}
        for name in fields - {"spec", "license_note", "note", "citation"}:
            assert getattr(info, name) == getattr(encoder, name), name

    def test_declared_sizes_make_sense(self, encoder):
        assert min(encoder.sample_rate, encoder.n_layers, encoder.dim, encoder.min_samples) > 0
        assert 0 < encoder.frame_rate_hz <= encoder.sample_rate

    def test_frames_come_at_the_declared_rate(self, encoder):
        for seconds in (2, 10, 60):
            n_frames = self.n_frames(seconds * encoder.sample_rate)
            if n_frames is not None:
                assert abs(n_frames - seconds * encoder.frame_rate_hz) <= 1

    def test_nothing_is_in_training_mode(self, encoder, waveforms):
        encoder.embed(waveforms[:1])
        assert not any(module.training for module in self.modules(encoder))
