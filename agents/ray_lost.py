"""What Ray says when a worker or its machine is gone, of which the work itself knows nothing."""

from ray import exceptions

LOST = (
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
    exceptions.WorkerCrashedError,
)
"""To be tried again, and counted: Ray by itself would do so without end where memory is short."""
