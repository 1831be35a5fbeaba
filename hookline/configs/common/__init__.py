"""Parts that recipes share."""
