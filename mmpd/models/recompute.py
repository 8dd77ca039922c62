"""Less memory in training: what the backward pass needs is made again instead of kept."""
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

__all__ = ['recomputed', 'remade']


def recomputed(function, *args, enabled=True, random=False):
    """``function(*args)``; of its intermediate results only the arguments are kept.

    Activation checkpointing: the backward pass calls the function once more. Gradients are
    bitwise the same. The function must not change any state, such as the running statistics of
    batch normalisation.

    Args:
        function (callable): Of tensors, or a module.
        args: Its arguments.
        enabled (bool): False: only call it.
        random (bool): Whether the function draws random numbers, which have to be the same again.

    Returns:
        The function's result.
    """
    if not (enabled and torch.is_grad_enabled()):
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=random)


def remade(function, make, *parts, enabled=True):
    """``function(make(*parts))``, for which ``parts`` are kept and ``make(*parts)`` is not.

    For a cheap ``make`` whose ``parts`` are kept anyway, such as a concatenation before a
    convolution: the backward pass makes it again, and only it. Costs a twentieth of the time of
    :func:`recomputed`, inside which it would keep ``parts`` that would not be kept otherwise.
    Nothing may change ``parts`` in place. What autocast casts before ``function`` keeps it, is
    made and cast again too.

    Args:
        function (callable): Of one tensor.
        make (callable): Of ``parts``; to one tensor.
        parts (Tensor): What ``make`` takes.
        enabled (bool): False: only call them.

    Returns:
        The function's result.
    """
    if not (enabled and torch.is_grad_enabled()):
        return function(make(*parts))
    made = [make(*parts)]

    def pack(tensor):
        return tensor.dtype if tensor is made[0] or _is_cast(tensor, made[0]) else tensor

    def unpack(kept):
        return make(*parts).to(kept) if isinstance(kept, torch.dtype) else kept

    with saved_tensors_hooks(pack, unpack):
        result = function(made[0])
    made.clear()  # the graph holds on to pack
    return result


def _is_cast(tensor, whole):
    """Whether a tensor is another type's copy of a whole one, by the graph."""
    step = tensor.grad_fn
    return (step is not None and whole.grad_fn is not None and tensor.shape == whole.shape
            and step.name() == 'ToCopyBackward0' and step.next_functions[0][0] is whole.grad_fn)
