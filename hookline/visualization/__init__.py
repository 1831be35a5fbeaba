"""Drawing samples and predictions."""
