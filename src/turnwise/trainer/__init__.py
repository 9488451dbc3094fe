"""Training in one process: trajectories and advantages in, optimizer steps, metrics and checkpoints out."""

from turnwise.trainer.batches import credit
from turnwise.trainer.config import TrainerConfig, learning_rate
from turnwise.trainer.trainer import StepMetrics, Trainer

__all__ = ["StepMetrics", "Trainer", "TrainerConfig", "credit", "learning_rate"]
