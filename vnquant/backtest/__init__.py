"""What a forecast would have earned under the trading rules of Viet Nam: pure functions, no I/O."""
