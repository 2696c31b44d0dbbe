"""What the chart is written from."""
