"""Training: the LightningModule, optimizers, schedules, checkpoint files, resume."""
