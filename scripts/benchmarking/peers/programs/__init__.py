"""Run inside the environments of the peers: they import torch and the toolkit, and nothing of `transformer`."""
