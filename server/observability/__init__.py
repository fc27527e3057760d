"""What operators observe: logs, metrics and traces."""
