"""Settings that tests share."""

SMALL_RUN = {
    "backbone": "test_resnet",
    "weights": "none",
    "image_size": 32,
    "augment": "light",
    "horizontal_flip": 0.0,
    "epochs": 3,
    "lr": 3e-3,
    "probe_epochs": 4,
    "batch_size": 32,
    "num_threads": 2,
    "device": "cpu",
}
"""Settings of a run that takes seconds: a tiny network from scratch on small pictures."""
