"""The LightningModule, and how it is optimised."""
