"""Training on several devices: each gets a part of every batch, all have the same weights.

On JAX this is ``keras.distribution.DataParallel``: the step is compiled for all devices at once,
and sums over the batch are over all of it. On TensorFlow it is ``tf.distribute.MirroredStrategy``,
where every replica sees its own part only. Losses here are no means over samples (Dice is a
fraction of sums over the batch), nor is the norm of gradients. Therefore labels and logits are
gathered from all replicas before loss and metrics, and gradients are added up before they are
clipped: a step is the one that a single device takes with the whole batch, but for rounding, and
for what is drawn at random inside the network (dropout, stochastic depth).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import keras
from keras import ops

from segfocal.errors import ModelError
from segfocal.models import FocalUNet

__all__ = ["Devices", "Replicas", "WholeBatch", "replicas_for"]

Devices = int | Literal["all"] | None


def replicas_for(devices: Devices, batch_size: int) -> Replicas:
    """Return what trains on the devices that are asked for.

    Args:
        devices: How many; ``"all"`` there are of the kind that Keras computes on; None: as many
            GPUs as divide the batch, or one device where there are not several.
        batch_size: Patches per step, of all devices together.

    Raises:
        ModelError: There are not as many, the batch cannot be divided, or the backend does not.
    """
    if devices in (1, None) and keras.backend.backend() == "torch":
        return Replicas(())
    names, are_gpus = _names()
    if devices is None:
        most = len(names) if are_gpus else 1
        number = next(n for n in range(max(most, 1), 0, -1) if batch_size % n == 0)
    else:
        number = len(names) if devices == "all" else devices
    if number <= 1 and devices in (1, None, "all"):
        return Replicas(())
    if keras.backend.backend() == "torch":
        raise ModelError(
            f"devices {devices}: Keras trains on one device with PyTorch; expected the TensorFlow "
            "or JAX backend (KERAS_BACKEND=jax), or 1"
        )
    if not 1 < number <= len(names):
        raise ModelError(
            f"devices {devices}: {keras.backend.backend()} has {len(names)} here "
            f"({', '.join(names)}); expected 1 to {len(names)}, or all"
        )
    if batch_size % number:
        raise ModelError(
            f"a batch of {batch_size} patches cannot be divided among {number} devices; expected a "
            "multiple: choose batch_size (--batch-size), or another number of devices"
        )
    return Replicas(names[:number])


def _names() -> tuple[tuple[str, ...], bool]:
    """Return the devices that Keras can compute on, of the fastest kind, and if they are GPUs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        tensorflow = importlib.import_module("tensorflow")
        for kind in ("GPU", "CPU"):
            found = tuple(one.name for one in tensorflow.config.list_logical_devices(kind))
            if found:
                return found, kind == "GPU"
    if backend == "jax":
        found = tuple(keras.distribution.list_devices())
        return found, not any(name.startswith("cpu") for name in found)
    return ("the default device",), False


def _mirrored(names: Sequence[str]) -> Any:
    """Return TensorFlow's strategy for some devices.

    Its collective operations confuse those of training with those of validation, where tensors are
    gathered as well as added up; copies do not.
    """
    distribute = importlib.import_module("tensorflow").distribute
    on_gpus = all("GPU" in name for name in names)
    ways = distribute.NcclAllReduce() if on_gpus else distribute.ReductionToOneDevice()
    return distribute.MirroredStrategy(list(names), cross_device_ops=ways)


class Replicas:
    """The devices of a run.

    Args:
        names: Their names, as the backend calls them; none or one: Keras's default device, and
            nothing is different from training without this.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._strategy: Any = None
        self._distribution: Any = None
        if len(self.names) > 1 and keras.backend.backend() == "tensorflow":
            self._strategy = _mirrored(self.names)
        elif len(self.names) > 1:
            self._distribution = keras.distribution.DataParallel(
                devices=list(self.names), auto_shard_dataset=False
            )

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.names) > 1

    @property
    def mirrored(self) -> bool:
        """Whether every device runs a step of its own, on its part of the batch (TensorFlow)."""
        return self._strategy is not None

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which networks are made, compiled and fitted."""
        if self._strategy is not None:
            return self._strategy.scope()
        if self._distribution is not None:
            return self._distribution.scope()
        return nullcontext()

    @contextlib.contextmanager
    def placed(self, model: FocalUNet) -> Iterator[FocalUNet]:
        """Give a model whose weights lie on all devices, within :meth:`scope`.

        What was trained is given to ``model`` at the end.
        """
        if not self.several:
            yield model
            return
        with self.scope():
            twin = type(model).from_config(model.get_config())
            _copy_weights(model, twin)
            yield twin
            _copy_weights(twin, model)

    def whole_batch(self, loss: keras.losses.Loss) -> keras.losses.Loss:
        """Return a loss that is of the whole batch on each device."""
        return WholeBatch(loss) if self.mirrored else loss

    def whole_batch_metric(self, kind: type[keras.metrics.Metric], *given: Any) -> Any:
        """Make a metric that counts the whole batch on each device."""
        if self.mirrored:
            kind = type(kind.__name__, (_WholeBatchMetric, kind), {})
        return kind(*given)

    def placed_optimizer(
        self, optimizer: keras.optimizers.Optimizer, model: keras.Model, placed: keras.Model
    ) -> keras.optimizers.Optimizer:
        """Return an optimizer for these devices, with the settings of one made before.

        Args:
            optimizer: One that is not built.
            model: The model whose variables it may name.
            placed: The same with its weights on these devices.
        """
        if not self.several:
            return optimizer
        twin = type(optimizer).from_config(optimizer.get_config())
        pairs = list(zip(model.variables, placed.variables, strict=True))
        _exclude_the_same(optimizer, twin, pairs)
        return twin

    def sum_before_clipping(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Have an optimizer clip the sum of the gradients of all devices, and not each of them."""
        clipped = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
        if not self.mirrored or all(one is None for one in clipped):
            return
        plain: Callable[[Any], Any] = optimizer._clip_gradients

        def clip(gradients: Any) -> Any:
            tensorflow = importlib.import_module("tensorflow")
            context = tensorflow.distribute.get_replica_context()
            total = context.all_reduce(tensorflow.distribute.ReduceOp.SUM, list(gradients))
            # Keras adds up what comes out of this once more.
            return [one / context.num_replicas_in_sync for one in plain(total)]

        optimizer._clip_gradients = clip


def _exclude_the_same(
    optimizer: Any, twin: Any, pairs: Sequence[tuple[keras.Variable, keras.Variable]]
) -> None:
    """Exclude from weight decay what another optimizer does, which its config does not tell."""
    if hasattr(optimizer, "inner_optimizer"):  # of one that scales the loss
        _exclude_the_same(optimizer.inner_optimizer, twin.inner_optimizer, pairs)
    names = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    keys: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    if names is not None or keys:
        twin.exclude_from_weight_decay(
            var_list=[its for mine, its in pairs if optimizer._var_key(mine) in keys],
            var_names=None if names is None else [names.pattern],
        )


class WholeBatch(keras.losses.Loss):
    """A loss of the samples of all replicas, the same on each of them (TensorFlow).

    The gradient of gathering adds up what all replicas ask for, which is as often the same as there
    are replicas: the loss is divided by their number, as Keras wants it of every loss, and shows it
    multiplied again.

    Args:
        loss: The loss of a batch, a scalar.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        super().__init__(name=loss.name)
        self.loss = loss

    def call(self, y_true: Any, y_pred: Any) -> Any:
        (labels, logits), number = _gathered(y_true, y_pred)
        return self.loss.call(labels, logits) / number


class _WholeBatchMetric:
    """What makes a metric count the samples of all replicas on each of them."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        (labels, logits), _ = _gathered(y_true, y_pred)
        super().update_state(labels, logits, sample_weight)  # type: ignore[misc]


def _gathered(*tensors: Any) -> tuple[list[Any], int]:
    """Return tensors of all replicas, one after the other along the first axis, and how many."""
    tensorflow = importlib.import_module("tensorflow")
    context = tensorflow.distribute.get_replica_context()
    number = 1 if context is None else context.num_replicas_in_sync
    if number == 1:
        return list(tensors), 1
    # Gathering loses the sides that are known.
    return [
        ops.reshape(context.all_gather(one, axis=0), (-1, *ops.shape(one)[1:])) for one in tensors
    ], number


def _copy_weights(source: keras.Model, target: keras.Model) -> None:
    for mine, its in zip(target.variables, source.variables, strict=True):
        mine.assign(ops.convert_to_numpy(its))
