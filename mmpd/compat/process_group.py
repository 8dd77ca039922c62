"""Gloo's threads end before Python does."""
import atexit
import gc

import torch.distributed as dist


def join_gloo_threads():
    """Destroy a gloo process group nobody destroyed, and wait for its threads.

    A gloo thread drops the tensors of its last collective under the GIL. When
    the interpreter is gone by then, the process of a finished run aborts
    ("terminate called without an active exception", pytorch#179291). The
    collection frees the runner, whose wrapped model keeps the group alive.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == 'gloo':
        gc.collect()
        dist.destroy_process_group()


def join_gloo_threads_at_exit():
    """Register :func:`join_gloo_threads` once; MMagic's own tools end well then too."""
    atexit.unregister(join_gloo_threads)
    atexit.register(join_gloo_threads)
