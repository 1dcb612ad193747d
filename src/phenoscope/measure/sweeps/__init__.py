"""Numbers about networks trained over a range of widths, sizes or settings."""
